import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import type { AppendDone, SpoolWriter } from '../spool/types.ts';
import { type Rig, type RigOptions, routesTo, startRig } from './rig.test.ts';

const HEADERS = {
  'content-type': 'application/json',
  'ce-type': 'azureml.inference.model_inputs',
  'ce-x-request-id': 'r',
  'ce-time': '1704164645',
};
const MiB = 1024 * 1024;
/** The same as they go over the wire. */
const SAID = Object.entries(HEADERS)
  .map(([name, value]) => `${name}: ${value}`)
  .join('\r\n');

async function withRig(options: RigOptions, run: (rig: Rig) => Promise<void>): Promise<void> {
  const rig = await startRig(options);
  try {
    await run(rig);
  } finally {
    await rig.close();
  }
}

/** Waits until it holds; the test runner's time limit ends what never does. */
async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await new Promise((done) => setTimeout(done, 5));
}

/** A JSON array of at least this many bytes. */
function bigArray(bytes: number): string {
  const row = JSON.stringify({ text: 'x'.repeat(1000), n: 1 });
  return `[${Array<string>(Math.ceil(bytes / (row.length + 1)))
    .fill(row)
    .join(',')}]`;
}

test('a large body goes to a side file, whole and counted, JSON and opaque, with and without a length', async () => {
  await withRig({ limits: { sideFileBytes: 100_000 } }, async (rig) => {
    const text = bigArray(3 * MiB);
    assert.equal((await rig.post('/modeldata/log', HEADERS, text)).status, 204);
    assert.equal((await rig.post('/modeldata/log', { ...HEADERS, 'content-type': 'image/png' }, text)).status, 204);
    const chunked = `POST /modeldata/log HTTP/1.1\r\nhost: localhost\r\n${Object.entries(HEADERS)
      .map(([k, v]) => `${k}: ${v}\r\n`)
      .join(
        '',
      )}transfer-encoding: chunked\r\nconnection: close\r\n\r\n${text.length.toString(16)}\r\n${text}\r\n0\r\n\r\n`;
    assert.match(await rig.raw(chunked), /^HTTP\/1\.1 204/);
    const event = {
      specversion: '1.0',
      id: 'big',
      source: '/s',
      type: HEADERS['ce-type'],
      data: JSON.parse(text) as unknown,
    };
    const structured = { 'content-type': 'application/cloudevents+json' };
    for (let turn = 0; turn < 2; turn += 1)
      assert.equal((await rig.post('/v1/events', structured, JSON.stringify(event))).status, 204);
    const records = await rig.records();
    assert.deepEqual(
      records.map(({ aside, json, rows, bodyBytes }) => ({ aside, json, rows, bodyBytes })),
      [
        { aside: true, json: true, rows: (event.data as unknown[]).length, bodyBytes: text.length },
        { aside: true, json: false, rows: 1, bodyBytes: text.length },
        { aside: true, json: true, rows: records[0]?.rows ?? 0, bodyBytes: text.length },
        { aside: true, json: true, rows: records[0]?.rows ?? 0, bodyBytes: text.length },
      ],
    );
    assert.ok(records.every((record) => record.text === text));
    assert.equal(rig.ingest.inflightBytes, 0);
  });
});

test('an event beside the spool is stored whole while others are scanned', async () => {
  await withRig({ limits: { sideFileBytes: 50_000 } }, async (rig) => {
    const texts = Array.from({ length: 20 }, (_, index) =>
      JSON.stringify([String(index).repeat(60_000).slice(0, 60_000)]),
    );
    const answers = texts.map((data, index) => {
      const envelope = JSON.stringify({
        specversion: '1.0',
        id: `e${index}`,
        source: '/s',
        type: HEADERS['ce-type'],
        data: 0,
      });
      return rig.post(
        '/v1/events',
        { 'content-type': 'application/cloudevents+json' },
        envelope.replace('"data":0', `"data":${data}`),
      );
    });
    for (const answer of await Promise.all(answers)) assert.equal(answer.status, 204);
    const stored = (await rig.records()).map(({ id, text, aside }) => ({ id, text, aside }));
    const expected = texts.map((text, index) => ({ id: `e${index}`, text, aside: true }));
    assert.deepEqual(
      new Set(stored.map((one) => JSON.stringify(one))),
      new Set(expected.map((one) => JSON.stringify(one))),
    );
  });
});

test('a large body that is invalid or breaks off leaves no side file behind', async () => {
  await withRig({ limits: { sideFileBytes: 100_000 } }, async (rig) => {
    const text = bigArray(2 * MiB);
    const answer = await rig.post('/modeldata/log', HEADERS, `${text.slice(0, -1)},}`);
    assert.deepEqual([answer.status, answer.text.includes('bad_json')], [400, true]);
    const socket = connect(rig.port, '127.0.0.1');
    socket.write(
      `POST /modeldata/log HTTP/1.1\r\nhost: localhost\r\n${SAID}\r\ncontent-length: ${text.length}\r\n\r\n${text.slice(0, MiB)}`,
    );
    await until(() => rig.spool.diskBytes > 0 && socket.bytesWritten > MiB);
    socket.destroy();
    const side = async () =>
      (await readdir(rig.directory, { recursive: true })).filter((name) => name.includes('side') && /\d/.test(name));
    await until(async () => (await side()).length === 0);
    assert.deepEqual(await rig.records(), []);
    assert.deepEqual(rig.counted, ['rejected bad_json 1']);
  });
});

test('an oversize body is refused promptly, announced or chunked, and its sender can read why', async () => {
  await withRig({ limits: { maxRecordBytes: 10_000, maxBatchBytes: 20_000 } }, async (rig) => {
    const announced = connect(rig.port, '127.0.0.1');
    let text = '';
    announced.on('data', (chunk) => {
      text += chunk.toString();
    });
    announced.write(`POST /modeldata/log HTTP/1.1\r\nhost: localhost\r\n${SAID}\r\ncontent-length: 10001\r\n\r\n`);
    await until(() => text.includes('record_too_large'));
    assert.match(text, /^HTTP\/1\.1 413[^]*connection: close/i);
    announced.destroy();
    const big = await rig.post('/modeldata/log', HEADERS, `"${'x'.repeat(5 * MiB)}"`);
    assert.equal(big.status, 413);
    const chunked = await rig.raw(
      `POST /modeldata/log HTTP/1.1\r\nhost: localhost\r\n${SAID}\r\ntransfer-encoding: chunked\r\n\r\n3000\r\n${'1'.repeat(0x3000)}\r\n0\r\n\r\n`,
    );
    assert.match(chunked, /^HTTP\/1\.1 413/);
    assert.equal(
      (
        await rig.post(
          '/v1/events',
          { 'content-type': 'application/cloudevents-batch+json' },
          `[${' '.repeat(20_000)}]`,
        )
      ).status,
      413,
    );
    const expecting = await rig.raw(
      `POST /modeldata/log HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n${SAID}\r\ncontent-length: 99999\r\n\r\n`,
      { end: true },
    );
    assert.match(expecting, /^HTTP\/1\.1 413/);
    assert.equal((await rig.post('/modeldata/log', HEADERS, `"${'x'.repeat(9_998)}"`)).status, 204);
    assert.equal(rig.counted.filter((line) => line.startsWith('rejected record_too_large')).length, 5);
    assert.equal(rig.ingest.inflightBytes, 0);
  });
});

function slowPost(port: number, length: number): Socket {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  socket.write(`POST /modeldata/log HTTP/1.1\r\nhost: localhost\r\n${SAID}\r\ncontent-length: ${length}\r\n\r\n[`);
  return socket;
}

test('slow senders of bodies and of headers are cut off and disturb nobody', async () => {
  await withRig({ limits: { bodyIdleMs: 60, headersMs: 100 } }, async (rig) => {
    const answers = Array.from({ length: 20 }, async (_, index) => {
      const socket = index % 2 === 0 ? slowPost(rig.port, 100) : connect(rig.port, '127.0.0.1');
      if (index % 2 === 1) socket.write('POST /modeldata/log HTTP/1.1\r\nhost: loc');
      let text = '';
      socket.on('data', (chunk) => {
        text += chunk.toString();
        socket.destroy();
      });
      socket.on('error', () => undefined);
      await once(socket, 'close');
      return text;
    });
    assert.equal((await rig.post('/modeldata/log', HEADERS, '[1]')).status, 204);
    for (const text of await Promise.all(answers)) assert.match(text, /^HTTP\/1\.1 408/);
    assert.equal(rig.counted.filter((line) => line === 'rejected body_timeout 1').length, 10);
    assert.equal(rig.ingest.inflightBytes, 0);
  });
});

test('bodies beyond the memory limit are refused with 503 and taken again afterwards', async () => {
  await withRig({ limits: { maxInflightBytes: 5000 } }, async (rig) => {
    const held = slowPost(rig.port, 5000);
    await until(() => rig.ingest.inflightBytes > 0);
    const refused = await rig.post('/modeldata/log', HEADERS, `"${'x'.repeat(4500)}"`);
    assert.deepEqual(
      [refused.status, refused.headers['retry-after'], refused.text.includes('ingest_busy')],
      [503, '1', true],
    );
    held.destroy();
    await until(() => rig.ingest.inflightBytes === 0);
    assert.equal((await rig.post('/modeldata/log', HEADERS, `"${'x'.repeat(4000)}"`)).status, 204);
  });
});

/** The spool with another `append`. */
function appendingWith(
  spool: SpoolWriter,
  append: SpoolWriter['append'],
  refusal: SpoolWriter['refusal'],
): SpoolWriter {
  return Object.create(spool, { append: { value: append }, refusal: { value: refusal } }) as SpoolWriter;
}

test('a spool that refuses, at once or later, is a 503 with its reason and nothing is counted as accepted', async () => {
  const ways: SpoolWriter['append'][] = [
    () => false,
    (_parts, done) => {
      setImmediate(() => done('spool_full'));
      return true;
    },
  ];
  for (const append of ways) {
    const route = (spool: SpoolWriter) => routesTo(appendingWith(spool, append, 'spool_full'));
    await withRig({ route }, async (rig) => {
      const answer = await rig.post('/modeldata/log', HEADERS, '[1]');
      assert.deepEqual([answer.status, answer.headers['retry-after']], [503, '1']);
      assert.match(
        answer.text,
        /^\{"error":\{"code":"spool_full","message":"the spool of datastore \\"store\\" is full","fix":".+"\}\}$/,
      );
      const event = (id: string) =>
        JSON.stringify({ specversion: '1.0', id, source: '/s', type: HEADERS['ce-type'], data: 1 });
      for (let turn = 0; turn < 2; turn += 1) {
        const batch = await rig.post(
          '/v1/events',
          { 'content-type': 'application/x-ndjson' },
          `${event('a')}\n${event('a')}\n${event('b')}`,
        );
        assert.deepEqual([batch.status, batch.text.includes('spool_full')], [503, true]);
      }
      assert.deepEqual(new Set(rig.counted), new Set(['rejected spool_full 1']));
      assert.equal(rig.counted.length, 7);
    });
  }
});

test('nothing is answered before the record is durable', async () => {
  const waiting: AppendDone[] = [];
  const append: SpoolWriter['append'] = (_parts, done) => {
    waiting.push(done);
    return true;
  };
  await withRig({ route: (spool) => routesTo(appendingWith(spool, append, 'spool_full')) }, async (rig) => {
    const event = JSON.stringify({ specversion: '1.0', id: 'once', source: '/s', type: HEADERS['ce-type'], data: 1 });
    let answered = 0;
    const structured = { 'content-type': 'application/cloudevents+json' };
    const count = () => {
      answered += 1;
    };
    const posts = [
      rig.post('/modeldata/log', HEADERS, '[1]').then(count),
      rig.post('/v1/events', structured, event).then(count),
      rig.post('/v1/events', structured, event).then(count),
    ];
    await until(() => waiting.length === 2);
    await rig.request('OPTIONS', '/v1/events');
    assert.deepEqual([answered, rig.counted], [0, []]);
    for (const done of waiting) done(undefined);
    await Promise.all(posts);
    assert.deepEqual(rig.counted.toSorted(), ['accepted 1 1 1', 'accepted 1 1 3', 'duplicate 1']);
  });
});

test('close lets requests finish, refuses new connections and cuts what stands still', async () => {
  await withRig({}, async (rig) => {
    const finishing = slowPost(rig.port, 3);
    const stuck = slowPost(rig.port, 100);
    let text = '';
    finishing.on('data', (chunk) => {
      text += chunk.toString();
    });
    await until(() => rig.ingest.inflightBytes > 1000);
    const closed = rig.ingest.close(200);
    finishing.write('1]');
    await once(finishing, 'close');
    assert.match(text, /^HTTP\/1\.1 204[^]*connection: close/i);
    await closed;
    if (!stuck.destroyed) await once(stuck, 'close');
    const late = connect(rig.port, '127.0.0.1');
    const [error] = (await once(late, 'error')) as [NodeJS.ErrnoException];
    assert.equal(error.code, 'ECONNREFUSED');
    assert.deepEqual(rig.counted, ['accepted 1 1 3']);
  });
});

test('listeners are added and removed, routes replaced, and other paths handed on', async () => {
  const next: RigOptions['next'] = (request, response) =>
    response.end(`next ${request.url} ${String(request.headers['x-test'])}`);
  await withRig({ next }, async (rig) => {
    for (const method of ['GET', 'POST']) {
      assert.equal((await rig.request(method, '/healthz', { 'x-test': 'seen' })).text, 'next /healthz seen');
    }
    const [first] = rig.ingest.addresses;
    assert.ok(first);
    await rig.ingest.setListeners([first, { host: '127.0.0.1', port: 0 }]);
    assert.deepEqual(rig.ingest.addresses[0], first);
    const second = rig.ingest.addresses[1];
    assert.ok(second && second.port > 0 && second.port !== first.port);
    await assert.rejects(rig.ingest.setListeners([{ host: '0.0.0.0', port: 0 }]), { code: 'address_not_loopback' });
    await assert.rejects(
      rig.ingest.setListeners([
        first,
        second,
        { host: '127.0.0.1', port: second.port },
        { host: '127.0.0.2', port: 0 },
        { host: 'localhost', port: second.port },
      ]),
      { code: 'port_in_use' },
    );
    const ports: number[] = [];
    rig.ingest.replaceRoutes(({ port, type }) => {
      ports.push(port);
      return { refusal: 'deployment_ambiguous', collection: type, enabled: ['a', 'b'] };
    });
    assert.match((await rig.post('/modeldata/log', HEADERS, '[1]')).text, /deployment_ambiguous/);
    await rig.post('/modeldata/log', HEADERS, '[1]');
    assert.deepEqual(ports, [first.port]);
    await rig.ingest.setListeners([second]);
    await assert.rejects(rig.request('GET', '/x'), { code: 'ECONNREFUSED' });
  });
});
