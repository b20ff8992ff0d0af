import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { call, isAlive, startScoreServer, temporaryFolder, until } from './process.test-suite.ts';

const SCORE = `
let model: { name: string } | undefined;
export async function init(): Promise<void> {
  model = { name: String(process.env.AZUREML_MODEL_DIR) };
}
export function run(data: string, request: { requestId: string }): object {
  return { model, data, id: request.requestId };
}
`;

test('a TypeScript scoring script is initialised, served and told its request', async () => {
  using folder = temporaryFolder({ 'score.ts': SCORE });
  await using server = await startScoreServer(folder.path, 'score.ts', { AZUREML_MODEL_DIR: '/models/1' });
  const answer = await call(server.port, '/score', { body: '[1]', headers: { 'x-request-id': 'r-1' } });
  assert.deepEqual(answer.json(), { model: { name: '/models/1' }, data: '[1]', id: 'r-1' });
  assert.match(String(answer.headers['x-ms-server-version']), /^modeltap\/\d+\.\d+\.\d+/);
  server.child.kill('SIGTERM');
  assert.equal(await server.exit, 0);
});

test('JavaScript scripts work as ES modules and as CommonJS', async () => {
  using folder = temporaryFolder({
    'score.mjs': 'export const init = () => {}; export const run = (data) => data + 1;',
    'score.cjs': 'function f(data) { return data + 2; }\nmodule.exports = Object.assign({}, { init() {}, run: f });',
  });
  for (const [script, expected] of [
    ['score.mjs', '"x1"'],
    ['score.cjs', '"x2"'],
  ] as const) {
    await using server = await startScoreServer(folder.path, script);
    assert.equal((await call(server.port, '/score', { body: 'x' })).body, expected);
  }
});

test('a script that cannot be used ends the process with status 3 and says what and where', async () => {
  const scripts: readonly (readonly [string, string, RegExp])[] = [
    [
      'norun.ts',
      'export function init(): void {}',
      /norun\.ts: it must export the functions init and run; run is missing/,
    ],
    ['neither.ts', 'export const a: number = 1;', /init and run are missing/],
    [
      'throws.ts',
      'export function init() {\n  throw new Error("no model");\n}\nexport function run() {}',
      /init\(\) of throws\.ts failed: Error: no model\n {4}at .*throws\.ts:2/,
    ],
    [
      'rejects.ts',
      'export async function init() { throw "late"; }\nexport function run() {}',
      /init\(\) of rejects\.ts failed: late/,
    ],
    [
      'toplevel.ts',
      'const a: any = undefined;\n\na.b();\nexport {};',
      /scoring script toplevel\.ts: toplevel\.ts:3:\d+: Cannot read properties/,
    ],
    [
      'syntax.ts',
      'export function init() {}\nexport const run = (a: ) => 1;',
      /scoring script syntax\.ts: syntax\.ts:2: /,
    ],
    [
      'syntax.mjs',
      'export function init() {}\n\nexport const run = () => +;',
      /scoring script syntax\.mjs: syntax\.mjs:3: Unexpected token/,
    ],
    [
      'enum.ts',
      'const a = 1;\nexport enum Color { Red }',
      /scoring script enum\.ts: enum\.ts:2: TypeScript enum is not supported.*plain JavaScript/,
    ],
    [
      'import.ts',
      'import { a } from "./gone.ts";\nexport const b = a;',
      /Cannot find module 'gone\.ts' imported from import\.ts; name files with their extension/,
    ],
    [
      'package.ts',
      'import a from "no-such-package";\nexport const b = a;',
      /Cannot find package 'no-such-package'.*install packages in a node_modules folder/,
    ],
    [
      'exports.ts',
      'import { a } from "./norun.ts";\nexport const b = a;',
      /exports\.ts:1: .*does not provide an export named 'a'/,
    ],
    ['absent.ts', '', /scoring script absent\.ts: there is no such file in /],
  ];
  using folder = temporaryFolder(Object.fromEntries(scripts.filter(([name]) => name !== 'absent.ts')));
  const check = async ([script, , message]: (typeof scripts)[number]) => {
    await using server = await startScoreServer(folder.path, script);
    assert.equal(await server.exit, 3, script);
    assert.match(server.stderr(), message);
  };
  for (let index = 0; index < scripts.length; index += 2) await Promise.all(scripts.slice(index, index + 2).map(check));
});

test('a script outside any node_modules can import @modeltap/collector', async () => {
  using folder = temporaryFolder({
    'score.ts': `
      import { Collector } from '@modeltap/collector';
      export function init(): void {}
      export function run(): string { return typeof Collector; }
    `,
  });
  await using server = await startScoreServer(folder.path, 'score.ts');
  assert.equal((await call(server.port, '/score', { body: '' })).body, '"function"');
});

test('a collector installed beside the script is taken before our own', async () => {
  using folder = temporaryFolder({
    'score.mjs': `import { mine } from '@modeltap/collector/own.mjs';\nexport const init = () => {};\nexport const run = () => mine;`,
  });
  const { mkdirSync, writeFileSync } = await import('node:fs');
  const own = join(folder.path, 'node_modules', '@modeltap', 'collector');
  mkdirSync(own, { recursive: true });
  writeFileSync(join(own, 'own.mjs'), 'export const mine = "theirs";');
  await using server = await startScoreServer(folder.path, 'score.mjs');
  assert.equal((await call(server.port, '/score', { body: '' })).body, '"theirs"');
});

const SLOW = `
export function init() {}
export function run(data) {
  process.stdout.write('started ' + data + '\\n');
  return new Promise((resolve) => setTimeout(() => resolve(data), Number(data)));
}
`;

test('SIGTERM finishes what is in flight, closes its connection and ends with status 0', async () => {
  using folder = temporaryFolder({ 'score.mjs': SLOW });
  await using server = await startScoreServer(folder.path, 'score.mjs');
  await call(server.port, '/score', { body: '1' });
  const running = call(server.port, '/score', { body: '400', headers: { connection: 'keep-alive' } });
  await new Promise((resolve) => setTimeout(resolve, 150));
  server.child.kill('SIGTERM');
  const answer = await running;
  assert.deepEqual([answer.status, answer.headers.connection], [200, 'close']);
  assert.equal(await server.exit, 0);
  await assert.rejects(call(server.port, '/'));
});

test('what was collected is delivered before the process ends, though the agent takes its time', async () => {
  const received: string[] = [];
  const agent = createServer((request, response) => {
    request.on('data', (chunk: Buffer) => received.push(chunk.toString()));
    request.on('end', () => setTimeout(() => response.writeHead(204).end(), 50));
  }).listen(0, '127.0.0.1');
  await once(agent, 'listening');
  using folder = temporaryFolder({
    'mdc.json': JSON.stringify({ collections: { model_inputs: { enabled: true } } }),
    'score.mjs': `
      import { Collector } from '@modeltap/collector';
      let inputs;
      export function init() { inputs = new Collector({ name: 'model_inputs' }); setInterval(() => {}, 1000); }
      export function run(data) { inputs.collect([{ data }]); return 'ok'; }`,
  });
  await using server = await startScoreServer(folder.path, 'score.mjs', {
    AZUREML_MDC_CONFIG_PATH: join(folder.path, 'mdc.json'),
    AZUREML_MDC_PORT: String((agent.address() as AddressInfo).port),
  });
  for (let index = 0; index < 5; index += 1) await call(server.port, '/score', { body: `row-${index}` });
  server.child.kill('SIGTERM');
  assert.equal(await server.exit, 0);
  for (let index = 0; index < 5; index += 1) assert.match(received.join(''), new RegExp(`row-${index}`));
  agent.close();
  agent.closeAllConnections();
});

test('a run that never ends cannot hold up SIGTERM beyond the deadline', async () => {
  using folder = temporaryFolder({ 'score.mjs': SLOW });
  await using server = await startScoreServer(folder.path, 'score.mjs', { MODELTAP_STOP_DEADLINE_MS: '100' });
  const hanging = request({ port: server.port, path: '/score', method: 'POST' }).on('error', () => undefined);
  hanging.end('3000000');
  await new Promise((resolve) => setTimeout(resolve, 100));
  server.child.kill('SIGTERM');
  assert.equal(await server.exit, 0);
});

test('an unhandled rejection in the script is logged and does not end the process', async () => {
  using folder = temporaryFolder({
    'score.mjs':
      'export const init = () => {};\nexport const run = () => { void Promise.reject(new Error("forgotten")); };',
  });
  await using server = await startScoreServer(folder.path, 'score.mjs');
  await call(server.port, '/score', { body: '' });
  await until('the rejection is logged', () => server.stderr().includes('forgotten'));
  assert.equal((await call(server.port, '/')).body, 'Healthy');
});

/** Starts a parent that starts a score server with `run`, and tells the server's process id and port. */
async function orphanOf(script: string): Promise<{ pid: number; port: number; kill: () => void } & Disposable> {
  const folder = temporaryFolder({ 'score.mjs': script });
  const server = join(import.meta.dirname, 'score-server.ts');
  const code = `
    const { spawn } = require('node:child_process');
    const env = { ...process.env, AML_APP_ROOT: ${JSON.stringify(folder.path)}, AZUREML_ENTRY_SCRIPT: 'score.mjs', MODELTAP_STOP_DEADLINE_MS: '200' };
    const child = spawn(process.execPath, [${JSON.stringify(server)}], { env, detached: true, stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
    child.on('message', ({ port }) => console.log(JSON.stringify({ pid: child.pid, port })));
  `;
  const parent = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'pipe', 'inherit'] });
  const text = await new Promise<string>((resolve) =>
    parent.stdout.once('data', (chunk: Buffer) => resolve(chunk.toString())),
  );
  const { pid, port } = JSON.parse(text) as { pid: number; port: number };
  return {
    pid,
    port,
    kill: () => parent.kill('SIGKILL'),
    [Symbol.dispose]() {
      parent.kill('SIGKILL');
      if (isAlive(pid)) process.kill(pid, 'SIGKILL');
      folder[Symbol.dispose]();
    },
  };
}

test('an instance whose parent was killed finishes its requests and ends', async () => {
  using orphan = await orphanOf(SLOW.replace('process.stdout.write', 'console.log'));
  const running = call(orphan.port, '/score', { body: '150' });
  await new Promise((resolve) => setTimeout(resolve, 50));
  orphan.kill();
  assert.equal((await running).body, '"150"');
  await until('the orphan is gone', () => !isAlive(orphan.pid));
});

test('an orphan that is stuck in an endless loop is killed', async () => {
  using orphan = await orphanOf('export const init = () => {};\nexport const run = () => { for (;;); };');
  const stuck = request({ port: orphan.port, path: '/score', method: 'POST' }).on('error', () => undefined);
  stuck.end('x');
  await new Promise((resolve) => setTimeout(resolve, 50));
  orphan.kill();
  await until('the orphan is gone', () => !isAlive(orphan.pid));
});
