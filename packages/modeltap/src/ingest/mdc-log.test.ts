import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, before, test } from 'node:test';
import { type Rig, SOURCE, startRig } from './rig.test.ts';

let rig: Rig;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
before(async () => {
  rig = await startRig();
});
after(() => rig.close());

/** The headers the Python SDK sends. */
function sdkHeaders(more: Record<string, string> = {}): Record<string, string> {
  return {
    'Content-Type': 'application/json',
    'trace-id': '3f0f9c1c-52ad-4f6a-9a3e-7d8f3f8e0a11',
    'ce-time': '1704164645',
    'ce-type': 'azureml.inference.model_inputs',
    'ce-collect-data-type': 'pandas.core.frame.DataFrame',
    'ce-agent': 'azureml-ai-monitoring/1.0.0',
    'ce-x-request-id': 'abc',
    'ce-model-version': 'default',
    ...more,
  };
}

async function last() {
  const records = await rig.records();
  const record = records.at(-1);
  assert.ok(record);
  return record;
}

test('the worked example of the wire description arrives byte for byte with its attributes', async () => {
  const body = '[{"a\\/b":1.5,"c":"x<y","d":null}]';
  assert.equal((await rig.post('/modeldata/log', sdkHeaders(), body)).status, 204);
  const record = await last();
  assert.equal(record.text, body);
  assert.equal(
    record.attributes,
    '{"type":"azureml.inference.model_inputs","datacontenttype":"application/json","modelversion":"default","collectdatatype":"pandas.core.frame.DataFrame","agent":"azureml-ai-monitoring/1.0.0"}',
  );
  const { destinationId, timeMs, id, correlationId, json, array, rows, lineBreaks, escapes, bodyBytes } = record;
  assert.deepEqual(
    { destinationId, timeMs, id, correlationId, json, array, rows, lineBreaks, escapes, bodyBytes },
    {
      destinationId: 1,
      timeMs: 1_704_164_645_000,
      id: '',
      correlationId: 'abc',
      json: true,
      array: true,
      rows: 1,
      lineBreaks: false,
      escapes: true,
      bodyBytes: 33,
    },
  );
  assert.equal(rig.counted.at(-1), 'accepted 1 1 33');
});

test('a raw client with header names in any case and a Latin-1 id is understood as sent', async () => {
  const body = '[{"n":9223372036854775807}]';
  const head = [
    'POST /modeldata/log HTTP/1.1',
    'host: 127.0.0.1',
    'CONTENT-TYPE: application/json',
    'Ce-Type: azureml.inference.model_outputs',
    'cE-tImE: 1704164645.9',
    'CE-X-REQUEST-ID: \xe9 x\tb',
    `Content-Length: ${body.length}`,
    'Connection: close',
  ];
  const answer = await rig.raw(Buffer.from(`${head.join('\r\n')}\r\n\r\n${body}`, 'latin1'));
  assert.match(answer, /^HTTP\/1\.1 204 /);
  const { text, correlationId, timeMs, destinationId } = await last();
  assert.deepEqual([text, correlationId, timeMs, destinationId], [body, '\u00e9 x\tb', 1_704_164_645_900, 2]);
});

test('any JSON value and opaque bodies are accepted, invalid JSON is refused with its offset', async () => {
  for (const body of ['{"a":1}', '"text"', '17', 'null', '[]', '[1,[2]]', ' [ {"a" : 1},\r\n{} ] ']) {
    assert.equal((await rig.post('/modeldata/log', sdkHeaders(), body)).status, 204, body);
    const record = await last();
    assert.equal(record.text, body);
    assert.equal(record.rows, body.trimStart().startsWith('[') ? (JSON.parse(body) as unknown[]).length : 1, body);
    assert.equal(record.lineBreaks, body.includes('\n'));
  }
  const table = '   a\n0  1\xff<';
  const opaque = Buffer.from(table, 'latin1');
  assert.equal(
    (await rig.post('/modeldata/log', sdkHeaders({ 'Content-Type': 'application/octet-stream' }), opaque)).status,
    204,
  );
  assert.deepEqual([(await last()).json, (await last()).bodyBytes], [false, opaque.length]);
  const before = rig.counted.length;
  const bad: readonly (readonly [string | Buffer, number])[] = [
    ['', 0],
    ['[1,]', 3],
    ['[{"a":NaN}]', 6],
    ['[{"a":"\n"}]', 7],
    [Buffer.from([0x22, 0xff, 0x22]), 1],
    ['[1]]', 3],
    ['\ufeff[]', 0],
    ['['.repeat(600), 512],
  ];
  for (const [body, offset] of bad) {
    const answer = await rig.post('/modeldata/log', sdkHeaders(), body);
    assert.equal(answer.status, 400, String(body));
    const { error } = JSON.parse(answer.text) as { error: { code: string; message: string; fix: string } };
    assert.equal(error.code, 'bad_json');
    assert.ok(error.message.endsWith(`at byte ${offset}`), error.message);
    assert.ok(error.fix.length > 0);
  }
  assert.deepEqual(
    rig.counted.slice(before),
    bad.map(() => 'rejected bad_json 1'),
  );
});

test('a missing id is made up, an empty one too, and further ce- headers become legal extensions', async () => {
  const { 'ce-x-request-id': _, ...without } = sdkHeaders();
  await rig.post('/modeldata/log', without, '[]');
  assert.match((await last()).correlationId, UUID);
  await rig.post('/modeldata/log', sdkHeaders({ 'ce-x-request-id': '' }), '[]');
  assert.match((await last()).correlationId, UUID);
  await rig.post(
    '/modeldata/log',
    sdkHeaders({
      'ce-User-Id': 'u1',
      'ce-some_thing.x': 'y',
      'ce-id': 'no',
      'ce-source': 'no',
      'ce-correlation-id': 'no',
      'ce-sampled-rate': '4',
    }),
    '[]',
  );
  const record = await last();
  assert.deepEqual(JSON.parse(record.attributes), {
    type: 'azureml.inference.model_inputs',
    datacontenttype: 'application/json',
    modelversion: 'default',
    collectdatatype: 'pandas.core.frame.DataFrame',
    agent: 'azureml-ai-monitoring/1.0.0',
    sampledrate: 4,
    extensions: { userid: 'u1', somethingx: 'y' },
  });
  assert.deepEqual([record.id, record.correlationId], ['', 'abc']);
});

test('an unusable ce-time is replaced by the time of arrival and counted', async () => {
  for (const time of ['yesterday', '', '1e30']) {
    const before = Date.now();
    await rig.post('/modeldata/log', sdkHeaders({ 'ce-time': time }), '[]');
    const record = await last();
    assert.ok(record.timeMs >= before && record.timeMs === record.receivedMs, time);
    assert.ok(rig.counted.slice(-2).includes('time 1'), time);
  }
});

test('the same trace-id twice is two records', async () => {
  const before = (await rig.records()).length;
  for (let turn = 0; turn < 2; turn += 1) await rig.post('/modeldata/log', sdkHeaders(), '[1]');
  assert.equal((await rig.records()).length, before + 2);
});

test('unknown and disabled collections are refused by name, with what is enabled', async () => {
  const cases: readonly (readonly [string, number, string])[] = [
    ['azureml.inference.nope', 404, 'collection_unknown'],
    ['azureml.inference.off', 403, 'collection_disabled'],
    ['azureml.inference.../../etc', 404, 'collection_unknown'],
    [`azureml.inference.${'x'.repeat(300)}`, 404, 'collection_unknown'],
  ];
  for (const [type, status, code] of cases) {
    const answer = await rig.post('/modeldata/log', sdkHeaders({ 'ce-type': type }), '[]');
    assert.equal(answer.status, status);
    assert.ok(
      answer.text.includes(code) && answer.text.includes('model_inputs, model_outputs') && answer.text.length < 600,
      answer.text,
    );
    assert.equal(rig.counted.at(-1), `rejected ${code} 0`);
  }
  const { 'ce-type': _, ...untyped } = sdkHeaders();
  assert.match((await rig.post('/modeldata/log', untyped, '[]')).text, /event_invalid.*ce-type is missing/);
});

test('other methods, encodings and host names are refused, other paths are not ours', async () => {
  const get = await rig.request('GET', '/modeldata/log');
  assert.deepEqual([get.status, get.headers['allow']], [405, 'POST']);
  const gzip = await rig.post('/modeldata/log', sdkHeaders({ 'content-encoding': 'gzip' }), 'x');
  assert.deepEqual([gzip.status, gzip.text.includes('unsupported_encoding')], [415, true]);
  assert.equal((await rig.post('/modeldata/log', sdkHeaders({ 'content-encoding': 'identity' }), '[]')).status, 204);
  const rebound = await rig.post('/modeldata/log', sdkHeaders({ host: 'attacker.example' }), '[]');
  assert.deepEqual([rebound.status, rebound.text.includes('host_refused')], [403, true]);
  assert.equal((await rig.post('/modeldata/log/', sdkHeaders(), '[]')).status, 404);
  assert.equal((await rig.post('/modeldata/log?x=1', sdkHeaders(), '[]')).status, 204);
});

test('Expect: 100-continue is answered, and a body cut into single bytes is one record', async () => {
  const socket = connect(rig.port, '127.0.0.1');
  let text = '';
  socket.on('data', (chunk) => {
    text += chunk.toString();
  });
  const until = async (pattern: RegExp) => {
    while (!pattern.test(text)) await new Promise((done) => setTimeout(done, 2));
  };
  const headers = Object.entries(
    sdkHeaders({ Expect: '100-continue', Host: 'localhost', 'Transfer-Encoding': 'chunked' }),
  );
  socket.write(
    `POST /modeldata/log HTTP/1.1\r\n${headers.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`,
  );
  await until(/^HTTP\/1\.1 100 /);
  for (const character of '[{"é":1}]') {
    const bytes = Buffer.from(character);
    for (const byte of bytes) {
      socket.write(Buffer.concat([Buffer.from('1\r\n'), Buffer.of(byte), Buffer.from('\r\n')]));
      await new Promise((done) => setImmediate(done));
    }
  }
  socket.write('0\r\n\r\n');
  await until(/HTTP\/1\.1 204 /);
  socket.destroy();
  assert.equal((await last()).text, '[{"é":1}]');
});

test('the source of the deployment is not taken from the sender', async () => {
  await rig.post('/modeldata/log', sdkHeaders({ 'ce-source': '/evil' }), '[]');
  assert.ok(!(await last()).attributes.includes('evil') && !(await last()).attributes.includes(SOURCE));
});
