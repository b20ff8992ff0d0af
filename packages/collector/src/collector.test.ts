import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { TestAgent } from './agent.test.support.ts';
import { ERRORS } from './errors.ts';
import {
  BasicCorrelationContext,
  Collector,
  CollectorError,
  type CorrelationContext,
  flush,
  samplePoint,
} from './index.ts';
import { registry } from './registry.ts';
import { VERSION } from './version.ts';

let agent: TestAgent;
before(async () => {
  agent = await TestAgent.start();
});
after(() => agent.close());

const options = () => ({ enabled: true, port: agent.port, env: {} });
const code = (expected: string) => (error: unknown) =>
  error instanceof CollectorError &&
  error.code === expected &&
  error.fix !== '' &&
  !/\{\w+\}/.test(error.message + error.fix);

test('collect returns the context given, or a new one, and outputs get the id of their inputs', async () => {
  const inputs = new Collector({ name: 'model_inputs', ...options() });
  const outputs = new Collector({ name: 'model_outputs', ...options() });
  const context = inputs.collect([{ a: 1 }]);
  assert.match(context.getId(), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.equal(outputs.collect([{ b: 2 }], context), context);
  const own: CorrelationContext = { getId: () => 'mine', getTimestamp: () => 1, getHeaders: () => ({ x: 1 }) };
  assert.equal(inputs.collect([{ a: 2 }], own), own);
  await flush();
  const seen = agent.events.map(({ type, correlationid, time, x }) => [type, correlationid, time, x]);
  const time = new Date(Number(context.getTimestamp()) * 1000).toISOString().replace('.000Z', 'Z');
  assert.deepEqual(seen, [
    ['azureml.inference.model_inputs', context.getId(), time, undefined],
    ['azureml.inference.model_outputs', context.getId(), time, undefined],
    ['azureml.inference.model_inputs', 'mine', '1970-01-01T00:00:01Z', '1'],
  ]);
});

test('failures the caller causes are thrown at the call', async () => {
  const env = {};
  assert.throws(() => new Collector({ name: '' }), code('name_missing'));
  assert.throws(() => new Collector(undefined as never), code('name_missing'));
  assert.throws(() => new Collector({ name: 'model_inputs', env }), code('not_configured'));
  assert.throws(() => new Collector({ name: 'model_inputs', env, enabled: false }), code('collection_disabled'));
  assert.throws(() => new Collector({ name: 'a', env, collections: { b: true } }), code('collection_unknown'));
  assert.throws(() => new Collector({ name: 'a', ...options(), samplingRate: 2 }), code('configuration_invalid'));
  assert.throws(() => new Collector({ name: 'a', ...options(), maxQueueItems: 1.5 }), code('configuration_invalid'));
  const collector = new Collector({ name: 'model_inputs', ...options() });
  assert.throws(() => collector.collect(5), code('unsupported_type'));
  assert.throws(() => collector.collect([{ a: 1 }], { id: 'x' } as never), code('context_invalid'));
  await collector.close();
  assert.throws(() => collector.collect([{ a: 1 }]), code('collector_closed'));
});

test('with onError nothing throws, each failure arrives there, and collect still returns a context', () => {
  const codes: string[] = [];
  const onError = (error: CollectorError) => {
    codes.push(error.code);
    throw new Error('from onError');
  };
  const off = new Collector({ name: 'model_inputs', env: {}, onError });
  assert.ok(off.collect([{ a: 1 }]).getId());
  assert.ok(off.collect([{ a: 1 }]).getId());
  const on = new Collector({ name: 'model_inputs', ...options(), onError });
  const context = new BasicCorrelationContext({ id: 'kept' });
  assert.equal(on.collect('text', context), context);
  assert.ok(
    on
      .collect([
        {
          get a() {
            throw new TypeError('x');
          },
        },
      ])
      .getId(),
  );
  assert.deepEqual(codes, [
    'not_configured',
    'not_configured',
    'not_configured',
    'unsupported_type',
    'data_unreadable',
  ]);
});

test('the sixth custom collection of a process is refused; request and response do not count', () => {
  const names = ['request', 'response', 'MODEL_INPUTS', 'c3', 'c4', 'c5'];
  assert.equal(names.map((name) => new Collector({ name, ...options() })).length, 6);
  assert.throws(
    () => new Collector({ name: 'c6', ...options() }),
    (error) => code('too_many_collections')(error) && /"c6" .* number 6 .* limit is 5/.test((error as Error).message),
  );
  assert.ok(new Collector({ name: 'C5', ...options() }));
  assert.ok(new Collector({ name: 'c6', ...options(), maxCollections: 6 }));
  assert.throws(() => new Collector({ name: 'c7', ...options() }), code('too_many_collections'));
});

test('sampling keeps or drops inputs and outputs of one id together and stores the rate', async () => {
  const shared = { ...options(), samplingRate: 0.25 };
  const inputs = new Collector({ name: 'model_inputs', ...shared });
  const outputs = new Collector({ name: 'model_outputs', ...shared });
  const before = agent.events.length;
  const { accepted: acceptedBefore } = await inputs.flush();
  const kept: string[] = [];
  for (let i = 0; i < 400; i++) {
    const context = inputs.collect([{ i }], i % 2 === 0 ? undefined : new BasicCorrelationContext({ id: `id-${i}` }));
    outputs.collect([{ i }], context);
    if (samplePoint(context.getId()) < 0.25) kept.push(context.getId());
  }
  const result = await inputs.flush();
  await outputs.flush();
  const events = agent.events.slice(before);
  const ids = (type: string) => events.filter((event) => event.type.endsWith(type)).map((event) => event.correlationid);
  assert.deepEqual(ids('model_inputs'), kept);
  assert.deepEqual(ids('model_outputs'), kept);
  assert.equal(result.sampled, 400 - kept.length);
  assert.equal(result.accepted - acceptedBefore, kept.length);
  assert.ok(events.every((event) => event['sampledrate'] === 4));
  assert.ok(agent.events.slice(0, before).every((event) => !('sampledrate' in event)));
});

test('a second copy of the module shares the queue and the count of collections', async () => {
  const url = new URL(`./index.${import.meta.url.endsWith('.ts') ? 'ts' : 'js'}?copy`, import.meta.url);
  const copy = (await import(url.href)) as typeof import('./index.ts');
  const collector = new copy.Collector({ name: 'model_inputs', ...options() });
  collector.collect([{ from: 'copy' }], new BasicCorrelationContext({ id: 'foreign' }));
  assert.equal((await flush()).pending, 0);
  assert.equal(agent.events.at(-1)?.correlationid, 'foreign');
  assert.equal(registry(), registry());
});

test('the version in the events is that of the package', () => {
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  assert.equal(VERSION, version);
});

test('docs/collector.md names every error code', () => {
  const page = readFileSync(new URL('../../../docs/collector.md', import.meta.url), 'utf8');
  const missing = Object.keys(ERRORS).filter((name) => !page.includes(`\`${name}\``));
  assert.deepEqual(missing, []);
});
