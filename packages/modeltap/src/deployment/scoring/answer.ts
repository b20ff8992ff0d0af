import type { OutgoingHttpHeader, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { systemCode } from '../../kit/errors.ts';
import type { ResultChunk } from './result.ts';

/** Gives the headers every answer carries, as name, value pairs; undefined when the answer is no longer wanted. */
export type BeginAnswer = (failed: boolean) => string[] | undefined;

/** Headers a script's `Response` may not set: they are the server's (ids) or describe the connection. */
const OWN_HEADERS = new Set([
  'connection',
  'keep-alive',
  'transfer-encoding',
  'x-request-id',
  'x-ms-request-id',
  'x-ms-client-request-id',
  'x-ms-server-version',
  'x-ms-run-fn-exec-ms',
  'x-ms-run-function-failed',
]);

/** Sends a whole answer. `headers` is a flat name, value list and is added to. */
export function sendWhole(
  response: ServerResponse,
  status: number,
  body: string | Uint8Array,
  headers: OutgoingHttpHeader[],
): void {
  const length = typeof body === 'string' ? Buffer.byteLength(body) : body.byteLength;
  headers.push('content-length', String(length));
  response.writeHead(status, headers);
  response.end(body);
}

/** Sends a fetch `Response`: status, headers and body as they are, at the body's pace. */
export async function sendResponse(response: ServerResponse, result: Response, begin: BeginAnswer): Promise<void> {
  const headers = begin(result.status >= 500);
  if (headers === undefined) {
    await result.body?.cancel();
    return;
  }
  for (const [name, value] of result.headers) {
    if (!OWN_HEADERS.has(name)) headers.push(name, value);
  }
  response.writeHead(result.status, headers);
  if (result.body === null) {
    response.end();
    return;
  }
  response.flushHeaders();
  await pump(result.body, response);
}

/**
 * Streams chunks as `application/octet-stream`. The head is sent with the first chunk, so that a source that fails
 * before it is an ordinary error.
 */
export async function sendStream(
  response: ServerResponse,
  chunks: AsyncIterable<ResultChunk>,
  begin: BeginAnswer,
): Promise<void> {
  const source = chunks[Symbol.asyncIterator]();
  const first = await source.next();
  const headers = begin(false);
  if (headers === undefined) {
    await source.return?.();
    return;
  }
  headers.push('content-type', 'application/octet-stream');
  response.writeHead(200, headers);
  await pump(resume(first, source), response);
}

async function* resume(
  first: IteratorResult<ResultChunk>,
  source: AsyncIterator<ResultChunk>,
): AsyncGenerator<ResultChunk> {
  try {
    for (let next = first; !next.done; next = await source.next()) yield next.value;
  } finally {
    await source.return?.();
  }
}

/** A client that goes away in the middle is not a failure of the script. */
async function pump(chunks: AsyncIterable<ResultChunk>, response: ServerResponse): Promise<void> {
  try {
    await pipeline(Readable.from(chunks), response);
  } catch (error) {
    if (systemCode(error) !== 'ERR_STREAM_PREMATURE_CLOSE') throw error;
  }
}
