import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Clock, systemClock } from '../kit/clock.ts';
import { ModeltapError, toErrorBody, toModeltapError } from '../kit/errors.ts';
import { type Logger, silentLogger } from '../kit/logger.ts';
import { type ForwardEnd, forward, type Forwarding, hasBody } from './forward.ts';
import { DEPLOYMENT_HEADER, forwardedRequestHeaders } from './headers.ts';
import { chooseDeployment, type RoutedEndpoint } from './traffic.ts';
import { createUpstreams, type Upstreams } from './upstreams.ts';

/** The right to send one request to a port on loopback. */
export interface RouterLease {
  readonly port: number;
  /** True: the instance finishes what it has begun also when the client has gone; it is not free before. Default false. */
  readonly finishes?: boolean;
  release(): void;
}

/** How to choose an instance. */
export interface RouterAcquireOptions {
  /** Preferably another than this one. */
  readonly avoid?: RouterLease;
  /** Aborts when the request is no longer wanted. */
  readonly signal: AbortSignal;
}

/** What the router is given by whoever runs deployments. */
export interface EndpointRouterOptions {
  /** The endpoint of that name, or undefined. Called for every request. */
  readonly endpoint: (name: string) => RoutedEndpoint | undefined;
  /**
   * An instance to send one request to; undefined when none is ready now. A promise when the request has to wait for
   * room; it may reject with the error to answer.
   */
  readonly acquire: (
    endpoint: string,
    deployment: string,
    options: RouterAcquireOptions,
  ) => RouterLease | undefined | Promise<RouterLease | undefined>;
  /** How long a request waits for an instance while none is ready. Default 5000 ms. */
  readonly waitMs?: number;
  /** Requests in flight over all endpoints; more are refused with 503. Default 4096. */
  readonly maxInFlight?: number;
  readonly logger?: Logger;
  readonly clock?: Clock;
  readonly random?: () => number;
  readonly newId?: () => string;
}

/** Serves `/endpoints/<endpoint>/<rest>` from the instances of the endpoint's deployments. */
export interface EndpointRouter {
  /** True for a request target that is this router's. */
  matches(url: string | undefined): boolean;
  /** Answers one request; for `http.createServer`. Own errors are `{"message","error":{code,message,fix}}`. */
  serve(request: IncomingMessage, response: ServerResponse): void;
  readonly inFlight: number;
  /** Waits until nothing is in flight, at most until the deadline, then closes all connections to instances. */
  stop(deadlineMs: number): Promise<void>;
}

/** Where endpoints are mounted. */
export const ENDPOINT_PREFIX = '/endpoints/';

/** Bodies up to this size are read before an instance is chosen: one write instead of a stream, and safe to send twice. */
const WHOLE_BODY_BYTES = 64 * 1024;
/** How often a waiting request looks for a ready instance. */
const LOOK_AGAIN_MS = 20;
/** So long an instance that broke a connection keeps the place of that request. */
const BROKEN_PAUSE_MS = 50;

/** Makes a router. */
export function createEndpointRouter(options: EndpointRouterOptions): EndpointRouter {
  return new Router(options);
}

interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly requestId: string;
  readonly endpoint: string;
  readonly deployment: string;
  readonly path: string;
  /** Aborts when the client has gone or the request has timed out. */
  readonly over: AbortController;
  /** True until the head of an answer is written. */
  open: boolean;
  forwarding?: Forwarding;
}

class Router implements EndpointRouter {
  readonly #options: EndpointRouterOptions;
  readonly #upstreams: Upstreams = createUpstreams();
  readonly #logger: Logger;
  readonly #clock: Clock;
  #inFlight = 0;
  #idle: (() => void) | undefined;

  constructor(options: EndpointRouterOptions) {
    this.#options = options;
    this.#logger = options.logger ?? silentLogger;
    this.#clock = options.clock ?? systemClock;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  matches(url: string | undefined): boolean {
    return url?.startsWith(ENDPOINT_PREFIX) ?? false;
  }

  serve(request: IncomingMessage, response: ServerResponse): void {
    this.#inFlight += 1;
    response.once('close', () => {
      this.#inFlight -= 1;
      if (this.#inFlight === 0) this.#idle?.();
    });
    const requestId = header(request, 'x-request-id') ?? (this.#options.newId ?? randomUUID)();
    try {
      this.#route(request, response, requestId);
    } catch (error) {
      this.#fail(request, response, { error, requestId });
    }
  }

  async stop(deadlineMs: number): Promise<void> {
    if (this.#inFlight > 0) {
      const done = new AbortController();
      const idle = new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
      await Promise.race([idle, this.#clock.sleep(deadlineMs, { signal: done.signal })]);
      done.abort();
    }
    await this.#upstreams.close();
  }

  #route(request: IncomingMessage, response: ServerResponse, requestId: string): void {
    const limit = this.#options.maxInFlight ?? 4096;
    if (this.#inFlight > limit) throw new ModeltapError('endpoint_overloaded', { limit });
    const { name, path } = splitTarget(request.url ?? '/');
    const endpoint = this.#options.endpoint(name);
    if (endpoint === undefined) {
      throw new ModeltapError('not_found', { kind: 'endpoint', name: name.slice(0, 64), command: 'online-endpoint' });
    }
    const forced = header(request, DEPLOYMENT_HEADER);
    const deployment = chooseDeployment(endpoint, forced, this.#options.random ?? Math.random);
    const over = new AbortController();
    const exchange: Exchange = {
      request,
      response,
      requestId,
      endpoint: endpoint.name,
      deployment,
      path,
      over,
      open: true,
    };
    const timeout = endpoint.deployments[deployment]?.requestTimeoutMs ?? 5000;
    const timer = setTimeout(() => this.#timeOut(exchange, timeout), timeout);
    response.once('close', () => {
      clearTimeout(timer);
      over.abort();
    });
    this.#run(exchange, timer).catch((error: unknown) => this.#failExchange(exchange, error));
  }

  #timeOut(exchange: Exchange, timeout: number): void {
    if (!exchange.open) return;
    const { deployment } = exchange;
    this.#failExchange(exchange, new ModeltapError('request_timeout', { deployment, timeout }));
    exchange.over.abort();
    exchange.forwarding?.abort();
  }

  async #run(exchange: Exchange, timer: NodeJS.Timeout): Promise<void> {
    const { request, deployment, endpoint } = exchange;
    const small = Number(request.headers['content-length'] ?? Number.POSITIVE_INFINITY) <= WHOLE_BODY_BYTES;
    const body = small && hasBody(request) ? await readWhole(request) : undefined;
    let lease = await this.#lease(exchange);
    for (let attempt = 0; exchange.open && !exchange.over.signal.aborted; attempt += 1) {
      if (lease === undefined) throw new ModeltapError('deployment_unavailable', { endpoint, deployment });
      const end = await this.#send(exchange, lease, { body, timer });
      if (end.kind === 'answered' || exchange.over.signal.aborted) return;
      this.#logger.warn(
        { endpoint, deployment, detail: end.detail, requestId: exchange.requestId },
        'an instance broke',
      );
      this.#upstreams.sweep();
      if (end.kind === 'broken' || attempt > 0) {
        throw new ModeltapError('instance_unreachable', { deployment, detail: end.detail });
      }
      lease = await this.#lease(exchange, lease);
    }
    lease?.release();
  }

  async #send(
    exchange: Exchange,
    lease: RouterLease,
    how: { body: Buffer | undefined; timer: NodeJS.Timeout },
  ): Promise<ForwardEnd> {
    const { request, response, deployment, requestId, path } = exchange;
    const forwarding = forward({
      request,
      response,
      pool: this.#upstreams.pool(lease.port),
      path,
      headers: forwardedRequestHeaders(request, requestId),
      body: how.body,
      deployment,
      requestId,
      finishes: lease.finishes ?? false,
      onHead: () => {
        if (!exchange.open) return false;
        exchange.open = false;
        clearTimeout(how.timer);
        return true;
      },
    });
    exchange.forwarding = forwarding;
    const end = await forwarding.end;
    // Who waits for this place would run into an instance that has just died, before that is noticed.
    if (end.kind === 'answered' || exchange.over.signal.aborted) lease.release();
    else setTimeout(() => lease.release(), BROKEN_PAUSE_MS);
    return end;
  }

  /**
   * While a deployment switches or restarts there may be no instance for a moment, or only the one that has just failed
   * (`avoid`): when it has died, that is noticed in a moment.
   */
  async #lease({ endpoint, deployment, over }: Exchange, avoid?: RouterLease): Promise<RouterLease | undefined> {
    const until = this.#clock.monotonic() + (this.#options.waitMs ?? 5000);
    for (;;) {
      const options = avoid === undefined ? { signal: over.signal } : { avoid, signal: over.signal };
      const lease = await this.#options.acquire(endpoint, deployment, options);
      const good = lease !== undefined && lease.port !== avoid?.port;
      if (good || over.signal.aborted || this.#clock.monotonic() >= until) return lease;
      lease?.release();
      await this.#clock.sleep(LOOK_AGAIN_MS, { signal: over.signal });
    }
  }

  #failExchange(exchange: Exchange, error: unknown): void {
    if (!exchange.open) return;
    exchange.open = false;
    const { request, response, requestId, deployment } = exchange;
    this.#fail(request, response, { error, requestId, deployment });
  }

  #fail(
    request: IncomingMessage,
    response: ServerResponse,
    about: { error: unknown; requestId: string; deployment?: string },
  ): void {
    const error = toModeltapError(about.error);
    if (error.code === 'internal') this.#logger.error({ err: error, requestId: about.requestId }, 'the router failed');
    if (response.destroyed || response.headersSent) return;
    // The text also where the inference server of Azure ML has it.
    const body = JSON.stringify({ message: error.message, ...toErrorBody(error) });
    response.writeHead(error.httpStatus, [
      'content-type',
      'application/json',
      'content-length',
      String(Buffer.byteLength(body)),
      'x-request-id',
      about.requestId,
      ...(about.deployment === undefined ? [] : [DEPLOYMENT_HEADER, about.deployment]),
      ...(request.complete ? [] : ['connection', 'close']),
    ]);
    response.end(body);
  }
}

/** `/endpoints/<name>/<rest>?<query>` → name and `/<rest>?<query>`, the rest byte for byte. */
function splitTarget(url: string): { name: string; path: string } {
  const rest = url.slice(ENDPOINT_PREFIX.length);
  const end = rest.search(/[/?]/);
  if (end < 0) return { name: rest, path: '/' };
  const path = rest.slice(end);
  return { name: rest.slice(0, end), path: path.startsWith('?') ? `/${path}` : path };
}

function header(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name];
  const text = Array.isArray(value) ? value[0] : value;
  return text === '' ? undefined : text;
}

/** The whole body of a request whose length is known to be small; node:http holds it to that length. */
function readWhole(request: IncomingMessage): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.once('end', () => {
      const [only] = chunks;
      resolve(chunks.length === 1 && only !== undefined ? only : Buffer.concat(chunks));
    });
    request.once('error', reject);
    request.once('close', () => reject(new ModeltapError('internal', { detail: 'the client has gone' })));
  });
}
