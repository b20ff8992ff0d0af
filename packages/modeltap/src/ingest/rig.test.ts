import { mkdtemp, rm } from 'node:fs/promises';
import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentLogger } from '../kit/logger.ts';
import { decodeRecord } from '../record/codec.ts';
import type { Destination, StoredRecord } from '../record/types.ts';
import { openSpool, openSpoolReader } from '../spool/spool.ts';
import type { SpoolWriter } from '../spool/types.ts';
import { createIngest } from './ingest.ts';
import type { Ingest, IngestLimits, IngestOptions, NextRequest, Route } from './types.ts';

/* Shared by the tests of this folder: a real ingest on a real spool, and clients that say exactly what they are told. */

/** ARM id used as source of the test deployment. */
export const SOURCE =
  '/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w/onlineEndpoints/e/deployments/d';

/** A destination of the test deployment. */
export function destination(id: number, collection: string): Destination {
  const path = `modelDataCollector/e/d/${collection}`;
  const fixed = {
    endpoint: 'e',
    deployment: 'd',
    source: SOURCE,
    datastore: 'store',
    rollingRate: 'hour',
    batch: 'same_id',
  } as const;
  return { id, collection, path, batchWindowMs: 500, ...fixed };
}

/** Routes two collections to this spool and knows a third that is disabled. */
export function routesTo(spool: SpoolWriter): Route {
  const enabled = ['model_inputs', 'model_outputs'];
  return ({ type }) => {
    const collection = type.replace('azureml.inference.', '');
    const index = enabled.indexOf(collection);
    if (index >= 0) return { spool, destination: destination(index + 1, collection) };
    return { refusal: collection === 'off' ? 'collection_disabled' : 'collection_unknown', collection, enabled };
  };
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
}

export interface Rig {
  readonly ingest: Ingest;
  readonly spool: SpoolWriter;
  /** Of the spool. */
  readonly directory: string;
  readonly port: number;
  /** What was counted, in order, as text. */
  readonly counted: string[];
  post(path: string, headers: Record<string, string | string[]>, body: string | Buffer): Promise<Answer>;
  request(
    method: string,
    path: string,
    headers?: Record<string, string | string[]>,
    body?: string | Buffer,
  ): Promise<Answer>;
  /** Sends these bytes on a connection of its own and gives all that comes back until it is closed. */
  raw(bytes: string | Buffer, options?: { end?: boolean }): Promise<string>;
  /** Every record in the spool, with the content of side files read in. */
  records(): Promise<(StoredRecord & { readonly text: string; readonly aside: boolean })[]>;
  close(): Promise<void>;
}

export interface RigOptions {
  readonly limits?: Partial<IngestLimits>;
  readonly maxBytes?: number;
  readonly next?: NextRequest;
  readonly route?: (spool: SpoolWriter) => Route;
  readonly now?: () => number;
  readonly uuid?: () => string;
}

/** Starts one. Close it. */
export async function startRig(options: RigOptions = {}): Promise<Rig> {
  const directory = await mkdtemp(join(tmpdir(), 'modeltap-ingest-'));
  const spool = await openSpool({ directory, maxBytes: options.maxBytes ?? 512 * 1024 ** 2 });
  const counted: string[] = [];
  const ingest = createIngest({
    listen: [{ host: '127.0.0.1', port: 0 }],
    route: (options.route ?? routesTo)(spool),
    counts: {
      accepted: (id, _time, rows, bytes) => counted.push(`accepted ${id} ${rows} ${bytes}`),
      rejected: (code, id) => counted.push(`rejected ${code} ${id}`),
      duplicate: (id) => counted.push(`duplicate ${id}`),
      timeReplaced: (id) => counted.push(`time ${id}`),
      sampledOut: (id, _time, records) => counted.push(`sampled ${id} ${records}`),
    },
    logger: silentLogger,
    version: '9.9.9',
    ...pick(options),
  });
  await ingest.listen();
  const port = ingest.addresses[0]?.port ?? 0;
  const request: Rig['request'] = (method, path, headers = {}, body = '') =>
    send(port, { method, path, headers }, body);
  return {
    ingest,
    spool,
    directory,
    port,
    counted,
    request,
    post: (path, headers, body) => request('POST', path, headers, body),
    raw: (bytes, { end = false } = {}) => rawExchange(port, bytes, end),
    records: () => readAll(directory, spool),
    async close() {
      await ingest.close(0);
      await spool.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Only what is an option of ingest. */
function pick({ limits, next, now, uuid }: RigOptions): Partial<IngestOptions> {
  return {
    ...(limits === undefined ? {} : { limits }),
    ...(next === undefined ? {} : { next }),
    ...(now === undefined ? {} : { now }),
    ...(uuid === undefined ? {} : { uuid }),
  };
}

function send(
  port: number,
  target: { method: string; path: string; headers: object },
  body: string | Buffer,
): Promise<Answer> {
  return new Promise((done, failed) => {
    const headers = { connection: 'close', 'content-length': Buffer.byteLength(body), ...target.headers };
    const request = httpRequest(
      { host: '127.0.0.1', port, method: target.method, path: target.path, headers },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () => {
          done({ status: response.statusCode ?? 0, headers: response.headers, text: Buffer.concat(chunks).toString() });
        });
      },
    );
    request.on('error', failed);
    request.end(body);
  });
}

function rawExchange(port: number, bytes: string | Buffer, end: boolean): Promise<string> {
  return new Promise((done) => {
    const socket = connect(port, '127.0.0.1');
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
    });
    socket.on('error', () => undefined);
    socket.on('close', () => done(text));
    socket.write(bytes);
    if (end) socket.end();
  });
}

async function readAll(directory: string, spool: SpoolWriter) {
  const { readFile } = await import('node:fs/promises');
  const reader = await openSpoolReader(directory);
  const found: (StoredRecord & { text: string; aside: boolean })[] = [];
  for (let from = 0; from < spool.committed; ) {
    const { frames, next } = await reader.read(from, spool.committed, 64 * 1024 ** 2);
    for (const frame of frames) {
      const record = decodeRecord(Buffer.from(frame.payload));
      if (record === undefined) continue;
      const body = frame.sideFile === undefined ? record.body : await readFile(frame.sideFile);
      found.push({ ...record, text: body?.toString('utf8') ?? '', aside: frame.sideFile !== undefined });
    }
    if (next <= from) break;
    from = next;
  }
  await reader.close();
  return found;
}
