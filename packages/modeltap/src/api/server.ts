import type { Server } from 'node:http';
import type { Server as TlsServer } from 'node:https';
import { Readable } from 'node:stream';
import { fastify, type FastifyInstance, type FastifyReply } from 'fastify';
import { z } from 'zod';
import type { Counters } from '../kit/counters.ts';
import { ModeltapError, systemCode, toErrorBody, toModeltapError } from '../kit/errors.ts';
import type { Logger } from '../kit/logger.ts';
import { isLoopbackHostHeader, requireLoopback } from '../kit/loopback.ts';
import { agentOf, askAgent, mergedLedger } from './agents.ts';
import type { ScoringRoute } from './answers.ts';
import { assetRoutes } from './asset-routes.ts';
import { configFile } from './config-body.ts';
import { endpointRoutes } from './endpoint-routes.ts';
import { createFront, type FrontOptions } from './front.ts';
import type { Workspace } from './workspace.ts';

/** What the server serves, and where. */
export interface ApiOptions {
  readonly workspace: Workspace;
  /** Answers everything below `/endpoints/`. */
  readonly scoring: ScoringRoute;
  readonly counters: Counters;
  readonly logger: Logger;
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  /** With a certificate everything is https. */
  readonly front?: FrontOptions;
}

/** The workspace's HTTP server: API, health, metrics and scoring URIs on one loopback port. */
export interface Api {
  readonly url: string;
  /** Stops accepting, lets answers under way finish until the deadline, then closes what is left. */
  close(deadlineMs: number): Promise<void>;
}

const deploymentFile = configFile.required({ file: true, text: true }).extend({
  endpoint_name: z.string().max(300).optional(),
  all_traffic: z.boolean().default(false),
});
const lines = z.coerce.number().int().min(1).max(100_000).default(50);

/** Listens. `port_in_use` and `address_not_loopback` are the user's errors. */
export async function startApi(options: ApiOptions): Promise<Api> {
  requireLoopback(options.host);
  let server: Server | TlsServer | undefined;
  const secure = options.front?.tls !== undefined;
  const app = fastify({
    bodyLimit: 2 * 1024 ** 2,
    forceCloseConnections: 'idle',
    serverFactory: (handler) => {
      server = createFront(options.front ?? {}, (request, response) => {
        if (request.url?.startsWith('/endpoints/')) options.scoring(request, response);
        else handler(request, response);
      });
      return server as Server;
    },
  });
  guard(app, secure ? 'https' : 'http');
  observeRoutes(app, options);
  endpointRoutes(app, options.workspace);
  deploymentRoutes(app, options.workspace);
  dataRoutes(app, options.workspace);
  assetRoutes(app, '/api/v1/models', options.workspace.models, 202);
  assetRoutes(app, '/api/v1/environments', options.workspace.environments, 201);
  try {
    await app.listen({ host: options.host, port: options.port });
  } catch (cause) {
    if (systemCode(cause) !== 'EADDRINUSE') throw cause;
    throw new ModeltapError('port_in_use', { port: options.port, host: options.host, option: '--port' }, { cause });
  }
  const address = server?.address();
  const port = typeof address === 'object' && address !== null ? address.port : options.port;
  return {
    url: `${secure ? 'https' : 'http'}://${options.host.includes(':') ? `[${options.host}]` : options.host}:${port}`,
    close: (deadlineMs) => closeServer(app, server, deadlineMs),
  };
}

async function closeServer(
  app: FastifyInstance,
  server: Server | TlsServer | undefined,
  deadlineMs: number,
): Promise<void> {
  const cut = setTimeout(() => server?.closeAllConnections(), deadlineMs);
  await app.close();
  clearTimeout(cut);
}

/** The one authorisation point: every call of the API passes here. Until there is sign-in, it lets in loopback only, and no web page of another origin. */
function guard(app: FastifyInstance, protocol: 'http' | 'https'): void {
  app.addHook('onRequest', async (request) => {
    const { host, origin } = request.headers;
    if (!isLoopbackHostHeader(host) || (origin !== undefined && origin !== `${protocol}://${host}`)) {
      throw new ModeltapError('origin_refused', { origin: String(origin ?? host) });
    }
  });
  app.setErrorHandler(async (error, _request, reply) => sendError(reply, error));
  app.setNotFoundHandler(async (request, reply) =>
    sendError(reply, new ModeltapError('route_unknown', { method: request.method, path: request.url.slice(0, 200) })),
  );
}

async function sendError(reply: FastifyReply, error: unknown): Promise<void> {
  if (error instanceof z.ZodError) {
    const issue = error.issues[0];
    return sendError(
      reply,
      new ModeltapError('request_invalid', { detail: `${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}` }),
    );
  }
  const status = (error as { statusCode?: unknown }).statusCode;
  const known =
    typeof status === 'number' && status < 500 && error instanceof Error
      ? new ModeltapError('request_invalid', { detail: error.message }, { cause: error })
      : toModeltapError(error);
  await reply.code(known.httpStatus).send(toErrorBody(known));
}

function observeRoutes(app: FastifyInstance, { workspace, counters, logger }: ApiOptions): void {
  app.get('/healthz', async (_request, reply) => {
    const health = await workspace.health();
    await reply.code(health.status === 'ok' ? 200 : 503).send(health);
  });
  app.get('/readyz', async () => ({ status: 'ok' }));
  app.get('/metrics', async (_request, reply) => {
    await reply.type(counters.contentType).send(await counters.text());
  });
  app.get('/api/v1/workspace', async () => workspace.info());
  app.get('/api/v1/ledger', async (request) => mergedLedger(workspace.agentUrls, queryOf(request.url)));
  app.get<{ Querystring: { collection?: string } }>('/api/v1/tail', async (request, reply) => {
    const abort = new AbortController();
    reply.raw.once('close', () => abort.abort());
    logger.debug({ query: queryOf(request.url) }, 'tail');
    const urls = { agent: workspace.agentUrl, payload: workspace.payloadAgentUrl };
    const answer = await askAgent(
      agentOf(request.query.collection, urls),
      `/v1/tail${queryOf(request.url)}`,
      abort.signal,
    );
    void reply.code(answer.status).type(answer.headers.get('content-type') ?? 'application/json');
    return reply.send(answer.body === null ? '' : Readable.fromWeb(answer.body));
  });
}

const queryOf = (url: string) => (url.includes('?') ? url.slice(url.indexOf('?')) : '');

function deploymentRoutes(app: FastifyInstance, workspace: Workspace): void {
  type Named = { Params: { endpoint: string; name: string }; Querystring: Record<string, unknown> };
  const path = '/api/v1/online-endpoints/:endpoint/deployments';
  app.post('/api/v1/online-deployments', async (request, reply) => {
    await reply.code(202).send(await workspace.applyDeployment(deploymentFile.parse(request.body), 'create'));
  });
  app.put('/api/v1/online-deployments', async (request, reply) => {
    await reply.code(202).send(await workspace.applyDeployment(deploymentFile.parse(request.body), 'update'));
  });
  app.get<{ Params: { endpoint: string } }>(path, async (request) => workspace.deployments(request.params.endpoint));
  app.get<Named>(`${path}/:name`, async ({ params }) => workspace.deployment(params.endpoint, params.name));
  app.get<Named>(`${path}/:name/logs`, async ({ params, query }) => ({
    text: await workspace.logs(params.endpoint, params.name, lines.parse(query.lines)),
  }));
  app.delete<Named>(`${path}/:name`, async ({ params }, reply) => {
    await workspace.deleteDeployment(params.endpoint, params.name);
    await reply.code(204).send();
  });
}

function dataRoutes(app: FastifyInstance, workspace: Workspace): void {
  app.get('/api/v1/datastores', async () => workspace.datastores());
  app.get<{ Params: { name: string } }>('/api/v1/datastores/:name', async (request) =>
    workspace.datastore(request.params.name),
  );
  app.post('/api/v1/datastores', async (request, reply) => {
    const file = configFile.required({ file: true, text: true }).parse(request.body);
    await reply.code(201).send(await workspace.createDatastore(file));
  });
  app.get<{ Querystring: { name?: string } }>('/api/v1/data', async (request) =>
    workspace.dataAssets(request.query.name),
  );
  app.get<{ Params: { name: string; version: string } }>('/api/v1/data/:name/versions/:version', async ({ params }) =>
    workspace.dataAsset(params.name, params.version),
  );
}
