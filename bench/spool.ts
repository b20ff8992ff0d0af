/**
 * Durable appends of 1 KB from 64 closed-loop clients: the spool against one write + fdatasync per event, and against the
 * very same spool on files that never sync. The three take turns in every round; a row is the median of the per-round
 * ratios. `BENCH_ROUNDS` (7) and `BENCH_SECONDS` (1, per turn) shorten it; `BENCH_DIR` names a directory on the disk to measure.
 */
import { close, fdatasync, open, write } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { realEffects, realFiles } from '../packages/modeltap/src/spool/files.ts';
import { openSpool } from '../packages/modeltap/src/spool/spool.ts';
import type { BenchRow } from './harness.ts';

const CLIENTS = 64;
const EVENT = Buffer.alloc(1024, 'x');
const MiB = 1024 * 1024;

/** A way to append: starts one append and calls `done` when it may be acknowledged. */
interface Way {
  append(done: () => void): void;
  /** Called between rounds. */
  rest(): Promise<void>;
  close(): Promise<void>;
}

/** Events per second of `CLIENTS` clients that each start the next append when the last one is acknowledged. */
function measure(way: Way, seconds: number): Promise<{ rate: number; cpu: number }> {
  return new Promise((resolve) => {
    const begin = performance.now();
    const cpu = process.cpuUsage();
    let count = 0;
    let active = CLIENTS;
    const done = () => {
      count += 1;
      const passed = performance.now() - begin;
      if (passed < seconds * 1000) way.append(done);
      else if ((active -= 1) === 0) {
        const { user, system } = process.cpuUsage(cpu);
        resolve({ rate: (count / passed) * 1000, cpu: (user + system) / count });
      }
    };
    for (let client = 0; client < CLIENTS; client += 1) way.append(done);
  });
}

async function spool(directory: string, durable: boolean): Promise<Way> {
  const files = durable ? realFiles : { ...realFiles, open: (path: string) => realFiles.open(path, 'plain') };
  const writer = await openSpool({ directory, maxBytes: 256 * MiB }, { ...realEffects, files });
  const parts = [EVENT];
  writer.onCommit((committed) => {
    if (committed - writer.released > 64 * MiB) void writer.release(committed);
  });
  return {
    append(done) {
      const taken = writer.append(parts, (refusal) => {
        if (refusal !== undefined) process.exitCode = 1;
        done();
      });
      if (!taken) setImmediate(done);
    },
    rest: () => writer.release(writer.committed),
    close: () => writer.close(),
  };
}

/** What an agent without group commit does: each event is written and synced, one behind the other. */
async function perEvent(path: string): Promise<Way> {
  const fd = await promisify(open)(path, 'w');
  const waiting: (() => void)[] = [];
  let busy = false;
  const next = () => {
    const done = waiting.shift();
    busy = done !== undefined;
    if (done === undefined) return;
    write(fd, EVENT, 0, EVENT.length, null, () => {
      fdatasync(fd, () => {
        next();
        done();
      });
    });
  };
  return {
    append(done) {
      waiting.push(done);
      if (!busy) next();
    },
    rest: () => Promise.resolve(),
    close: () => promisify(close)(fd),
  };
}

/** Nanoseconds per event of copying alone, and of `append` of the same event, both on this thread. */
async function hotPath(directory: string): Promise<{ copy: number; append: number }> {
  const rounds = 60;
  const events = 4000;
  const writer = await openSpool({ directory, maxBytes: 256 * MiB });
  const target = Buffer.alloc(8 * MiB);
  const parts = [EVENT];
  const best = { copy: Number.POSITIVE_INFINITY, append: Number.POSITIVE_INFINITY };
  for (let round = 0; round < rounds; round += 1) {
    let begin = performance.now();
    for (let i = 0; i < events; i += 1) target.set(EVENT, i * EVENT.length);
    best.copy = Math.min(best.copy, ((performance.now() - begin) * 1e6) / events);
    begin = performance.now();
    for (let i = 1; i < events; i += 1) writer.append(parts, () => undefined);
    const spent = performance.now() - begin;
    await new Promise<void>((resolve) => {
      writer.append(parts, () => resolve());
    });
    best.append = Math.min(best.append, (spent * 1e6) / events);
    await writer.release(writer.committed);
  }
  await writer.close();
  return best;
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

/** Runs the comparison in a directory of its own, which is removed. */
export async function run(): Promise<BenchRow[]> {
  const rounds = Number(process.env.BENCH_ROUNDS ?? 7);
  const seconds = Number(process.env.BENCH_SECONDS ?? 1);
  const directory = await mkdtemp(join(process.env.BENCH_DIR ?? tmpdir(), 'modeltap-bench-spool-'));
  const ways = [
    await spool(join(directory, 'durable'), true),
    await perEvent(join(directory, 'events')),
    await spool(join(directory, 'unsynced'), false),
  ] as const;
  try {
    for (const way of ways) await measure(way, Math.min(seconds, 0.5));
    const toEach: number[] = [];
    const toUnsynced: number[] = [];
    const seen = { rate: [] as number[], cpu: [] as number[] };
    for (let round = 0; round < rounds; round += 1) {
      const ours = await measure(ways[0], seconds);
      const each = await measure(ways[1], seconds);
      const unsynced = await measure(ways[2], seconds);
      for (const way of ways) await way.rest();
      toEach.push(ours.rate / each.rate);
      toUnsynced.push(ours.rate / unsynced.rate);
      seen.rate.push(ours.rate);
      seen.cpu.push(ours.cpu);
    }
    const note = `${Math.round(median(seen.rate) / 1000)} k events/s, ${median(seen.cpu).toFixed(1)} µs CPU per event`;
    const hot = await hotPath(join(directory, 'hot'));
    const hotNote = `append ${hot.append.toFixed(0)} ns, copy ${hot.copy.toFixed(0)} ns`;
    return [
      row('group commit ×64 / write+fdatasync per event', median(toEach), { floor: 20, target: 35, note }),
      row('group commit ×64 / same batching, never synced', median(toUnsynced), { floor: 0.1, target: 0.2 }),
      {
        ...row('append beyond memcpy, µs, 1 KB', (hot.append - hot.copy) / 1000, {
          floor: 1.5,
          target: 1,
          note: hotNote,
        }),
        lowerIsBetter: true,
      },
    ];
  } finally {
    for (const way of ways) await way.close();
    await rm(directory, { recursive: true, force: true });
  }
}

function row(name: string, ratio: number, about: { floor: number; target: number; note?: string }): BenchRow {
  return { name, ratio, ...about, lowerIsBetter: false };
}

if (import.meta.main) {
  for (const { name, ratio, floor, target, note = '' } of await run()) {
    console.log(`${name}: ${ratio.toFixed(2)} (floor ${floor}, target ${target}) ${note}`);
  }
}
