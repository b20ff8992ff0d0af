import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, mock, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { EXTENSION, TestAgent } from './agent.test.support.ts';
import { BasicCorrelationContext, Collector, type CollectorError, type CollectorOptions, flush } from './index.ts';
import { Ledger } from './ledger.ts';
import { sampledReport } from './sampled-report.ts';

const LIMITS = { 'modeltap-batch-max-bytes': '1000000', 'modeltap-batch-max-events': '100' };

/** An agent that takes counts. */
async function countingAgent(): Promise<TestAgent> {
  const agent = await TestAgent.start();
  agent.probe = { status: 204, headers: { ...LIMITS, 'modeltap-agent': '0.1.0' } };
  return agent;
}

function open(agent: TestAgent, options: Partial<CollectorOptions> = {}): Collector {
  return new Collector({ name: 'model_inputs', enabled: true, port: agent.port, samplingRate: 0.5, ...options });
}

/** The place of `a` is 0.10, that of `b` 0.77: with a rate of 0.5 the first is kept and the second left out. */
const kept = new BasicCorrelationContext({ id: 'a' });
const leftOut = new BasicCorrelationContext({ id: 'b' });

/** Each POST as its number of records and its counts. */
const seen = (agent: TestAgent) =>
  agent.posts.map(({ headers, body }) => [(JSON.parse(body) as unknown[]).length, headers['modeltap-sampled-out']]);

async function until(condition: () => boolean): Promise<void> {
  for (let tries = 0; tries < 500 && !condition(); tries++) await sleep(10);
}

test('records left out by sampling are told with the next batch, once', async () => {
  await using agent = await countingAgent();
  const inputs = open(agent);
  const outputs = open(agent, { name: 'Odd, name=é' });
  for (let i = 0; i < 3; i++) inputs.collect([{ i }], leftOut);
  outputs.collect([{ i: 0 }], leftOut);
  inputs.collect([{ i: 4 }], kept);
  assert.equal((await inputs.flush()).sampled, 3);
  inputs.collect([{ i: 5 }], kept);
  await inputs.flush();
  inputs.collect([{ i: 6 }], leftOut);
  inputs.collect([{ i: 7 }], kept);
  await flush();
  assert.deepEqual(seen(agent), [
    [1, 'model_inputs=3,odd%2C%20name%3D%C3%A9=1'],
    [1, undefined],
    [1, 'model_inputs=1'],
  ]);
});

test('with nothing else to send, a flush tells the counts in an empty batch', async () => {
  await using agent = await countingAgent();
  const collector = open(agent);
  collector.collect([{ i: 0 }], leftOut);
  assert.equal((await collector.flush()).accepted, 0);
  await collector.flush();
  assert.deepEqual(seen(agent), [[0, 'model_inputs=1']]);
  assert.equal(agent.posts[0]?.headers['content-type'], 'application/cloudevents-batch+json');
});

test('without a flush the counts are told within five seconds, and not again when they arrived', async () => {
  await using agent = await countingAgent();
  mock.timers.enable({ apis: ['setTimeout'] });
  try {
    const collector = open(agent);
    collector.collect([{ i: 0 }], leftOut);
    collector.collect([{ i: 1 }], leftOut);
    mock.timers.tick(4999);
    assert.equal(agent.posts.length, 0);
    mock.timers.tick(1);
    mock.timers.reset();
    await until(() => agent.posts.length > 0);
    assert.deepEqual(seen(agent), [[0, 'model_inputs=2']]);
    await collector.flush();
    assert.equal(agent.posts.length, 1);
  } finally {
    mock.timers.reset();
  }
});

test('counts that did not arrive stay, are told later, and are no error', async () => {
  await using agent = await countingAgent();
  const errors: CollectorError[] = [];
  const collector = open(agent, { onError: (error) => errors.push(error) });
  for (const answer of [{ status: 503 }, { status: 400 }, 'cut'] as const) {
    agent.answer = () => answer;
    collector.collect([{ i: 0 }], leftOut);
    await collector.flush();
  }
  await agent.close();
  collector.collect([{ i: 3 }], leftOut);
  await collector.flush();
  await agent.listen();
  agent.answer = () => ({ status: 207, body: '{"accepted":1,"rejected":[]}' });
  collector.collect([{ i: 4 }], kept);
  const result = await collector.flush();
  assert.deepEqual([result.accepted, result.sent, result.sampled], [1, 1, 4]);
  assert.deepEqual(seen(agent).at(-1), [1, 'model_inputs=4']);
  assert.deepEqual(errors, []);
});

test('an agent that does not say it is one of Modeltap is told nothing', async () => {
  await using plain = await TestAgent.start();
  const collector = open(plain);
  collector.collect([{ i: 0 }], leftOut);
  await collector.flush();
  collector.collect([{ i: 1 }], kept);
  await collector.flush();
  assert.deepEqual(seen(plain), [[1, undefined]]);

  await using single = await TestAgent.start();
  single.probe = { status: 404, headers: { 'modeltap-agent': '0.1.0' } };
  const other = open(single);
  other.collect([{ i: 0 }], leftOut);
  other.collect([{ i: 1 }], kept);
  assert.equal((await other.flush()).sent, 1);
  assert.deepEqual(
    single.posts.map(({ path, headers }) => [path, headers['modeltap-sampled-out']]),
    [['/modeldata/log', undefined]],
  );
});

test('more collections than fit into a header are told in turn, and counts survive the wrap of their memory', () => {
  const ledger = new Ledger();
  const names = Array.from({ length: 250 }, (_, slot) => [slot, `collection_${slot}_${'x'.repeat(100)}`] as const);
  for (const [slot] of names) ledger.leaveOut(slot);
  ledger.reported(7, 0x7fffffff);
  ledger.reported(7, 0x7fffffff);
  ledger.reported(7, 2);
  const told = new Map<string, string>();
  for (let requests = 0; told.size < 250; requests++) {
    const report = sampledReport(ledger, names);
    assert.ok(report !== undefined && report.text.length < 8192 && requests < 20);
    for (const part of report.text.split(',')) told.set(part.split('=')[0] ?? '', part.split('=')[1] ?? '');
    report.done();
  }
  assert.deepEqual(new Set(told.values()), new Set(['1']));
  assert.equal(sampledReport(ledger, names), undefined);
});

const folder = mkdtempSync(join(tmpdir(), 'collector-sampled-'));
after(() => rmSync(folder, { recursive: true }));

/** A process that collects two records that sampling leaves out, then does `last`. */
async function processThat(last: string, agent: TestAgent): Promise<{ code: number | null; err: string }> {
  const file = join(folder, 'script.mjs');
  const module = new URL(`./index.${EXTENSION}`, import.meta.url).href;
  const lines = [
    `import { Collector } from ${JSON.stringify(module)};`,
    `const collector = new Collector({ name: 'a', enabled: true, samplingRate: 0, port: ${agent.port} });`,
    'collector.collect([{ i: 1 }]); collector.collect([{ i: 2 }]);',
    last,
  ];
  writeFileSync(file, lines.join('\n'));
  const child = spawn(process.execPath, ['--no-warnings', file], { stdio: ['ignore', 'inherit', 'pipe'] });
  let err = '';
  child.stderr.on('data', (part) => (err += part));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, err };
}

test('a process that ends tells the counts, and does not wait for ever for an agent that does not answer', async () => {
  for (const last of ['', 'process.exit(0);', "process.kill(process.pid, 'SIGTERM'); setInterval(() => {}, 1000);"]) {
    await using agent = await countingAgent();
    await processThat(last, agent);
    assert.deepEqual(seen(agent), [[0, 'a=2']], last);
  }
  await using agent = await countingAgent();
  agent.answer = () => 'hang';
  assert.deepEqual(await processThat('', agent), { code: 0, err: '' });
});
