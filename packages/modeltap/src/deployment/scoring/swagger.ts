const SCORE = {
  operationId: 'score',
  summary: 'Sends the body to run() of the scoring script and answers what it returns',
};
const DONE = 'What run() returned';
const FAILED = 'The scoring script failed; the reason is in the log of the instance';

/** Versions `GET /swagger.json?version=` knows. */
export const SWAGGER_VERSIONS: readonly string[] = ['2', '3', '3.1'];

/** A minimal description of the scoring server, or undefined for a version that is not known. */
export function swaggerDocument(version: string, title: string): object | undefined {
  const info = { title, version: '1' };
  if (version === '2') {
    return {
      swagger: '2.0',
      info,
      consumes: ['application/json'],
      produces: ['application/json'],
      paths: {
        '/': { get: { operationId: 'health', responses: { 200: { description: 'Healthy' } } } },
        '/score': {
          post: {
            ...SCORE,
            parameters: [{ name: 'body', in: 'body', required: true, schema: {} }],
            responses: { 200: { description: DONE, schema: {} }, 500: { description: FAILED } },
          },
        },
      },
    };
  }
  if (version !== '3' && version !== '3.1') return undefined;
  const json = { 'application/json': { schema: {} } };
  return {
    openapi: version === '3' ? '3.0.3' : '3.1.0',
    info,
    paths: {
      '/': { get: { operationId: 'health', responses: { 200: { description: 'Healthy' } } } },
      '/score': {
        post: {
          ...SCORE,
          requestBody: { required: true, content: json },
          responses: { 200: { description: DONE, content: json }, 500: { description: FAILED } },
        },
      },
    },
  };
}
