/**
 * Entry of an instance process: loads a scoring script, serves it on a loopback port of its own and tells the parent
 * the port. Started by the script launcher, never imported.
 *
 * Exit codes: 0 stopped as asked, 3 the script could not be loaded or its `init()` failed, as in Azure ML.
 */
import { createServer, type Server } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { isModeltapError } from '../kit/errors.ts';
import { createScoringApp, type ScoringApp } from './scoring/app.ts';
import { readScoringOptions } from './scoring/options.ts';
import { watchParent } from './scoring/parent-watch.ts';
import { loadScript, provideCollector, type ScoringScript } from './scoring/script.ts';

/** Exit code of a process whose script cannot be loaded or initialised. */
const EXIT_INIT = 3;

/** Kept of the deadline for ending the process after the last flush. */
const EXIT_MARGIN_MS = 200;
/** The longest wait for an agent that does not answer. */
const MAX_FLUSH_MS = 5000;

const log = (text: string): void => {
  process.stderr.write(`modeltap: ${text}\n`);
};

const { version } = createRequire(import.meta.url)('../../package.json') as { version: string };
const limits = readScoringOptions(process.env, process.cwd());

const collectors = provideCollector();
let server: Server | undefined;
let app: ScoringApp | undefined;
let stopping = false;

/** Stops accepting, finishes what is in flight, hands over what was collected, and ends with status 0 in time. */
async function stop(reason: string): Promise<void> {
  if (stopping) return;
  stopping = true;
  log(`stopping: ${reason}`);
  const until = performance.now() + limits.stopDeadlineMs;
  setTimeout(() => process.exit(0), limits.stopDeadlineMs).unref();
  if (server !== undefined && app !== undefined) {
    server.close();
    await app.drain();
    // What was answered last may still be on its way through the socket.
    await sleep(10);
    const rest = until - performance.now() - EXIT_MARGIN_MS;
    const left = await collectors.flush(Math.min(MAX_FLUSH_MS, Math.max(0, rest)));
    if (left > 0) log(`${left} collected records were not delivered`);
  }
  process.exit(0);
}

async function load(): Promise<ScoringScript> {
  const script = await loadScript(limits.appRoot, limits.entryScript);
  try {
    await script.init();
  } catch (error) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    log(`init() of ${limits.entryScript} failed: ${text}`);
    process.exit(EXIT_INIT);
  }
  return script;
}

async function main(): Promise<void> {
  // The parent reads these pipes; when it has died, a log line must not be what kills the requests in flight.
  process.stdout.on('error', () => undefined);
  process.stderr.on('error', () => undefined);
  process.on('SIGTERM', () => void stop('SIGTERM'));
  process.on('disconnect', () => void stop('the parent process has gone'));
  process.on('unhandledRejection', (error) => {
    log(`unhandled rejection in the scoring script: ${error instanceof Error ? error.stack : String(error)}`);
  });
  watchParent(limits.stopDeadlineMs);
  const script = await load();
  app = createScoringApp({
    script,
    limits,
    serverVersion: `modeltap/${version}`,
    title: process.env.SERVICE_NAME ?? limits.entryScript,
    ...(process.env.SERVICE_VERSION === undefined ? {} : { deployment: process.env.SERVICE_VERSION }),
    log,
  });
  // Idle connections are the caller's to close: were this side first, a request could meet a closed socket.
  const listener = createServer({ keepAliveTimeout: 120_000, connectionsCheckingInterval: 5000 }, app.serve.bind(app));
  server = listener;
  listener.listen(0, '127.0.0.1', () => {
    const { port } = listener.address() as AddressInfo;
    log(`${limits.entryScript} is served on port ${port}`);
    process.send?.({ type: 'listening', port });
  });
}

try {
  await main();
} catch (error) {
  log(isModeltapError(error) ? `${error.message}. ${error.fix}` : `cannot start: ${String(error)}`);
  process.exit(EXIT_INIT);
}
