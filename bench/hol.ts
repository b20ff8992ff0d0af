/**
 * Head-of-line blocking: the p99 of small records from 16 clients while another client posts 4 MB bodies, about four a
 * second, against an agent that parses and stringifies every body in front of the same spool.
 */
import { createServer, type IncomingMessage } from 'node:http';
import { mkdtemp, rm } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openSpool } from '../packages/modeltap/src/spool/spool.ts';
import {
  type BenchRow,
  type LoadResult,
  median,
  onStop,
  rounds,
  runDirectly,
  startLoad,
  startServer,
} from './harness.ts';
import { logRequest, serveModeltap } from './ingest.ts';

const LARGE_BYTES = 4_000_000;
const LARGE_PAUSE_MS = 230;
const SMALL_BYTES = 800;

/** The reference: everything through JSON.parse and JSON.stringify, durable in the same kind of spool. */
async function serveParsing(): Promise<void> {
  const directory = await mkdtemp(join(process.env['BENCH_DIR'] ?? tmpdir(), 'modeltap-bench-'));
  const spool = await openSpool({ directory, maxBytes: 2 * 1024 ** 3 });
  const server = createServer((request: IncomingMessage, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const data: unknown = JSON.parse(Buffer.concat(chunks).toString());
      const event = Buffer.from(
        JSON.stringify({ specversion: '1.0', id: 'x', type: request.headers['ce-type'], data }),
      );
      spool.append([event], () => {
        response.statusCode = 204;
        response.end();
      });
    });
  });
  server.listen(0, '127.0.0.1', () => process.send?.({ port: (server.address() as AddressInfo).port }));
  const timer = setInterval(() => void spool.release(spool.committed), 50);
  onStop(async () => {
    clearInterval(timer);
    server.closeAllConnections();
    await spool.close();
    await rm(directory, { recursive: true, force: true });
  });
}

/** Small records' p99 beside large ones, ours to the reference's. */
export async function run(): Promise<BenchRow[]> {
  const { count, seconds } = rounds();
  const servers = [await startServer(import.meta.url, 'parsing'), await startServer(import.meta.url, 'modeltap')];
  const loads = [startLoad(), startLoad()] as const;
  const small = logRequest(SMALL_BYTES);
  const large = logRequest(LARGE_BYTES);
  const p99 = new Map<string, number[]>(servers.map(({ name }) => [name, []]));
  try {
    // Rounds of at least 1.5 s, so that each sees several large bodies; those below 0 warm up code and disk.
    for (let round = -3; round < count; round += 1) {
      for (const { name, port } of servers) {
        const turn = { port, seconds: Math.max(1.5, seconds) };
        const [result, other]: LoadResult[] = await Promise.all([
          loads[0].run({ ...turn, connections: 16, request: small, pauseMs: 1 }),
          loads[1].run({ ...turn, connections: 1, request: large, pauseMs: LARGE_PAUSE_MS }),
        ]);
        if (result === undefined || result.errors + (other?.errors ?? 0) > 0)
          throw new RangeError(`${name} answered with errors`);
        if (round >= 0) p99.get(name)?.push(result.p99Ms);
      }
    }
  } finally {
    for (const load of loads) load.stop();
    for (const server of servers) await server.stop();
  }
  const [theirs = [], ours = []] = [p99.get('parsing'), p99.get('modeltap')];
  return [
    {
      name: 'p99 of small records beside 4 MB bodies, to parse+stringify',
      ratio: median(ours.map((value, index) => value / (theirs[index] ?? Number.NaN))),
      floor: 0.3,
      target: 0.15,
      lowerIsBetter: true,
      note: `${median(ours).toFixed(1)} against ${median(theirs).toFixed(1)} ms`,
    },
  ];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const serve = process.argv.indexOf('--serve');
  if (serve < 0) await runDirectly(import.meta.url, run);
  else await (process.argv[serve + 1] === 'parsing' ? serveParsing() : serveModeltap());
}
