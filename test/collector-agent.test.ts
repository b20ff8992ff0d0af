/** The compiled SDK against a real agent process: what is stored is what was collected, once, whatever happens between. */
import assert from 'node:assert/strict';
import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import {
  BasicCorrelationContext,
  Collector,
  type CollectorError,
  type CollectorOptions,
  flush,
  samplePoint,
} from '@modeltap/collector';
import { openStore } from '../packages/modeltap/src/storage/stores.ts';
import {
  freePort,
  killAgents,
  ledgerOf,
  startAgent,
  storedEvents,
  type TestAgent,
  untilDelivered,
  writeAgentFile,
} from './support/agent.ts';

const root = mkdtempSync(join(tmpdir(), 'modeltap-collector-agent-'));
const path = join(root, 'store');
const collections = ['rows', 'columns', 'frames', 'tables', 'restarts', 'model_inputs', 'model_outputs'];
let file = '';
let agent: TestAgent;

before(async () => {
  const port = await freePort();
  file = writeAgentFile({
    directory: root,
    port,
    datastore: { type: 'local', path },
    collections,
    extra: { max_collections: 10 },
  });
  agent = await startAgent(file, port);
});
after(async () => {
  await agent?.end('SIGTERM');
  killAgents();
  rmSync(root, { recursive: true, force: true });
});

function open(
  name: string,
  options: Partial<CollectorOptions> = {},
): { collector: Collector; errors: CollectorError[] } {
  const errors: CollectorError[] = [];
  const onError = (error: CollectorError) => errors.push(error);
  const shared = { enabled: true, port: agent.port, maxCollections: 10, onError };
  return { collector: new Collector({ name, ...shared, ...options }), errors };
}

/** The stored lines of a collection, as text: parsing them would lose digits. */
async function linesOf(collection: string): Promise<string[]> {
  const result = await flush({ timeoutMs: 20_000 });
  assert.equal(result.pending, 0);
  await untilDelivered(agent);
  const files = globSync(join(path, `modelDataCollector/iris/blue/${collection}/**/*.jsonl`));
  return files.flatMap((name) => readFileSync(name, 'utf8').split('\n').slice(0, -1));
}

/** The text of `data` in a line, digit for digit. */
function dataText(line: string): string {
  return line.slice(line.indexOf(',"data":') + 8, line.indexOf(',"contentrange":'));
}

async function eventsOf(collection: string): Promise<Record<string, unknown>[]> {
  await linesOf(collection);
  const store = await openStore({ type: 'local', name: 'store', path });
  const found = await storedEvents(store, `modelDataCollector/iris/blue/${collection}/`);
  return found.map(({ event }) => event);
}

test('rows are stored with the digits, the nesting and the text they had', async () => {
  const { collector, errors } = open('rows');
  const context = new BasicCorrelationContext({
    id: 'order-17 é€😀',
    timestamp: 1_700_000_000.25,
    headers: { 'X-Tenant': 'a', 'X-Note': 'ü "1"', time: 'no' },
  });
  const row = {
    big: 9_007_199_254_740_993n,
    huge: 123_456_789_012_345_678_901_234_567_890n,
    tiny: 5e-324,
    third: 1 / 3,
    minus: -0.5,
    nan: Number.NaN,
    none: undefined,
    text: 'é€😀 "\\/\n\u0001\u2028',
    flag: true,
    nested: { list: [1, [2n ** 63n], null], when: new Date(1_700_000_000_123), map: new Map([['k', new Set([1])]]) },
  };
  collector.collect([row, { other: 'keys' }], context);
  const lines = await linesOf('rows');
  assert.deepEqual(errors, []);
  assert.equal(lines.length, 1);
  const [line = ''] = lines;
  const text = '"é€😀 \\"\\\\/\\n\\u0001\u2028"';
  const nested = '{"list":[1,[9223372036854775808],null],"when":1700000000123,"map":{"k":[1]}}';
  assert.equal(
    dataText(line),
    `[{"big":9007199254740993,"huge":123456789012345678901234567890,"tiny":5e-324,"third":0.3333333333333333,"minus":-0.5,` +
      `"nan":null,"none":null,"text":${text},"flag":true,"nested":${nested}},{"other":"keys"}]`,
  );
  const { id, agent: by, ...event } = JSON.parse(line) as Record<string, unknown>;
  assert.match(String(id), /^[0-9a-f-]{36}$/);
  assert.match(String(by), /modeltap-collector\//);
  assert.deepEqual(
    {
      time: event.time,
      type: event.type,
      correlationid: event.correlationid,
      collectdatatype: event.collectdatatype,
      modelversion: event.modelversion,
      xtenant: event.xtenant,
      xnote: event.xnote,
    },
    {
      time: '2023-11-14T22:13:20Z',
      type: 'azureml.inference.rows',
      correlationid: 'order-17 é€😀',
      collectdatatype: 'js.Array',
      modelversion: 'default',
      xtenant: 'a',
      xnote: 'ü "1"',
    },
  );
});

/** npm on Node 20 leaves the binary of nodejs-polars out; `npm run test:polars` fetches it. */
function loadPolars(): typeof import('nodejs-polars').default | undefined {
  try {
    return createRequire(import.meta.url)('nodejs-polars') as typeof import('nodejs-polars').default;
  } catch {
    return undefined;
  }
}

const polars = loadPolars();
const withoutPolars = polars === undefined && 'nodejs-polars cannot be loaded here; npm run test:polars has it';

test('a polars table is stored as its rows', { skip: withoutPolars }, async () => {
  assert.ok(polars);
  const int64 = 9_223_372_036_854_775_807n;
  const frames = open('frames');
  const unsigned = polars.DataFrame({ id: [int64, 2n], text: ['é', null], list: [[1, 2], [3]] });
  frames.collector.collect(unsigned.withColumns(polars.col('id').cast(polars.Int64)));
  const [line = ''] = (await linesOf('frames')).slice(-1);
  assert.equal((JSON.parse(line) as Record<string, unknown>).collectdatatype, 'nodejs-polars.DataFrame');
  assert.equal(dataText(line), '[{"id":9223372036854775807,"text":"é","list":[1,2]},{"id":2,"text":null,"list":[3]}]');
  assert.deepEqual(frames.errors, []);
});

test('columns, arrow and arquero tables are stored as their rows', async () => {
  const columns = open('columns');
  columns.collector.collect({ a: [1, Number.NaN], b: new BigInt64Array([2n ** 62n, -1n]), c: ['é', null] });
  const arrow = await import('apache-arrow');
  const { table } = await import('arquero');
  const frames = open('tables');
  const int64 = 9_223_372_036_854_775_807n;
  frames.collector.collect(
    arrow.tableFromArrays({
      id: new BigInt64Array([int64, 1n]),
      text: ['é', 'b'],
      f: new Float64Array([0.1, Number.NaN]),
    }),
  );
  frames.collector.collect(table({ id: [1, 2, 3], text: ['a', 'b', 'c'] }).filter((row: { id: number }) => row.id > 1));
  assert.deepEqual((await linesOf('columns')).map(dataText), [
    '[{"a":1,"b":4611686018427387904,"c":"é"},{"a":null,"b":-1,"c":null}]',
  ]);
  const lines = await linesOf('tables');
  const types = lines.map((line) => (JSON.parse(line) as Record<string, unknown>).collectdatatype);
  assert.deepEqual(types, ['apache-arrow.Table', 'arquero.Table']);
  assert.deepEqual(lines.map(dataText), [
    '[{"id":9223372036854775807,"text":"é","f":0.1},{"id":1,"text":"b","f":null}]',
    '[{"id":2,"text":"b"},{"id":3,"text":"c"}]',
  ]);
  assert.deepEqual([...columns.errors, ...frames.errors], []);
});

test('inputs and outputs share their id, and sampling keeps or drops both', async () => {
  const inputs = open('model_inputs', { samplingRate: 0.5 });
  const outputs = open('model_outputs', { samplingRate: 0.5 });
  const ids: string[] = [];
  for (let i = 0; i < 200; i++) {
    const context = inputs.collector.collect([{ i }]);
    outputs.collector.collect([{ out: i }], context);
    ids.push(context.getId());
  }
  const kept = ids.filter((id) => samplePoint(id) < 0.5);
  assert.ok(kept.length > 40 && kept.length < 160);
  for (const collection of ['model_inputs', 'model_outputs']) {
    const events = await eventsOf(collection);
    assert.deepEqual(
      events.map(({ correlationid }) => correlationid),
      kept,
    );
    assert.ok(events.every(({ sampledrate }) => sampledrate === 2));
  }
  const { accepted, sent, sampled } = await outputs.collector.flush();
  assert.deepEqual(
    { accepted, sent, sampled },
    { accepted: kept.length, sent: kept.length, sampled: 200 - kept.length },
  );
  assert.deepEqual([...inputs.errors, ...outputs.errors], []);
  const { rows } = await agent.get<{ rows: { collection: string; sampled_out: number }[] }>('/v1/ledger');
  for (const collection of ['model_inputs', 'model_outputs']) {
    const own = rows.filter((row) => row.collection === collection);
    const sampledOut = own.reduce((sum, row) => sum + row.sampled_out, 0);
    assert.equal(sampledOut, 200 - kept.length, `the ledger of ${collection} shows what sampling left out`);
  }
});

test('a collection that is off or not there is an error with its own code, from the SDK and from the agent', async () => {
  const off = open('model_inputs', { enabled: undefined, collections: { model_inputs: false } });
  const unknown = open('typo', { enabled: undefined, collections: { model_inputs: true } });
  off.collector.collect([{ a: 1 }]);
  unknown.collector.collect([{ a: 1 }]);
  assert.deepEqual(new Set(off.errors.map(({ code }) => code)), new Set(['collection_disabled']));
  assert.deepEqual(new Set(unknown.errors.map(({ code }) => code)), new Set(['collection_unknown']));
  const refused = open('typo');
  refused.collector.collect([{ a: 1 }]);
  const { dropped, accepted, sent } = await refused.collector.flush();
  assert.deepEqual([accepted, sent, dropped.rejected], [1, 0, 1]);
  assert.deepEqual(
    refused.errors.map(({ code }) => code),
    ['delivery_rejected'],
  );
  assert.match(refused.errors[0]?.message ?? '', /collection_unknown: collection "typo" is not known; enabled here: /);
});

test('a record of six megabytes is stored beside its event, with the same content', async () => {
  const { collector, errors } = open('frames');
  const before = (await eventsOf('frames')).length;
  const data = Array.from({ length: 6000 }, (_, i) => ({ i, text: `${i} é `.padEnd(1000, 'x') }));
  collector.collect(data);
  const large = (await eventsOf('frames')).slice(before);
  assert.equal(large.length, 1);
  assert.equal(typeof large[0]?.dataref, 'string');
  const bytes = Buffer.byteLength(JSON.stringify(data));
  assert.equal(large[0]?.contentrange, `bytes 0-${bytes - 1}/${bytes}`);
  assert.deepEqual(large[0]?.data, data);
  assert.deepEqual(errors, []);
});

test('an agent killed and started again in the middle stores every accepted record once', async () => {
  const { collector, errors } = open('restarts');
  let n = 0;
  const collect = async (calls: number): Promise<void> => {
    for (let i = 0; i < calls; i++) {
      collector.collect([{ n: n++ }]);
      if (i % 10 === 9) await new Promise((done) => setTimeout(done, 1));
    }
  };
  await collect(1500);
  const ended = agent.end('SIGKILL');
  await collect(500);
  await ended;
  agent = await startAgent(file, agent.port);
  await collect(500);
  const result = await collector.flush({ timeoutMs: 30_000 });
  assert.deepEqual([result.accepted, result.sent], [2500, 2500]);
  const stored = (await eventsOf('restarts')).map(({ data }) => (data as [{ n: number }])[0].n);
  assert.deepEqual(
    stored.toSorted((a, b) => a - b),
    Array.from({ length: 2500 }, (_, i) => i),
  );
  assert.ok(errors.every(({ code }) => code === 'agent_unreachable'));
  assert.deepEqual((await ledgerOf(agent)).broken, []);
});
