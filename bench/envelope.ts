/**
 * In-process cost of checking a body: the WebAssembly scanner against `JSON.parse` on the same bytes, four sizes, taking
 * turns in every round.
 */
import { isFault, scanJson } from '../packages/modeltap/src/ingest/scan.ts';
import { type BenchRow, median, rounds, runDirectly, sampleRows } from './harness.ts';

/** MB/s of one way for about this long. */
function speed(text: Buffer, seconds: number, once: (text: Buffer) => void): number {
  const begin = performance.now();
  let times = 0;
  let elapsed = 0;
  do {
    for (let index = 0; index < 10; index += 1) once(text);
    times += 10;
    elapsed = performance.now() - begin;
  } while (elapsed < seconds * 1000);
  return (text.length * times) / elapsed / 1000;
}

/** The scanner's part: one row a size. */
export async function run(): Promise<BenchRow[]> {
  const { count, seconds } = rounds();
  const rows: BenchRow[] = [];
  for (const [name, bytes] of [
    ['0.4 KB', 400],
    ['0.8 KB', 800],
    ['16 KB', 16_000],
    ['1 MB', 1_000_000],
  ] as const) {
    const text = Buffer.from(sampleRows(bytes));
    const scan = (body: Buffer) => {
      if (isFault(scanJson(body))) throw new RangeError('the sample is not valid');
    };
    const parse = (body: Buffer) => {
      JSON.parse(body.toString());
    };
    const turn = seconds / 5;
    for (const way of [scan, parse]) speed(text, turn, way);
    const pairs = Array.from({ length: count }, () => [speed(text, turn, scan), speed(text, turn, parse)] as const);
    rows.push({
      name: `scanner MB/s to JSON.parse MB/s, ${name}`,
      ratio: median(pairs.map(([ours, theirs]) => ours / theirs)),
      floor: 3,
      target: 4.5,
      lowerIsBetter: false,
      note: `${Math.round(median(pairs.map(([ours]) => ours)))} against ${Math.round(median(pairs.map(([, theirs]) => theirs)))} MB/s`,
    });
  }
  return rows;
}

await runDirectly(import.meta.url, run);
