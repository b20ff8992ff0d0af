import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import fc from 'fast-check';
import { call } from '../process.test-suite.ts';
import { createScoringApp } from './app.ts';
import { readScoringOptions, type ScoringOptions } from './options.ts';
import type { ScoringScript } from './script.ts';

const GUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

interface Served extends AsyncDisposable {
  readonly port: number;
  readonly log: string[];
}

async function serve(run: ScoringScript['run'], limits: Partial<ScoringOptions> = {}): Promise<Served> {
  const log: string[] = [];
  const app = createScoringApp({
    script: { init: () => undefined, run },
    limits: { ...readScoringOptions({ MODELTAP_MAX_CONCURRENT_REQUESTS: '8' }, '.'), ...limits },
    serverVersion: 'modeltap/9.9.9',
    title: 'iris',
    log: (text) => log.push(text),
  });
  const server = createServer(app.serve.bind(app)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    log,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const scored = (port: number, body: string | Buffer = '{}', headers: Record<string, string> = {}) =>
  call(port, '/score', { body, headers });

test('the health route answers Healthy and every other route explains itself in JSON', async () => {
  await using server = await serve(() => 1);
  const health = await call(server.port, '/');
  assert.deepEqual([health.status, health.body], [200, 'Healthy']);
  assert.equal(health.headers['x-ms-server-version'], 'modeltap/9.9.9');
  assert.match(String(health.headers['x-request-id']), GUID);
  const refused = [
    await call(server.port, '/nothing'),
    await call(server.port, '/', { method: 'POST' }),
    await call(server.port, '/score', { method: 'DELETE' }),
    await call(server.port, '/swagger.json?version=4'),
  ];
  assert.deepEqual(
    refused.map(({ status }) => status),
    [404, 405, 405, 404],
  );
  for (const { body, headers } of refused) {
    assert.deepEqual(Object.keys(JSON.parse(body) as object), ['message']);
    assert.equal(headers['content-type'], 'application/json');
  }
  assert.equal((await call(server.port, '/score', { method: 'OPTIONS' })).status, 200);
});

test('the swagger document comes in the three versions Azure ML knows, version 2 by default', async () => {
  await using server = await serve(() => 1);
  const versions = await Promise.all(
    ['', '?version=2', '?version=3', '?version=3.1'].map((query) => call(server.port, `/swagger.json${query}`)),
  );
  const found = versions.map((answer) => {
    const document = answer.json() as Record<string, unknown>;
    assert.ok(Object.keys(document.paths as object).includes('/score'));
    return document.swagger ?? document.openapi;
  });
  assert.deepEqual(found, ['2.0', '2.0', '3.0.3', '3.1.0']);
});

test('run gets the body as text, and the query as JSON text for a GET', async () => {
  await using server = await serve((data, { method, query }) => ({ data, method, query }));
  const posted = await scored(server.port, '{"näme":"é"}');
  assert.deepEqual(posted.json(), { data: '{"näme":"é"}', method: 'POST', query: {} });
  const got = await call(server.port, '/score?a=1&b=2&b=3&c=%C3%A9');
  const query = { a: '1', b: ['2', '3'], c: 'é' };
  assert.deepEqual(got.json(), { data: JSON.stringify(query), method: 'GET', query });
  assert.equal((await scored(server.port, Buffer.from([0x7b, 0xff, 0x7d]))).status, 400);
});

test('results are JSON as Azure ML writes them', async () => {
  const wide = 9_007_199_254_740_993n;
  const table: readonly (readonly [unknown, string])[] = [
    [undefined, '{}'],
    [null, '{}'],
    ['text', '"text"'],
    ['{"already":"json"}', '"{\\"already\\":\\"json\\"}"'],
    [[1, 'é'], '[1,"é"]'],
    [{ a: { b: null } }, '{"a":{"b":null}}'],
    [7.5, '7.5'],
    [false, 'false'],
    [{ id: wide, list: [wide, -1n] }, '{"id":9007199254740993,"list":[9007199254740993,-1]}'],
    [Float32Array.of(0.5, 2), '[0.5,2]'],
    [BigInt64Array.of(wide), '[9007199254740993]'],
  ];
  const values = table.map(([value]) => value);
  await using server = await serve((data) => values[Number(data)]);
  for (const [index, [, expected]] of table.entries()) {
    const answer = await scored(server.port, String(index));
    assert.equal(answer.body, expected);
    assert.equal(answer.status, 200);
    assert.equal(answer.headers['content-type'], 'application/json');
    assert.equal(answer.headers['x-ms-run-function-failed'], 'False');
    assert.match(String(answer.headers['x-ms-run-fn-exec-ms']), /^\d+\.\d{3}$/);
  }
});

test('a BigInt result keeps every digit, whatever its size', async () => {
  await using server = await serve((data) => ({ n: BigInt(data) }));
  await fc.assert(
    fc.asyncProperty(fc.bigInt(), async (n) => {
      assert.equal((await scored(server.port, String(n))).body, `{"n":${n}}`);
    }),
    { numRuns: 20 },
  );
});

test('a result that has no JSON form is a failure told to the client in general words and to the log in full', async () => {
  const circle: Record<string, unknown> = {};
  circle.self = circle;
  await using server = await serve((data) => (data === 'circle' ? circle : () => 1));
  for (const body of ['circle', 'function']) {
    const answer = await scored(server.port, body);
    assert.equal(answer.status, 500);
    assert.equal(answer.headers['x-ms-run-function-failed'], 'True');
  }
  assert.match(server.log.join('\n'), /circular structure/);
});

test('what run throws stays in the log', async () => {
  await using server = await serve(async (data) => {
    await Promise.resolve();
    throw new Error(`secret of ${data}`);
  });
  const answer = await scored(server.port, 'alice', { 'x-request-id': 'abc' });
  assert.equal(answer.status, 500);
  assert.equal(answer.headers['x-ms-run-function-failed'], 'True');
  assert.doesNotMatch(answer.body, /secret|alice/);
  assert.match(server.log.join('\n'), /request abc: run\(\) failed: Error: secret of alice\n {4}at /);
});

test('a Response, bytes, streams and async iterables are sent as they are', async () => {
  const results: Record<string, () => unknown> = {
    response: () =>
      new Response('made', { status: 201, headers: { 'content-type': 'text/x', 'x-request-id': 'mine' } }),
    broken: () => new Response('no', { status: 503 }),
    empty: () => new Response(null, { status: 204 }),
    bytes: () => Uint8Array.of(0, 255),
    node: () => Readable.from(['a', 'b']),
    async *iterable() {
      yield 'c';
      yield Buffer.from('d');
    },
  };
  await using server = await serve((data) => results[data]?.());
  const response = await scored(server.port, 'response', { 'x-request-id': 'theirs' });
  assert.deepEqual([response.status, response.body, response.headers['content-type']], [201, 'made', 'text/x']);
  assert.equal(response.headers['x-request-id'], 'theirs');
  const broken = await scored(server.port, 'broken');
  assert.deepEqual([broken.status, broken.headers['x-ms-run-function-failed']], [503, 'True']);
  assert.equal((await scored(server.port, 'empty')).status, 204);
  const bytes = await scored(server.port, 'bytes');
  assert.equal(bytes.headers['content-type'], 'application/octet-stream');
  assert.equal(bytes.headers['content-length'], '2');
  assert.equal((await scored(server.port, 'node')).body, 'ab');
  assert.equal((await scored(server.port, 'iterable')).body, 'cd');
});

test('a stream that breaks before its first chunk is status 500, later the connection is cut', async () => {
  await using server = await serve(async function* (data) {
    if (data === 'early') throw new Error('broken early');
    yield 'x';
    throw new Error('broken late');
  });
  assert.equal((await scored(server.port, 'early')).status, 500);
  await assert.rejects(scored(server.port, 'late'));
  assert.match(server.log.join('\n'), /broken early[\s\S]*broken late/);
});

test('ids follow the rules of the Azure ML inference server', async () => {
  await using server = await serve((_data, { requestId, clientRequestId }) => ({ requestId, clientRequestId }));
  const table = [
    { sent: { 'x-request-id': 'r' }, back: ['r', 'r', undefined] },
    { sent: { 'x-request-id': 'r', 'x-ms-client-request-id': 'c' }, back: ['r', 'c', 'c'] },
    { sent: { 'x-request-id': 'r', 'x-ms-request-id': 'l' }, back: ['r', 'l', 'l'] },
    { sent: { 'x-request-id': 'r', 'x-ms-request-id': 'l', 'x-ms-client-request-id': 'c' }, back: ['r', 'l', 'c'] },
  ] as const;
  for (const { sent, back } of table) {
    const { headers, body } = await scored(server.port, '{}', { ...sent, TraceId: 't-1' });
    assert.deepEqual([headers['x-request-id'], headers['x-ms-request-id'], headers['x-ms-client-request-id']], back);
    assert.equal(headers.traceid, 't-1');
    const told = JSON.parse(body) as { requestId: string; clientRequestId?: string };
    assert.deepEqual([told.requestId, told.clientRequestId], [back[0], back[2]]);
  }
  const { headers, body } = await scored(server.port);
  assert.match(String(headers['x-request-id']), GUID);
  assert.equal(headers['x-ms-request-id'], headers['x-request-id']);
  assert.equal((JSON.parse(body) as { requestId: string }).requestId, headers['x-request-id']);
});

test('an id of 100 characters is taken and one of 101 is refused with 431', async () => {
  await using server = await serve(() => 1);
  for (const name of ['x-request-id', 'x-ms-client-request-id', 'x-ms-request-id']) {
    assert.equal((await scored(server.port, '{}', { [name]: 'i'.repeat(100) })).status, 200);
    const refused = await scored(server.port, '{}', { [name]: 'i'.repeat(101) });
    assert.equal(refused.status, 431);
    assert.match(refused.body, /"message":".*100 characters/);
  }
});

test('a body over the limit is 413, whether its length was announced or not', async () => {
  await using server = await serve((data) => data.length, { maxBodyBytes: 1000 });
  assert.equal((await scored(server.port, 'x'.repeat(1000))).body, '1000');
  assert.equal((await scored(server.port, 'x'.repeat(1001))).status, 413);
  assert.equal((await scored(server.port, 'x'.repeat(1900), { 'transfer-encoding': 'chunked' })).status, 413);
  assert.equal((await scored(server.port, '1')).status, 200);
});

test('beyond max_concurrent_requests_per_instance requests wait their turn, and too long a wait is 429', async () => {
  const open: (() => void)[] = [];
  const wait = () =>
    new Promise((resolve) => {
      open.push(() => resolve('done'));
    });
  await using server = await serve(wait, { maxConcurrent: 1, maxQueueWaitMs: 60_000, maxQueued: 1 });
  const first = scored(server.port);
  while (open.length === 0) await new Promise(setImmediate);
  const second = scored(server.port);
  const third = await Promise.race([second, scored(server.port)]);
  assert.equal(third.status, 429);
  assert.match(third.body, /"message":"too many requests at once/);
  assert.match(third.body, /"code":"too_many_requests"/);
  open.shift()?.();
  assert.equal((await first).status, 200);
  while (open.length === 0) await new Promise(setImmediate);
  open.shift()?.();
  assert.equal((await second).status, 200);

  await using impatient = await serve(wait, { maxConcurrent: 1, maxQueueWaitMs: 20 });
  const running = scored(impatient.port);
  while (open.length === 0) await new Promise(setImmediate);
  assert.equal((await scored(impatient.port)).status, 429);
  open.shift()?.();
  assert.equal((await running).status, 200);
});

test('a request that takes too long is 408 and its signal aborts; a run that never settles is given up', async () => {
  let aborted = 0;
  const hang: ScoringScript['run'] = (_data, { signal }) =>
    new Promise(() => {
      signal.addEventListener('abort', () => {
        aborted += 1;
      });
    });
  await using server = await serve(hang, { requestTimeoutMs: 30, scoringTimeoutMs: 60, maxConcurrent: 1 });
  const late = await scored(server.port);
  assert.equal(late.status, 408);
  assert.match(late.body, /within 30 ms/);
  assert.equal(aborted, 1);
  await using strict = await serve(hang, { scoringTimeoutMs: 30, maxConcurrent: 1 });
  const given = await Promise.all([scored(strict.port), scored(strict.port)]);
  assert.deepEqual(
    given.map(({ status, body }) => [status, body]),
    [
      [500, '{"message":"Scoring timeout after 30 ms"}'],
      [500, '{"message":"Scoring timeout after 30 ms"}'],
    ],
  );
});

test('a client that goes away aborts the signal, frees its place and leaves no answer behind', async () => {
  const seen: string[] = [];
  await using server = await serve(
    (data, { signal }) =>
      new Promise((resolve) => {
        seen.push(data);
        if (data === 'stay') resolve('here');
        signal.addEventListener('abort', () => {
          seen.push('aborted');
          resolve('nobody');
        });
      }),
    { maxConcurrent: 1, maxQueueWaitMs: 5000 },
  );
  const leaving = request({ port: server.port, path: '/score', method: 'POST' }).on('error', () => undefined);
  leaving.end('leave');
  while (seen.length === 0) await new Promise(setImmediate);
  const staying = scored(server.port, 'stay');
  leaving.destroy();
  assert.equal((await staying).body, '"here"');
  assert.deepEqual(seen, ['leave', 'aborted', 'stay']);
});

test('nonsense on the socket does not disturb other requests', async () => {
  await using server = await serve(() => 'fine');
  const socket = connect(server.port, '127.0.0.1').on('error', () => undefined);
  socket.end('POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello');
  await once(socket.resume(), 'close');
  assert.equal((await scored(server.port)).status, 200);
});
