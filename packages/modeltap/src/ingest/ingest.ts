import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { crc32 } from 'node:zlib';
import { ModeltapError } from '../kit/errors.ts';
import { requireLoopback } from '../kit/loopback.ts';
import type { StoredRecord } from '../record/types.ts';
import type { SpoolWriter } from '../spool/types.ts';
import { BodyFlow } from './body.ts';
import { CloudEventsReceiver } from './cloud-events.ts';
import { IngestContext } from './context.ts';
import { DedupeWindow } from './dedupe.ts';
import type { Exchange } from './exchange.ts';
import { FrontListener } from './front/listener.ts';
import { receiveMdcLog } from './mdc-log.ts';
import { NodeExchange } from './node-exchange.ts';
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
  /** Takes a POST. */
  receive(exchange: Exchange): void;
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
  #listeners: FrontListener[] = [];

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
        receive: (exchange) => receiveMdcLog(this.#context, exchange),
      },
      {
        path: '/v1/events',
        allow: 'POST, OPTIONS',
        receive: (exchange) => cloudEvents.receive(exchange),
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
      const exchange = new NodeExchange(request, response, port);
      if (request.method === 'POST') receiver.receive(exchange);
      else if (request.method === 'OPTIONS' && receiver.options) receiver.options(response);
      else {
        const params = { method: request.method ?? '', allow: receiver.allow };
        replyError(exchange, new ModeltapError('method_not_allowed', params), this.#context.closing);
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
    const error = new ModeltapError('not_found', { kind: 'path', name, command: '' });
    replyError(new NodeExchange(request, response, port), error, this.#context.closing);
  }

  async listen(): Promise<void> {
    await this.setListeners(this.#options.listen);
  }

  async setListeners(addresses: readonly ListenAddress[]): Promise<void> {
    for (const { host } of addresses) requireLoopback(host);
    const opened: FrontListener[] = [];
    const next: FrontListener[] = [];
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

  async #open(host: string, port: number): Promise<FrontListener> {
    const options = {
      limits: this.#limits,
      paths: this.#receivers.map(({ path }) => path),
      receive: (path: number, exchange: Exchange) => this.#receivers[path]?.receive(exchange),
      answer: (request: IncomingMessage, response: ServerResponse, local: number) =>
        this.#answer(request, response, local),
    };
    const listener = new FrontListener(options, host);
    await listener.listen(port);
    return listener;
  }

  async close(deadlineMs: number): Promise<void> {
    this.#context.closing = true;
    const listeners = this.#listeners;
    this.#listeners = [];
    await closeAll(listeners, deadlineMs);
    this.#context.flow.stop();
  }
}

/** Closes them all by the same deadline. */
async function closeAll(listeners: readonly FrontListener[], deadlineMs: number): Promise<void> {
  await Promise.all(listeners.map((listener) => listener.close(deadlineMs)));
}
