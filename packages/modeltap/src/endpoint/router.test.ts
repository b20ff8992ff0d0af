import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type IncomingHttpHeaders, type IncomingMessage, request } from 'node:http';
import { connect } from 'node:net';
import { test } from 'node:test';
import type { RouterLease } from './lease.ts';
import { call, echo, listen, named, type Serve, signal, world } from './world.test-suite.ts';

test('a request reaches the instance without the prefix, and its answer names the deployment', async () => {
  await using here = await world({ blue: echo });
  const answer = await call(here.port, '/endpoints/iris/score?a=%20b&c', {
    body: '{"x":1}',
    headers: {
      'content-type': 'application/json',
      'x-mine': '1',
      connection: 'close, x-hop',
      'x-hop': '1',
      te: 'trailers',
    },
  });
  assert.equal(answer.status, 200);
  assert.equal(answer.headers['azureml-model-deployment'], 'blue');
  assert.equal(answer.headers['x-model'], 'm1');
  assert.equal(answer.headers['x-request-id'], 'made-here');
  const seen = JSON.parse(answer.body) as { url: string; method: string; headers: IncomingHttpHeaders; body: string };
  assert.deepEqual([seen.url, seen.method, seen.body], ['/score?a=%20b&c', 'POST', '{"x":1}']);
  assert.deepEqual(
    [
      seen.headers['x-mine'],
      seen.headers['x-request-id'],
      seen.headers['content-type'],
      seen.headers['content-length'],
    ],
    ['1', 'made-here', 'application/json', '7'],
  );
  assert.deepEqual([seen.headers['x-hop'], seen.headers.te], [undefined, undefined]);
  const own = await call(here.port, '/endpoints/iris', { method: 'GET', headers: { 'x-request-id': 'theirs' } });
  assert.equal(own.headers['x-request-id'], 'theirs');
  assert.equal((JSON.parse(own.body) as { url: string }).url, '/');
  assert.deepEqual(here.leases, { out: 2, back: 2 });
});

test('bodies of every kind and size arrive whole', async () => {
  await using here = await world({ blue: echo });
  for (const size of [0, 1, 65_536, 65_537, 3_000_000]) {
    for (const chunked of [false, true]) {
      const body = 'é'.repeat(size / 2) + 'x'.repeat(size % 2);
      const headers: Record<string, string> = chunked
        ? { 'transfer-encoding': 'chunked' }
        : { 'content-length': String(size) };
      const answer = await call(here.port, '/endpoints/iris/score', { body, headers });
      assert.equal((JSON.parse(answer.body) as { body: string }).body, body);
    }
  }
});

test('a client that waits for 100-continue gets it', async () => {
  await using here = await world({ blue: echo });
  const sent = request({
    port: here.port,
    path: '/endpoints/iris/score',
    method: 'POST',
    headers: { expect: '100-continue', 'content-length': '2' },
  });
  sent.flushHeaders();
  await once(sent, 'continue');
  sent.end('ok');
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  assert.equal(response.statusCode, 200);
  response.resume();
});

test('traffic is split by weight, and the header forces a deployment', async () => {
  let point = 0;
  await using here = await world(
    { blue: named('blue'), green: named('green') },
    { traffic: { blue: 50, green: 50 }, options: { random: () => point } },
  );
  assert.equal((await call(here.port, '/endpoints/iris/score')).body, 'blue');
  point = 0.5;
  assert.equal((await call(here.port, '/endpoints/iris/score')).body, 'green');
  const forced = await call(here.port, '/endpoints/iris/score', { headers: { 'azureml-model-deployment': 'blue' } });
  assert.deepEqual([forced.body, forced.headers['azureml-model-deployment']], ['blue', 'blue']);
});

test('what cannot be routed is answered in JSON with a code and what to do', async () => {
  await using here = await world({ blue: echo, green: echo });
  const unknown = await call(here.port, '/endpoints/roses/score');
  assert.deepEqual([unknown.status, unknown.error().code], [404, 'not_found']);
  const forced = await call(here.port, '/endpoints/iris/score', { headers: { 'azureml-model-deployment': 'red' } });
  assert.deepEqual([forced.status, forced.error().code], [404, 'not_found']);
  const none = await call(here.port, '/endpoints/iris/score');
  assert.deepEqual([none.status, none.error().code], [503, 'endpoint_no_traffic']);
  assert.match(none.error().fix, /azureml-model-deployment/);
  await using empty = await world({});
  assert.deepEqual([(await call(empty.port, '/endpoints/iris/score')).status], [404]);
});

test('a request waits for an instance while a deployment switches, and is 503 when none comes', async () => {
  await using here = await world({ blue: named('blue') }, { options: { waitMs: 150 } });
  const ports = here.instances.blue ?? [];
  here.instances.blue = [];
  const none = await call(here.port, '/endpoints/iris/score', { body: 'x' });
  assert.deepEqual([none.status, none.error().code], [503, 'deployment_unavailable']);
  const waiting = call(here.port, '/endpoints/iris/score', { body: 'x' });
  await new Promise((resolve) => setTimeout(resolve, 40));
  here.instances.blue = ports;
  assert.equal((await waiting).body, 'blue');
});

test('an instance that refuses the connection is replaced by another, with small and with streamed bodies', async () => {
  await using here = await world({ blue: echo });
  const gone = await listen(echo);
  gone.server.close();
  here.instances.blue?.unshift(gone.port);
  for (const body of ['small', 'x'.repeat(200_000)]) {
    const answer = await call(here.port, '/endpoints/iris/score', { body });
    assert.equal(answer.status, 200);
    assert.equal((JSON.parse(answer.body) as { body: string }).body, body);
  }
  here.instances.blue = [gone.port];
  const broken = await call(here.port, '/endpoints/iris/score', { body: 'x' });
  assert.deepEqual([broken.status, broken.error().code], [502, 'instance_unreachable']);
  // The place of a broken request is given back a moment later; this ends only when all are back.
  while (here.leases.back < here.leases.out) await new Promise(setImmediate);
  assert.equal(here.leases.out, here.leases.back);
});

test('an instance that dies with the request in hand is 502 and the request is not sent again', async () => {
  let calls = 0;
  const dying: Serve = (request) => {
    calls += 1;
    request.socket.destroy();
  };
  await using here = await world({ blue: dying });
  here.instances.blue?.push(here.instances.blue[0] ?? 0);
  const answer = await call(here.port, '/endpoints/iris/score', { body: 'x' });
  assert.deepEqual([answer.status, answer.error().code, calls], [502, 'instance_unreachable', 1]);
});

test('an answer that breaks in the middle cuts the connection of the client', async () => {
  await using here = await world({
    blue: (_request, response) => {
      response.writeHead(200, { 'content-length': '100' });
      response.write('half');
      setTimeout(() => response.destroy(), 20);
    },
  });
  await assert.rejects(call(here.port, '/endpoints/iris/score'));
});

test('chunks pass as they come, in both directions', async () => {
  const seen: string[] = [];
  await using here = await world({
    blue: (request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      request.on('data', (chunk: Buffer) => {
        seen.push(chunk.toString());
        response.write(`got ${chunk.toString()}`);
      });
      request.on('end', () => response.end());
    },
  });
  const sent = request({ port: here.port, path: '/endpoints/iris/chat', method: 'POST' });
  sent.write('one');
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  assert.equal(String((await once(response, 'data'))[0]), 'got one');
  sent.write('two');
  assert.equal(String((await once(response, 'data'))[0]), 'got two');
  sent.end();
  await once(response.resume(), 'end');
  assert.deepEqual(seen, ['one', 'two']);
});

test('a slow reader slows the instance down instead of filling memory', async () => {
  let written = 0;
  let finished = false;
  await using here = await world({
    blue: (request, response) => {
      request.resume();
      const chunk = Buffer.alloc(256 * 1024);
      const more = () => {
        while (written < 64 * 1024 ** 2) {
          written += chunk.length;
          if (!response.write(chunk)) {
            response.once('drain', more);
            return;
          }
        }
        finished = true;
        response.end();
      };
      more();
    },
  });
  const socket = connect(here.port, '127.0.0.1');
  socket.write('GET /endpoints/iris/big HTTP/1.1\r\nHost: x\r\n\r\n');
  socket.pause();
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.equal(finished, false);
  assert.ok(written < 40 * 1024 ** 2, `${written} bytes were taken from the instance`);
  socket.destroy();
});

test('a client that goes away breaks off the request at the instance and gives the lease back', async () => {
  const gone = signal();
  const arrived = signal();
  await using here = await world({
    blue: (request, response) => {
      request.resume();
      arrived.resolve();
      response.on('close', gone.resolve);
    },
  });
  const sent = request({ port: here.port, path: '/endpoints/iris/score', method: 'POST' }).on('error', () => undefined);
  sent.end('x');
  await arrived.promise;
  sent.destroy();
  await gone.promise;
  while (here.leases.back === 0 || here.router.inFlight > 0) await new Promise(setImmediate);
  assert.deepEqual(here.leases, { out: 1, back: 1 });
});

test('a request over request_timeout_ms is 408 and is broken off, but an answer that has begun may take longer', async () => {
  const gone = signal();
  await using here = await world(
    {
      blue: (request, response) => {
        request.resume();
        if (request.url === '/stream') {
          response.write('a');
          setTimeout(() => response.end('b'), 150);
        } else response.on('close', gone.resolve);
      },
    },
    { requestTimeoutMs: 60 },
  );
  const late = await call(here.port, '/endpoints/iris/score', { body: 'x' });
  assert.deepEqual([late.status, late.error().code], [408, 'request_timeout']);
  assert.match(late.error().fix, /request_timeout_ms/);
  assert.match(late.body, /^{"message":"deployment blue did not answer within 60 ms","error":/);
  assert.equal(late.headers['azureml-model-deployment'], 'blue');
  await gone.promise;
  assert.equal((await call(here.port, '/endpoints/iris/stream')).body, 'ab');
  const slow = connect(here.port, '127.0.0.1');
  slow.write('POST /endpoints/iris/score HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf');
  const [text] = (await once(slow, 'data')) as [Buffer];
  assert.match(text.toString(), /^HTTP\/1\.1 408 /);
  slow.destroy();
});

test('an instance that finishes what it has begun is not free before it has answered, though nobody waits any more', async () => {
  const arrived = [signal(), signal()];
  const release: (() => void)[] = [];
  const closed: boolean[] = [];
  const leases = { out: 0, back: 0 };
  const { server, port } = await listen((request, response) => {
    request.resume();
    response.on('close', () => closed.push(!response.writableEnded));
    arrived[release.length]?.resolve();
    release.push(() => response.end('late'));
  });
  await using here = await world(
    {},
    {
      deployments: { blue: { requestTimeoutMs: 60 } },
      options: {
        acquire() {
          leases.out += 1;
          return { port, finishes: true, release: () => void (leases.back += 1) };
        },
      },
    },
  );
  const late = await call(here.port, '/endpoints/iris/score', { body: 'x' });
  assert.deepEqual([late.status, leases, closed], [408, { out: 1, back: 0 }, []]);
  const sent = request({ port: here.port, path: '/endpoints/iris/score', method: 'POST' }).on('error', () => undefined);
  sent.end('x');
  await arrived[1]?.promise;
  sent.destroy();
  while (here.router.inFlight > 0) await new Promise(setImmediate);
  assert.deepEqual([leases, closed], [{ out: 2, back: 0 }, []]);
  for (const answer of release) answer();
  while (leases.back < 2) await new Promise(setImmediate);
  server.closeAllConnections();
  server.close();
});

test('a request waits for the instance it is promised, and leaves when its client has gone', async () => {
  const waiting: { signal: AbortSignal; give: (lease: RouterLease | undefined) => void }[] = [];
  await using here = await world(
    { blue: echo },
    {
      options: {
        acquire: (_endpoint, _deployment, { signal }) => new Promise((give) => waiting.push({ signal, give })),
      },
    },
  );
  const port = here.instances.blue?.[0] ?? 0;
  const first = call(here.port, '/endpoints/iris/score', { body: 'x' });
  while (waiting.length === 0) await new Promise(setImmediate);
  waiting[0]?.give({ port, release: () => undefined });
  assert.equal((await first).status, 200);
  const second = request({ port: here.port, path: '/endpoints/iris/score', method: 'POST' });
  second.on('error', () => undefined).end('x');
  while (waiting.length === 1) await new Promise(setImmediate);
  second.destroy();
  const { signal: gone, give } = waiting[1] ?? assert.fail('nothing waits');
  while (!gone.aborted) await new Promise(setImmediate);
  const released = signal();
  give({ port, release: released.resolve });
  await released.promise;
});

test('a request whose deployment is deleted while it waits goes where traffic goes now, unless it named it', async () => {
  await using here = await world(
    { blue: named('blue'), green: named('green') },
    { traffic: { blue: 100 }, options: { waitMs: 400 } },
  );
  here.instances.blue = [];
  const free = call(here.port, '/endpoints/iris/score', { body: 'x' });
  const forced = call(here.port, '/endpoints/iris/score', { headers: { 'azureml-model-deployment': 'blue' } });
  await new Promise((resolve) => setTimeout(resolve, 40));
  here.change({ traffic: { green: 100 }, deployments: { green: { requestTimeoutMs: 5000 } } });
  const answer = await free;
  assert.deepEqual([answer.body, answer.headers['azureml-model-deployment']], ['green', 'green']);
  assert.equal((await forced).error().code, 'deployment_unavailable');
});

test('a client that is slow with a long body still gets its 408', async () => {
  await using here = await world({ blue: (request) => void request.resume() }, { requestTimeoutMs: 100 });
  const slow = connect(here.port, '127.0.0.1');
  slow.write(`POST /endpoints/iris/score HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n${'x'.repeat(100_000)}`);
  let text = '';
  const more = setInterval(() => text === '' && slow.write('x'.repeat(1_000)), 10);
  slow.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  slow.on('error', () => undefined);
  await new Promise((done) => slow.once('close', done));
  clearInterval(more);
  assert.match(text, /^HTTP\/1\.1 408 [\s\S]*request_timeout/);
});

test('more requests than allowed at once are 503', async () => {
  const release: (() => void)[] = [];
  await using here = await world(
    { blue: (_request, response) => void release.push(() => response.end('ok')) },
    { options: { maxInFlight: 1 } },
  );
  const first = call(here.port, '/endpoints/iris/score', { body: 'x' });
  while (release.length === 0) await new Promise(setImmediate);
  const second = await call(here.port, '/endpoints/iris/score', { body: 'x' });
  assert.deepEqual([second.status, second.error().code], [503, 'endpoint_overloaded']);
  release[0]?.();
  assert.equal((await first).body, 'ok');
});

test('stop waits for what is in flight', async () => {
  const release: (() => void)[] = [];
  await using here = await world({ blue: (_request, response) => void release.push(() => response.end('ok')) });
  const running = call(here.port, '/endpoints/iris/score', { body: 'x' });
  while (release.length === 0) await new Promise(setImmediate);
  const stopped = here.router.stop(5000);
  release[0]?.();
  await stopped;
  assert.equal((await running).body, 'ok');
});

test('header names and values cannot smuggle a second request', async () => {
  await using here = await world({ blue: echo });
  const raw = connect(here.port, '127.0.0.1');
  raw.write(
    'POST /endpoints/iris/score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\nGET /endpoints/iris/evil HTTP/1.1\r\nHost: x\r\n\r\n',
  );
  const [text] = (await once(raw, 'data')) as [Buffer];
  assert.match(text.toString(), /^HTTP\/1\.1 400 /);
  raw.destroy();
});
