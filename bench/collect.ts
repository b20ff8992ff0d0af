/**
 * `collect()` against one `JSON.stringify` of the same rows, in alternating rounds of one process. Uses the built SDK.
 * Prints one line a row when run by itself: name, ratio, target.
 */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Collector, type CorrelationContext } from '../packages/collector/dist/index.js';
import type { BenchRow } from './harness.ts';

type Row = Record<string, number | string | boolean>;

const COLUMNS = 20;
const WARM_ROUNDS = 20;
const ROUNDS = 40;
const MOST_SAMPLES = 20;
/** Rows of one sample, at least one call. */
const SAMPLE_ROWS = 50;
/** Rows between two looks at the CPU clock. */
const CPU_ROWS = 20_000;

/** An agent that takes everything and keeps nothing. */
function sink(): Promise<Server> {
  const server = createServer((request, response) => {
    request.resume();
    const limits = { 'modeltap-batch-max-bytes': '4194304', 'modeltap-batch-max-events': '1000' };
    request.on('end', () => response.writeHead(204, request.method === 'OPTIONS' ? limits : {}).end());
  });
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)));
}

/** Sixteen numbers with all their digits, two whole numbers, a category and a flag. Built key by key: a dictionary. */
function dictionaryRow(seed: number): Row {
  const row: Row = {};
  for (let i = 0; i < COLUMNS; i++) {
    const value = Math.sin(seed * 31 + i) * 1000;
    row[`feature_${i}`] =
      i === 3 || i === 11 ? Math.round(value) : i === 7 ? `category_${seed % 9}` : i === 15 ? value > 0 : value;
  }
  return row;
}

function rowsOf(count: number, shape: 'fast' | 'dict'): Row[] {
  const rows = Array.from({ length: count }, (_, index) => dictionaryRow(index));
  return shape === 'dict' ? rows : (JSON.parse(JSON.stringify(rows)) as Row[]);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

let kept = 0;

/**
 * The usual time of a call over the usual time of JSON.stringify: medians of short samples taken in turn, so that a
 * sample disturbed by another thread on the same cores does not count. What follows a call later is in `totalCpu`.
 */
async function ratio(
  rows: readonly Row[],
  work: (index: number) => void,
  between: () => Promise<unknown>,
): Promise<number> {
  const calls = Math.max(1, Math.round(SAMPLE_ROWS / rows.length));
  const samples = Math.max(2, Math.round((MOST_SAMPLES * SAMPLE_ROWS) / (rows.length * calls)));
  const reference: number[] = [];
  const measured: number[] = [];
  for (let round = 0; round < WARM_ROUNDS + ROUNDS; round++) {
    for (let sample = 0; sample < samples; sample++) {
      const from = performance.now();
      for (let i = 0; i < calls; i++) kept += JSON.stringify(rows).length;
      const middle = performance.now();
      for (let i = 0; i < calls; i++) work(i);
      const end = performance.now();
      if (round < WARM_ROUNDS) continue;
      reference.push(middle - from);
      measured.push(end - middle);
    }
    await between();
  }
  return median(measured) / median(reference);
}

/** Calls of two collectors in turn, the second with the context of the first and with columns of its own. */
function inTurn(inputs: Collector, outputs: Collector): (index: number) => void {
  const asked = rowsOf(1, 'fast');
  const answer = Object.entries(dictionaryRow(1)).map(([key, value]) => [key.replace('feature', 'answer'), value]);
  const answered = JSON.parse(JSON.stringify([Object.fromEntries(answer)])) as Row[];
  let context: CorrelationContext | undefined;
  return (index) => {
    if (index % 2 === 0) context = inputs.collect(asked);
    else outputs.collect(answered, context);
  };
}

/** CPU time of this thread alone, in microseconds, where Node can tell it; else of the process. */
function threadCpu(): number {
  const usage = process.threadCpuUsage?.() ?? process.cpuUsage();
  return usage.user + usage.system;
}

/** CPU of the main thread for collecting and all that follows from it, over that of stringifying as often. */
async function totalCpu(rows: readonly Row[], collector: Collector): Promise<number> {
  const calls = Math.max(10, Math.round(CPU_ROWS / rows.length));
  const ratios: number[] = [];
  for (let round = 0; round < 9; round++) {
    let from = threadCpu();
    for (let i = 0; i < calls; i++) kept += JSON.stringify(rows).length;
    const reference = threadCpu() - from;
    from = threadCpu();
    for (let i = 0; i < calls; i++) collector.collect(rows);
    await collector.flush({ timeoutMs: 30_000 });
    ratios.push((threadCpu() - from) / reference);
  }
  return median(ratios.slice(2));
}

/** All figures. */
export async function run(): Promise<BenchRow[]> {
  // The agent must not use this thread: its work would be counted as the collector's.
  const { Worker } = await import('node:worker_threads');
  const agent = new Worker(new URL(import.meta.url), { workerData: 'sink' });
  const port = await new Promise<number>((resolve) => agent.once('message', resolve));
  const shared = { enabled: true, port, maxQueueBytes: 1_073_741_824, maxQueueItems: 10_000_000 } as const;
  const collector = new Collector({ name: 'model_inputs', ...shared });
  const sampled = new Collector({ name: 'model_outputs', ...shared, samplingRate: 0 });
  const flushed = () => collector.flush({ timeoutMs: 30_000 });
  const found: BenchRow[] = [];
  const add = (name: string, value: number, floor: number, target: number) =>
    found.push({ name, ratio: value, floor, target, lowerIsBetter: true, note: 'of one JSON.stringify' });
  for (const shape of ['fast', 'dict'] as const) {
    for (const count of [1, 50, 1000]) {
      const rows = rowsOf(count, shape);
      const [floor, target] = shape === 'fast' ? [0.3, 0.13] : [0.5, 0.35];
      add(
        `collect(${count}x${COLUMNS}) ${shape}`,
        await ratio(rows, () => collector.collect(rows), flushed),
        floor,
        target,
      );
    }
    // Before the other shape: rows of both shapes under the same keys would make the code that reads them slower.
    if (shape === 'fast') {
      const work = inTurn(collector, new Collector({ name: 'model_answers', ...shared }));
      add(`collect(1x${COLUMNS}), inputs and outputs in turn`, await ratio(rowsOf(1, shape), work, flushed), 0.3, 0.13);
    }
  }
  const one = rowsOf(1, 'fast');
  add(`collect(1x${COLUMNS}) sampled out`, await ratio(one, () => sampled.collect(one), flushed), 0.05, 0.03);
  for (const count of [1, 50, 1000]) {
    add(`main-thread CPU of collect(${count}x${COLUMNS})`, await totalCpu(rowsOf(count, 'fast'), collector), 1, 0.5);
  }
  await collector.close();
  await agent.terminate();
  return found;
}

async function serve(): Promise<void> {
  const { parentPort } = await import('node:worker_threads');
  const server = await sink();
  parentPort?.postMessage((server.address() as AddressInfo).port);
}

const { workerData, isMainThread } = await import('node:worker_threads');
if (!isMainThread && workerData === 'sink') {
  await serve();
} else if (import.meta.main) {
  for (const row of await run()) {
    console.log(`${row.name.padEnd(44)} ${row.ratio.toFixed(4)}  ${row.target}`);
  }
  if (kept < 0) console.log(kept);
}
