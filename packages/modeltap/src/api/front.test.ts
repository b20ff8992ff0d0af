import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { connect } from 'node:net';
import { test } from 'node:test';
import { createEndpointRouter, type EndpointRouterOptions } from '../endpoint/router.ts';
import { createFront, type FrontLimits } from './front.ts';

type Listener = Parameters<typeof createFront>[1];

const ok: Listener = (request, response) => {
  request.resume();
  request.on('end', () => response.end('ok'));
};

async function front(limits: Partial<FrontLimits>, listener: Listener = ok) {
  const server = createFront({ limits: { checkEveryMs: 20, ...limits } }, listener).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

/** What comes back on a raw connection until it is closed, and after how long. */
async function raw(port: number, talk: (write: (text: string) => void) => void): Promise<{ text: string; ms: number }> {
  const socket = connect(port, '127.0.0.1');
  let text = '';
  socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
  socket.on('error', () => undefined);
  const began = performance.now();
  // Who writes on after the answer may be reset before it is read.
  socket.on('connect', () => talk((part) => void (text === '' && socket.writable && socket.write(part))));
  await new Promise((done) => socket.once('close', done));
  return { text, ms: performance.now() - began };
}

const status = (text: string) => Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1]);
const head = (...headers: string[]) => ['POST /score HTTP/1.1', 'Host: x', ...headers, '', ''].join('\r\n');

test('headers beyond the limit in bytes or number are 431, and those within are served', async () => {
  await using here = await front({ headerBytes: 4_096, headers: 20 });
  const end = 'Connection: close';
  const within = Array.from({ length: 18 }, (_, index) => `x-${index}: ${'v'.repeat(100)}`);
  assert.equal(status((await raw(here.port, (write) => write(head(end, ...within)))).text), 200);
  const many = await raw(here.port, (write) => write(head(end, ...within, 'x-more: 1')));
  assert.equal(status(many.text), 431);
  assert.match(many.text, /headers_too_many.*more than 20 headers/);
  const far = Array.from({ length: 500 }, (_, index) => `y${index}: 1`);
  assert.equal(status((await raw(here.port, (write) => write(head(end, ...far)))).text), 431);
  const long = await raw(here.port, (write) => write(head(`x-long: ${'v'.repeat(5_000)}`)));
  assert.equal(status(long.text), 431);
});

test('a client that is slow with its headers or its body is 408, one that sends nothing is closed', async () => {
  await using here = await front({ headersTimeoutMs: 150, requestTimeoutMs: 300, idleMs: 100 });
  const slowHead = await raw(here.port, (write) => {
    write('POST /score HTTP/1.1\r\nHost: x\r\n');
    for (let at = 40; at < 400; at += 40) setTimeout(() => write('x-a: 1\r\n'), at);
  });
  assert.equal(status(slowHead.text), 408);
  assert.ok(slowHead.ms < 1_000, `${slowHead.ms} ms`);
  const slowBody = await raw(here.port, (write) => {
    write(head('Content-Length: 1000'));
    for (let at = 40; at < 800; at += 40) setTimeout(() => write('x'), at);
  });
  assert.equal(status(slowBody.text), 408);
  assert.ok(slowBody.ms < 1_500, `${slowBody.ms} ms`);
  const silent = await raw(here.port, () => undefined);
  assert.ok(silent.ms < 2_000, `${silent.ms} ms`);
});

test('a connection without another request is closed', async () => {
  await using here = await front({ idleMs: 100 });
  const kept = await raw(here.port, (write) => write(head('Content-Length: 0')));
  assert.equal(status(kept.text), 200);
  assert.match(kept.text, /keep-alive/i);
  assert.ok(kept.ms >= 90 && kept.ms < 5_000, `${kept.ms} ms`);
});

test('connections beyond the limit are closed at once, and the others go on', async () => {
  await using here = await front({ connections: 2 });
  const held: ((text: string) => void)[] = [];
  const open = [0, 1].map(() => raw(here.port, (write) => held.push(write)));
  while (held.length < 2) await new Promise((done) => setTimeout(done, 5));
  // The server may take a connection a moment after its client has it.
  await new Promise((done) => setTimeout(done, 50));
  assert.equal((await raw(here.port, (write) => write(head()))).text, '');
  for (const write of held) write(head('Content-Length: 0', 'Connection: close'));
  for (const { text } of await Promise.all(open)) assert.equal(status(text), 200);
});

async function endpointFront(serve: Listener, options: Partial<EndpointRouterOptions>) {
  const instance = await front({}, serve);
  const router = createEndpointRouter({
    endpoint: (name) => ({ name, traffic: {}, deployments: { blue: { requestTimeoutMs: 5_000 } } }),
    acquire: () => ({ port: instance.port, release: () => undefined }),
    ...options,
  });
  const outside = await front({}, (request, response) => router.serve(request, response));
  return {
    port: outside.port,
    async [Symbol.asyncDispose]() {
      await router.stop(0);
      await outside[Symbol.asyncDispose]();
      await instance[Symbol.asyncDispose]();
    },
  };
}

const to = (...headers: string[]) => head(...headers).replace('/score', '/endpoints/iris/score');

test('a body over the limit is 413, announced or not, and never reaches the model as a whole one', async () => {
  let whole = 0;
  const count: Listener = (request, response) => {
    request.resume();
    request.on('error', () => undefined);
    request.on('end', () => {
      whole += 1;
      response.end('ok');
    });
  };
  await using here = await endpointFront(count, { maxBodyBytes: 100_000 });
  const end = 'Connection: close';
  const announced = await raw(here.port, (write) => write(to('Content-Length: 100001')));
  assert.equal(status(announced.text), 413);
  assert.match(announced.text, /request_too_large.*longer than 100000 bytes/);
  const chunk = `${(50_000).toString(16)}\r\n${'x'.repeat(50_000)}\r\n`;
  const within = await raw(here.port, (write) =>
    write(to('Transfer-Encoding: chunked', end) + chunk + chunk + '0\r\n\r\n'),
  );
  assert.equal(status(within.text), 200);
  const over = await raw(here.port, (write) => {
    write(to('Transfer-Encoding: chunked') + chunk + chunk + chunk);
    setTimeout(() => write('0\r\n\r\n'), 50);
  });
  assert.equal(status(over.text), 413);
  assert.equal(whole, 1);
  const exact = await raw(here.port, (write) => write(`${to('Content-Length: 100000', end)}${'x'.repeat(100_000)}`));
  assert.equal(status(exact.text), 200);
});

test('a client that takes nothing of its answer is cut off', async () => {
  const closed: number[] = [];
  const endless: Listener = (request, response) => {
    request.resume();
    response.on('close', () => closed.push(performance.now()));
    const more = () => {
      while (!response.destroyed && response.write(Buffer.alloc(256 * 1024)));
      response.once('drain', more);
    };
    more();
  };
  await using here = await endpointFront(endless, { stallMs: 200 });
  const socket = connect(here.port, '127.0.0.1').on('error', () => undefined);
  socket.pause();
  socket.write(to('Content-Length: 0'));
  const began = performance.now();
  while (closed.length === 0 && performance.now() - began < 5_000) await new Promise((done) => setTimeout(done, 20));
  const after = (closed[0] ?? 0) - began;
  assert.ok(after >= 150, `closed after ${after} ms`);
  socket.destroy();
});
