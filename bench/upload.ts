/**
 * Uploads through the object store against the vendor SDK's `uploadData` of the same bytes in the same blocks (4 MiB,
 * four at once), on Azurite. The ways take turns in every round; a row is the median of the per-round ratios of wall
 * time. One single request for everything is the SDK's default and faster on Azurite, which keeps each block in a file
 * of its own, but it can be neither grown nor repeated in part; its ratio is in the notes. `BENCH_ROUNDS` (5) and
 * `BENCH_BYTES` (32 MiB) shorten it.
 */
import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { ContainerClient, StorageSharedKeyCredential } from '@azure/storage-blob';
import { openAzureBlob } from '../packages/modeltap/src/storage/azure-blob.ts';
import type { ObjectStore } from '../packages/modeltap/src/storage/store.ts';
import { type Azurite, startAzurite } from '../test/support/azurite.ts';
import { startFaultyProxy } from '../test/support/faulty-proxy.ts';
import type { BenchRow } from './harness.ts';

const MiB = 1024 * 1024;

/** A way to bring the bytes to the store under a new key. */
type Way = (store: ObjectStore, key: string, bytes: Buffer) => Promise<void>;

const appendBy =
  (chunkBytes: number): Way =>
  async (store, key, bytes) => {
    for (let offset = 0; offset < bytes.length; offset += chunkBytes) {
      await store.append(key, bytes.subarray(offset, offset + chunkBytes), offset);
    }
  };

const WAYS: Readonly<Record<string, Way>> = {
  put: async (store, key, bytes) => {
    await store.put(key, bytes);
  },
  'put of a stream': async (store, key, bytes) => {
    const pieces = function* () {
      for (let at = 0; at < bytes.length; at += 256 * 1024) yield bytes.subarray(at, at + 256 * 1024);
    };
    await store.put(key, { bytes: bytes.length, open: () => Readable.from(pieces(), { objectMode: false }) });
  },
  'append by 16 MiB': appendBy(16 * MiB),
  'append by 4 MiB': appendBy(4 * MiB),
};

/** What the store does itself, so that the ratio shows what it adds. */
const SAME_BLOCKS = { blockSize: 4 * MiB, concurrency: 4, maxSingleShotSize: 0 };

const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;

async function timed(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}

function storeAt(azurite: Azurite, serviceUrl: string): Promise<ObjectStore> {
  const { accountName, accountKey } = azurite;
  const credentials = { kind: 'account_key', accountKey } as const;
  return openAzureBlob({
    type: 'azure_blob',
    name: 'bench',
    accountName,
    containerName: 'bench',
    serviceUrl,
    credentials,
  });
}

async function callsOf(azurite: Azurite, bytes: Buffer): Promise<Record<string, number>> {
  const proxy = await startFaultyProxy(azurite.serviceUrl);
  const store = await storeAt(azurite, proxy.url);
  const calls: Record<string, number> = {};
  for (const [name, way] of Object.entries(WAYS)) {
    const before = proxy.counts.seen;
    await way(store, `calls/${name}`, bytes);
    calls[name] = proxy.counts.seen - before;
  }
  await proxy.stop();
  return calls;
}

/** Rows of this benchmark. Floor and target of the wall time are those of the performance design. */
export async function run(): Promise<BenchRow[]> {
  const rounds = Number(process.env['BENCH_ROUNDS'] ?? 5);
  const bytes = randomBytes(Number(process.env['BENCH_BYTES'] ?? 32 * MiB));
  const azurite = await startAzurite();
  try {
    await azurite.createContainer('bench');
    const store = await storeAt(azurite, azurite.serviceUrl);
    const credential = new StorageSharedKeyCredential(azurite.accountName, azurite.accountKey);
    const vendor = new ContainerClient(`${azurite.serviceUrl}/bench`, credential);
    const ratios: Record<string, number[]> = {};
    const vendorMs: number[] = [];
    const single: number[] = [];
    for (let round = -1; round < rounds; round += 1) {
      const key = `round${round}`;
      const base = await timed(() => vendor.getBlockBlobClient(`${key}/blocks`).uploadData(bytes, SAME_BLOCKS));
      const whole = await timed(() => vendor.getBlockBlobClient(`${key}/single`).uploadData(bytes));
      for (const [name, way] of Object.entries(WAYS)) {
        const ms = await timed(() => way(store, `${key}/${name}`, bytes));
        // Round -1 warms up.
        if (round >= 0) (ratios[name] ??= []).push(ms / base);
      }
      for (const name of ['blocks', 'single', ...Object.keys(WAYS)]) await store.delete(`${key}/${name}`);
      if (round < 0) continue;
      vendorMs.push(base);
      single.push(whole / base);
    }
    const calls = await callsOf(azurite, bytes);
    const speed = `${Math.round(bytes.length / MiB / (median(vendorMs) / 1000))} MiB/s`;
    const note = `SDK in blocks ${speed}, in one request ×${median(single).toFixed(2)}`;
    return Object.entries(ratios).map(([name, values]) => ({
      name: `${name} / uploadData in blocks, ${bytes.length / MiB} MiB`,
      ratio: median(values),
      floor: 1.5,
      target: 1.15,
      lowerIsBetter: true,
      note: `${calls[name]} calls; ${note}`,
    }));
  } finally {
    await azurite.stop();
  }
}

if (import.meta.main) for (const row of await run()) console.log(row.name, row.ratio.toFixed(3), row.note ?? '');
