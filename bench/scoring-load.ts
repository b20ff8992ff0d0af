/**
 * What the scoring benchmarks share: one load process asks four score servers in turn (collection off; on with the agent
 * up, slow and down), in short slices, at a moderate load (a few connections with a pause between requests). A round has
 * a few slices of each; the figures are medians over rounds of the ratio within a round. The load and the agents are
 * processes of their own, since they compete for the machine's cores in the real world too.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from 'node:net';
import type { BenchRow } from './harness.ts';

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 9);
const SLICES = 3;
const SLICE_MS = (Number(process.env.BENCH_SECONDS ?? 1) * 1000) / SLICES;
const CONNECTIONS = 4;
const PAUSE_MS = 8;
/** Columns of the row every request holds, `{"rows":[{"feature_0":…}]}`. */
export const COLUMNS = 20;

/** Collection off, or on with the agent in this state. */
export const VARIANTS = ['off', 'up', 'slow', 'down'] as const;
/** One of them. */
export type Variant = (typeof VARIANTS)[number];

/** What one server did in one round. */
export interface Figures {
  readonly p50: number;
  readonly p99: number;
  readonly count: number;
  /** Requests a second without pauses; 0 when it was not asked for. */
  readonly perSecond: number;
}

/** All of them in one round. */
export type Round = Record<Variant, Figures>;

/** Load and agents, as processes. */
export interface ScoringRig {
  /** Starts a process of the benchmark that tells its port over IPC, and ends it with the others. */
  start(file: string, args: readonly string[], env: NodeJS.ProcessEnv): Promise<number>;
  /** Ends this process with the others. */
  keep(child: ChildProcess): void;
  /** Port of an agent that is up (answers 204), slow (500 ms an answer) or down (a closed port). */
  agentPort(state: 'up' | 'slow' | 'down'): Promise<number>;
  /** Loads the servers in turn; `throughput` also asks each without pauses. The first round warms up and is thrown away. */
  measure(ports: Record<Variant, number>, throughput: boolean): Promise<Round[]>;
  close(): void;
}

/** Starts the load process; agents when they are asked for. */
export async function scoringRig(): Promise<ScoringRig> {
  const children: ChildProcess[] = [];
  const startChild = async (file: string, args: readonly string[], env: NodeJS.ProcessEnv) => {
    const child = fork(file, [...args], { env, stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
    children.push(child);
    return { child, port: await portOf(child) };
  };
  const { child: load } = await startChild(import.meta.filename, ['load'], process.env);
  return {
    start: async (file, args, env) => (await startChild(file, args, env)).port,
    keep: (child) => void children.push(child),
    agentPort: async (state) =>
      state === 'down' ? closedPort() : (await startChild(import.meta.filename, [`agent-${state}`], process.env)).port,
    measure: (ports, throughput) => measure(load, ports, throughput),
    close: () => {
      for (const child of children) child.kill('SIGKILL');
    },
  };
}

async function measure(load: ChildProcess, ports: Record<Variant, number>, throughput: boolean): Promise<Round[]> {
  const rounds: Round[] = [];
  const ask = async (variant: Variant, pauseMs: number) => {
    load.send({ port: ports[variant], ms: SLICE_MS, pauseMs });
    const [answer] = (await once(load, 'message')) as [{ times?: number[]; error?: string }];
    if (answer.times === undefined) throw new Error(`${variant}: ${answer.error}`);
    return answer.times;
  };
  for (let round = 0; round <= ROUNDS; round += 1) {
    const times: Record<Variant, number[]> = { off: [], up: [], slow: [], down: [] };
    const flatOut: Record<Variant, number> = { off: 0, up: 0, slow: 0, down: 0 };
    for (let step = 0; step < SLICES * VARIANTS.length; step += 1) {
      const variant = VARIANTS[(round + step) % VARIANTS.length] ?? 'off';
      times[variant].push(...(await ask(variant, PAUSE_MS)));
      if (throughput) flatOut[variant] += (await ask(variant, 0)).length;
    }
    const seconds = (SLICES * SLICE_MS) / 1000;
    const entries = VARIANTS.map(
      (variant) => [variant, { ...percentiles(times[variant]), perSecond: flatOut[variant] / seconds }] as const,
    );
    if (round > 0) rounds.push(Object.fromEntries(entries) as Round);
  }
  return rounds;
}

function percentiles(times: readonly number[]): Omit<Figures, 'perSecond'> {
  const sorted = times.toSorted((a, b) => a - b);
  const at = (part: number) => sorted[Math.floor(sorted.length * part)] ?? Number.NaN;
  return { p50: at(0.5), p99: at(0.99), count: sorted.length };
}

/** p50 and p99 with collection on against off, for each state of the agent. */
export function latencyRows(title: string, rounds: readonly Round[], target: number): BenchRow[] {
  const on = VARIANTS.filter((variant) => variant !== 'off');
  return on.flatMap((variant) =>
    (['p50', 'p99'] as const).map((key) => {
      const ms = (which: Variant) => median(rounds.map((round) => round[which][key])).toFixed(3);
      return {
        name: `${title} ${key}, collection on / off, agent ${variant}`,
        ratio: median(rounds.map((round) => round[variant][key] / round.off[key])),
        target,
        // The p99 of a round is its third-worst request or so, on a machine that is shared.
        floor: key === 'p50' ? target + 0.05 : target + 0.25,
        lowerIsBetter: true,
        note: `${ms(variant)} ms against ${ms('off')} ms, ${rounds[0]?.off.count ?? 0} requests a round`,
      };
    }),
  );
}

/** The middle of the values. */
export function median(values: readonly number[]): number {
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
  process.on('message', ({ port, ms, pauseMs }: { port: number; ms: number; pauseMs: number }) => {
    slice({ port, ms, pauseMs }, bytes).then(
      (times) => process.send?.({ times }),
      (error: unknown) => process.send?.({ error: String(error) }),
    );
  });
  process.send?.({ port: 0 });
}

async function slice(
  { port, ms, pauseMs }: { port: number; ms: number; pauseMs: number },
  bytes: Buffer,
): Promise<number[]> {
  const times: number[] = [];
  const end = performance.now() + ms;
  const client = async (_: unknown, index: number) => {
    // Spread the connections over the pause, so that they do not ask in step.
    await pause((pauseMs * index) / CONNECTIONS);
    let socket: Socket | undefined;
    while (performance.now() < end) {
      const began = performance.now();
      if (socket === undefined) {
        socket = connect({ port, host: '127.0.0.1', noDelay: true });
        await once(socket, 'connect');
      }
      socket.write(bytes);
      // gunicorn's plain workers answer one request a connection.
      if ((await wholeAnswer(socket)) === 'last') {
        socket.destroy();
        socket = undefined;
      }
      times.push(performance.now() - began);
      if (pauseMs > 0) await pause(pauseMs);
    }
    socket?.destroy();
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, client));
  return times;
}

const pause = (ms: number) => new Promise((done) => setTimeout(done, ms));

/** Reads one answer with a Content-Length; anything but 200 stops the benchmark. `last`: the server ends the connection. */
function wholeAnswer(socket: Socket): Promise<'last' | 'kept'> {
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
      if (text.startsWith('HTTP/1.1 200 ')) done(/\r\nconnection: close\r\n/i.test(text) ? 'last' : 'kept');
      else fail(new Error(`unexpected answer: ${text.slice(0, 200)}`));
    };
    socket.on('data', take);
    socket.once('close', lost);
  });
}

const [role] = process.argv.slice(2);
if (process.argv[1] === import.meta.filename) {
  if (role === 'agent-up') serveAgent(0);
  else if (role === 'agent-slow') serveAgent(500);
  else if (role === 'load') serveLoad();
}
