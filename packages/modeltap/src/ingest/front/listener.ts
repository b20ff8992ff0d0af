import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { ModeltapError, systemCode } from '../../kit/errors.ts';
import type { Exchange } from '../exchange.ts';
import { LINGER_MS } from '../reply.ts';
import type { IngestLimits, ListenAddress } from '../types.ts';
import { AnswerText } from './answers.ts';
import { FrontConnection } from './connection.ts';
import type { FrontCore, SweptConnection, TickLimits } from './core.ts';
import { targetOf } from './head.ts';
import { HeadReader } from './head-reader.ts';

const MAX_TICK_MS = 1000;
const MIN_TICK_MS = 10;
/** `node:http` keeps an idle connection for so much longer than it tells. */
const KEEP_ALIVE_GRACE_MS = 1000;

/** What a listener gives requests to. */
export interface FrontOptions {
  readonly limits: IngestLimits;
  /** The paths whose POSTs the front takes. */
  readonly paths: readonly string[];
  /** Takes a POST to one of them, given by its place. */
  receive(path: number, exchange: Exchange): void;
  /** Takes any request that `node:http` has read. */
  answer(request: IncomingMessage, response: ServerResponse, port: number): void;
}

/**
 * One address that requests come to. Each connection begins in the front, which reads POSTs to the receivers itself; the
 * first request that it does not take hands the connection over to `node:http`, which has it from then on.
 */
export class FrontListener implements ListenAddress, FrontCore {
  readonly host: string;
  port = 0;
  readonly reader: HeadReader;
  readonly answers: AnswerText;
  readonly ticks: TickLimits;
  readonly connections = new Set<SweptConnection>();
  tick = 0;
  closing = false;
  readonly #options: FrontOptions;
  readonly #server: Server;
  readonly #tickMs: number;
  #timer: NodeJS.Timeout | undefined;
  /** What `node:http` does with a new connection. */
  readonly #plain: (socket: Socket) => void;

  constructor(options: FrontOptions, host: string) {
    const { limits, paths } = options;
    const { headersMs, requestMs, keepAliveMs } = limits;
    this.#options = options;
    this.host = host;
    this.reader = new HeadReader(paths.map(targetOf));
    this.answers = new AnswerText(keepAliveMs);
    this.#tickMs = Math.max(MIN_TICK_MS, Math.min(MAX_TICK_MS, headersMs / 2, requestMs / 2));
    const ticks = (ms: number) => Math.ceil(ms / this.#tickMs);
    this.ticks = {
      headers: ticks(headersMs),
      request: ticks(requestMs),
      keepAlive: keepAliveMs === 0 ? Number.POSITIVE_INFINITY : ticks(keepAliveMs + KEEP_ALIVE_GRACE_MS),
      linger: ticks(LINGER_MS),
    };
    this.#server = plainServer(limits);
    // The front stands between the server and its own listener, so limits, tracking and closing stay the server's.
    const [plain] = this.#server.listeners('connection');
    this.#plain = (socket) => plain?.call(this.#server, socket);
    this.#server.removeAllListeners('connection');
    this.#server.on('connection', (socket: Socket) => new FrontConnection(socket, this));
    this.#server.on('request', (request, response) => this.#options.answer(request, response, this.port));
    this.#server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => {
      // A body that will be refused for its announced length is not asked for.
      if (Number(request.headers['content-length'] ?? 0) <= limits.maxBatchBytes) response.writeContinue();
      this.#options.answer(request, response, this.port);
    });
  }

  receive(target: number, exchange: Exchange): void {
    this.#options.receive(target, exchange);
  }

  handOver(socket: Socket): void {
    this.#plain(socket);
  }

  /** Opens it. Port 0: any free one. `port_in_use`. */
  async listen(port: number): Promise<void> {
    await listenOn(this.#server, { host: this.host, port });
    this.port = (this.#server.address() as AddressInfo).port;
    this.#timer = setInterval(() => this.#sweep(), this.#tickMs);
    this.#timer.unref();
  }

  #sweep(): void {
    this.tick += 1;
    for (const connection of this.connections) connection.sweep();
    if (this.closing) this.#server.closeIdleConnections();
  }

  /** Stops accepting, waits for requests under way, and cuts them at the deadline. */
  async close(deadlineMs: number): Promise<void> {
    this.closing = true;
    const closed = new Promise<void>((done) => {
      this.#server.close(() => done());
    });
    const timer = setTimeout(() => {
      for (const connection of this.connections) connection.destroy();
      this.#server.closeAllConnections();
    }, deadlineMs);
    timer.unref();
    // A request that has come, but was not read, is under way too.
    await nextTurn();
    await nextTurn();
    for (const connection of this.connections) connection.retire();
    await closed;
    clearTimeout(timer);
    clearInterval(this.#timer);
  }
}

function plainServer(limits: IngestLimits): Server {
  const { headersMs, requestMs, keepAliveMs, maxConnections } = limits;
  const server = createServer({
    keepAliveTimeout: keepAliveMs,
    headersTimeout: headersMs,
    requestTimeout: requestMs,
    connectionsCheckingInterval: Math.max(10, Math.min(5000, headersMs / 2)),
    noDelay: true,
  });
  server.maxConnections = maxConnections;
  return server;
}

async function listenOn(server: Server, { host, port }: ListenAddress): Promise<void> {
  await new Promise<void>((done, failed) => {
    const onError = (error: Error) => {
      const busy = systemCode(error) === 'EADDRINUSE';
      failed(busy ? new ModeltapError('port_in_use', { host, port, option: '--port' }, { cause: error }) : error);
    };
    server.once('error', onError);
    server.listen({ host: host.replace(/^\[|\]$/g, ''), port, backlog: 1024 }, () => {
      server.off('error', onError);
      done();
    });
  });
}
