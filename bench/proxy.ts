/**
 * What a tap costs: requests per second, processor time and added latency through it, against nginx (`proxy_pass`, and
 * `mirror`, which is how nginx would copy requests), where nginx is installed, and against a pipe of node:http.
 *
 * The server behind them all is a raw socket server that answers as long as it was asked; it lives with the load in one
 * process on one processor, the proxies on the other. All are up all the time and take turns of a second; figures are
 * medians over rounds of the ratio within a round. The tap writes to a real spool, synced to disk in the background.
 */
import { type ChildProcess, fork, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, request as httpRequest } from 'node:http';
import { type AddressInfo, connect, createServer as createRawServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bodyScanner } from '../packages/modeltap/src/agent/taps.ts';
import { silentLogger } from '../packages/modeltap/src/kit/logger.ts';
import { openSpool } from '../packages/modeltap/src/spool/spool.ts';
import { openTap } from '../packages/modeltap/src/tap/tap.ts';
import { createBudget, type TapSink, tapLimitsOf } from '../packages/modeltap/src/tap/types.ts';
import { type BenchRow, cpuOf, median, rounds, runDirectly, sampleRows } from './harness.ts';

const NGINX = ['nginx', '/usr/sbin/nginx', process.env.BENCH_NGINX ?? ''].find(
  (path) => path !== '' && spawnSync(path, ['-v']).status === 0,
);
/** What taps are measured: capture on and off, bodies cut at 64 KB, one in ten, and a spool that is behind or full. */
const TAPS = ['tap', 'tap-off', 'tap-cap', 'tap-sample', 'tap-slow', 'tap-dead'] as const;
type Variant = 'direct' | 'pipe' | 'nginx' | 'nginx-mirror' | (typeof TAPS)[number];

interface Turn {
  readonly perSecond: number;
  readonly p50Ms: number;
  /** Processor time of the proxy for a request, microseconds. */
  readonly cpuUs: number;
}
type Round = Partial<Record<Variant, Turn>>;

interface Proxy {
  readonly port: number;
  readonly pid: number;
  /** A tap, which can be asked for its `Captures`. */
  readonly tap?: ChildProcess;
}

/** What a tap has seen so far, and what of it could not be kept: a tap that loses much is fast for the wrong reason. */
interface Captures {
  readonly exchanges: number;
  readonly lost: number;
}

interface Task {
  readonly port: number;
  readonly connections: number;
  readonly bytes: number;
  readonly seconds: number;
}

/** Runs the benchmark; it takes about 20 turns of `BENCH_SECONDS` a round. */
export async function run(): Promise<BenchRow[]> {
  const folder = mkdtempSync(join(process.env.BENCH_DIR ?? tmpdir(), 'modeltap-proxy-bench-'));
  const children: ChildProcess[] = [];
  const own = async (role: string, cpu: number, ...args: string[]): Promise<[ChildProcess, Proxy]> => {
    const child = fork(import.meta.filename, ['--role', role, ...args], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    children.push(child);
    pin(child.pid ?? 0, cpu);
    const [{ port }] = (await once(child, 'message')) as [{ port: number }];
    return [child, { port, pid: child.pid ?? 0 }];
  };
  try {
    const [load, direct] = await own('load', 1);
    const proxies = new Map<Variant, Proxy>([['direct', { port: direct.port, pid: 0 }]]);
    proxies.set('pipe', (await own('pipe', 0, String(direct.port)))[1]);
    for (const name of TAPS) {
      const [tap, proxy] = await own(name, 0, String(direct.port), folder);
      proxies.set(name, { ...proxy, tap });
    }
    if (NGINX !== undefined) {
      const started = await startNginx(NGINX, { folder, upstream: direct.port, children });
      for (const [name, proxy] of started) proxies.set(name, proxy);
    }
    const small = await measure(load, proxies, { connections: 64, bytes: 800 });
    const single = await measure(load, pick(proxies, 'direct', 'pipe', 'nginx', 'tap'), { connections: 1, bytes: 800 });
    const wide = pick(proxies, 'direct', 'pipe', 'nginx', 'tap', 'tap-cap', 'tap-sample');
    const before = await capturesOf(wide);
    const large = await measure(load, wide, { connections: 8, bytes: 1024 ** 2 });
    const lost = lostBetween(before, await capturesOf(wide));
    return [...smallRows(small, proxies), ...singleRows(single), ...largeRows(large, lost)];
  } finally {
    for (const child of children) child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  }
}

function pick(proxies: ReadonlyMap<Variant, Proxy>, ...names: Variant[]): ReadonlyMap<Variant, Proxy> {
  return new Map([...proxies].filter(([name]) => names.includes(name)));
}

async function capturesOf(proxies: ReadonlyMap<Variant, Proxy>): Promise<Map<Variant, Captures>> {
  const all = new Map<Variant, Captures>();
  for (const [name, { tap }] of proxies) {
    if (tap === undefined) continue;
    tap.send('captures');
    const [captures] = (await once(tap, 'message')) as [Captures];
    all.set(name, captures);
  }
  return all;
}

function lostBetween(
  before: ReadonlyMap<Variant, Captures>,
  after: ReadonlyMap<Variant, Captures>,
): Map<Variant, string> {
  const since = (name: Variant, of: keyof Captures) => (after.get(name)?.[of] ?? 0) - (before.get(name)?.[of] ?? 0);
  return new Map([...after.keys()].map((name) => [name, `${since(name, 'lost')} of ${since(name, 'exchanges')} lost`]));
}

function pin(pid: number, cpu: number): void {
  spawnSync('taskset', ['-a', '-p', '-c', String(cpu), String(pid)]);
}

/** The first round warms up and is thrown away. */
async function measure(
  load: ChildProcess,
  proxies: ReadonlyMap<Variant, Proxy>,
  task: Omit<Task, 'port' | 'seconds'>,
): Promise<Round[]> {
  const { count, seconds } = rounds();
  const all: Round[] = [];
  const entries = [...proxies];
  for (let round = 0; round <= count; round += 1) {
    const turns: Round = {};
    for (let step = 0; step < entries.length; step += 1) {
      const [name, { port, pid }] = entries[(round + step) % entries.length] as [Variant, Proxy];
      const before = cpuOf(pid);
      load.send({ ...task, port, seconds } satisfies Task);
      const [{ times, elapsed }] = (await once(load, 'message')) as [{ times: number[]; elapsed: number }];
      const sorted = times.toSorted((a, b) => a - b);
      turns[name] = {
        perSecond: times.length / elapsed,
        p50Ms: sorted[times.length >> 1] ?? Number.NaN,
        cpuUs: ((cpuOf(pid) - before) * 1e6) / times.length,
      };
    }
    if (round > 0) all.push(turns);
  }
  return all;
}

function ratio(all: readonly Round[], a: Variant, b: Variant, of: (turn: Turn) => number): number {
  return median(all.map((round) => of(round[a] as Turn) / of(round[b] as Turn)));
}

const speed = (turn: Turn) => turn.perSecond;

function middle(all: readonly Round[], name: Variant, of: (turn: Turn) => number): number {
  return median(all.map((round) => of(round[name] as Turn)));
}

type Limits = Pick<BenchRow, 'floor' | 'target'>;

function smallRows(all: readonly Round[], proxies: ReadonlyMap<Variant, Proxy>): BenchRow[] {
  const cpu = (name: Variant) => middle(all, name, (turn) => turn.cpuUs).toFixed(0);
  const row = (a: Variant, b: Variant, limits: Limits): BenchRow[] =>
    proxies.has(a) && proxies.has(b)
      ? [
          {
            name: `proxy 0.8 KB × 64, ${a} / ${b}`,
            ratio: ratio(all, a, b, speed),
            lowerIsBetter: false,
            note: `${middle(all, a, speed).toFixed(0)}/s, ${cpu(a)} µs against ${cpu(b)} µs, ${memoryMb(proxies.get(a)?.pid ?? 0)} MB`,
            ...limits,
          },
        ]
      : [];
  return [
    ...row('tap', 'nginx', { floor: 0.5, target: 0.65 }),
    ...row('tap', 'nginx-mirror', { floor: 1, target: 1.2 }),
    ...row('tap', 'pipe', { floor: 2, target: 4 }),
    ...row('tap', 'tap-off', { floor: 0.65, target: 0.75 }),
    ...row('tap-sample', 'tap-off', { floor: 0.65, target: 0.8 }),
    ...row('tap-slow', 'tap', { floor: 0.8, target: 0.95 }),
    ...row('tap-dead', 'tap', { floor: 0.8, target: 0.95 }),
  ];
}

function singleRows(all: readonly Round[]): BenchRow[] {
  const peer: Variant = all[0]?.nginx === undefined ? 'pipe' : 'nginx';
  const added = (name: Variant) =>
    median(all.map((round) => (round[name]?.p50Ms ?? Number.NaN) - (round.direct?.p50Ms ?? Number.NaN)));
  const ms = (name: Variant) => middle(all, name, (turn) => turn.p50Ms).toFixed(3);
  const limits = peer === 'nginx' ? { target: 1.1, floor: 1.5 } : { target: 0.7, floor: 1 };
  return [
    {
      name: `proxy 0.8 KB × 1, added p50, tap / ${peer}`,
      ratio: added('tap') / added(peer),
      lowerIsBetter: true,
      note: `p50 ${ms('tap')} ms, ${peer} ${ms(peer)} ms, directly ${ms('direct')} ms`,
      ...limits,
    },
  ];
}

function largeRows(all: readonly Round[], lost: ReadonlyMap<Variant, string>): BenchRow[] {
  const peer: Variant = all[0]?.nginx === undefined ? 'pipe' : 'nginx';
  // A pipe of node:http does about half of what nginx does with bodies of this size.
  const scale = peer === 'nginx' ? 1 : 1.8;
  const row = (name: Variant, what: string, { floor, target }: Limits): BenchRow => ({
    name: `proxy 1 MB × 8, ${what}, tap / ${peer}`,
    ratio: ratio(all, name, peer, speed),
    floor: floor * scale,
    target: target * scale,
    lowerIsBetter: false,
    note: `${middle(all, name, speed).toFixed(0)}/s against ${middle(all, peer, speed).toFixed(0)}/s, ${lost.get(name) ?? ''}`,
  });
  return [
    row('tap-cap', 'cut at 64 KB', { floor: 0.6, target: 0.75 }),
    row('tap-sample', '1 in 10', { floor: 0.6, target: 0.75 }),
    row('tap', 'all captured', { floor: 0.35, target: 0.45 }),
  ];
}

function memoryMb(pid: number): string {
  try {
    const kilobytes = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    return (Number(kilobytes) / 1024).toFixed(0);
  } catch {
    // No /proc on this system.
    return '?';
  }
}

/** One worker each: a plain proxy, and one that copies requests to a server that answers 204. */
async function startNginx(
  nginx: string,
  { folder, upstream, children }: { folder: string; upstream: number; children: ChildProcess[] },
): Promise<[Variant, Proxy][]> {
  const started: [Variant, Proxy][] = [];
  for (const name of ['nginx', 'nginx-mirror'] as const) {
    const port = await freePort();
    const sink = await freePort();
    const mirror = name === 'nginx' ? '' : 'mirror /copy;';
    const file = join(folder, `${name}.conf`);
    writeFileSync(
      file,
      `daemon off; worker_processes 1; master_process off; error_log stderr crit; pid ${folder}/${name}.pid;
events { worker_connections 1024; }
http {
  access_log off; client_max_body_size 0; client_body_buffer_size 2m; proxy_buffers 64 32k;
  client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy; fastcgi_temp_path ${folder}/f; uwsgi_temp_path ${folder}/u; scgi_temp_path ${folder}/s;
  upstream model { server 127.0.0.1:${upstream}; keepalive 128; }
  keepalive_requests 1000000000;
  server { listen 127.0.0.1:${sink}; location / { return 204; } }
  server {
    listen 127.0.0.1:${port};
    proxy_http_version 1.1; proxy_set_header Connection "";
    location / { ${mirror} proxy_pass http://model; }
    location = /copy { internal; proxy_pass http://127.0.0.1:${sink}$request_uri; }
  }
}`,
    );
    const child = spawn(nginx, ['-c', file, '-p', folder], { stdio: ['ignore', 'ignore', 'inherit'] });
    children.push(child);
    pin(child.pid ?? 0, 0);
    await reachable(port);
    started.push([name, { port, pid: child.pid ?? 0 }]);
  }
  return started;
}

async function freePort(): Promise<number> {
  const server = createRawServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}

async function reachable(port: number): Promise<void> {
  for (let tries = 0; tries < 100; tries += 1) {
    const socket = connect(port, '127.0.0.1');
    const open = await Promise.race([
      once(socket, 'connect').then(() => true),
      once(socket, 'error').then(() => false),
    ]).catch(() => false);
    socket.destroy();
    if (open) return;
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error(`nothing listens on ${port}`);
}

/** Child: the server without a proxy, and the load. */
function serveLoad(): void {
  const server = createRawServer({ noDelay: true }, (socket) => answerAlike(socket));
  server.listen(0, '127.0.0.1', () => process.send?.({ port: (server.address() as AddressInfo).port }));
  process.on('message', (task: Task) => {
    const began = performance.now();
    const times: number[] = [];
    const until = began + task.seconds * 1000;
    const clients = Array.from({ length: task.connections }, () => client(task, until, times));
    void Promise.all(clients).then(() => process.send?.({ times, elapsed: (performance.now() - began) / 1000 }));
  });
}

/** Follows messages with a Content-Length on a socket and calls back at the end of each. */
function eachMessage(socket: Socket, onEnd: (bytes: number) => void): void {
  let left = 0;
  let length = 0;
  let head = '';
  socket.on('data', (chunk: Buffer) => {
    for (let at = 0; at < chunk.length; ) {
      if (left === 0) {
        head += chunk.toString('latin1', at, Math.min(chunk.length, at + 1024));
        const end = head.indexOf('\r\n\r\n');
        if (end < 0) return;
        length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0);
        const here = chunk.indexOf('\r\n\r\n', at);
        at = here < 0 ? 0 : here + 4;
        head = '';
        left = length;
      }
      const take = Math.min(left, chunk.length - at);
      left -= take;
      at += take;
      if (left === 0) onEnd(length);
    }
  });
  socket.on('error', () => socket.destroy());
}

/** Messages by the bytes of their body: making one takes longer than sending it. */
const answers = new Map<number, Buffer>();
const requests = new Map<number, Buffer>();

function answerAlike(socket: Socket): void {
  eachMessage(socket, (bytes) => {
    let answer = answers.get(bytes);
    if (answer === undefined) {
      answer = message('HTTP/1.1 200 OK', bytes);
      answers.set(bytes, answer);
    }
    socket.write(answer);
  });
}

function message(first: string, bytes: number): Buffer {
  const rows = sampleRows(bytes).slice(0, bytes - 3);
  // Cut anywhere and made a string: valid JSON of exactly so many bytes.
  const body = Buffer.from(JSON.stringify(rows.replaceAll('"', "'")).padEnd(bytes).slice(0, bytes));
  return Buffer.concat([
    Buffer.from(`${first}\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`),
    body,
  ]);
}

function client(task: Task, until: number, times: number[]): Promise<void> {
  return new Promise((done, fail) => {
    const request = requests.get(task.bytes) ?? message('POST /score HTTP/1.1', task.bytes);
    requests.set(task.bytes, request);
    const socket = connect({ port: task.port, host: '127.0.0.1', noDelay: true });
    let sentAt = 0;
    const send = () => {
      sentAt = performance.now();
      socket.write(request);
    };
    socket.on('connect', send);
    eachMessage(socket, () => {
      times.push(performance.now() - sentAt);
      if (performance.now() < until) send();
      else socket.destroy();
    });
    socket.on('close', () => done());
    socket.on('error', fail);
  });
}

/** Child: the proxy that many would write first. */
function servePipe(upstream: number): void {
  const server = createServer((incoming, outgoing) => {
    const { method, url, headers } = incoming;
    const onward = httpRequest({ host: '127.0.0.1', port: upstream, method, path: url, headers }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(outgoing);
    });
    onward.on('error', () => outgoing.destroy());
    incoming.pipe(onward);
  });
  server.listen(0, '127.0.0.1', () => process.send?.({ port: (server.address() as AddressInfo).port }));
}

/** Child: a tap on a spool that is emptied at once, once a second (`slow`), or never (`dead`). */
async function serveTap(variant: (typeof TAPS)[number], upstream: number, folder: string): Promise<void> {
  const directory = join(folder, variant);
  const spool = await openSpool({ directory, maxBytes: variant === 'tap-dead' ? 64 * 1024 ** 2 : 1024 ** 3 });
  if (variant === 'tap-slow') setInterval(() => void spool.release(spool.committed), 1000);
  else if (variant !== 'tap-dead') spool.onCommit((committed) => void spool.release(committed));
  const sink = (id: number, collection: string): TapSink => ({
    spool,
    spoolDirectory: directory,
    destination: {
      id,
      collection,
      path: `p/${collection}`,
      endpoint: 'e',
      deployment: 'd',
      source: '/d',
      datastore: 's',
      rollingRate: 'hour',
      batch: 'off',
      batchWindowMs: 0,
    },
    counts: { accepted: () => undefined, rejected: () => undefined, sampledOut: () => undefined },
  });
  const captures = { exchanges: 0, lost: 0 };
  const off = variant === 'tap-off';
  const tap = await openTap({
    listen: { host: '127.0.0.1', port: 0 },
    settings: {
      upstream: { host: '127.0.0.1', port: upstream },
      request: off ? undefined : sink(1, 'request'),
      response: off ? undefined : sink(2, 'response'),
      paths: ['*'],
      samplingRate: variant === 'tap-sample' ? 0.1 : 1,
      errorRate: 1,
      captureHeaders: [],
      captureSecretHeaders: false,
      requestId: 'add',
      limits: tapLimitsOf(variant === 'tap-cap' ? { maxBodyBytes: 64 * 1024 } : {}),
    },
    budget: createBudget(64 * 1024 ** 2),
    scanner: bodyScanner,
    metrics: { exchange: () => void (captures.exchanges += 1), lost: () => void (captures.lost += 1) },
    logger: silentLogger,
  });
  process.on('message', () => process.send?.(captures));
  process.send?.({ port: tap.address.port });
}

const [flag, role, upstream = '0', folder = ''] = process.argv.slice(2);
if (flag !== '--role') await runDirectly(import.meta.url, run);
else if (role === 'load') serveLoad();
else if (role === 'pipe') servePipe(Number(upstream));
else await serveTap(role as (typeof TAPS)[number], Number(upstream), folder);
