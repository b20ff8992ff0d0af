import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type RequestListener, type Server } from 'node:http';
import { type AddressInfo, connect, createServer as createRawServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bodyScanner as scanner } from '../agent/taps.ts';
import { createBatcher, type BatchItem } from '../delivery/batch.ts';
import { silentLogger } from '../kit/logger.ts';
import { decodeRecord } from '../record/codec.ts';
import type { Destination } from '../record/types.ts';
import { openSpool, openSpoolReader } from '../spool/spool.ts';
import type { SpoolWriter } from '../spool/types.ts';
import { openTap, type Tap } from './tap.ts';
import { createBudget, tapLimitsOf, type TapLimits, type TapSettings } from './types.ts';

export { scanner };

/* Shared by the tests of this folder: a real tap on a real spool in front of real servers, and what it stored. */

/** A stored event, and the bytes of the object beside it if it has one. */
export interface StoredEvent {
  readonly [name: string]: unknown;
  readonly raw?: Buffer;
}

export interface TapRig {
  readonly tap: Tap;
  readonly port: number;
  readonly spool: SpoolWriter;
  readonly counted: string[];
  readonly lost: string[];
  readonly used: () => number;
  /** What is in the spool, as delivery would write it: waits until nothing is under way. */
  events(type?: 'request' | 'response'): Promise<StoredEvent[]>;
  update(changes: Partial<TapSettings>): void;
  close(): Promise<void>;
}

export interface TapRigOptions {
  readonly upstreamPort: number;
  readonly settings?: Partial<TapSettings>;
  readonly limits?: Partial<TapLimits>;
  readonly maxCaptureBytes?: number;
  readonly spoolBytes?: number;
  /** Wraps the spool. */
  readonly spool?: (spool: SpoolWriter) => SpoolWriter;
}

function destination(id: number, collection: string): Destination {
  const path = `modelDataCollector/e/d/${collection}`;
  const fixed = { endpoint: 'e', deployment: 'd', datastore: 'store', rollingRate: 'hour', batch: 'off' } as const;
  return { id, collection, path, source: '/deployments/d', batchWindowMs: 500, ...fixed };
}

const DESTINATIONS = [destination(1, 'request'), destination(2, 'response')];

/** Starts one. Close it. */
export async function startTapRig(options: TapRigOptions): Promise<TapRig> {
  const directory = await mkdtemp(join(tmpdir(), 'modeltap-tap-'));
  const spool = await openSpool({ directory, maxBytes: options.spoolBytes ?? 2 * 1024 ** 3 });
  const used = options.spool?.(spool) ?? spool;
  const counted: string[] = [];
  const lost: string[] = [];
  const counts = {
    accepted: (id: number) => counted.push(`accepted ${id}`),
    rejected: (code: string, id: number) => counted.push(`${code} ${id}`),
    sampledOut: (id: number) => counted.push(`sampled ${id}`),
  };
  const sink = (index: number) => ({
    spool: used,
    spoolDirectory: directory,
    destination: DESTINATIONS[index] as Destination,
    counts,
  });
  const budget = createBudget(options.maxCaptureBytes ?? 64 * 1024 ** 2);
  let settings: TapSettings = {
    upstream: { host: '127.0.0.1', port: options.upstreamPort },
    request: sink(0),
    response: sink(1),
    paths: ['*'],
    samplingRate: 1,
    errorRate: 1,
    captureHeaders: [],
    captureSecretHeaders: false,
    requestId: 'add',
    limits: tapLimitsOf(options.limits),
    ...options.settings,
  };
  const tap = await openTap({
    listen: { host: '127.0.0.1', port: 0 },
    settings,
    budget,
    scanner,
    metrics: { exchange: () => undefined, lost: (reason) => lost.push(reason) },
    logger: silentLogger,
  });
  return {
    tap,
    port: tap.address.port,
    spool,
    counted,
    lost,
    used: () => budget.used,
    update(changes) {
      settings = { ...settings, ...changes };
      tap.update(settings);
    },
    async events(type) {
      await settled(tap);
      return (await storedEvents(directory, spool)).filter(
        (event) => type === undefined || event['type'] === `azureml.inference.${type}`,
      );
    },
    async close() {
      await tap.close(0);
      await spool.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Waits until the bodies of exchanges that are over are stored: what is in memory does not change any more. */
async function settled(tap: Tap): Promise<void> {
  await new Promise((done) => setTimeout(done, 30));
  await tap.settled();
}

async function storedEvents(directory: string, spool: SpoolWriter): Promise<StoredEvent[]> {
  const reader = await openSpoolReader(directory);
  const items: BatchItem[] = [];
  for (let from = 0; from < spool.committed; ) {
    const { frames, next } = await reader.read(from, spool.committed, 64 * 1024 ** 2);
    for (const frame of frames) {
      const record = decodeRecord(Buffer.from(frame.payload));
      const inline = record?.json === true && record.bodyBytes <= 4 * 1024 ** 2;
      const body = frame.sideFile !== undefined && inline ? await readFile(frame.sideFile) : record?.body;
      items.push({
        position: frame.position,
        record: record && { ...record, body },
        sideFile: frame.sideFile,
        fault: undefined,
      });
    }
    if (next <= from) break;
    from = next;
  }
  await reader.close();
  const batcher = createBatcher({
    spoolId: spool.spoolId,
    inlineBytes: 4 * 1024 ** 2,
    url: (key) => key,
    destination: (id) => DESTINATIONS[id - 1],
  });
  const batch = batcher.plan(items);
  const raws = new Map<string, Buffer>();
  for (const { key, source } of batch.raws) {
    raws.set(key, 'body' in source ? Buffer.from(source.body) : await readFile(source.path));
  }
  const lines = batch.targets.flatMap(({ lines }) => lines.toString().split('\n').slice(0, -1));
  return lines.map((line) => {
    const event = JSON.parse(line) as Record<string, unknown>;
    const raw = raws.get(String(event['dataref']));
    return raw === undefined ? event : { ...event, raw };
  });
}

/** A server of node:http on a free port. */
export async function httpServer(listener: RequestListener): Promise<{ server: Server; port: number; close(): void }> {
  const server = createServer({ keepAliveTimeout: 60_000 }, listener);
  server.on('upgrade', (_request, socket: Socket) => {
    socket.on('error', () => undefined);
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n');
    socket.pipe(socket);
  });
  server.on('clientError', (_error, socket) => {
    if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    server,
    port: (server.address() as AddressInfo).port,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** A server that does with each connection what it is told. */
export async function rawServer(serve: (socket: Socket) => void): Promise<{ port: number; close: () => void }> {
  const sockets = new Set<Socket>();
  const server = createRawServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => undefined);
    serve(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** What a client saw of a connection. */
export interface Seen {
  readonly bytes: Buffer;
  /** How it ended: `end`, or the code of an error. */
  readonly ending: string;
}

/** What a client does with a connection, step by step. */
export type ClientStep =
  | string
  | Buffer
  | { readonly waitFor: string | number }
  | { readonly pauseMs: number }
  | { readonly side: 'end' | 'reset' };

/** Plays a client and gives all that it saw until the connection was closed. */
export function play(port: number, steps: readonly ClientStep[], timeoutMs = 20_000): Promise<Seen> {
  return new Promise((done) => {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
    const chunks: Buffer[] = [];
    let length = 0;
    let ending = 'end';
    let wake = () => undefined as void;
    const timer = setTimeout(() => {
      ending = 'timeout';
      socket.destroy();
    }, timeoutMs);
    socket.on('data', (chunk: Buffer) => {
      chunks.push(chunk);
      length += chunk.length;
      wake();
    });
    socket.on('end', () => socket.end());
    socket.on('error', (error: NodeJS.ErrnoException) => {
      ending = error.code ?? 'error';
    });
    socket.on('close', () => {
      clearTimeout(timer);
      wake();
      done({ bytes: Buffer.concat(chunks), ending });
    });
    const has = (what: string | number) =>
      typeof what === 'number' ? length >= what : Buffer.concat(chunks).includes(what);
    const run = async () => {
      for (const step of steps) {
        if (socket.destroyed) return;
        if (typeof step === 'string' || Buffer.isBuffer(step)) {
          if (!socket.write(step))
            await Promise.race([once(socket, 'drain'), once(socket, 'close')]).catch(() => undefined);
        } else if ('side' in step) {
          if (step.side === 'end') socket.end();
          else socket.resetAndDestroy();
        } else if ('pauseMs' in step) await new Promise((go) => setTimeout(go, step.pauseMs));
        else {
          while (!has(step.waitFor) && !socket.destroyed && !socket.readableEnded) {
            await new Promise<void>((go) => {
              wake = go;
              setTimeout(go, 50);
            });
          }
        }
      }
    };
    socket.on('connect', () => void run());
  });
}
