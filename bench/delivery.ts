import { mkdtemp, open, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../packages/modeltap/src/kit/clock.ts';
import { DELIVERY_DB, openDeliveryDatabase } from '../packages/modeltap/src/delivery/database.ts';
import { Journal } from '../packages/modeltap/src/delivery/journal.ts';
import { Lane } from '../packages/modeltap/src/delivery/lane.ts';
import { encodeHead, FLAG, maxHeadBytes } from '../packages/modeltap/src/record/codec.ts';
import { openDestinations } from '../packages/modeltap/src/record/destinations.ts';
import { openSpool, openSpoolReader } from '../packages/modeltap/src/spool/spool.ts';
import type { SpoolWriter } from '../packages/modeltap/src/spool/types.ts';
import { openStore } from '../packages/modeltap/src/storage/stores.ts';

/** One measured ratio. `floor` fails the run, `target` is what is aimed at. */
export interface BenchRow {
  readonly name: string;
  readonly ratio: number;
  readonly floor: number;
  readonly target: number;
  readonly lowerIsBetter: boolean;
  readonly note?: string;
}

const ROUNDS = 5;
const MiB = 1024 * 1024;

const ATTRIBUTES = Buffer.from(
  '{"type":"azureml.inference.model_inputs","datacontenttype":"application/json","modelversion":"default","collectdatatype":"pandas.core.frame.DataFrame","agent":"azureml-ai-monitoring/1.0.0"}',
);

function appendOne(writer: SpoolWriter, n: number, body: Buffer): Promise<void> {
  const head = {
    destinationId: 1,
    timeMs: 1_704_164_645_000 + n,
    receivedMs: 1_704_164_645_000 + n,
    attributes: ATTRIBUTES,
    id: '',
    correlationId: `5b3f1f6e-0000-4000-8000-${String(n).padStart(12, '0')}`,
    flags: FLAG.json | FLAG.array,
    rows: 1,
    bodyBytes: body.length,
  };
  const buffer = Buffer.alloc(maxHeadBytes(head));
  const parts = [buffer.subarray(0, encodeHead(buffer, 0, head)), body];
  return new Promise((resolve, reject) => {
    const taken = writer.append(parts, (refusal) => (refusal === undefined ? resolve() : reject(full(refusal))));
    if (!taken) reject(full(writer.refusal));
  });
}

function full(refusal: string): Error {
  return new Error(`the spool refused a record: ${refusal}`);
}

/** Time to ship this many records of one size from a spool to local disk, once. Gives milliseconds and bytes written. */
async function ship(root: string, bodyBytes: number, records: number): Promise<{ ms: number; bytes: number }> {
  const directory = join(root, 'spool');
  const writer = await openSpool({ directory, maxBytes: 512 * MiB });
  const destinations = await openDestinations(directory);
  await destinations.intern({
    endpoint: 'ep',
    deployment: 'blue',
    collection: 'model_inputs',
    source:
      '/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w/onlineEndpoints/ep/deployments/blue',
    datastore: 'disk',
    path: 'mdc/ep/blue/model_inputs',
    rollingRate: 'hour',
    batch: 'same_id',
    batchWindowMs: 500,
  });
  const body = Buffer.from(`[{"a":12345.678,"text":"${'x'.repeat(bodyBytes - 26)}"}]`);
  for (let n = 0; n < records; n += 200) {
    const batch = Array.from({ length: Math.min(200, records - n) }, (_, at) => appendOne(writer, n + at, body));
    await Promise.all(batch);
  }
  const journal = new Journal(openDeliveryDatabase(join(directory, DELIVERY_DB)));
  journal.bind(writer.spoolId);
  const reader = await openSpoolReader(directory);
  const rows = new Map(destinations.all().map((row) => [row.id, row]));
  const nothing = () => undefined;
  const lane = new Lane({
    datastore: 'disk',
    store: await openStore({ type: 'local', name: 'disk', path: join(root, 'blobs') }),
    reader,
    journal,
    spoolId: writer.spoolId,
    inlineBytes: 4 * MiB,
    source: { committed: () => writer.committed, arm: nothing },
    destinations: { get: (id) => rows.get(id), reload: async () => undefined },
    events: {
      released: nothing,
      state: nothing,
      cycle: nothing,
      retry: nothing,
      line: nothing,
      followed: nothing,
      log: nothing,
    },
    followed: () => false,
    clock: systemClock,
  });
  lane.drain();
  const started = performance.now();
  await lane.run();
  const ms = performance.now() - started;
  journal.close();
  await reader.close();
  await writer.close();
  let bytes = 0;
  for (const entry of await readdir(join(root, 'blobs'), { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) bytes += (await stat(join(entry.parentPath, entry.name))).size;
  }
  return { ms, bytes };
}

/** Time to read the spool's bytes and write as many as were stored, 8 MiB and one fdatasync at a time. */
async function copy(root: string, bytes: number): Promise<number> {
  const source = await open(join(root, 'source'), 'w+');
  const target = await open(join(root, 'copy'), 'w');
  try {
    const chunk = Buffer.alloc(8 * MiB, 'x');
    for (let at = 0; at < bytes; at += chunk.length)
      await source.write(chunk, 0, Math.min(chunk.length, bytes - at), at);
    await source.datasync();
    const started = performance.now();
    for (let at = 0; at < bytes; at += chunk.length) {
      const { bytesRead } = await source.read(chunk, 0, Math.min(chunk.length, bytes - at), at);
      await target.write(chunk, 0, bytesRead);
      await target.datasync();
    }
    return performance.now() - started;
  } finally {
    await source.close();
    await target.close();
  }
}

async function measure(name: string, bodyBytes: number, records: number): Promise<BenchRow> {
  const ratios: number[] = [];
  const rates: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const root = await mkdtemp(join(tmpdir(), 'modeltap-bench-'));
    try {
      const shipped = await ship(root, bodyBytes, records);
      const copied = await copy(root, shipped.bytes);
      ratios.push(copied / shipped.ms);
      rates.push(records / (shipped.ms / 1000));
    } finally {
      await rm(root, { recursive: true });
    }
  }
  const median = (values: number[]) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
  const rate = median(rates);
  const note = `${Math.round(rate / 1000)} k records/s, ${Math.round((rate * bodyBytes) / MiB)} MB/s of bodies`;
  return {
    name,
    ratio: median(ratios),
    ...(TARGETS[bodyBytes] ?? { floor: 0, target: 0 }),
    lowerIsBetter: false,
    note,
  };
}

/** Throughput of spool → local disk over plain copy + fdatasync of the same bytes. */
const TARGETS: Readonly<Record<number, { readonly floor: number; readonly target: number }>> = {
  800: { floor: 0.1, target: 0.25 },
  16_000: { floor: 0.2, target: 0.35 },
};

/** Runs the benchmark: about ten seconds. */
export async function run(): Promise<BenchRow[]> {
  return [
    await measure('delivery: 0.8 KB records, spool to local disk / file copy + fdatasync', 800, 60_000),
    await measure('delivery: 16 KB records, spool to local disk / file copy + fdatasync', 16_000, 6_000),
  ];
}

if (import.meta.main) for (const row of await run()) process.stdout.write(`${JSON.stringify(row)}\n`);
