/**
 * The main job, from an empty folder to collected data: starts a workspace, deploys the iris model from its YAML, sends
 * it traffic, and shows what was collected. `npm start` runs it; `npm start -- --exit` stops by itself and ends with
 * status 0 only if every record sent is stored.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { sendTraffic } from './traffic.ts';

const { values: flags } = parseArgs({
  options: {
    exit: { type: 'boolean', default: false },
    requests: { type: 'string', default: '400' },
    workspace: { type: 'string', default: '.modeltap' },
    help: { type: 'boolean', short: 'h', default: false },
  },
});
if (flags.help) {
  console.log(`npm start -- [options]

  --exit             stop when done; status 0 only if every record sent is stored
  --requests <n>     how many requests to send (default 400)
  --workspace <dir>  directory of the workspace (default .modeltap)`);
  process.exit(0);
}

const root = resolve(import.meta.dirname, '../..');
const bin = resolve(root, 'packages/modeltap/bin/modeltap.js');
const requests = Number(flags.requests);
if (!Number.isSafeInteger(requests) || requests < 1 || requests > 1_000_000) {
  console.error(`--requests must be a whole number from 1 to 1000000, not ${flags.requests}`);
  process.exit(2);
}
const workspace = resolve(flags.workspace);
const env = { ...process.env, MODELTAP_WORKSPACE: workspace };
const started = performance.now();

interface LedgerRow {
  readonly endpoint: string;
  readonly deployment: string;
  readonly accepted: number;
  readonly stored: number;
  readonly spooled: number;
  readonly dropped: Readonly<Record<string, number>>;
}

/** Runs a command and gives what it printed; what it says on standard error is shown. */
function modeltap(...argv: string[]): Promise<string> {
  return new Promise((done, fail) => {
    const child = spawn(process.execPath, [bin, ...argv], { env, stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    child.on('error', fail);
    child.on('close', (code) =>
      code === 0 ? done(text) : fail(new Error(`modeltap ${argv.join(' ')} ended with ${code}`)),
    );
  });
}

/** The same, shown as something to type. */
async function step(title: string, ...argv: string[]): Promise<string> {
  console.log(`\n${title}\n  $ npx modeltap ${argv.join(' ')}`);
  return modeltap(...argv);
}

function isFree(port: number): Promise<boolean> {
  return new Promise((done) => {
    const server = createServer();
    server.once('error', () => done(false));
    server.listen(port, '127.0.0.1', () => server.close(() => done(true)));
  });
}

/** Starts `modeltap up` and waits until it says so. */
async function startUp(): Promise<ChildProcess> {
  const ports = (await isFree(8484)) && (await isFree(50_011)) ? [] : ['--port', '0', '--agent-port', '0'];
  console.log(`Starting a workspace in ${workspace}\n  $ npx modeltap up ${ports.join(' ')}`);
  const child = spawn(process.execPath, [bin, 'up', '--log-level', 'warn', ...ports], {
    env,
    stdio: ['ignore', 'inherit', 'pipe'],
    // Ctrl-C reaches only this process, which asks the workspace to stop.
    detached: true,
  });
  process.once('exit', () => child.kill());
  await new Promise<void>((done, fail) => {
    child.once('error', fail);
    child.once('exit', (code) => fail(new Error(`modeltap up ended with ${code}`)));
    child.stderr.on('data', (chunk: Buffer) => {
      process.stderr.write(chunk);
      if (chunk.includes('Modeltap is up')) done();
    });
  });
  return child;
}

async function counts(): Promise<{ accepted: number; stored: number; spooled: number; dropped: number }> {
  const rows = JSON.parse(await modeltap('ledger', '-o', 'json', '-e', 'iris', '-d', 'blue')) as LedgerRow[];
  const sum = (of: (row: LedgerRow) => number) => rows.reduce((total, row) => total + of(row), 0);
  return {
    accepted: sum((row) => row.accepted),
    stored: sum((row) => row.stored),
    spooled: sum((row) => row.spooled),
    dropped: sum((row) => Object.values(row.dropped).reduce((total, count) => total + count, 0)),
  };
}

/** Waits until as many records as were sent are stored, half a minute at most. */
async function untilStored(wanted: number): Promise<number> {
  const until = performance.now() + 30_000;
  for (;;) {
    const { stored } = await counts();
    if (stored >= wanted || performance.now() > until) return stored;
    await new Promise((done) => setTimeout(done, 300));
  }
}

async function deploy(): Promise<{ scoringUri: string; key: string }> {
  const endpoints = JSON.parse(await modeltap('online-endpoint', 'list', '-o', 'json')) as { name: string }[];
  if (!endpoints.some(({ name }) => name === 'iris')) {
    await step('An endpoint: a stable name to ask', 'online-endpoint', 'create', '-f', 'examples/iris/endpoint.yml');
  }
  const deployments = JSON.parse(await modeltap('online-deployment', 'list', '-e', 'iris', '-o', 'json')) as {
    name: string;
  }[];
  const verb = deployments.some(({ name }) => name === 'blue') ? 'update' : 'create';
  await step(
    'A deployment: the model behind it, with data collection switched on',
    'online-deployment',
    verb,
    '-f',
    'examples/iris/deployment.yml',
    '--all-traffic',
  );
  const shown = await step('Where to ask', 'online-endpoint', 'show', '-n', 'iris', '-o', 'json');
  const { scoring_uri: scoringUri } = JSON.parse(shown) as { scoring_uri: string };
  console.log(`  scoring_uri: ${scoringUri}`);
  const credentials = await modeltap('online-endpoint', 'get-credentials', '-n', 'iris', '-o', 'json');
  const { primaryKey: key } = JSON.parse(credentials) as { primaryKey: string };
  return { scoringUri, key };
}

async function traffic(target: { scoringUri: string; key: string }): Promise<number> {
  console.log(`\nTraffic: ${requests} requests with rows drawn from the iris data set`);
  const terminal = process.stdout.isTTY;
  const result = await sendTraffic({
    ...target,
    requests,
    concurrency: 8,
    onProgress: (done, total) => {
      if (terminal) process.stdout.write(`\r  ${done}/${total}`);
    },
  });
  if (terminal) process.stdout.write('\r');
  const { ok, rows, failed, latencyMs } = result;
  console.log(
    `  ${ok} answered, ${failed} failed, ${rows} rows; p50 ${latencyMs.p50.toFixed(1)} ms, p99 ${latencyMs.p99.toFixed(1)} ms`,
  );
  return ok;
}

/** The files of a data asset and three of its records, read from the store as anyone would. */
async function showData(): Promise<void> {
  const asset = JSON.parse(
    await step('What was collected is a data asset', 'data', 'show', '-n', 'iris-blue-model_inputs', '-o', 'json'),
  ) as {
    path: string;
    local_path?: string;
  };
  console.log(`  ${asset.path}\n  on this disk: ${asset.local_path ?? ''}`);

  const files = globSync(`${asset.local_path}/**/*.jsonl`).toSorted();
  const lines = files.flatMap((file) => readFileSync(file, 'utf8').split('\n').filter(Boolean));
  for (const file of files.slice(-3)) console.log(`  file: ${file}`);
  console.log(`\nThree of its ${lines.length} events:`);
  for (const line of lines.slice(-3)) console.log(`  ${line.length > 900 ? `${line.slice(0, 900)}…` : line}`);
}

function next(): void {
  console.log(`
What to try next (in another shell, in this folder):
  npx modeltap tail iris blue model_inputs       follow the records; then send a request:
  npx modeltap online-endpoint invoke -n iris --request-file examples/iris/sample-request.json
  npx modeltap online-endpoint get-credentials -n iris   the keys for your own requests
  npx modeltap ledger                            every record accounted for
  npx modeltap data list                         the data assets
  npx modeltap online-deployment get-logs -n blue -e iris
  examples/iris/score.ts and deployment.yml      what was deployed; docs/ has a page for each task
`);
}

async function main(): Promise<number> {
  const up = await startUp();
  const target = await deploy();
  const before = await counts();
  const answered = await traffic(target);
  const wanted = before.stored + answered * 2;
  const stored = await untilStored(wanted);
  await showData();
  console.log(await step('The ledger: what became of every record', 'ledger', '-e', 'iris'));
  const sent = answered * 2;
  const complete = stored === wanted && answered === requests;
  console.log(
    `${sent} records sent (inputs and outputs), ${stored - before.stored} stored: ${complete ? 'all of them' : 'NOT all of them'}. ${((performance.now() - started) / 1000).toFixed(0)} s in all.`,
  );
  const ended = new Promise<number | null>((done) => {
    up.removeAllListeners('exit');
    up.once('exit', done);
  });
  if (flags.exit) up.kill('SIGTERM');
  else {
    next();
    console.log('The workspace stays up until Ctrl-C.');
    process.once('SIGINT', () => up.kill('SIGTERM'));
    process.once('SIGTERM', () => up.kill('SIGTERM'));
  }
  const code = await ended;
  return complete && code === 0 ? 0 : 1;
}

process.exitCode = await main();
