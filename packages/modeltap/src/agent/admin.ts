import type { IncomingMessage, ServerResponse } from 'node:http';
import { ModeltapError, toErrorBody, toModeltapError } from '../kit/errors.ts';
import { isLoopbackHostHeader } from '../kit/loopback.ts';

/** Which collection is meant; absent parts mean any. */
export interface CollectionFilter {
  readonly endpoint?: string;
  readonly deployment?: string;
  readonly collection?: string;
}

/** How an agent is, for people and load balancers. */
export interface AgentHealth {
  readonly status: 'ok' | 'degraded';
  /** What is wrong and what mends it, one entry a problem. */
  readonly problems: readonly { readonly problem: string; readonly fix: string }[];
}

/** What the administrative routes show and do. */
export interface AgentView {
  health(): AgentHealth;
  /** Lanes, spools and addresses, as JSON. */
  state(): unknown;
  ledger(filter: CollectionFilter): readonly unknown[];
  metrics(): Promise<{ readonly type: string; readonly text: string }>;
  /** Calls back with stored lines of the collections, and how many were left out before them, until the returned function is called. */
  tail(filter: CollectionFilter, onLines: (lines: readonly string[], missed: number) => void): () => void;
  /** Reads the agent's file again. */
  reload(): Promise<void>;
}

/** A follower that does not read loses lines above this much waiting; it is told how many. */
const FOLLOWER_BYTES = 4 * 1024 ** 2;
const KEEP_ALIVE_MS = 10_000;

/**
 * Answers what is not ingest: `GET /healthz /readyz /metrics /v1/state /v1/ledger /v1/tail`, `POST /v1/reload`, all
 * also below `/api`.
 * Everything else is 404. Refuses requests that a web page of another origin makes.
 */
export function createAdminRoutes(view: AgentView): (request: IncomingMessage, response: ServerResponse) => void {
  const routes: Readonly<Record<string, (filter: CollectionFilter, response: ServerResponse) => Promise<void> | void>> =
    {
      'GET /healthz': (_filter, response) => {
        const health = view.health();
        sendJson(response, health.status === 'ok' ? 200 : 503, health);
      },
      'GET /readyz': (_filter, response) => sendJson(response, 200, { status: 'ok' }),
      'GET /metrics': async (_filter, response) => {
        const { type, text } = await view.metrics();
        response.writeHead(200, { 'content-type': type }).end(text);
      },
      'GET /v1/state': (_filter, response) => sendJson(response, 200, view.state()),
      'GET /v1/ledger': (filter, response) => sendJson(response, 200, { rows: view.ledger(filter) }),
      'POST /v1/reload': async (_filter, response) => {
        await view.reload();
        response.writeHead(204).end();
      },
      'GET /v1/tail': (filter, response) => follow(view, filter, response),
    };
  return (request, response) => {
    const url = new URL(request.url ?? '/', 'http://agent');
    // The workspace's API has the same routes below /api, so that one command line asks both.
    const route = routes[`${request.method} ${url.pathname.replace(/^\/api(?=\/v1\/)/, '')}`];
    Promise.resolve()
      .then(() => {
        request.resume();
        refuseOtherOrigins(request);
        if (!route) {
          const path = url.pathname.slice(0, 200);
          throw new ModeltapError('route_unknown', { method: request.method ?? '', path });
        }
        return route(filterOf(url.searchParams), response);
      })
      .catch((error: unknown) => {
        const known = toModeltapError(error);
        if (!response.headersSent) sendJson(response, known.httpStatus, toErrorBody(known));
        else response.destroy();
      });
  };
}

function refuseOtherOrigins(request: IncomingMessage): void {
  const { host, origin } = request.headers;
  if (isLoopbackHostHeader(host) && (origin === undefined || origin === `http://${host}`)) return;
  throw new ModeltapError('origin_refused', { origin: origin ?? host ?? '' });
}

function filterOf(query: URLSearchParams): CollectionFilter {
  const filter: { endpoint?: string; deployment?: string; collection?: string } = {};
  for (const name of ['endpoint', 'deployment', 'collection'] as const) {
    const value = query.get(name);
    if (value !== null && value !== '') filter[name] = value;
  }
  return filter;
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const body = Buffer.from(`${JSON.stringify(value)}\n`);
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': body.length }).end(body);
}

/** Server-sent events, one stored line each. A slow reader never holds up anything: what does not fit is counted. */
function follow(view: AgentView, filter: CollectionFilter, response: ServerResponse): void {
  let behind = 0;
  const stop = view.tail(filter, (lines, missed) => {
    if (response.writableLength > FOLLOWER_BYTES) {
      behind += lines.length + missed;
      return;
    }
    if (behind + missed > 0) response.write(`event: missed\ndata: ${behind + missed}\n\n`);
    behind = 0;
    response.write(lines.map((line) => `data: ${line}\n\n`).join(''));
  });
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  response.write(': following\n\n');
  const alive = setInterval(() => response.write(': \n\n'), KEEP_ALIVE_MS);
  response.once('close', () => {
    clearInterval(alive);
    stop();
  });
}
