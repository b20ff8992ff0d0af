/**
 * What the HTTP benchmarks share: servers started once as child processes, a closed-loop load generator on raw sockets
 * in a process of its own, rounds in rotation, and ratios taken per round, because absolute figures of a shared machine
 * mean little. `BENCH_ROUNDS` (7) and `BENCH_SECONDS` (1, per turn) shorten it; `BENCH_DIR` names the directory for spools.
 */
import { type ChildProcess, fork, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';

/** One measured ratio with the limits it is held to. */
export interface BenchRow {
  readonly name: string;
  readonly ratio: number;
  /** Beyond it the benchmark fails. */
  readonly floor: number;
  readonly target: number;
  readonly lowerIsBetter: boolean;
  readonly note?: string;
}

/** A server in a child process. */
export interface BenchServer {
  readonly name: string;
  readonly port: number;
  /** CPU time used so far, seconds (user and system), or NaN where /proc is missing. */
  cpuSeconds(): number;
  stop(): Promise<void>;
}

/** What a load generator does in one turn. */
export interface LoadOptions {
  readonly port: number;
  readonly connections: number;
  readonly seconds: number;
  /** The whole request, head and body. */
  readonly request: Buffer;
  /** Places in the request where a counter of 12 digits is written before each send, so that ids differ. */
  readonly counterAt?: readonly number[];
  /** Pause between an answer and the next request, milliseconds. */
  readonly pauseMs?: number;
}

/** What came of it. */
export interface LoadResult {
  readonly requests: number;
  /** Answers that were not 204. */
  readonly errors: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Number of rounds and seconds per turn, from the environment. */
export function rounds(): { readonly count: number; readonly seconds: number } {
  return { count: Number(process.env['BENCH_ROUNDS'] ?? 7), seconds: Number(process.env['BENCH_SECONDS'] ?? 1) };
}

/** The middle of the values. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? Number.NaN)
    : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}

const canPin = availableParallelism() >= 2 && spawnSync('taskset', ['-c', '0', 'true']).status === 0;

function start(script: string, args: readonly string[], cpu: number): ChildProcess {
  const child = fork(script, args, { execArgv: ['--disable-warning=ExperimentalWarning'], serialization: 'advanced' });
  if (canPin && child.pid !== undefined) spawnSync('taskset', ['-a', '-p', '-c', String(cpu), String(child.pid)]);
  return child;
}

/** Starts `script` with `--serve name`: it must send `{ port }` over IPC. Runs on CPU 0 where pinning is possible. */
export async function startServer(script: string, name: string): Promise<BenchServer> {
  const child = start(fileURLToPath(script), ['--serve', name], 0);
  const [message] = (await once(child, 'message')) as [{ port: number }];
  return {
    name,
    port: message.port,
    cpuSeconds: () => cpuOf(child.pid ?? 0),
    async stop() {
      const gone = once(child, 'exit');
      child.send('stop');
      await gone;
    },
  };
}

/** CPU time a process has used, seconds (user and system); NaN without such a process or without /proc. */
export function cpuOf(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // Fields 14 and 15, counted behind the name, which may hold blanks; in ticks of 10 ms.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) / 100;
  } catch {
    // No /proc on this system.
    return Number.NaN;
  }
}

/** A process that makes load. Runs on CPU 1 where pinning is possible. */
export interface LoadGenerator {
  run(options: LoadOptions): Promise<LoadResult>;
  stop(): void;
}

/** Starts one. */
export function startLoad(): LoadGenerator {
  const child = start(fileURLToPath(import.meta.url), ['--load'], 1);
  return {
    async run(options) {
      const answer = once(child, 'message');
      child.send(options);
      const [result] = (await answer) as [LoadResult];
      return result;
    },
    stop: () => child.kill(),
  };
}

/** Ends the child of `startServer` when it is told to. */
export function onStop(stop: () => Promise<void>): void {
  process.once('message', () => {
    void stop().then(() => process.exit(0));
  });
}

/** A POST to `path` with these headers, ready to be sent. */
export function httpPost(path: string, headers: Readonly<Record<string, string>>, body: Buffer): Buffer {
  const lines = Object.entries({ host: '127.0.0.1', ...headers, 'content-length': String(body.length) });
  return Buffer.concat([
    Buffer.from(`POST ${path} HTTP/1.1\r\n${lines.map(([k, v]) => `${k}: ${v}\r\n`).join('')}\r\n`),
    body,
  ]);
}

/** JSON text of at least `bytes` bytes: rows of up to 20 columns like those of a tabular model, from a fixed seed. */
export function sampleRows(bytes: number): string {
  let seed = 42;
  const random = () => {
    seed = (seed * 1_103_515_245 + 12_345) & 0x7fff_ffff;
    return seed / 0x7fff_ffff;
  };
  const row = () => {
    const entries: [string, unknown][] = Array.from({ length: 20 }, (_, index) =>
      index < 15 ? [`feature_${index}`, random() * 100] : [`category_${index}`, `value ${Math.floor(random() * 10)}`],
    );
    return JSON.stringify(Object.fromEntries(entries));
  };
  const rows: string[] = [];
  for (let size = 1; size < bytes; size += (rows.at(-1)?.length ?? 0) + 1) {
    // The last row has only as many columns as are needed, so that small sizes are met.
    const next = row();
    const left = bytes - size - 2;
    const cut = left >= next.length ? -1 : next.indexOf(',', left);
    rows.push(cut < 0 ? next : `${next.slice(0, cut)}}`);
  }
  return `[${rows.join(',')}]`;
}

/** What one server did in every round. */
export interface Turns {
  readonly perSecond: readonly number[];
  /** CPU microseconds of the server per request. */
  readonly cpuMicros: readonly number[];
  readonly p99Ms: readonly number[];
}

/** Runs the same kind of load on each server in rotation and gives what each did, by name of the server. */
export async function rotate(
  servers: readonly BenchServer[],
  options: (server: BenchServer) => Omit<LoadOptions, 'port' | 'seconds'>,
): Promise<ReadonlyMap<string, Turns>> {
  const { count, seconds } = rounds();
  const load = startLoad();
  const all = new Map(
    servers.map(({ name }) => [name, { perSecond: [], cpuMicros: [], p99Ms: [] } as Record<keyof Turns, number[]>]),
  );
  try {
    for (const server of servers) await load.run({ ...options(server), port: server.port, seconds: seconds / 2 });
    for (let round = 0; round < count; round += 1) {
      for (const server of round % 2 === 0 ? servers : servers.toReversed()) {
        const before = server.cpuSeconds();
        const result = await load.run({ ...options(server), port: server.port, seconds });
        if (result.errors > 0) throw new RangeError(`${server.name} answered ${result.errors} requests with an error`);
        const turns = all.get(server.name);
        turns?.perSecond.push(result.perSecond);
        turns?.cpuMicros.push(((server.cpuSeconds() - before) * 1e6) / result.requests);
        turns?.p99Ms.push(result.p99Ms);
      }
    }
  } finally {
    load.stop();
  }
  return all;
}

/** Median of the per-round ratios a / b. */
export function medianRatio(a: readonly number[], b: readonly number[]): number {
  return median(a.map((value, index) => value / (b[index] ?? Number.NaN)));
}

/** Prints rows and sets the exit status when a file of benchmarks is called directly. */
export async function runDirectly(url: string, run: () => Promise<BenchRow[]>): Promise<void> {
  if (process.argv[1] !== fileURLToPath(url)) return;
  for (const row of await run()) {
    const bad = row.lowerIsBetter ? row.ratio > row.floor : row.ratio < row.floor;
    if (bad) process.exitCode = 1;
    console.log(
      `${bad ? 'BELOW' : 'ok   '} ${row.name}: ${row.ratio.toFixed(3)} (target ${row.target}, floor ${row.floor}) ${row.note ?? ''}`,
    );
  }
}

/** One closed loop: sends a request, waits for its answer, sends the next. */
function client(options: LoadOptions, state: LoadState): void {
  const request = Buffer.from(options.request);
  const socket = connect({ port: options.port, host: '127.0.0.1', noDelay: true });
  let sentAt = 0;
  let pending = '';
  const send = () => {
    if (performance.now() >= state.until) {
      socket.destroy();
      return;
    }
    state.counter += 1;
    if (options.counterAt !== undefined) {
      const digits = Buffer.from(String(state.counter).padStart(12, '0'));
      for (const at of options.counterAt) digits.copy(request, at);
    }
    sentAt = performance.now();
    socket.write(request);
  };
  socket.on('connect', send);
  socket.on('data', (chunk: Buffer) => {
    const answer = pending + chunk.toString('latin1');
    // Only answers without a body are expected; others count as errors and end the connection.
    if (!answer.endsWith('\r\n\r\n') && answer.startsWith('HTTP/1.1 204')) {
      pending = answer;
      return;
    }
    pending = '';
    if (!answer.startsWith('HTTP/1.1 204')) {
      state.errors += 1;
      socket.destroy();
      return;
    }
    state.latencies.push(performance.now() - sentAt);
    if (options.pauseMs === undefined) send();
    else setTimeout(send, options.pauseMs);
  });
  socket.on('error', () => {
    state.errors += 1;
  });
  socket.on('close', () => {
    state.open -= 1;
    if (state.open === 0) state.done();
  });
}

interface LoadState {
  until: number;
  counter: number;
  errors: number;
  open: number;
  latencies: number[];
  done: () => void;
}

/** The number of requests so far in this process, so that ids never repeat. */
let counter = Date.now() % 1_000_000_000;

async function generate(options: LoadOptions): Promise<LoadResult> {
  const begin = performance.now();
  const { connections, seconds } = options;
  const state: LoadState = {
    until: begin + seconds * 1000,
    counter,
    errors: 0,
    open: connections,
    latencies: [],
    done: () => undefined,
  };
  await new Promise<void>((done) => {
    state.done = done;
    for (let index = 0; index < connections; index += 1) client(options, state);
  });
  counter = state.counter;
  const elapsed = (performance.now() - begin) / 1000;
  const sorted = state.latencies.toSorted((a, b) => a - b);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
  return {
    requests: sorted.length,
    errors: state.errors,
    perSecond: sorted.length / elapsed,
    p50Ms: at(0.5),
    p99Ms: at(0.99),
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url) && process.argv[2] === '--load') {
  process.on('message', (options: LoadOptions) => {
    // Structured clone gives bytes back as a Uint8Array.
    void generate({ ...options, request: Buffer.from(options.request) }).then((result) => process.send?.(result));
  });
}
