import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Readable } from 'node:stream';
import { type Clock, systemClock } from '../kit/clock.ts';
import { ModeltapError, toErrorBody, toModeltapError } from '../kit/errors.ts';
import { type Logger, silentLogger } from '../kit/logger.ts';
import { challengeOf, requireAccess, type TokenIssuer } from './access.ts';
import { hasBody, limitedBody, linger, readWhole } from './body.ts';
import { type ForwardEnd, forward, type Forwarding } from './forward.ts';
import { DEPLOYMENT_HEADER, forwardedRequestHeaders, MIRROR_HEADER } from './headers.ts';
import type { RouterAcquire, RouterLease } from './lease.ts';
import { type MirrorCopy, type MirrorOutcome, Mirrors } from './mirror.ts';
import { chooseDeployment, chooseMirror, type RoutedEndpoint } from './traffic.ts';
import { createUpstreams, type Upstreams } from './upstreams.ts';

/** What the router is given by whoever runs deployments. */
export interface EndpointRouterOptions {
  /** The endpoint of that name, or undefined. Called for every request. */
  readonly endpoint: (name: string) => RoutedEndpoint | undefined;
  readonly acquire: RouterAcquire;
  /** How long a request waits for an instance while none is ready. Default 5000 ms. */
  readonly waitMs?: number;
  /** Requests in flight over all endpoints; more are refused with 503. Default 4096. */
  readonly maxInFlight?: number;
  /** Longest body of a request; a longer one is 413. Default 100 MiB. */
  readonly maxBodyBytes?: number;
  /** A client that takes nothing of its answer for so long is cut off. Default 60 000 ms. */
  readonly stallMs?: number;
  /** Who makes the tokens of `aad_token`. */
  readonly issuer?: TokenIssuer;
  /** Told what became of each copy of a request. */
  readonly onMirrored?: (endpoint: string, deployment: string, outcome: MirrorOutcome) => void;
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
/** The default of `maxBodyBytes`. */
export const MAX_BODY_BYTES = 100 * 1024 ** 2;
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
  /** Changes only while no instance is found and the deployment goes away. */
  deployment: string;
  /** True when the client has named the deployment. */
  readonly forced: boolean;
  /** The endpoint has looked at `authorization`, so it is not passed on. */
  readonly authorized: boolean;
  readonly path: string;
  /** Aborts when the client has gone or the request has timed out. */
  readonly over: AbortController;
  /** True until the head of an answer is written. */
  open: boolean;
  forwarding?: Forwarding;
  copy?: MirrorCopy | undefined;
}

class Router implements EndpointRouter {
  readonly #options: EndpointRouterOptions;
  readonly #upstreams: Upstreams = createUpstreams();
  readonly #mirrors: Mirrors;
  readonly #logger: Logger;
  readonly #clock: Clock;
  #inFlight = 0;
  #idle: (() => void) | undefined;

  constructor(options: EndpointRouterOptions) {
    this.#options = options;
    this.#logger = options.logger ?? silentLogger;
    this.#clock = options.clock ?? systemClock;
    this.#mirrors = new Mirrors({
      acquire: options.acquire,
      pool: (port) => this.#upstreams.pool(port),
      onOutcome: options.onMirrored ?? (() => undefined),
    });
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
      this.#fail(request, response, { error, requestId, endpoint: splitTarget(request.url ?? '/').name });
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
    this.#mirrors.close();
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
    const go = () => this.#begin(endpoint, { request, response, requestId, path });
    const { access } = endpoint;
    if (access === undefined) return go();
    const { issuer } = this.#options;
    const now = this.#clock.now();
    const allowed = requireAccess({ endpoint: name, access, headers: request.headers, now, issuer });
    if (allowed === undefined) return go();
    allowed.then(go).catch((error: unknown) => this.#fail(request, response, { error, requestId, endpoint: name }));
  }

  #begin(endpoint: RoutedEndpoint, asked: Pick<Exchange, 'request' | 'response' | 'requestId' | 'path'>): void {
    const { request, response } = asked;
    if (response.destroyed) return;
    const { maxBodyBytes = MAX_BODY_BYTES } = this.#options;
    if (Number(request.headers['content-length'] ?? 0) > maxBodyBytes) {
      throw new ModeltapError('request_too_large', { maxBytes: maxBodyBytes });
    }
    const forced = header(request, DEPLOYMENT_HEADER);
    const deployment = chooseDeployment(endpoint, forced, this.#options.random ?? Math.random);
    const over = new AbortController();
    const exchange: Exchange = {
      ...asked,
      endpoint: endpoint.name,
      deployment,
      forced: forced !== undefined,
      authorized: endpoint.access !== undefined,
      over,
      open: true,
    };
    if (forced === undefined) exchange.copy = this.#mirror(endpoint, exchange);
    const timeout = endpoint.deployments[deployment]?.requestTimeoutMs ?? 5000;
    const timer = setTimeout(() => this.#timeOut(exchange, timeout), timeout);
    response.once('close', () => {
      clearTimeout(timer);
      over.abort();
      exchange.copy?.cancel();
    });
    this.#run(exchange, timer).catch((error: unknown) => this.#failExchange(exchange, error));
  }

  /** Begins a copy of a request if it is one of those that are copied. */
  #mirror(endpoint: RoutedEndpoint, exchange: Exchange): MirrorCopy | undefined {
    const { request, deployment: answering, path } = exchange;
    const deployment = chooseMirror(endpoint, answering, this.#options.random ?? Math.random);
    if (deployment === undefined) return undefined;
    const length = request.headers['content-length'];
    return this.#mirrors.begin({
      endpoint: endpoint.name,
      deployment,
      method: request.method ?? 'GET',
      path,
      headers: [...this.#headers(exchange), MIRROR_HEADER, answering],
      bodyBytes: length === undefined ? undefined : Number(length),
      timeoutMs: endpoint.deployments[deployment]?.requestTimeoutMs ?? 5000,
    });
  }

  #headers({ request, requestId, authorized }: Exchange): string[] {
    return forwardedRequestHeaders(request, requestId, { withoutAuthorization: authorized });
  }

  #timeOut(exchange: Exchange, timeout: number): void {
    if (!exchange.open) return;
    const { deployment } = exchange;
    this.#failExchange(exchange, new ModeltapError('request_timeout', { deployment, timeout }));
    exchange.over.abort();
    // To break off a body that is still coming takes the connection with it: first the client gets its answer.
    if (exchange.request.complete) exchange.forwarding?.abort();
    else exchange.response.once('close', () => exchange.forwarding?.abort());
  }

  async #run(exchange: Exchange, timer: NodeJS.Timeout): Promise<void> {
    const { endpoint, copy } = exchange;
    const body = await this.#body(exchange);
    if (body instanceof Buffer) copy?.add(body);
    if (body instanceof Buffer || body === null) copy?.send();
    let lease = await this.#lease(exchange);
    for (let attempt = 0; exchange.open && !exchange.over.signal.aborted; attempt += 1) {
      const { deployment } = exchange;
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

  /** Small bodies whole; longer ones as a stream that counts if their length is not known to be within the limit. */
  async #body(exchange: Exchange): Promise<Buffer | Readable | null> {
    const { request, copy } = exchange;
    if (!hasBody(request)) return null;
    const length = request.headers['content-length'];
    if (length !== undefined && Number(length) <= WHOLE_BODY_BYTES) return readWhole(request);
    if (copy !== undefined) request.once('end', () => copy.send());
    if (length !== undefined) return request;
    const { maxBodyBytes: maxBytes = MAX_BODY_BYTES } = this.#options;
    return limitedBody(request, {
      maxBytes,
      onChunk: (chunk) => copy?.add(chunk),
      onTooLong: () => {
        // When the answer has begun, all that is left is to end it.
        if (exchange.open) this.#failExchange(exchange, new ModeltapError('request_too_large', { maxBytes }));
        else exchange.response.destroy();
        exchange.over.abort();
        exchange.forwarding?.abort(true);
      },
    });
  }

  async #send(
    exchange: Exchange,
    lease: RouterLease,
    how: { body: Buffer | Readable | null; timer: NodeJS.Timeout },
  ): Promise<ForwardEnd> {
    const { request, response, deployment, requestId, path } = exchange;
    const forwarding = forward({
      request,
      response,
      pool: this.#upstreams.pool(lease.port),
      path,
      headers: this.#headers(exchange),
      body: how.body,
      deployment,
      requestId,
      finishes: lease.finishes ?? false,
      onBody: exchange.copy && ((chunk) => exchange.copy?.add(chunk)),
      stallMs: this.#options.stallMs ?? 60_000,
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
  async #lease(exchange: Exchange, avoid?: RouterLease): Promise<RouterLease | undefined> {
    const { endpoint, over } = exchange;
    const until = this.#clock.monotonic() + (this.#options.waitMs ?? 5000);
    for (;;) {
      const options = avoid === undefined ? { signal: over.signal } : { avoid, signal: over.signal };
      const lease = await this.#options.acquire(endpoint, exchange.deployment, options);
      const good = lease !== undefined && lease.port !== avoid?.port;
      if (good || over.signal.aborted || this.#clock.monotonic() >= until) return lease;
      lease?.release();
      await this.#clock.sleep(LOOK_AGAIN_MS, { signal: over.signal });
      this.#moveOn(exchange);
    }
  }

  /** A request that traffic brought to a deployment which was deleted meanwhile goes where traffic goes now. */
  #moveOn(exchange: Exchange): void {
    const now = this.#options.endpoint(exchange.endpoint);
    if (exchange.forced || now === undefined || Object.hasOwn(now.deployments, exchange.deployment)) return;
    exchange.deployment = chooseDeployment(now, undefined, this.#options.random ?? Math.random);
  }

  #failExchange(exchange: Exchange, error: unknown): void {
    if (!exchange.open) return;
    exchange.open = false;
    const { request, response, requestId, deployment, endpoint } = exchange;
    this.#fail(request, response, { error, requestId, deployment, endpoint });
  }

  #fail(
    request: IncomingMessage,
    response: ServerResponse,
    about: { error: unknown; requestId: string; endpoint: string; deployment?: string },
  ): void {
    const error = toModeltapError(about.error);
    if (error.code === 'internal') this.#logger.error({ err: error, requestId: about.requestId }, 'the router failed');
    if (response.destroyed || response.headersSent) return;
    // The text also where the inference server of Azure ML has it.
    const challenge = challengeOf(error, about.endpoint);
    const body = JSON.stringify({ message: error.message, ...toErrorBody(error) });
    response.writeHead(error.httpStatus, [
      'content-type',
      'application/json',
      'content-length',
      String(Buffer.byteLength(body)),
      'x-request-id',
      about.requestId,
      ...(challenge === undefined ? [] : ['www-authenticate', challenge]),
      ...(about.deployment === undefined ? [] : [DEPLOYMENT_HEADER, about.deployment]),
      ...(request.complete ? [] : ['connection', 'close']),
    ]);
    response.write(body);
    if (request.complete) response.end();
    else linger(request, () => response.end());
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
