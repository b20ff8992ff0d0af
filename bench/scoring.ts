/**
 * What collection costs a scoring request: p50 and p99 through the score server with collection on, against the same
 * script without it. The agent of the collector is up (a server that answers 204), slow (500 ms an answer) or down.
 *
 * Four servers are up all the time. One load process asks them in turn, in short slices, at a moderate load (a few
 * connections with a pause between requests). A round has a few slices of each; the figures are medians over rounds of
 * the ratio within a round. The load and the agents are processes of their own, since they compete for the machine's
 * cores in the real world too.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { BenchRow } from './harness.ts';

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 9);
const SLICES = 3;
const SLICE_MS = (Number(process.env.BENCH_SECONDS ?? 1) * 1000) / SLICES;
const CONNECTIONS = 4;
const PAUSE_MS = 8;
const COLUMNS = 20;
const SERVER = resolve(import.meta.dirname, '../packages/modeltap/src/deployment/score-server.ts');

/**
 * The scoring script, with collection or without. The model is ten small dense networks, about 1 ms a row; the notes of
 * the rows have the milliseconds, so that the cost beside another model can be worked out. Typed arrays, since the speed
 * of ordinary ones depends on what V8 has seen before, and differed by half between two scripts with the same model.
 */
const SCRIPT = `
const WIDTHS = [${COLUMNS}, 256, 256];
const layers = WIDTHS.map((width) => new Float64Array(width));
const weights = WIDTHS.slice(1).map((width, index) => Float64Array.from({ length: width * WIDTHS[index] }, (_, at) => Math.sin(at)));
function predict(row) {
  layers[0].set(Object.values(row));
  let score = 0;
  for (let member = 0; member < 10; member += 1) score += network();
  return { score, label: score > 0.5 ? 'a' : 'b' };
}
function network() {
  for (let index = 0; index < weights.length; index += 1) {
    const from = layers[index];
    const to = layers[index + 1];
    const matrix = weights[index];
    for (let out = 0, at = 0; out < to.length; out += 1) {
      let sum = 0;
      for (let back = 0; back < from.length; back += 1, at += 1) sum += from[back] * matrix[at];
      to[out] = sum > 0 ? sum : 0;
    }
  }
  return layers.at(-1)[0];
}
let inputs, outputs;
export async function init() {
  if (process.env.COLLECT !== 'on') return;
  const { Collector } = await import('@modeltap/collector');
  // A full queue, with the agent down, must not fail the request.
  const onError = () => {};
  inputs = new Collector({ name: 'model_inputs', onError });
  outputs = new Collector({ name: 'model_outputs', onError });
}
export function run(data) {
  const { rows } = JSON.parse(data);
  const context = inputs?.collect(rows);
  const answer = rows.map(predict);
  outputs?.collect(answer, context);
  return answer;
}
`;
const CONFIG = JSON.stringify({
  collections: {
    model_inputs: { enabled: true, sampleRatePercentage: 100 },
    model_outputs: { enabled: true, sampleRatePercentage: 100 },
  },
});

const VARIANTS = ['off', 'up', 'slow', 'down'] as const;
type Variant = (typeof VARIANTS)[number];
type Round = Record<Variant, { readonly p50: number; readonly p99: number; readonly count: number }>;

/** Runs the benchmark; it takes (rounds + 1) × 4 × `BENCH_SECONDS`. */
export async function run(): Promise<BenchRow[]> {
  const folder = mkdtempSync(join(tmpdir(), 'modeltap-scoring-bench-'));
  writeFileSync(join(folder, 'score.mjs'), SCRIPT);
  writeFileSync(join(folder, 'mdc.json'), CONFIG);
  const children: ChildProcess[] = [];
  const start = async (file: string, args: string[], env: NodeJS.ProcessEnv): Promise<[ChildProcess, number]> => {
    const child = fork(file, args, { env, stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
    children.push(child);
    return [child, await portOf(child)];
  };
  const own = (role: string) => start(import.meta.filename, [role], process.env);
  const server = async (collect: 'on' | 'off', agentPort: number): Promise<number> => {
    const [, port] = await start(SERVER, [], {
      PATH: process.env.PATH,
      AML_APP_ROOT: folder,
      AZUREML_ENTRY_SCRIPT: 'score.mjs',
      COLLECT: collect,
      AZUREML_MDC_CONFIG_PATH: join(folder, 'mdc.json'),
      AZUREML_MDC_PORT: String(agentPort),
      MODELTAP_MAX_CONCURRENT_REQUESTS: '16',
      NODE_NO_WARNINGS: '1',
    });
    return port;
  };
  try {
    const [load] = await own('load');
    const ports: Record<Variant, number> = {
      off: await server('off', 0),
      up: await server('on', (await own('agent-up'))[1]),
      slow: await server('on', (await own('agent-slow'))[1]),
      down: await server('on', await closedPort()),
    };
    return rowsOf(await measure(load, ports));
  } finally {
    for (const child of children) child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The first round warms up and is thrown away. */
async function measure(load: ChildProcess, ports: Record<Variant, number>): Promise<Round[]> {
  const rounds: Round[] = [];
  for (let round = 0; round <= ROUNDS; round += 1) {
    const times: Record<Variant, number[]> = { off: [], up: [], slow: [], down: [] };
    for (let step = 0; step < SLICES * VARIANTS.length; step += 1) {
      const variant = VARIANTS[(round + step) % VARIANTS.length] ?? 'off';
      load.send({ port: ports[variant], ms: SLICE_MS });
      const [answer] = (await once(load, 'message')) as [{ times?: number[]; error?: string }];
      if (answer.times === undefined) throw new Error(answer.error);
      times[variant].push(...answer.times);
    }
    const entries = VARIANTS.map((variant) => [variant, percentiles(times[variant])] as const);
    if (round > 0) rounds.push(Object.fromEntries(entries) as Round);
  }
  return rounds;
}

function percentiles(times: readonly number[]): Round[Variant] {
  const sorted = times.toSorted((a, b) => a - b);
  const at = (part: number) => sorted[Math.floor(sorted.length * part)] ?? Number.NaN;
  return { p50: at(0.5), p99: at(0.99), count: sorted.length };
}

function rowsOf(rounds: readonly Round[]): BenchRow[] {
  const on = VARIANTS.filter((variant) => variant !== 'off');
  return on.flatMap((variant) =>
    (['p50', 'p99'] as const).map((key) => {
      const ms = (which: Variant) => median(rounds.map((round) => round[which][key])).toFixed(3);
      return {
        name: `scoring ${key}, collection on / off, agent ${variant}`,
        ratio: median(rounds.map((round) => round[variant][key] / round.off[key])),
        target: 1.05,
        // The p99 of a round is its third-worst request or so, on a machine that is shared.
        floor: key === 'p50' ? 1.1 : 1.3,
        lowerIsBetter: true,
        note: `${ms(variant)} ms against ${ms('off')} ms, ${rounds[0]?.off.count ?? 0} requests a round`,
      };
    }),
  );
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

/** The port a child tells; an error with what it wrote when it ends instead. */
function portOf(child: ChildProcess): Promise<number> {
  let text = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    text = (text + chunk.toString()).slice(-2000);
  });
  return new Promise((done, fail) => {
    child.once('message', (message) => done((message as { port: number }).port));
    child.once('exit', () => fail(new Error(`a process of the benchmark ended: ${text}`)));
  });
}

async function closedPort(): Promise<number> {
  const server = createTcpServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** Child: an agent that takes everything, `delayMs` late. */
function serveAgent(delayMs: number): void {
  const server = createServer((request, response) => {
    const answer = () => response.writeHead(204).end();
    request.on('data', () => undefined);
    request.on('end', () => (delayMs === 0 ? answer() : setTimeout(answer, delayMs)));
  });
  server.listen(0, '127.0.0.1', () => process.send?.({ port: (server.address() as AddressInfo).port }));
}

/** Child: the load. Told a port and a time, it answers with the milliseconds of every request. */
function serveLoad(): void {
  const row = Object.fromEntries(Array.from({ length: COLUMNS }, (_, index) => [`feature_${index}`, Math.cos(index)]));
  const body = JSON.stringify({ rows: [row] });
  const bytes = Buffer.from(
    `POST /score HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  );
  process.on('message', ({ port, ms }: { port: number; ms: number }) => {
    slice(port, ms, bytes).then(
      (times) => process.send?.({ times }),
      (error: unknown) => process.send?.({ error: String(error) }),
    );
  });
  process.send?.({ port: 0 });
}

async function slice(port: number, ms: number, bytes: Buffer): Promise<number[]> {
  const times: number[] = [];
  const end = performance.now() + ms;
  const client = async (_: unknown, index: number) => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true });
    await once(socket, 'connect');
    // Spread the connections over the pause, so that they do not ask in step.
    await pause((PAUSE_MS * index) / CONNECTIONS);
    while (performance.now() < end) {
      const began = performance.now();
      socket.write(bytes);
      await wholeAnswer(socket);
      times.push(performance.now() - began);
      await pause(PAUSE_MS);
    }
    socket.destroy();
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, client));
  return times;
}

const pause = (ms: number) => new Promise((done) => setTimeout(done, ms));

/** Reads one answer with a Content-Length; anything but 200 stops the benchmark. */
function wholeAnswer(socket: Socket): Promise<void> {
  return new Promise((done, fail) => {
    let text = '';
    const lost = () => fail(new Error('the score server closed the connection'));
    const take = (chunk: Buffer) => {
      text += chunk.toString('latin1');
      const head = text.indexOf('\r\n\r\n');
      const length = /content-length: (\d+)/i.exec(text)?.[1];
      if (head < 0 || length === undefined || text.length < head + 4 + Number(length)) return;
      socket.off('data', take);
      socket.off('close', lost);
      if (text.startsWith('HTTP/1.1 200 ')) done();
      else fail(new Error(`unexpected answer: ${text.slice(0, 200)}`));
    };
    socket.on('data', take);
    socket.once('close', lost);
  });
}

const [role] = process.argv.slice(2);
if (role === 'agent-up') serveAgent(0);
else if (role === 'agent-slow') serveAgent(500);
else if (role === 'load') serveLoad();
else if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  for (const row of await run()) console.log(`${row.ratio.toFixed(3)}  ${row.name}  ${row.note ?? ''}`);
}
