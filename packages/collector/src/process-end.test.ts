import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { EXTENSION, TestAgent } from './agent.test.support.ts';

const folder = mkdtempSync(join(tmpdir(), 'collector-'));
after(() => rmSync(folder, { recursive: true }));
const MODULE = new URL(`./index.${EXTENSION}`, import.meta.url).href;
let scripts = 0;

interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly out: string;
  readonly err: string;
  readonly ms: number;
}

function start(
  body: string,
  env: Record<string, string>,
  args: readonly string[] = [],
): { child: ChildProcess; ended: Promise<Ended> } {
  const file = join(folder, `${scripts++}.mjs`);
  writeFileSync(file, `import { Collector, flush } from ${JSON.stringify(MODULE)};\n${body}`);
  const child = spawn(process.execPath, ['--no-warnings', ...args, file], { env: { ...process.env, ...env } });
  const from = performance.now();
  let out = '';
  let err = '';
  child.stdout.on('data', (part) => (out += part));
  child.stderr.on('data', (part) => (err += part));
  const ended = new Promise<Ended>((resolve) => {
    child.on('close', (code, signal) => resolve({ code, signal, out, err, ms: performance.now() - from }));
  });
  return { child, ended };
}

/** Runs a script with `collector` set up, sending to `agent`. */
function run(agent: TestAgent, body: string, args: readonly string[] = []): ReturnType<typeof start> {
  const env = { AZUREML_MDC_ENABLED: 'true', AZUREML_MDC_PORT: String(agent.port), AZUREML_MDC_CONFIG_PATH: '' };
  return start(`const collector = new Collector({ name: 'model_inputs' });\n${body}`, env, args);
}

const numbers = (agent: TestAgent) => agent.events.map(({ data }) => (data as [{ i: number }])[0].i);

test('a script that just ends delivers what it collected and is not kept alive by the collector', async () => {
  await using agent = await TestAgent.start();
  const { code } = await run(agent, 'for (let i = 0; i < 500; i++) collector.collect([{ i }]);').ended;
  assert.equal(code, 0);
  assert.deepEqual(
    numbers(agent),
    Array.from({ length: 500 }, (_, i) => i),
  );
  const idle = await run(agent, '').ended;
  assert.equal(idle.code, 0);
});

test('process.exit() right after collect delivers and keeps the exit code', async () => {
  await using agent = await TestAgent.start();
  const { code, err } = await run(agent, 'collector.collect([{ i: 1 }]); process.exit(7);').ended;
  assert.equal(code, 7);
  assert.equal(err, '');
  assert.deepEqual(numbers(agent), [1]);
});

test('an uncaught exception still delivers what was collected', async () => {
  await using agent = await TestAgent.start();
  const { code } = await run(agent, "collector.collect([{ i: 1 }]); setTimeout(() => { throw new Error('x'); });")
    .ended;
  assert.equal(code, 1);
  assert.deepEqual(numbers(agent), [1]);
});

test('SIGTERM delivers and then ends the process by the signal', async () => {
  await using agent = await TestAgent.start();
  const { child, ended } = run(
    agent,
    "setInterval(() => {}, 1000); collector.collect([{ i: 1 }]); process.stdout.write('up');",
  );
  child.stdout?.once('data', () => child.kill('SIGTERM'));
  const { code, signal } = await ended;
  assert.deepEqual([code, signal], [null, 'SIGTERM']);
  assert.deepEqual(numbers(agent), [1]);
});

test('with a SIGTERM listener of the program the program decides', async () => {
  await using agent = await TestAgent.start();
  const { child, ended } = run(
    agent,
    `const timer = setInterval(() => {}, 1000);
     process.on('SIGTERM', () => { collector.collect([{ i: 2 }]); clearInterval(timer); process.exitCode = 3; });
     collector.collect([{ i: 1 }]); process.stdout.write('up');`,
  );
  child.stdout?.once('data', () => child.kill('SIGTERM'));
  assert.equal((await ended).code, 3);
  assert.deepEqual(numbers(agent), [1, 2]);
});

test('an agent that does not answer delays the end no longer than the limit, and the loss is told', async () => {
  await using agent = await TestAgent.start();
  agent.answer = () => 'hang';
  const exit = run(agent, 'collector.collect([{ i: 1 }]); process.exit(0);').ended;
  const end = start(
    `const collector = new Collector({ name: 'a', enabled: true, port: ${agent.port}, flushTimeoutMs: 300 });
     collector.collect([{ i: 1 }]);`,
    {},
  ).ended;
  for (const { code, err, ms } of await Promise.all([exit, end])) {
    assert.equal(code, 0);
    assert.match(err, /ends with 1 records not delivered/);
    assert.ok(ms < 5000);
  }
});

test('an agent that is not there is logged once and does not disturb the program', async () => {
  await using agent = await TestAgent.start();
  await agent.close();
  const body = `for (let i = 0; i < 50; i++) { collector.collect([{ i }]); await new Promise((r) => setTimeout(r, 10)); }
    const { pending } = await flush({ timeoutMs: 100 }); console.log('pending', pending); process.exit(0);`;
  const { code, out, err } = await run(agent, body).ended;
  assert.equal(code, 0);
  assert.equal(out, 'pending 50\n');
  assert.equal(err.match(/agent_unreachable/g)?.length, 1);
});

test('collecting works inside worker threads', async () => {
  await using agent = await TestAgent.start();
  const body = `
    const { Worker, isMainThread } = await import('node:worker_threads');
    if (isMainThread) {
      collector.collect([{ i: 0 }]);
      await flush();
      const worker = new Worker(new URL(import.meta.url));
      await new Promise((resolve) => worker.once('exit', resolve));
    } else {
      for (let i = 1; i < 4; i++) collector.collect([{ i }]);
    }`;
  assert.equal((await run(agent, body).ended).code, 0);
  assert.deepEqual(numbers(agent), [0, 1, 2, 3]);
});

test('code from strings being forbidden changes nothing but speed', async () => {
  await using agent = await TestAgent.start();
  const body = 'for (let i = 0; i < 500; i++) collector.collect([{ i, s: "x" }]);';
  const { code } = await run(agent, body, ['--disallow-code-generation-from-strings']).ended;
  assert.equal(code, 0);
  assert.equal(agent.events.length, 500);
});

test('a polluted Object.prototype does not reach the records', async () => {
  await using agent = await TestAgent.start();
  const body = 'Object.prototype.evil = 1; for (let i = 0; i < 300; i++) collector.collect([{ i, n: { k: 1 } }]);';
  assert.equal((await run(agent, body).ended).code, 0);
  assert.ok(agent.events.every(({ data }) => /^\[\{"i":\d+,"n":\{"k":1\}\}\]$/.test(JSON.stringify(data))));
});

test('runMode local prints the records and sends nothing', async () => {
  await using agent = await TestAgent.start();
  const path = join(folder, 'local.json');
  writeFileSync(path, '{"runMode":"local","collections":{"model_inputs":{"enabled":true}}}');
  const body = `
    import { BasicCorrelationContext } from ${JSON.stringify(MODULE)};
    const collector = new Collector({ name: 'model_inputs' });
    collector.collect([{ a: 'é' }], new BasicCorrelationContext({ id: 'x', timestamp: 1700000000 }));
    collector.collect({ big: ['y'.repeat(200000)] }, new BasicCorrelationContext({ id: 'z', timestamp: 1 }));`;
  const { code, out } = await start(body, { AZUREML_MDC_CONFIG_PATH: path, AZUREML_MDC_PORT: String(agent.port) })
    .ended;
  assert.equal(code, 0);
  const lines = out.split('\n');
  assert.equal(lines[0], '2023-11-14T22:13:20Z | model_inputs | x | [{"a":"é"}]');
  assert.equal(lines[1], `1970-01-01T00:00:01Z | model_inputs | z | [{"big":"${'y'.repeat(200_000)}"}]`);
  assert.equal(agent.seen.length, 0);
});
