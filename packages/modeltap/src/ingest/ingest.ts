import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { crc32 } from 'node:zlib';
import { ModeltapError, systemCode } from '../kit/errors.ts';
import { requireLoopback } from '../kit/loopback.ts';
import type { StoredRecord } from '../record/types.ts';
import type { SpoolWriter } from '../spool/types.ts';
import { BodyFlow } from './body.ts';
import { CloudEventsReceiver } from './cloud-events.ts';
import { IngestContext } from './context.ts';
import { DedupeWindow } from './dedupe.ts';
import { headersOf, IngestRequest } from './headers.ts';
import { receiveMdcLog } from './mdc-log.ts';
import { replyError } from './reply.ts';
import {
  type Ingest,
  type IngestLimits,
  type IngestOptions,
  limitsOf,
  type ListenAddress,
  type Route,
} from './types.ts';

/** One row of the table of receivers. */
interface Receiver {
  readonly path: string;
  readonly allow: string;
  /** Takes a POST. `port` is the local one. */
  receive(request: IncomingMessage, response: ServerResponse, port: number): void;
  /** Answers OPTIONS, where the protocol has it. */
  options?(response: ServerResponse): void;
}

/** The ingest side of an agent: HTTP receivers in front of spools. Nothing listens before `listen`. */
export function createIngest(options: IngestOptions): Ingest {
  return new HttpIngest(options);
}

class HttpIngest implements Ingest {
  readonly #options: IngestOptions;
  readonly #limits: IngestLimits;
  readonly #context: IngestContext;
  readonly #receivers: readonly Receiver[];
  /** Open listeners, in the order asked for. */
  #listeners: Listener[] = [];

  constructor(options: IngestOptions) {
    this.#options = options;
    const limits = limitsOf(options.limits);
    this.#limits = limits;
    const parts = {
      limits,
      counts: options.counts,
      flow: new BodyFlow(limits.maxInflightBytes, limits.bodyIdleMs),
      dedupe: new DedupeWindow(limits.dedupeWindow),
      now: options.now ?? Date.now,
      uuid: options.uuid ?? randomUUID,
    };
    this.#context = new IngestContext(parts, options.route);
    const cloudEvents = new CloudEventsReceiver(this.#context);
    this.#receivers = [
      {
        path: '/modeldata/log',
        allow: 'POST',
        receive: (request, response, port) => receiveMdcLog(this.#context, { request, response, port }),
      },
      {
        path: '/v1/events',
        allow: 'POST, OPTIONS',
        receive: (request, response, port) => cloudEvents.receive({ request, response, port }),
        options: (response) => this.#describe(response),
      },
    ];
  }

  get addresses(): readonly ListenAddress[] {
    return this.#listeners.map(({ host, port }) => ({ host, port }));
  }

  get inflightBytes(): number {
    return this.#context.flow.bytes;
  }

  replaceRoutes(route: Route): void {
    this.#context.replaceRoute(route);
  }

  prime(spool: SpoolWriter, record: StoredRecord, crc = record.body && crc32(record.body)): void {
    if (record.id === '' || crc === undefined) return;
    const { dedupe } = this.#context;
    const salt = dedupe.saltOf(spool, record.destinationId);
    const claim = dedupe.claim(salt, record.id, record.bodyBytes, crc);
    if (claim >= 0) dedupe.settle(claim, undefined);
  }

  handle(request: IncomingMessage, response: ServerResponse): boolean {
    return this.#take(request, response, request.socket.localPort ?? 0);
  }

  #take(request: IncomingMessage, response: ServerResponse, port: number): boolean {
    const url = request.url ?? '';
    const query = url.indexOf('?');
    const path = query < 0 ? url : url.slice(0, query);
    for (const receiver of this.#receivers) {
      if (receiver.path !== path) continue;
      if (request.method === 'POST') receiver.receive(request, response, port);
      else if (request.method === 'OPTIONS' && receiver.options) receiver.options(response);
      else {
        const params = { method: request.method ?? '', allow: receiver.allow };
        replyError(request, response, new ModeltapError('method_not_allowed', params));
      }
      return true;
    }
    return false;
  }

  #describe(response: ServerResponse): void {
    response.writeHead(204, {
      allow: 'POST, OPTIONS',
      'modeltap-agent': this.#options.version ?? '0',
      'modeltap-batch-max-bytes': this.#limits.maxBatchBytes,
      'modeltap-batch-max-events': this.#limits.maxBatchEvents,
    });
    response.end();
  }

  #answer(request: IncomingMessage, response: ServerResponse, port: number): void {
    if (this.#take(request, response, port)) return;
    if (this.#options.next) {
      this.#options.next(request, response);
      return;
    }
    const name = (request.url ?? '').slice(0, 128);
    replyError(request, response, new ModeltapError('not_found', { kind: 'path', name, command: '' }));
  }

  async listen(): Promise<void> {
    await this.setListeners(this.#options.listen);
  }

  async setListeners(addresses: readonly ListenAddress[]): Promise<void> {
    for (const { host } of addresses) requireLoopback(host);
    const opened: Listener[] = [];
    const next: Listener[] = [];
    try {
      for (const { host, port } of addresses) {
        const known = this.#listeners.find((one) => one.host === host && one.port === port);
        const listener = known ?? (await this.#open(host, port));
        if (known === undefined) opened.push(listener);
        next.push(listener);
      }
    } catch (error) {
      await closeAll(opened, 0);
      throw error;
    }
    const old = this.#listeners.filter((one) => !next.includes(one));
    this.#listeners = next;
    // Their requests may go on; nobody has to wait for them.
    void closeAll(old, this.#limits.requestMs);
  }

  async #open(host: string, port: number): Promise<Listener> {
    const server = this.#server();
    await listenOn(server, { host, port });
    return { server, host, port: (server.address() as AddressInfo).port };
  }

  #server(): Server {
    const { headersMs, requestMs, keepAliveMs, maxConnections } = this.#limits;
    const server = createServer({
      IncomingMessage: IngestRequest,
      keepAliveTimeout: keepAliveMs,
      headersTimeout: headersMs,
      requestTimeout: requestMs,
      connectionsCheckingInterval: Math.max(10, Math.min(5000, headersMs / 2)),
      noDelay: true,
    });
    server.maxConnections = maxConnections;
    // Asking each socket would be a system call for every request.
    let port = 0;
    server.on('listening', () => {
      port = (server.address() as AddressInfo).port;
    });
    server.on('request', (request, response) => this.#answer(request, response, port));
    server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => {
      // A body that will be refused for its announced length is not asked for.
      if ((headersOf(request).bytes ?? 0) <= this.#limits.maxBatchBytes) response.writeContinue();
      this.#answer(request, response, port);
    });
    return server;
  }

  async close(deadlineMs: number): Promise<void> {
    this.#context.closing = true;
    const listeners = this.#listeners;
    this.#listeners = [];
    await closeAll(listeners, deadlineMs);
    this.#context.flow.stop();
  }
}

interface Listener extends ListenAddress {
  readonly server: Server;
}

/** Stops accepting, waits for requests under way, and cuts them at the deadline. */
async function closeAll(listeners: readonly Listener[], deadlineMs: number): Promise<void> {
  const closed = listeners.map(
    ({ server }) =>
      new Promise<void>((done) => {
        server.close(() => done());
        server.closeIdleConnections();
      }),
  );
  const timer = setTimeout(() => {
    for (const { server } of listeners) server.closeAllConnections();
  }, deadlineMs);
  timer.unref();
  await Promise.all(closed);
  clearTimeout(timer);
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
