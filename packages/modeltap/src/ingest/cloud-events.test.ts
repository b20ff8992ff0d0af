import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { decodeHeader } from './cloud-events.ts';
import { type Rig, SOURCE, startRig } from './rig.test.ts';

let rig: Rig;
let serial = 0;
before(async () => {
  rig = await startRig({ limits: { maxBatchEvents: 3000 }, uuid: () => 'made-up' });
});
after(() => rig.close());

const EVENT = { 'content-type': 'application/cloudevents+json' };
const BATCH = { 'content-type': 'application/cloudevents-batch+json; charset=utf-8' };
const LINES = { 'content-type': 'application/x-ndjson' };
const TYPE = 'azureml.inference.model_inputs';

/** A good event with an id of its own. */
function event(more: Record<string, unknown> = {}): Record<string, unknown> {
  serial += 1;
  const id = `event-${serial}`;
  return {
    specversion: '1.0',
    id,
    source: SOURCE,
    type: TYPE,
    time: '2024-01-02T03:04:05.678Z',
    correlationid: 'c1',
    data: [{ a: 1 }],
    ...more,
  };
}

/** Posts and gives the records that came of it. */
async function store(headers: Record<string, string | string[]>, body: string | Buffer, status = 204) {
  const before = (await rig.records()).length;
  const answer = await rig.post('/v1/events', headers, body);
  assert.equal(answer.status, status, answer.text);
  return (await rig.records()).slice(before);
}

test('a structured event is stored with its id, time, attributes and the very bytes of data', async () => {
  const data = '[{"n":9223372036854775807,"s":"a\\/b<"},\n{}]';
  const text = JSON.stringify(
    event({
      data: 0,
      datacontenttype: 'application/json',
      modelversion: '3',
      agent: 'sdk/1',
      sampledrate: 2,
      subject: 'é',
      custom: true,
      level: 7,
      xrequestid: 'r9',
    }),
  );
  const [record] = await store(EVENT, text.replace('"data":0', `"data" : ${data} `));
  assert.ok(record);
  assert.equal(record.text, data);
  const { id, timeMs, correlationId, array, rows, lineBreaks, escapes, json } = record;
  assert.deepEqual(
    { id, timeMs, correlationId, array, rows, lineBreaks, escapes, json },
    {
      id: `event-${serial}`,
      timeMs: 1_704_164_645_678,
      correlationId: 'c1',
      array: true,
      rows: 2,
      lineBreaks: true,
      escapes: true,
      json: true,
    },
  );
  assert.equal(
    record.attributes,
    `{"type":"${TYPE}","datacontenttype":"application/json","modelversion":"3","agent":"sdk/1","sampledrate":2,"xrequestid":"r9","extensions":{"subject":"é","custom":true,"level":7}}`,
  );
});

test('defaults: no time is the arrival, no correlation id is the request id or made up, no data is null', async () => {
  const [first, second, third] = await store(
    BATCH,
    JSON.stringify([
      event({ time: undefined, correlationid: undefined, data: undefined }),
      event({ correlationid: undefined, xrequestid: 'r' }),
      event({ correlationid: 'same', xrequestid: 'same', source: '/other' }),
    ]),
  );
  assert.ok(first && second && third);
  assert.deepEqual(
    [first.timeMs === first.receivedMs, first.correlationId, first.text, first.json],
    [true, 'made-up', 'null', true],
  );
  assert.deepEqual([second.correlationId, second.attributes.includes('xrequestid')], ['r', false]);
  assert.deepEqual([third.correlationId, third.attributes.includes('xrequestid')], ['same', false]);
  assert.ok(third.attributes.includes('"extensions":{"eventsource":"/other"}'));
  const [fourth] = await store(EVENT, JSON.stringify(event({ source: '/modeltap/collector' })));
  assert.ok(fourth && !fourth.attributes.includes('eventsource'));
});

test('data_base64 and text under a content type that is not JSON become opaque bytes', async () => {
  const [base64, text, json] = await store(
    BATCH,
    JSON.stringify([
      event({ data: undefined, data_base64: Buffer.from([0, 255, 10]).toString('base64') }),
      event({ datacontenttype: 'text/plain', data: 'é\n"x"' }),
      event({ datacontenttype: 'application/vnd.x+json', data: 'é' }),
    ]),
  );
  assert.ok(base64 && text && json);
  assert.deepEqual([base64.json, base64.bodyBytes, base64.attributes.includes('octet-stream')], [false, 3, true]);
  assert.deepEqual([text.json, text.text], [false, 'é\n"x"']);
  assert.deepEqual([json.json, json.text], [true, '"é"']);
});

test('a batch mixes constant and changing attributes without mixing them up', async () => {
  const events = Array.from({ length: 700 }, (_, index) =>
    event({
      type: index % 2 === 0 ? TYPE : 'azureml.inference.model_outputs',
      modelversion: `v${index % 5}`,
      correlationid: index % 3 === 0 ? `é${index}` : `c${index}`,
      time: new Date(Date.UTC(2024, 0, 1 + (index % 20), 5, 6, 7, index)).toISOString(),
      data: Array.from({ length: index % 4 }, () => ({ v: 'x'.repeat(index % 200) })),
    }),
  );
  const records = await store(BATCH, JSON.stringify(events));
  assert.equal(records.length, 700);
  for (const [index, record] of records.entries()) {
    const sent = events[index] ?? {};
    assert.equal(record.destinationId, (index % 2) + 1);
    assert.equal(record.text, JSON.stringify(sent['data']));
    assert.equal(record.rows, index % 4);
    assert.deepEqual(
      [record.id, record.correlationId, new Date(record.timeMs).toISOString()],
      [sent['id'], sent['correlationid'], sent['time']],
    );
    assert.equal((JSON.parse(record.attributes) as { modelversion: string }).modelversion, `v${index % 5}`);
  }
});

/** What is wrong with one event of a batch, and what the answer must say about it. */
const MALFORMED: readonly (readonly [string, RegExp])[] = [
  ['{"id":"x","source":"/s","type":"t"}', /specversion is missing/],
  ['{"specversion":"0.3","id":"x","source":"/s","type":"t"}', /specversion must be "1.0"/],
  ['{"specversion":1.0,"id":"x","source":"/s","type":"t"}', /specversion must be/],
  ['{"specversion":"1.0","source":"/s","type":"t"}', /id is missing/],
  ['{"specversion":"1.0","id":"","source":"/s","type":"t"}', /id is empty/],
  ['{"specversion":"1.0","id":7,"source":"/s","type":"t"}', /id must be a string/],
  ['{"specversion":"1.0","id":"x","type":"t"}', /source is missing/],
  ['{"specversion":"1.0","id":"x","source":"","type":"t"}', /source is empty/],
  ['{"specversion":"1.0","id":"x","source":"/s"}', /type is missing/],
  ['{"specversion":"1.0","id":"x","source":"/s","type":["t"]}', /type must be a string/],
  [`{"specversion":"1.0","id":"x","source":"/s","type":"${TYPE}","time":"yesterday"}`, /time is not an RFC 3339 time/],
  [`{"specversion":"1.0","id":"x","source":"/s","type":"${TYPE}","time":1704164645}`, /time is not/],
  ['{"specversion":"1.0","id":"x","id":"y","source":"/s","type":"t"}', /id is given twice/],
  ['{"specversion":"1.0","id":"x","source":"/s","type":"t","x":1,"x":2}', /x is given twice/],
  [
    '{"specversion":"1.0","id":"x","source":"/s","type":"t","data":1,"data_base64":"AA=="}',
    /data and data_base64 are both given/,
  ],
  [`{"specversion":"1.0","id":"x","source":"/s","type":"${TYPE}","data_base64":"A"}`, /data_base64 is not base64/],
  ['{"specversion":"1.0","id":"x","source":"/s","type":"t","Bad-Name":1}', /"Bad-Name" has a name outside/],
  ['{"specversion":"1.0","id":"x","source":"/s","type":"t","x":{}}', /x must be a string, a boolean/],
  ['{"specversion":"1.0","id":"x","source":"/s","type":"t","x":1.5}', /x must be a string, a boolean/],
  ['{"specversion":"1.0","\\u0069d":"x","source":"/s","type":"t"}', /names must be written without escapes/],
  ['{"specversion":"1.0","id":"x","source":"/s","type":"t","sampledrate":0}', /sampledrate must be a whole number/],
  ['{"specversion":"1.0","id":"x","source":"/s","type":"t","dataref":"u"}', /dataref is written by the agent/],
  ['{"specversion":"1.0","id":"x","source":"/s","type":"azureml.inference.nope"}', /"nope" is not known/],
  ['{"specversion":"1.0","id":"x","source":"/s","type":"azureml.inference.off"}', /"off" is not enabled/],
  [`{"specversion":"1.0","id":"x","source":"/s","type":"${TYPE}","correlationid":5}`, /correlationid must be a string/],
  [
    `{"specversion":"1.0","id":"x","source":"/s","type":"t",${Array.from({ length: 70 }, (_, n) => `"e${n}":1`).join(',')}}`,
    /at most 64 extensions/,
  ],
  ['17', /must be a JSON object/],
];

test('each malformed event gets its own clear error and disturbs no other', async () => {
  for (const [bad, message] of MALFORMED) {
    const before = (await rig.records()).length;
    const counts = rig.counted.length;
    const good = () => JSON.stringify(event());
    for (const [headers, text, status] of [
      [BATCH, `[${good()},${bad},${good()}]`, 207],
      [LINES, `${good()}\n${bad}\n${good()}\n`, 207],
      [BATCH, `[${bad}]`, undefined],
      [EVENT, bad, undefined],
    ] as const) {
      const answer = await rig.post('/v1/events', headers, text);
      assert.match(answer.text.replaceAll('\\"', '"'), message, bad);
      if (status === undefined) {
        assert.ok(answer.status >= 400 && answer.status < 500, bad);
        continue;
      }
      assert.equal(answer.status, status, `${answer.text} for ${bad}`);
      const { accepted, rejected } = JSON.parse(answer.text) as { accepted: number; rejected: { index: number }[] };
      assert.deepEqual([accepted, rejected.map(({ index }) => index)], [2, [1]]);
    }
    assert.equal((await rig.records()).length, before + 4, bad);
    const counted = rig.counted.slice(counts).map((line) => line.split(' ', 1)[0]);
    assert.deepEqual(
      counted.toSorted(),
      [...Array<string>(4).fill('accepted'), ...Array<string>(4).fill('rejected')],
      bad,
    );
  }
});

test('a batch that is no JSON is refused whole', async () => {
  const text = JSON.stringify([event(), event()]);
  for (const bad of [text.slice(0, -1), `${text},`, text.replace('"data"', 'data'), JSON.stringify(event())]) {
    const before = (await rig.records()).length;
    const answer = await rig.post('/v1/events', BATCH, bad);
    assert.deepEqual([answer.status, answer.text.includes('bad_json')], [400, true]);
    assert.equal((await rig.records()).length, before);
  }
  assert.deepEqual(await store(BATCH, '[]'), []);
});

test('a torn last line is one bad event', async () => {
  const answer = await rig.post('/v1/events', LINES, `${JSON.stringify(event())}\n{"specversion":"1.0","id`);
  assert.equal(answer.status, 207);
  assert.match(answer.text, /"accepted":1,"rejected":\[\{"index":1,"code":"bad_json"/);
});

test('the list of refusals is bounded and their number is told', async () => {
  const answer = await rig.post('/v1/events', BATCH, JSON.stringify([event(), ...Array<number>(2500).fill(1)]));
  const { rejected, ...rest } = JSON.parse(answer.text) as { rejected: unknown[] };
  assert.deepEqual([rejected.length, rest], [100, { accepted: 1, rejectedCount: 2500 }]);
  const tooMany = await rig.post('/v1/events', BATCH, `[${'1,'.repeat(3000)}1]`);
  assert.deepEqual([tooMany.status, tooMany.text.includes('batch_too_many')], [413, true]);
});

test('an event sent again is accepted and not stored again; another body under the same id is another event', async () => {
  const one = event();
  const text = JSON.stringify(one);
  assert.equal((await store(EVENT, text)).length, 1);
  assert.equal((await store(EVENT, text)).length, 0);
  assert.equal(rig.counted.at(-1), 'duplicate 1');
  assert.equal((await store(BATCH, `[${text},${JSON.stringify(event())},${text}]`)).length, 1);
  assert.equal((await store(EVENT, JSON.stringify({ ...one, data: [{ a: 2 }] }))).length, 1);
  assert.equal((await store(EVENT, JSON.stringify({ ...one, type: 'azureml.inference.model_outputs' }))).length, 1);
  const fresh = JSON.stringify(event());
  assert.equal((await store(BATCH, `[${fresh},${fresh}]`)).length, 1);
});

test('events of the spool are recognised after a restart once they were primed', async () => {
  const [record] = await store(EVENT, JSON.stringify(event({ data: [1] })));
  assert.ok(record);
  rig.ingest.prime(rig.spool, { ...record, id: 'from-before' });
  assert.equal((await store(EVENT, JSON.stringify(event({ id: 'from-before', data: [1] })))).length, 0);
});

test('binary mode carries attributes in headers, percent-decoded, and the body as it is', async () => {
  const binary = {
    'ce-specversion': '1.0',
    'ce-id': 'b 1',
    'ce-source': SOURCE,
    'ce-type': TYPE,
    'ce-subject': '%E2%82%AC%20%22',
    'CE-Time': '2024-01-02T03:04:05Z',
    'ce-correlationid': 'k',
  };
  const [record] = await store({ ...binary, 'content-type': 'application/json' }, '[{"a":1},{}]');
  assert.deepEqual(
    [record?.id, record?.rows, record?.text, record?.correlationId, record?.timeMs],
    ['b 1', 2, '[{"a":1},{}]', 'k', 1_704_164_645_000],
  );
  assert.equal(
    record?.attributes,
    `{"type":"${TYPE}","datacontenttype":"application/json","extensions":{"subject":"€ \\""}}`,
  );
  assert.deepEqual(await store({ ...binary, 'content-type': 'application/json' }, '[{"a":1},{}]'), []);
  const [opaque] = await store({ ...binary, 'ce-id': 'b2', 'content-type': 'image/png' }, Buffer.from([137, 80]));
  assert.deepEqual([opaque?.json, opaque?.bodyBytes], [false, 2]);
  const [empty] = await store({ ...binary, 'ce-id': 'b3' }, '');
  assert.deepEqual([empty?.json, empty?.text], [true, 'null']);
  const { 'ce-id': _id, ...noId } = binary;
  const cases: readonly (readonly [Record<string, string | string[]>, RegExp])[] = [
    [noId, /id is missing/],
    [{ ...binary, 'ce-id': '' }, /id is empty/],
    [{ ...binary, 'ce-specversion': '0.3' }, /specversion must be/],
    [{ ...binary, 'ce-time': '1704164645' }, /time is not/],
    [{ ...binary, 'ce-bad-name': 'x' }, /bad-name has a name/],
    [{ ...binary, 'ce-x': '%FF' }, /x is not valid percent-encoded/],
    [{ ...binary, 'ce-id': ['1', '2'] }, /id is given twice/],
    [{ ...binary, 'ce-datacontenttype': 'a/b' }, /carried by Content-Type/],
    [{ ...binary, 'content-type': 'application/cloudevents+avro' }, /unsupported_content_type/],
  ];
  for (const [headers, message] of cases) {
    const answer = await rig.post('/v1/events', { 'content-type': 'application/json', ...headers }, '[]');
    assert.ok(answer.status === 400 || answer.status === 415, answer.text);
    assert.match(answer.text, message);
  }
});

test('header values are unquoted and percent-decoded once', () => {
  assert.equal(decodeHeader('a%2520b'), 'a%20b');
  assert.equal(decodeHeader('"a\\"b%C3%A9"'), 'a"bé');
  assert.equal(decodeHeader('100%'), '100%');
  assert.equal(decodeHeader('%C3'), undefined);
});

test('OPTIONS tells the limits', async () => {
  const answer = await rig.request('OPTIONS', '/v1/events');
  assert.equal(answer.status, 204);
  const {
    allow,
    'modeltap-agent': agent,
    'modeltap-batch-max-events': events,
    'modeltap-batch-max-bytes': bytes,
  } = answer.headers;
  assert.deepEqual([allow, agent, events, bytes], ['POST, OPTIONS', '9.9.9', '3000', String(64 * 1024 ** 2)]);
});
