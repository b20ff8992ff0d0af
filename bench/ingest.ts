/**
 * The agent's ingest, durable and validated before it answers, against a bare `node:http` server that reads the body and
 * answers 204: 64 connections with 0.8 KB and 16 KB records, and 100 events a request.
 */
import { createServer } from 'node:http';
import { mkdtemp, rm } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createIngest } from '../packages/modeltap/src/ingest/ingest.ts';
import { silentLogger } from '../packages/modeltap/src/kit/logger.ts';
import type { Destination } from '../packages/modeltap/src/record/types.ts';
import { openSpool } from '../packages/modeltap/src/spool/spool.ts';
import {
  type BenchRow,
  type BenchServer,
  httpPost,
  median,
  medianRatio,
  onStop,
  rotate,
  runDirectly,
  sampleRows,
  startServer,
} from './harness.ts';

const CONNECTIONS = 64;
const EVENTS = 100;
/** With its attributes each event has about 0.8 KB. */
const BATCH_DATA_BYTES = 370;
const BATCH_CONNECTIONS = 16;
/** Longest time between two releases, as delivery would do them. */
const RELEASE_MS = 50;
const TYPE = 'azureml.inference.model_inputs';
const SOURCE =
  '/subscriptions/0/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w/onlineEndpoints/e/deployments/d';

/** The yardstick. */
function serveNode204(): void {
  const server = createServer((request, response) => {
    request.on('data', () => undefined);
    request.on('end', () => {
      response.statusCode = 204;
      response.end();
    });
  });
  server.listen(0, '127.0.0.1', () => process.send?.({ port: (server.address() as AddressInfo).port }));
  onStop(async () => server.closeAllConnections());
}

/** The real ingest on a real spool whose records are released as delivery would. Ends with the process. */
export async function serveModeltap(): Promise<void> {
  const directory = await mkdtemp(join(process.env['BENCH_DIR'] ?? tmpdir(), 'modeltap-bench-'));
  const spool = await openSpool({ directory, maxBytes: 2 * 1024 ** 3 });
  const destination: Destination = {
    id: 1,
    endpoint: 'e',
    deployment: 'd',
    collection: 'model_inputs',
    source: SOURCE,
    datastore: 'store',
    path: 'p',
    rollingRate: 'hour',
    batch: 'same_id',
    batchWindowMs: 500,
  };
  const totals = { records: 0, rows: 0, bytes: 0 };
  const ingest = createIngest({
    listen: [{ host: '127.0.0.1', port: 0 }],
    route: () => ({ spool, destination }),
    counts: {
      accepted(_id, _time, rows, bytes) {
        totals.records += 1;
        totals.rows += rows;
        totals.bytes += bytes;
      },
      rejected: () => undefined,
      duplicate: () => undefined,
    },
    logger: silentLogger,
  });
  await ingest.listen();
  const timer = setInterval(() => void spool.release(spool.committed), RELEASE_MS);
  process.send?.({ port: ingest.addresses[0]?.port });
  onStop(async () => {
    clearInterval(timer);
    await ingest.close(0);
    await spool.close();
    await rm(directory, { recursive: true, force: true });
  });
}

/** A record as the Python SDK sends it, on a connection that is kept. */
export function logRequest(bytes: number): Buffer {
  const headers = {
    'user-agent': 'python-requests/2.34.2',
    accept: '*/*',
    'content-type': 'application/json',
    'trace-id': '3f0f9c1c-52ad-4f6a-9a3e-7d8f3f8e0a11',
    'ce-time': '1704164645',
    'ce-type': TYPE,
    'ce-collect-data-type': 'pandas.core.frame.DataFrame',
    'ce-agent': 'azureml-ai-monitoring/1.0.0',
    'ce-x-request-id': '7f6a9a3e-52ad-4f6a-9a3e-7d8f3f8e0a22',
    'ce-model-version': 'default',
  };
  return httpPost('/modeldata/log', headers, Buffer.from(sampleRows(bytes)));
}

/** 100 events of about 0.8 KB and the places of the counters in their ids. */
export function batchRequest(): { request: Buffer; counterAt: number[] } {
  const data: unknown = JSON.parse(sampleRows(BATCH_DATA_BYTES));
  const events = Array.from({ length: EVENTS }, (_, index) => ({
    specversion: '1.0',
    id: `############-${String(index).padStart(3, '0')}`,
    source: SOURCE,
    type: TYPE,
    datacontenttype: 'application/json',
    time: new Date(Date.UTC(2024, 0, 2, 3, 4, 5, index)).toISOString(),
    correlationid: `7f6a9a3e-52ad-4f6a-9a3e-${String(index).padStart(12, '0')}`,
    modelversion: 'default',
    collectdatatype: 'array',
    agent: 'modeltap/0.1.0',
    data,
  }));
  const body = Buffer.from(JSON.stringify(events));
  const request = httpPost('/v1/events', { 'content-type': 'application/cloudevents-batch+json' }, body);
  const counterAt: number[] = [];
  for (let at = request.indexOf('############'); at >= 0; at = request.indexOf('############', at + 1))
    counterAt.push(at);
  return { request, counterAt };
}

/** Requests of one size on both servers. */
async function single(
  servers: readonly BenchServer[],
  name: string,
  bytes: number,
  limits: { floor: number; target: number },
) {
  const request = logRequest(bytes);
  const turns = await rotate(servers, () => ({ connections: CONNECTIONS, request }));
  const ours = turns.get('modeltap');
  const bare = turns.get('node204');
  const cpu = medianRatio(ours?.cpuMicros ?? [], bare?.cpuMicros ?? []);
  const note = `${Math.round(median(ours?.perSecond ?? []))}/s against ${Math.round(median(bare?.perSecond ?? []))}/s; CPU a request × ${cpu.toFixed(2)}; p99 ${Math.min(...(ours?.p99Ms ?? [])).toFixed(1)} against ${Math.min(...(bare?.p99Ms ?? [])).toFixed(1)} ms`;
  return {
    name,
    ratio: medianRatio(ours?.perSecond ?? [], bare?.perSecond ?? []),
    ...limits,
    lowerIsBetter: false,
    note,
  };
}

/** Runs the three rows. */
export async function run(): Promise<BenchRow[]> {
  const servers = [await startServer(import.meta.url, 'node204'), await startServer(import.meta.url, 'modeltap')];
  try {
    const rows: BenchRow[] = [];
    rows.push(
      await single(servers, '0.8 KB × 64 connections: requests/s to node204', 800, { floor: 0.65, target: 0.85 }),
    );
    rows.push(
      await single(servers, '16 KB × 64 connections: requests/s to node204', 16_000, { floor: 0.6, target: 0.8 }),
    );
    const batch = batchRequest();
    const one = logRequest(800);
    const turns = await rotate(servers, (server) =>
      server.name === 'modeltap'
        ? { connections: BATCH_CONNECTIONS, ...batch }
        : { connections: CONNECTIONS, request: one },
    );
    const events = (turns.get('modeltap')?.perSecond ?? []).map((perSecond) => perSecond * EVENTS);
    const micros = median(turns.get('modeltap')?.cpuMicros ?? []) / EVENTS;
    rows.push({
      name: '100 events a request: events/s to node204 requests/s',
      ratio: medianRatio(events, turns.get('node204')?.perSecond ?? []),
      floor: 4,
      target: 7,
      lowerIsBetter: false,
      note: `${Math.round(median(events))} events/s, ${micros.toFixed(1)} µs CPU an event, ${Math.round(batch.request.length / EVENTS)} bytes an event`,
    });
    return rows;
  } finally {
    for (const server of servers) await server.stop();
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const serve = process.argv.indexOf('--serve');
  if (serve < 0) await runDirectly(import.meta.url, run);
  else if (process.argv[serve + 1] === 'node204') serveNode204();
  else await serveModeltap();
}
