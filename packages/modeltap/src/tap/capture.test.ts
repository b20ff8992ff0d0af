import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { brotliCompressSync, deflateRawSync, gzipSync, zstdCompressSync } from 'node:zlib';
import { httpServer, play, startTapRig, type StoredEvent } from './rig.test.ts';

const JSON_TYPE = { 'content-type': 'application/json' };

function only(events: readonly StoredEvent[]): StoredEvent {
  assert.equal(events.length, 1);
  return events[0] as StoredEvent;
}

/** Exchanges that take longer to store come later; their ids say when they were sent. */
function inOrder(events: readonly StoredEvent[]): StoredEvent[] {
  return events.toSorted((a, b) => Number(a['correlationid']) - Number(b['correlationid']));
}

async function echo(t: TestContext, options: Partial<Parameters<typeof startTapRig>[0]> = {}) {
  const server = await httpServer((request, response) => {
    response.statusCode = Number(request.headers['x-status'] ?? 200);
    for (const name of ['content-type', 'content-encoding', 'x-answer', 'set-cookie']) {
      const value = request.headers[`echo-${name}`] ?? (name === 'content-type' ? request.headers[name] : undefined);
      if (value !== undefined) response.setHeader(name, value);
    }
    request.pipe(response);
  });
  const rig = await startTapRig({ upstreamPort: server.port, ...options });
  t.after(async () => {
    await rig.close();
    server.close();
  });
  return rig;
}

test('an exchange becomes a request and a response event with the members of the product document', async (t) => {
  const rig = await echo(t);
  const answer = await fetch(`http://127.0.0.1:${rig.port}/score?v=1&api-key=hush`, {
    method: 'POST',
    headers: { ...JSON_TYPE, 'x-request-id': 'req-1' },
    body: '{"data": [1.0, 9007199254740993]}',
  });
  assert.equal(await answer.text(), '{"data": [1.0, 9007199254740993]}');
  const request = only(await rig.events('request'));
  const response = only(await rig.events('response'));
  const members =
    'specversion,id,source,type,datacontenttype,time,data,path,method,contentrange,correlationid,xrequestid';
  assert.equal(Object.keys(request).join(), members);
  assert.equal(request['path'], '/score?v=1&api-key=***');
  assert.equal(request['method'], 'POST');
  assert.equal(request['contentrange'], 'bytes 0-32/33');
  const started = Object.keys(response).slice(0, 10).join();
  assert.equal(started, members.replace('path,method,', ''));
  assert.equal(response['status'], 200);
  assert.equal(response['contentrange'], 'bytes 0-32/33');
  assert.ok(Number.isInteger(response['durationms']) && Number.isInteger(response['ttfbms']));
  for (const event of [request, response]) {
    assert.equal(event['correlationid'], 'req-1');
    assert.equal(event['xrequestid'], 'req-1');
  }
  assert.notEqual(request['id'], response['id']);
  assert.deepEqual(rig.counted, ['accepted 1', 'accepted 2']);
  assert.equal(rig.used(), 0);
});

test('a request that does not announce its length has the range of the sample, with an open total', async (t) => {
  const rig = await echo(t);
  const head =
    'POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n';
  const sample = '{"data": [  [1,2,3,4,5,6,7,8,9,10], [10,9,8,7,6,5,4,3,2,1]]}';
  await play(rig.port, [`${head}3c\r\n${sample}\r\n0\r\n\r\n`, { waitFor: '0\r\n\r\n' }, 'END']);
  assert.equal(only(await rig.events('request'))['contentrange'], 'bytes 0-59/*');
  assert.equal(only(await rig.events('response'))['contentrange'], 'bytes 0-59/60');
});

test('ids come from x-request-id, x-ms-client-request-id, traceparent, or are made, sent on and returned', async () => {
  const heads: string[] = [];
  const server = await httpServer((request, response) => {
    heads.push(request.rawHeaders.join('|'));
    if (request.url === '/own') response.setHeader('X-Request-Id', 'of the server');
    response.end('1');
  });
  const rig = await startTapRig({ upstreamPort: server.port });
  const get = async (path: string, headers: Record<string, string>) =>
    (await fetch(`http://127.0.0.1:${rig.port}${path}`, { headers })).headers.get('x-request-id');
  const trace = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
  assert.equal(await get('/', { 'x-request-id': 'a', 'x-ms-client-request-id': 'b' }), null);
  assert.equal(await get('/', { 'x-ms-client-request-id': 'b', traceparent: trace }), null);
  assert.equal(await get('/', { traceparent: trace }), null);
  const made = await get('/', {});
  assert.match(made ?? '', /^[0-9a-f-]{36}$/);
  assert.equal(await get('/own', {}), 'of the server');
  const ids = (await rig.events('request')).map((event) => event['correlationid']);
  assert.deepEqual(ids.slice(0, 4), ['a', 'b', '4bf92f3577b34da6a3ce929d0e0e4736', made]);
  assert.equal(heads.filter((head) => head.includes('x-request-id|')).length, 3);
  assert.ok(heads[3]?.includes(`x-request-id|${made}`));
  rig.update({ requestId: 'pass' });
  assert.equal(await get('/', {}), null);
  assert.ok(!heads.at(-1)?.includes('x-request-id'));
  await rig.close();
  server.close();
});

test('bodies are stored as JSON, as text, or as objects of their own, by media type and bytes', async (t) => {
  const rig = await echo(t);
  const cases: [string | undefined, string | Buffer, (event: StoredEvent) => void][] = [
    ['application/json; charset=utf-8', '[1]', (e) => assert.deepEqual(e['data'], [1])],
    ['application/problem+json', '{"a":"<&>"}', (e) => assert.deepEqual(e['data'], { a: '<&>' })],
    [undefined, '{"a":1}', (e) => assert.deepEqual([e['data'], e['datacontenttype']], [{ a: 1 }, 'application/json'])],
    ['application/x-www-form-urlencoded', '[2]', (e) => assert.deepEqual(e['data'], [2])],
    ['application/x-www-form-urlencoded', 'a=1&b=<2>', (e) => assert.equal(e['data'], 'a=1&b=<2>')],
    [
      'text/plain',
      'héllo "w"\n',
      (e) => assert.deepEqual([e['data'], e['contentrange']], ['héllo "w"\n', 'bytes 0-10/11']),
    ],
    ['application/x-ndjson', '{"a":1}\n{"a":2}\n', (e) => assert.equal(e['data'], '{"a":1}\n{"a":2}\n')],
    ['application/json', '{broken', (e) => assert.deepEqual([e['data'], e['invalidjson']], ['{broken', true])],
    ['text/plain', Buffer.from([0xff, 0xfe, 65]), (e) => assert.deepEqual(e.raw, Buffer.from([0xff, 0xfe, 65]))],
    [
      'text/plain; charset=utf-16',
      'ab',
      (e) => assert.deepEqual([String(e.raw), e['mediatype']], ['ab', 'text/plain; charset=utf-16']),
    ],
    [
      'image/png',
      Buffer.alloc(5000, 7),
      (e) =>
        assert.deepEqual(
          [e.raw?.length, e['datainblob'], e['mediatype'], e['contentrange']],
          [5000, 'true', 'image/png', 'bytes 0-4999/5000'],
        ),
    ],
    [
      undefined,
      '',
      (e) => assert.deepEqual(['data' in e, 'datacontenttype' in e, e['contentrange']], [false, false, 'bytes */0']),
    ],
  ];
  for (const [type, body] of cases) {
    const headers: Record<string, string> = type === undefined ? {} : { 'content-type': type };
    await (
      await fetch(`http://127.0.0.1:${rig.port}/score`, { method: 'POST', headers, body: Buffer.from(body) })
    ).arrayBuffer();
  }
  const requests = await rig.events('request');
  const responses = await rig.events('response');
  assert.equal(requests.length, cases.length);
  for (const [index, [, , check]] of cases.entries()) {
    check(requests[index] as StoredEvent);
    check(responses[index] as StoredEvent);
  }
});

test('encoded bodies pass as they are and are stored decoded; what cannot be decoded is stored as it was sent', async (t) => {
  const rig = await echo(t);
  const text = JSON.stringify({ data: 'x'.repeat(20_000) });
  const large = JSON.stringify(Array.from({ length: 60_000 }, (_, index) => `row ${index}`));
  let sent = 0;
  const send = async (coding: string, body: Buffer) => {
    const headers = { ...JSON_TYPE, 'content-encoding': coding, 'x-request-id': `${sent++}` };
    await (await fetch(`http://127.0.0.1:${rig.port}/score`, { method: 'POST', headers, body })).arrayBuffer();
  };
  await send('gzip', gzipSync(text));
  await send('br', brotliCompressSync(text));
  await send('deflate', deflateRawSync(text));
  await send('zstd', zstdCompressSync(text));
  await send('gzip, br', brotliCompressSync(gzipSync(text)));
  await send('gzip', gzipSync(large));
  await send('gzip', Buffer.from('no gzip'));
  await send('lzma', Buffer.from('who knows'));
  await send('gzip', gzipSync(Buffer.alloc(300 * 1024 ** 2)));
  const events = inOrder(await rig.events('request'));
  for (const event of events.slice(0, 5)) {
    assert.deepEqual(event['data'], JSON.parse(text));
    assert.equal(event['contentrange'], `bytes 0-${text.length - 1}/${text.length}`);
  }
  assert.equal(events[0]?.['contentencoding'], 'gzip');
  assert.equal(events[0]?.['encodedbytes'], gzipSync(text).length);
  assert.equal(JSON.stringify(events[5]?.['data']) === large, true);
  assert.deepEqual([String(events[6]?.raw), events[6]?.['undecoded']], ['no gzip', 'bad']);
  assert.deepEqual([String(events[7]?.raw), events[7]?.['undecoded']], ['who knows', 'unknown']);
  assert.equal(events[8]?.['undecoded'], 'limit');
  assert.equal(rig.used(), 0);
});

test('bodies larger than memory go through the disk and are stored whole, inline or as objects', async (t) => {
  const rig = await echo(t);
  const rows = JSON.stringify(Array.from({ length: 40_000 }, (_, index) => ({ index })));
  const text = 'line of text\n'.repeat(50_000);
  const huge = JSON.stringify(['x'.repeat(5 * 1024 ** 2)]);
  const binary = Buffer.alloc(3 * 1024 ** 2, 'binary');
  const bodies: [string, Buffer][] = [
    ['application/json', Buffer.from(rows)],
    ['text/plain', Buffer.from(text)],
    ['application/json', Buffer.from(huge)],
    ['application/octet-stream', binary],
    ['text/plain', Buffer.from('t'.repeat(5 * 1024 ** 2))],
  ];
  for (const [index, [type, body]] of bodies.entries()) {
    const headers = { 'content-type': type, 'x-request-id': `${index}` };
    const answer = await fetch(`http://127.0.0.1:${rig.port}/score`, { method: 'POST', headers, body });
    assert.equal(Buffer.from(await answer.arrayBuffer()).equals(body), true);
  }
  for (const side of ['request', 'response'] as const) {
    const events = inOrder(await rig.events(side));
    assert.equal(events.length, bodies.length);
    assert.equal(JSON.stringify(events[0]?.['data']) === rows, true);
    assert.equal(events[1]?.['data'] === text, true);
    assert.deepEqual(['data' in (events[2] ?? {}), events[2]?.raw?.equals(Buffer.from(huge))], [false, true]);
    assert.equal(events[3]?.raw?.equals(binary), true);
    assert.deepEqual([events[4]?.raw?.length, events[4]?.['datainblob']], [5 * 1024 ** 2, 'true']);
  }
  assert.equal(rig.used(), 0);
});

test('only the headers that are named are stored, and secrets not even then', async (t) => {
  const names = ['X-Tenant', 'authorization', 'X-Api-Key', 'x-my-secret', 'Set-Cookie', 'x-answer'];
  const rig = await echo(t, { settings: { captureHeaders: names } });
  const headers = {
    ...JSON_TYPE,
    'x-tenant': 'a',
    authorization: 'Bearer hush',
    'x-api-key': 'hush',
    'x-my-secret': 'hush',
    'echo-set-cookie': 'hush=1',
    'echo-x-answer': 'shown',
  };
  const send = async () =>
    (await fetch(`http://127.0.0.1:${rig.port}/`, { method: 'POST', headers, body: '1' })).text();
  await send();
  const stored = JSON.stringify(await rig.events());
  assert.ok(!stored.includes('hush'));
  assert.equal(only(await rig.events('request'))['headerxtenant'], 'a');
  assert.equal(only(await rig.events('response'))['headerxanswer'], 'shown');
  rig.update({ captureSecretHeaders: true });
  await send();
  const request = (await rig.events('request')).at(-1);
  assert.deepEqual([request?.['headerauthorization'], request?.['headerxapikey']], ['Bearer hush', 'hush']);
});

test('the sample takes the same ids on both sides, and failures by a rate of their own', async (t) => {
  const rig = await echo(t, { settings: { samplingRate: 0.3, errorRate: 1 } });
  const send = async (id: string, status: number) => {
    const headers = { ...JSON_TYPE, 'x-request-id': id, 'x-status': String(status) };
    await (await fetch(`http://127.0.0.1:${rig.port}/`, { method: 'POST', headers, body: '[1]' })).text();
  };
  for (let index = 0; index < 60; index += 1) await send(`ok-${index}`, 200);
  for (const status of [500, 503, 429, 408]) await send(`bad-${status}`, status);
  for (let index = 0; index < 20; index += 1) await send(`missing-${index}`, 404);
  const [requests, responses] = [await rig.events('request'), await rig.events('response')];
  const ids = (events: readonly StoredEvent[]) => events.map((event) => event['correlationid']);
  assert.deepEqual(ids(requests), ids(responses));
  assert.equal(ids(requests).filter((id) => String(id).startsWith('bad')).length, 4);
  const kept = requests.length - 4;
  assert.ok(kept > 8 && kept < 45, `${kept} of 80`);
  assert.equal(rig.counted.filter((line) => line === 'sampled 1').length, 80 - kept);
  const rate = (id: string) =>
    responses.find((event) => String(event['correlationid']).startsWith(id))?.['sampledrate'];
  assert.deepEqual([rate('ok'), rate('bad')], [3, undefined]);
  rig.update({ errorRate: 0, samplingRate: 1 });
  const before = (await rig.events('request')).length;
  await send('late', 500);
  assert.equal((await rig.events('request')).length, before);
});

test('with one collection only that side is stored, and requests alone say how they went', async (t) => {
  const rig = await echo(t, { settings: { response: undefined } });
  await (await fetch(`http://127.0.0.1:${rig.port}/x`)).text();
  const event = only(await rig.events());
  assert.deepEqual([event['type'], event['status'], event['method']], ['azureml.inference.request', 200, 'GET']);
});

test('only the paths that are named are collected, and others pass unchanged', async (t) => {
  const rig = await echo(t, { settings: { paths: ['/score', '/v2/*'] } });
  const get = async (path: string) =>
    (await fetch(`http://127.0.0.1:${rig.port}${path}`)).headers.get('x-request-id') !== null;
  assert.deepEqual(
    [await get('/score?x=1'), await get('/scores'), await get('/v2/models'), await get('/')],
    [true, false, true, false],
  );
  const paths = (await rig.events('request')).map((event) => event['path']);
  assert.deepEqual(paths, ['/score?x=1', '/v2/models']);
});

test('a body above max_body_bytes passes whole and is stored cut, and says so', async (t) => {
  const rig = await echo(t, { limits: { maxBodyBytes: 100_000 } });
  const body = `"${'x'.repeat(200_000)}"`;
  const answer = await fetch(`http://127.0.0.1:${rig.port}/`, { method: 'POST', headers: JSON_TYPE, body });
  assert.equal(await answer.text(), body);
  const event = only(await rig.events('request'));
  assert.equal(event['data'], body.slice(0, 100_000));
  assert.deepEqual(
    [event['truncated'], event['contentrange'], 'invalidjson' in event],
    [true, 'bytes 0-99999/200002', false],
  );
});

test('a chat stream is stored as it was sent, and merged into its answer', async (t) => {
  const chunks = [
    '{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":"He"}}]}',
    '{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"llo"},"finish_reason":"stop"}]}',
    '[DONE]',
  ];
  const stream = chunks.map((chunk) => `data: ${chunk}\n\n`).join('');
  const server = await httpServer((_request, response) =>
    response.setHeader('content-type', 'text/event-stream').end(stream),
  );
  const rig = await startTapRig({ upstreamPort: server.port });
  t.after(async () => {
    await rig.close();
    server.close();
  });
  const send = (path: string) => fetch(`http://127.0.0.1:${rig.port}${path}`, { headers: { 'x-request-id': path } });
  await (await send('/v1/chat/completions?a=1')).text();
  await (await send('/v1/other')).text();
  const events = await rig.events('response');
  assert.equal(events.length, 3);
  assert.deepEqual(
    events.map((event) => event['correlationid']),
    ['/v1/chat/completions?a=1', '/v1/chat/completions?a=1', '/v1/other'],
  );
  assert.equal(events[0]?.['data'], stream);
  assert.equal(events[1]?.['merged'], true);
  const merged = events[1]?.['data'] as { choices: { message: unknown }[] };
  assert.deepEqual(merged.choices[0]?.message, { role: 'assistant', content: 'Hello' });
});
