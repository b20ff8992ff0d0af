import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { ModeltapError, toErrorBody } from '../../kit/errors.ts';
import { sendResponse, sendStream, sendWhole } from './answer.ts';
import { type BodyBudget, readBody } from './body.ts';
import { createGate, type Gate } from './gate.ts';
import { idHeaders, type RequestIds, readIds } from './ids.ts';
import type { ScoringOptions } from './options.ts';
import { parseQuery, ScoringCall } from './request.ts';
import { encodeResult } from './result.ts';
import type { ScoringScript } from './script.ts';
import { swaggerDocument } from './swagger.ts';

/** What the app needs; `newId` and `now` (monotonic milliseconds) are effects. */
export interface ScoringAppOptions {
  readonly script: ScoringScript;
  readonly limits: ScoringOptions;
  /** Value of `x-ms-server-version`. */
  readonly serverVersion: string;
  /** Title of the swagger document. */
  readonly title: string;
  /** Name of the deployment in answers. Default the title. */
  readonly deployment?: string;
  /** Where the app writes what is for the operator: one text an event, may hold several lines. */
  readonly log: (text: string) => void;
  readonly newId?: () => string;
  readonly now?: () => number;
}

/** The HTTP side of a scoring script, for `http.createServer`. */
export interface ScoringApp {
  serve(request: IncomingMessage, response: ServerResponse): void;
  /** Requests received and not answered to the end. */
  readonly inFlight: number;
  /** From now on every answer closes its connection; resolves when nothing is in flight. */
  drain(): Promise<void>;
}

interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly ids: RequestIds;
  readonly query: string;
  /** Set once an answer was begun or the client has gone: nothing more may be answered. */
  over: boolean;
  /** On the scoring route: until the head of the answer. */
  timer?: NodeJS.Timeout;
  /** Bytes charged to the budget. */
  bodyBytes: number;
  leaveQueue?: () => void;
  call?: ScoringCall;
}

const TEXT = 'text/plain; charset=utf-8';
const JSON_TYPE = 'application/json';
/** The longest delay a Node timer knows. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Makes the app. Its manners are those of azureml-inference-server-http 1.5.1; see `docs/scoring-script.md`. */
export function createScoringApp(options: ScoringAppOptions): ScoringApp {
  return new App(options);
}

class App implements ScoringApp {
  readonly #options: ScoringAppOptions;
  readonly #gate: Gate;
  readonly #budget: BodyBudget;
  readonly #newId: () => string;
  readonly #now: () => number;
  #inFlight = 0;
  #drained: (() => void) | undefined;
  #draining = false;

  constructor(options: ScoringAppOptions) {
    const { limits } = options;
    this.#options = options;
    this.#gate = createGate({
      maxRunning: limits.maxConcurrent,
      maxWaiting: limits.maxQueued,
      maxWaitMs: Math.min(limits.maxQueueWaitMs, MAX_TIMER_MS),
    });
    this.#budget = { used: 0, maxBytes: Math.max(limits.maxBufferedBytes, limits.maxBodyBytes) };
    this.#newId = options.newId ?? randomUUID;
    this.#now = options.now ?? (() => performance.now());
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  drain(): Promise<void> {
    this.#draining = true;
    if (this.#inFlight === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#drained = resolve;
    });
  }

  serve(request: IncomingMessage, response: ServerResponse): void {
    const url = request.url ?? '/';
    const mark = url.indexOf('?');
    const path = mark < 0 ? url : url.slice(0, mark);
    const read = readIds(request.headers, this.#newId);
    const tooLong = 'tooLong' in read ? read.tooLong : undefined;
    const ids =
      'tooLong' in read ? { requestId: '', clientRequestId: undefined, legacyRequestId: '', traceId: undefined } : read;
    const query = mark < 0 ? '' : url.slice(mark + 1);
    const exchange: Exchange = { request, response, ids, query, over: false, bodyBytes: 0 };
    this.#inFlight += 1;
    response.once('close', () => this.#closed(exchange));
    if (tooLong !== undefined) this.#refuse(exchange, 431, tooLong);
    else if (path === '/score') this.#score(exchange);
    else if (path === '/' || path === '/swagger.json') this.#read(exchange, path);
    else this.#refuse(exchange, 404, `There is no ${path.slice(0, 200)} here; the scoring route is /score`);
  }

  #closed(exchange: Exchange): void {
    this.#end(exchange);
    this.#budget.used -= exchange.bodyBytes;
    if (!exchange.response.writableFinished) exchange.call?.abort();
    this.#inFlight -= 1;
    if (this.#inFlight === 0) this.#drained?.();
  }

  #read(exchange: Exchange, path: string): void {
    const { method } = exchange.request;
    if (method !== 'GET' && method !== 'HEAD') {
      return this.#refuse(exchange, 405, `Method ${method} is not allowed on ${path}; use GET`);
    }
    if (path === '/') return this.#answer(exchange, 'Healthy', ['content-type', TEXT]);
    const version = new URLSearchParams(exchange.query).get('version') ?? '2';
    const document = swaggerDocument(version, this.#options.title);
    if (document !== undefined) return this.#answer(exchange, JSON.stringify(document), ['content-type', JSON_TYPE]);
    this.#refuse(exchange, 404, `Swagger version ${version.slice(0, 20)} is not known; use 2, 3 or 3.1`);
  }

  #score(exchange: Exchange): void {
    const { request } = exchange;
    const { method } = request;
    if (method === 'OPTIONS') return this.#answer(exchange, '', ['allow', 'GET, POST, OPTIONS', 'content-type', TEXT]);
    if (method !== 'POST' && method !== 'GET') {
      return this.#refuse(exchange, 405, `Method ${method} is not allowed on /score; use POST`);
    }
    const { requestTimeoutMs, maxBodyBytes } = this.#options.limits;
    exchange.timer = setTimeout(
      () => {
        const { deployment = this.#options.title } = this.#options;
        this.#limit(exchange, new ModeltapError('request_timeout', { deployment, timeout: requestTimeoutMs }));
        exchange.call?.abort();
      },
      Math.min(requestTimeoutMs, MAX_TIMER_MS),
    );
    readBody(request, this.#budget, maxBodyBytes, (body) => {
      if ('refuse' in body) return this.#refuse(exchange, body.refuse, body.message);
      exchange.bodyBytes = body.bytes;
      const data = method === 'GET' ? JSON.stringify(parseQuery(exchange.query)) : body.text;
      exchange.leaveQueue = this.#gate.enter((entered) => {
        if (entered) this.#run(exchange, data);
        else this.#limit(exchange, new ModeltapError('too_many_requests'));
      });
    });
  }

  /** Calls `run()`; the place taken in the gate is given back when it has settled and its answer is written. */
  #run(exchange: Exchange, data: string): void {
    const call = new ScoringCall(exchange.request, exchange.ids, exchange.query);
    exchange.call = call;
    const { scoringTimeoutMs } = this.#options.limits;
    let left = false;
    const leave = () => {
      if (left) return;
      left = true;
      clearTimeout(limit);
      this.#gate.leave();
    };
    const limit = setTimeout(
      () => {
        this.#options.log(`request ${exchange.ids.requestId}: run() was given up after ${scoringTimeoutMs} ms`);
        this.#refuse(exchange, 500, `Scoring timeout after ${scoringTimeoutMs} ms`, true);
        call.abort();
        leave();
      },
      Math.min(scoringTimeoutMs, MAX_TIMER_MS),
    );
    const fail = (error: unknown) => {
      this.#failed(exchange, error);
      leave();
    };
    const started = this.#now();
    const done = (value: unknown) => {
      this.#result(exchange, value, (this.#now() - started).toFixed(3)).then(leave, fail);
    };
    try {
      const value = this.#options.script.run(data, call);
      if (isThenable(value)) value.then(done, fail);
      else done(value);
    } catch (error) {
      fail(error);
    }
  }

  async #result(exchange: Exchange, value: unknown, tookMs: string): Promise<void> {
    const result = encodeResult(value);
    const took = ['x-ms-run-fn-exec-ms', tookMs];
    const begin = (failed: boolean) => this.#begin(exchange, failed, took);
    switch (result.kind) {
      case 'json':
        return this.#answer(exchange, result.text, ['content-type', JSON_TYPE, ...took]);
      case 'bytes':
        return this.#answer(exchange, result.bytes, ['content-type', 'application/octet-stream', ...took]);
      case 'response':
        return sendResponse(exchange.response, result.response, begin);
      case 'stream':
        return sendStream(exchange.response, result.chunks, begin);
      case 'unserialisable':
        this.#options.log(`request ${exchange.ids.requestId}: the result of run() is not JSON: ${result.reason}`);
        return this.#refuse(exchange, 500, 'The result of the scoring script cannot be written as JSON', true);
    }
  }

  #failed(exchange: Exchange, error: unknown): void {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.#options.log(`request ${exchange.ids.requestId}: run() failed: ${text}`);
    this.#refuse(exchange, 500, 'The scoring script failed; the reason is in the log of the deployment', true);
    // A stream that breaks after its head can only be cut: ending it would look like a whole answer.
    if (!exchange.response.writableEnded) exchange.response.destroy();
  }

  /** Answers that a limit of `request_settings` was reached, with the words the endpoint has for it. */
  #limit(exchange: Exchange, error: ModeltapError): void {
    this.#send(exchange, error.httpStatus, { message: error.message, ...toErrorBody(error) }, false);
  }

  #refuse(exchange: Exchange, status: number, message: string, failed = false): void {
    this.#send(exchange, status, { message }, failed);
  }

  #send(exchange: Exchange, status: number, body: object, failed: boolean): void {
    const headers = this.#begin(exchange, failed, ['content-type', JSON_TYPE]);
    if (headers === undefined) return;
    if (!exchange.request.complete) headers.push('connection', 'close');
    sendWhole(exchange.response, status, JSON.stringify(body), headers);
  }

  #answer(exchange: Exchange, body: string | Uint8Array, extra: readonly string[]): void {
    const headers = this.#begin(exchange, false, extra);
    if (headers !== undefined) sendWhole(exchange.response, 200, body, headers);
  }

  /** The headers every answer carries; undefined when it was answered before or the client has gone. */
  #begin(exchange: Exchange, failed: boolean, extra: readonly string[]): string[] | undefined {
    if (exchange.over) return undefined;
    this.#end(exchange);
    const headers = exchange.ids.requestId === '' ? [] : idHeaders(exchange.ids);
    headers.push('x-ms-server-version', this.#options.serverVersion, ...extra);
    if (exchange.timer !== undefined) headers.push('x-ms-run-function-failed', failed ? 'True' : 'False');
    if (this.#draining) headers.push('connection', 'close');
    return headers;
  }

  #end(exchange: Exchange): void {
    exchange.over = true;
    clearTimeout(exchange.timer);
    exchange.leaveQueue?.();
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function';
}
