import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Answer, TestAgent } from './agent.test.support.ts';
import { BasicCorrelationContext, Collector, type CollectorError, type CollectorOptions } from './index.ts';
import { registry } from './registry.ts';

function open(
  agent: TestAgent,
  options: Partial<CollectorOptions> = {},
): { collector: Collector; errors: CollectorError[] } {
  const errors: CollectorError[] = [];
  const onError = (error: CollectorError) => errors.push(error);
  const collector = new Collector({ name: 'model_inputs', enabled: true, port: agent.port, onError, ...options });
  return { collector, errors };
}

const NOTHING_DROPPED = { queue_full: 0, rejected: 0, deadline: 0, too_large: 0, worker_failed: 0 };
const refuseOnce = (agent: TestAgent, answer: Exclude<Answer, string>) => {
  let refusals = 0;
  agent.answer = () => (refusals++ === 0 ? answer : { status: 204 });
};

test('records go in batches over one connection, one structured event for each collect', async () => {
  await using agent = await TestAgent.start();
  const { collector } = open(agent, { modelVersion: '7', source: '/me' });
  const context = new BasicCorrelationContext({
    id: 'é"1',
    timestamp: 1_700_000_000.5,
    headers: { 'X-Tenant': 'a', id: 'no' },
  });
  collector.collect([{ a: 1 }], context);
  for (let i = 0; i < 250; i++) collector.collect([{ i }], new BasicCorrelationContext({ id: `r${i}` }));
  const result = await collector.flush();
  assert.deepEqual(result, { accepted: 251, sent: 251, pending: 0, sampled: 0, dropped: NOTHING_DROPPED });
  assert.equal(agent.connections, 1);
  assert.ok(agent.posts.length < 20);
  assert.ok(agent.posts.every((post) => post.headers['content-type'] === 'application/cloudevents-batch+json'));
  const { events } = agent;
  assert.deepEqual(
    events.slice(1).map((event) => event.correlationid),
    Array.from({ length: 250 }, (_, i) => `r${i}`),
  );
  assert.equal(new Set(events.map((event) => event.id)).size, 251);
  const [first] = events;
  assert.ok(first);
  assert.match(first.id, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  const { version } = JSON.parse(await readPackage()) as { version: string };
  assert.equal(
    JSON.stringify({ ...first, id: 'x' }),
    '{"specversion":"1.0","id":"x","source":"/me","type":"azureml.inference.model_inputs",' +
      '"datacontenttype":"application/json","time":"2023-11-14T22:13:20.500Z","data":[{"a":1}],' +
      '"correlationid":"é\\"1","xrequestid":"é\\"1","modelversion":"7","collectdatatype":"js.Array",' +
      `"agent":"modeltap-collector/${version}","xtenant":"a"}`,
  );
});

async function readPackage(): Promise<string> {
  const { readFile } = await import('node:fs/promises');
  return readFile(new URL('../package.json', import.meta.url), 'utf8');
}

test('an agent without batches gets one request a record, with the headers of the Python SDK', async () => {
  await using agent = await TestAgent.start();
  agent.probe = { status: 404 };
  const { collector } = open(agent);
  const context = new BasicCorrelationContext({
    id: 'é€\n',
    timestamp: 1_700_000_000,
    headers: { tenant: 'b', time: 'no', 'bad name': 'x' },
  });
  collector.collect([{ a: 1 }], context);
  collector.collect({ b: [2n ** 60n] }, context);
  assert.equal((await collector.flush()).sent, 2);
  assert.deepEqual(
    agent.posts.map(({ path, body }) => [path, body]),
    [
      ['/modeldata/log', '[{"a":1}]'],
      ['/modeldata/log', '[{"b":1152921504606846976}]'],
    ],
  );
  const raw = agent.posts[0]?.rawHeaders ?? [];
  const headers = Object.fromEntries(raw.flatMap((name, i) => (i % 2 === 0 ? [[name, raw[i + 1]]] : [])));
  assert.match(headers['trace-id'] ?? '', /^[0-9a-f-]{36}$/);
  assert.match(headers['ce-agent'] ?? '', /^modeltap-collector\/\d/);
  const { 'trace-id': _, 'ce-agent': agentName, Host: __, 'User-Agent': userAgent, ...rest } = headers;
  assert.equal(userAgent, agentName);
  assert.deepEqual(rest, {
    'ce-tenant': 'b',
    'Content-Type': 'application/json',
    'ce-time': '1700000000',
    'ce-type': 'azureml.inference.model_inputs',
    'ce-collect-data-type': 'js.Array',
    'ce-x-request-id': 'é%E2%82%AC%0A',
    'ce-model-version': 'default',
    Accept: '*/*',
    'Content-Length': '9',
    Connection: 'keep-alive',
  });
});

test('records the agent refuses are dropped with its reason and never sent again', async () => {
  await using agent = await TestAgent.start();
  agent.answer = () => ({ status: 207, body: '{"accepted":2,"rejected":[{"index":1,"code":"bad","message":"no"}]}' });
  const { collector, errors } = open(agent);
  for (let i = 0; i < 3; i++) collector.collect([{ i }]);
  const result = await collector.flush();
  assert.deepEqual(result, {
    accepted: 3,
    sent: 2,
    pending: 0,
    sampled: 0,
    dropped: { ...NOTHING_DROPPED, rejected: 1 },
  });
  assert.equal(agent.posts.length, 1);
  agent.answer = () => ({ status: 400, body: '{"error":{"code":"malformed","message":"what"}}' });
  collector.collect([{ i: 4 }]);
  assert.equal((await collector.flush()).dropped.rejected, 2);
  assert.deepEqual(
    errors.map(({ code }) => code),
    ['delivery_rejected', 'delivery_rejected'],
  );
  assert.match(errors[0]?.message ?? '', /1 records of "model_inputs" .*bad: no/);
  assert.match(errors[1]?.message ?? '', /HTTP 400: malformed: what/);
});

test('a refusal of the events themselves is final for them alone, also with the status of a missing route', async () => {
  await using agent = await TestAgent.start();
  const body = '{"error":{"code":"collection_unknown","message":"not known","fix":"…"}}';
  refuseOnce(agent, { status: 404, body });
  const { collector, errors } = open(agent);
  collector.collect([{ i: 0 }]);
  assert.equal((await collector.flush()).dropped.rejected, 1);
  collector.collect([{ i: 1 }]);
  assert.equal((await collector.flush()).sent, 1);
  assert.deepEqual(
    agent.posts.map(({ path }) => path),
    ['/v1/events', '/v1/events'],
  );
  assert.match(errors[0]?.message ?? '', /collection_unknown: not known/);
});

test('events an agent has no room for are sent again, with what lies behind them', async () => {
  await using agent = await TestAgent.start();
  const rejected = [
    { index: 0, code: 'event_invalid', message: 'no' },
    { index: 2, code: 'spool_full', message: 'full' },
  ];
  refuseOnce(agent, { status: 207, body: JSON.stringify({ accepted: 2, rejected, rejectedCount: 2 }) });
  const { collector } = open(agent);
  for (let i = 0; i < 4; i++) collector.collect([{ i }]);
  const { sent, dropped } = await collector.flush();
  assert.deepEqual([sent, dropped.rejected], [3, 1]);
  const ids = agent.posts.map((post) => (JSON.parse(post.body) as { id: string }[]).map(({ id }) => id));
  assert.deepEqual(ids[1], ids[0]?.slice(2));
});

test('refused events that an answer does not list are counted as refused', async () => {
  await using agent = await TestAgent.start();
  agent.answer = ({ body }) => {
    const events = JSON.parse(body) as { type: string }[];
    const all = events.flatMap(({ type }, index) =>
      type.endsWith('typo') ? [{ index, code: 'collection_unknown', message: 'no' }] : [],
    );
    const text = JSON.stringify({ accepted: 1, rejected: all.slice(0, 3), rejectedCount: all.length });
    return { status: 207, body: text };
  };
  const { collector } = open(agent);
  const { collector: refused } = open(agent, { name: 'typo' });
  for (let i = 0; i < 10; i++) (i % 2 === 0 ? collector : refused).collect([{ i }]);
  assert.deepEqual((await collector.flush()).sent, 5);
  assert.deepEqual((await refused.flush()).dropped, { ...NOTHING_DROPPED, rejected: 5 });
});

test('after 429, 503 and a cut connection the same events are sent again, in order', async () => {
  await using agent = await TestAgent.start();
  const answers: (() => ReturnType<TestAgent['answer']>)[] = [
    () => ({ status: 429, headers: { 'retry-after': '0' } }),
    () => ({ status: 503 }),
    () => 'cut',
  ];
  agent.answer = () => answers.shift()?.() ?? { status: 204 };
  const { collector } = open(agent);
  for (let i = 0; i < 3; i++) collector.collect([{ i }]);
  assert.equal((await collector.flush()).sent, 3);
  const batches = agent.posts.map((post) => post.body);
  assert.equal(batches.length, 4);
  assert.equal(new Set(batches).size, 1);
});

test('an agent that is away and comes back gets everything', async () => {
  await using agent = await TestAgent.start();
  const { collector, errors } = open(agent);
  collector.collect([{ i: 0 }]);
  await collector.flush();
  await agent.close();
  for (let i = 1; i <= 3; i++) collector.collect([{ i }]);
  const meanwhile = await collector.flush({ timeoutMs: 150 });
  assert.equal(meanwhile.pending, 3);
  assert.deepEqual(
    errors.map(({ code }) => code),
    ['agent_unreachable'],
  );
  await agent.listen();
  assert.equal((await collector.flush()).sent, 4);
  assert.deepEqual(
    agent.events.map(({ data }) => (data as [{ i: number }])[0].i),
    [0, 1, 2, 3],
  );
});

test('a connection the agent closed while it was idle is replaced without an error', async () => {
  await using agent = await TestAgent.start();
  const { collector, errors } = open(agent);
  for (let i = 0; i < 3; i++) {
    collector.collect([{ i }]);
    assert.equal((await collector.flush()).sent, i + 1);
    agent.cutIdle();
  }
  assert.deepEqual(errors, []);
});

test('an agent that comes back without batches is served one by one', async () => {
  await using agent = await TestAgent.start();
  const { collector } = open(agent);
  collector.collect([{ i: 0 }]);
  await collector.flush();
  agent.probe = { status: 405 };
  agent.answer = ({ path }) => ({ status: path === '/v1/events' ? 404 : 200, body: 'ok' });
  collector.collect([{ i: 1 }]);
  assert.equal((await collector.flush()).sent, 2);
  assert.equal(agent.posts.at(-1)?.path, '/modeldata/log');
});

test('a batch that is too large is split, and a record that is too large alone is dropped', async () => {
  await using agent = await TestAgent.start();
  agent.answer = ({ body }) => ({ status: body.length > 2000 ? 413 : 204 });
  const { collector, errors } = open(agent);
  for (let i = 0; i < 20; i++) collector.collect([{ i, text: i === 7 ? 'x'.repeat(3000) : '' }]);
  const result = await collector.flush();
  assert.equal(result.sent, 19);
  assert.deepEqual(result.dropped, { ...NOTHING_DROPPED, too_large: 1 });
  assert.deepEqual(
    errors.map(({ code }) => code),
    ['delivery_too_large'],
  );
  const taken = agent.posts.filter(({ body }) => body.length <= 2000);
  const rows = taken.flatMap(({ body }) =>
    (JSON.parse(body) as { data: [{ i: number }] }[]).map(({ data }) => data[0].i),
  );
  assert.deepEqual(rows, [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
});

test('the limits the agent names are kept; a record beyond them goes alone as a structured event', async () => {
  await using agent = await TestAgent.start();
  agent.probe = { status: 200, headers: { 'modeltap-batch-max-bytes': '1500', 'modeltap-batch-max-events': '3' } };
  const { collector } = open(agent);
  for (let i = 0; i < 7; i++) collector.collect([{ i }]);
  collector.collect([{ text: 'x'.repeat(2000) }]);
  assert.equal((await collector.flush()).sent, 8);
  const large = agent.posts.filter(({ body }) => body.length > 1500);
  assert.deepEqual(
    large.map(({ headers }) => headers['content-type']),
    ['application/cloudevents+json'],
  );
  assert.ok(agent.posts.every(({ body }) => !body.startsWith('[') || (JSON.parse(body) as unknown[]).length <= 3));
});

test('a record that cannot be delivered in time is dropped, and later ones are delivered', async () => {
  await using agent = await TestAgent.start();
  agent.answer = () => ({ status: 500, body: 'oh' });
  const { collector, errors } = open(agent, { deliveryDeadlineMs: 200 });
  collector.collect([{ i: 0 }]);
  collector.collect([{ i: 1 }]);
  const result = await collector.flush();
  assert.deepEqual(result.dropped, { ...NOTHING_DROPPED, deadline: 2 });
  assert.equal(result.pending, 0);
  assert.ok(errors.some(({ code, message }) => code === 'delivery_deadline' && message.includes('HTTP 500: oh')));
  agent.answer = () => ({ status: 204 });
  collector.collect([{ i: 2 }]);
  assert.equal((await collector.flush()).sent, 1);
});

test('the queue is bounded in records and in bytes, and takes more once the agent took some', async () => {
  await using agent = await TestAgent.start();
  agent.answer = () => 'hang';
  const { collector, errors } = open(agent, { maxQueueItems: 3, deliveryDeadlineMs: 500 });
  for (let i = 0; i < 5; i++) collector.collect([{ i }]);
  assert.deepEqual(
    errors.map(({ code }) => code),
    ['queue_full', 'queue_full'],
  );
  const full = await collector.flush({ timeoutMs: 50 });
  assert.deepEqual(full, {
    accepted: 3,
    sent: 0,
    pending: 3,
    sampled: 0,
    dropped: { ...NOTHING_DROPPED, queue_full: 2 },
  });

  await using other = await TestAgent.start();
  const { collector: small, errors: refused } = open(other, { maxQueueBytes: 4096 });
  small.collect([{ text: 'x'.repeat(5000) }]);
  small.collect([{ text: 'x'.repeat(3000) }]);
  small.collect([{ text: 'x'.repeat(3000) }]);
  assert.equal(refused.filter(({ code }) => code === 'queue_full').length, 2);
  assert.equal((await small.flush()).sent, 1);
  small.collect([{ text: 'x'.repeat(3000) }]);
  assert.equal((await small.flush()).sent, 2);
});

test('the probe is repeated while the agent starts', async () => {
  await using agent = await TestAgent.start();
  agent.probe = { status: 503 };
  const { collector } = open(agent);
  collector.collect([{ a: 1 }]);
  assert.equal((await collector.flush({ timeoutMs: 100 })).pending, 1);
  assert.equal(agent.posts.length, 0);
  agent.probe = { status: 204, headers: { 'modeltap-batch-max-bytes': '1000', 'modeltap-batch-max-events': '1' } };
  assert.equal((await collector.flush()).sent, 1);
  assert.equal(agent.posts[0]?.path, '/v1/events');
});

test('when the sending thread fails its records are counted as lost and the next ones are sent', async () => {
  await using agent = await TestAgent.start();
  agent.answer = () => 'hang';
  const { collector, errors } = open(agent);
  collector.collect([{ i: 0 }]);
  assert.equal((await collector.flush({ timeoutMs: 100 })).pending, 1);
  const waiting = collector.flush();
  collector.collect([{ i: 1 }]);
  await registry().host.terminate();
  assert.equal((await waiting).dropped.worker_failed, 1);
  agent.answer = () => ({ status: 204 });
  collector.collect([{ i: 2 }]);
  const result = await collector.flush();
  assert.deepEqual(result, {
    accepted: 3,
    sent: 2,
    pending: 0,
    sampled: 0,
    dropped: { ...NOTHING_DROPPED, worker_failed: 1 },
  });
  assert.deepEqual(
    errors.map(({ code }) => code),
    ['worker_failed'],
  );
});

test('an answer that is not JSON counts as taken with 2xx, and Retry-After delays the next attempt', async () => {
  await using agent = await TestAgent.start();
  refuseOnce(agent, { status: 503, headers: { 'retry-after': '30' } });
  const { collector } = open(agent, { deliveryDeadlineMs: 1000 });
  collector.collect([{ i: 0 }]);
  assert.equal((await collector.flush({ timeoutMs: 300 })).pending, 1);
  assert.equal(agent.posts.length, 1);
  await sleep(50);
  assert.equal(agent.posts.length, 1);

  await using plain = await TestAgent.start();
  plain.answer = () => ({ status: 200, body: 'thanks' });
  const { collector: second } = open(plain);
  second.collect([{ i: 0 }]);
  assert.equal((await second.flush()).sent, 1);
});
