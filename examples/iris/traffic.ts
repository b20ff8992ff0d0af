import http from 'node:http';
import { FEATURES } from './predict.ts';
import { type Flower, readFlowers } from './flowers.ts';

/** What to send and where. */
export interface TrafficOptions {
  /** `http://…/score` of the deployment or its endpoint. */
  readonly scoringUri: string;
  /** A key of the endpoint; a server without access control needs none. */
  readonly key?: string | undefined;
  /** How many requests in all. */
  readonly requests: number;
  /** How many at a time, each on a kept-alive connection. 1 to 1024. */
  readonly concurrency: number;
  /** Default 1936. The same seed sends the same requests with the same ids. */
  readonly seed?: number;
  /** Called after each request. */
  readonly onProgress?: (done: number, total: number) => void;
  /** Once aborted no new request starts; those under way finish and count. */
  readonly signal?: AbortSignal;
}

/** What came back. `sent` = `ok` + `failed`. */
export interface TrafficResult {
  readonly sent: number;
  /** Answered with 200 and one species for each flower sent. */
  readonly ok: number;
  /** Flowers in the requests that are `ok`. */
  readonly rows: number;
  readonly failed: number;
  /** Of the requests that are `ok`; 0 when there is none. */
  readonly latencyMs: { readonly p50: number; readonly p99: number };
}

/** One request as it goes out. */
export interface TrafficRequest {
  readonly id: string;
  readonly rows: number;
  readonly body: string;
}

/** The year the data set was published. */
const FISHER_1936 = 1936;
const MAX_ROWS = 8;
const JITTER_CM = 0.1;
const EDGE_SHARE = 0.02;
const TIMEOUT_MS = 10_000;
const MAX_ANSWER_BYTES = 64 * 1024;

/**
 * The `index`-th request of a seed: 1 to 8 flowers of the data set, each measured again with a small error. One flower
 * in fifty is one a real caller gets wrong: millimetres instead of centimetres, a measure left at 0, or rounded to whole
 * centimetres. Depends on nothing but its arguments.
 */
export function trafficRequest(flowers: readonly Flower[], seed: number, index: number): TrafficRequest {
  const random = randomOf(seed, index);
  const rows = 1 + Math.floor(random() * MAX_ROWS);
  const data = Object.fromEntries(FEATURES.map((feature): [string, number[]] => [feature, []]));
  for (let row = 0; row < rows; row += 1) {
    const measures = measureAgain(flowers, random);
    FEATURES.forEach((feature, column) => data[feature]?.push(measures[column] ?? 0));
  }
  const id = `iris-${seed}-${String(index).padStart(6, '0')}`;
  return { id, rows, body: JSON.stringify({ data }) };
}

/** Sends `requests` requests and reads every answer. Throws `RangeError` or `TypeError` for options that make no sense. */
export async function sendTraffic(options: TrafficOptions): Promise<TrafficResult> {
  const uri = checkOptions(options);
  const { requests, concurrency, seed = FISHER_1936, key, onProgress, signal } = options;
  const flowers = readFlowers();
  const agent = new http.Agent({ keepAlive: true, maxSockets: concurrency });
  const access: http.OutgoingHttpHeaders = key === undefined ? {} : { authorization: `Bearer ${key}` };
  const latencies: number[] = [];
  let next = 0;
  let failed = 0;
  let rows = 0;
  const sendUntilDone = async (): Promise<void> => {
    for (;;) {
      if (next >= requests || signal?.aborted === true) return;
      const request = trafficRequest(flowers, seed, next);
      next += 1;
      const started = performance.now();
      if (await post(uri, { agent, access }, request)) {
        latencies.push(performance.now() - started);
        rows += request.rows;
      } else {
        failed += 1;
      }
      onProgress?.(latencies.length + failed, requests);
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(concurrency, requests) }, sendUntilDone));
  } finally {
    agent.destroy();
  }
  latencies.sort((a, b) => a - b);
  const ok = latencies.length;
  return {
    sent: ok + failed,
    ok,
    rows,
    failed,
    latencyMs: { p50: quantile(latencies, 0.5), p99: quantile(latencies, 0.99) },
  };
}

function checkOptions({ scoringUri, requests, concurrency }: TrafficOptions): URL {
  const uri = new URL(scoringUri);
  if (uri.protocol !== 'http:') throw new TypeError(`scoringUri must be an http:// address, not ${uri.protocol}`);
  if (!Number.isSafeInteger(requests) || requests < 0) throw new RangeError('requests must be a whole number');
  if (!Number.isInteger(concurrency) || concurrency < 1 || concurrency > 1024) {
    throw new RangeError('concurrency must be 1 to 1024');
  }
  return uri;
}

/** True when the answer is 200 and has a species for each flower. Never rejects. */
function post(
  uri: URL,
  { agent, access }: { agent: http.Agent; access: http.OutgoingHttpHeaders },
  request: TrafficRequest,
): Promise<boolean> {
  return new Promise((resolve) => {
    const headers = {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(request.body),
      'x-request-id': request.id,
      ...access,
    };
    const outgoing = http.request(uri, { method: 'POST', agent, headers }, (answer) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      answer.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes > MAX_ANSWER_BYTES) outgoing.destroy();
        else chunks.push(chunk);
      });
      answer.once('end', () => resolve(answer.statusCode === 200 && countSpecies(chunks) === request.rows));
      answer.once('close', () => resolve(false));
    });
    // One timer for the whole exchange: a socket timeout would start anew with every byte of a slow answer.
    const timer = setTimeout(() => outgoing.destroy(), TIMEOUT_MS);
    outgoing.once('error', () => resolve(false));
    outgoing.once('close', () => {
      clearTimeout(timer);
      resolve(false);
    });
    outgoing.end(request.body);
  });
}

function countSpecies(chunks: readonly Buffer[]): number {
  try {
    const answer: unknown = JSON.parse(Buffer.concat(chunks).toString('utf8'));
    const species = (answer as { species?: unknown } | null)?.species;
    return Array.isArray(species) ? species.length : -1;
  } catch {
    return -1;
  }
}

function measureAgain(flowers: readonly Flower[], random: () => number): number[] {
  const measures = flowers[Math.floor(random() * flowers.length)]?.measures ?? [];
  const again = measures.map((value) => Math.max(0.1, toTenths(value + normal(random) * JITTER_CM)));
  if (random() >= EDGE_SHARE) return again;
  const kind = Math.floor(random() * 3);
  if (kind === 0) return again.map((value) => toTenths(value * 10));
  if (kind === 1) return again.with(Math.floor(random() * again.length), 0);
  return again.map(Math.round);
}

/** Callipers of the time were read to a tenth of a centimetre. */
function toTenths(value: number): number {
  return Math.round(value * 10) / 10;
}

/** A draw of the standard normal distribution (Box and Muller 1958). */
function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** Uniform draws in [0,1): mulberry32 (Tommy Ettinger, public domain), one stream for each request of a seed. */
function randomOf(seed: number, index: number): () => number {
  let state = Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}

async function main(): Promise<void> {
  const [scoringUri, requests = '200'] = process.argv.slice(2);
  if (scoringUri === undefined) {
    console.error('usage: ENDPOINT_KEY=<key> node examples/iris/traffic.ts <scoring-uri> [requests]');
    process.exitCode = 2;
    return;
  }
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  try {
    const result = await sendTraffic({
      scoringUri,
      key: process.env.ENDPOINT_KEY,
      requests: Number(requests),
      concurrency: 4,
      signal: stop.signal,
    });
    const { p50, p99 } = result.latencyMs;
    console.log(`${result.ok} of ${result.sent} requests answered (${result.rows} flowers), ${result.failed} failed`);
    console.log(`latency: p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms`);
    if (result.failed > 0) process.exitCode = 1;
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error));
    process.exitCode = 2;
  }
}

if (import.meta.main) await main();
