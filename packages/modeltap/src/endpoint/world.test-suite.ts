import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import type { RouterAcquireOptions, RouterLease } from './lease.ts';
import { createEndpointRouter, type EndpointRouterOptions } from './router.ts';
import type { RoutedEndpoint } from './traffic.ts';

/** What an instance does with a request. */
export type Serve = (request: IncomingMessage, response: ServerResponse) => void;

/** A router in front of instances. */
export interface World extends AsyncDisposable {
  readonly port: number;
  /** Ports of the instances of a deployment, in the order they are handed out. */
  readonly instances: Record<string, number[]>;
  /** Leases handed out and given back. */
  readonly leases: { out: number; back: number };
  readonly router: ReturnType<typeof createEndpointRouter>;
  /** Changes the endpoint from the next request on. */
  change(changes: Partial<RoutedEndpoint>): void;
}

/** A server on a free port. */
export async function listen(serve: Serve): Promise<{ server: Server; port: number }> {
  const server = createServer(serve).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, port: (server.address() as AddressInfo).port };
}

/** A router over deployments whose single instance is `serve`. */
export async function world(
  servers: Record<string, Serve>,
  changes: Partial<RoutedEndpoint> & { options?: Partial<EndpointRouterOptions>; requestTimeoutMs?: number } = {},
): Promise<World> {
  const started: Server[] = [];
  const instances: Record<string, number[]> = {};
  for (const [name, serve] of Object.entries(servers)) {
    const { server, port } = await listen(serve);
    started.push(server);
    instances[name] = [port];
  }
  const { options = {}, requestTimeoutMs = 5000, ...endpointChanges } = changes;
  const deployments = Object.fromEntries(Object.keys(servers).map((name) => [name, { requestTimeoutMs }]));
  let endpoint: RoutedEndpoint = { name: 'iris', traffic: {}, deployments, ...endpointChanges };
  const leases = { out: 0, back: 0 };
  const acquire = (_endpoint: string, deployment: string, { avoid }: RouterAcquireOptions): RouterLease | undefined => {
    const ports = instances[deployment] ?? [];
    const port = ports.find((one) => one !== avoid?.port) ?? ports[0];
    if (port === undefined) return undefined;
    leases.out += 1;
    return { port, release: () => void (leases.back += 1) };
  };
  const router = createEndpointRouter({
    endpoint: (name) => (name === 'iris' ? endpoint : undefined),
    acquire,
    waitMs: 100,
    newId: () => 'made-here',
    ...options,
  });
  const front = await listen((request, response) => {
    assert.ok(router.matches(request.url));
    router.serve(request, response);
  });
  return {
    port: front.port,
    instances,
    leases,
    router,
    change(changes) {
      endpoint = { ...endpoint, ...changes };
    },
    async [Symbol.asyncDispose]() {
      await router.stop(0);
      for (const server of [front.server, ...started]) {
        server.closeAllConnections();
        server.close();
      }
    },
  };
}

/** A promise that others resolve. */
export function signal(): { promise: Promise<void>; resolve: () => void } {
  let resolve = () => {};
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

/** What came back. */
export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  body: string;
  error(): { code: string; message: string; fix: string };
}

/** Sends one request on a connection of its own. */
export function call(
  port: number,
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<Answer> {
  const { method = 'POST', headers = {}, body = '' } = options;
  return new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, path, method, headers, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('error', reject);
      response.on('end', () => {
        const error = () => (JSON.parse(text) as { error: { code: string; message: string; fix: string } }).error;
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text, error });
      });
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

/** Answers with what arrived. */
export const echo: Serve = (request, response) => {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.on('end', () => {
    const body = Buffer.concat(chunks).toString();
    response.setHeader('x-model', 'm1');
    response.end(JSON.stringify({ url: request.url, method: request.method, headers: request.headers, body }));
  });
};
/** Answers with its name. */
export const named =
  (name: string): Serve =>
  (request, response) => {
    request.resume();
    response.end(name);
  };
