import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { ModeltapError } from '../kit/errors.ts';
import type { SideFile, SpoolWriter } from '../spool/types.ts';
import { httpServer, play, rawServer, startTapRig, type StoredEvent } from './rig.test.ts';

const GET = 'GET /score HTTP/1.1\r\nHost: x\r\nx-request-id: one\r\n\r\n';

function only(events: readonly StoredEvent[]): StoredEvent {
  assert.equal(events.length, 1);
  return events[0] as StoredEvent;
}

test('a server that is not there: the client is cut off, and the failure is stored with its request', async (t) => {
  const gone = await rawServer(() => undefined);
  gone.close();
  const rig = await startTapRig({ upstreamPort: gone.port, settings: { samplingRate: 0 } });
  t.after(() => rig.close());
  const body = 'POST /score HTTP/1.1\r\nHost: x\r\nx-request-id: one\r\nContent-Length: 7\r\n\r\n{"a":1}';
  const seen = await play(rig.port, [body]);
  assert.deepEqual([seen.bytes.length, seen.ending], [0, 'ECONNRESET']);
  const silent = await play(rig.port, []);
  assert.equal(silent.ending, 'ECONNRESET');
  const request = only(await rig.events('request'));
  assert.deepEqual(
    [request['data'], request['upstreamerror'], request['correlationid']],
    [{ a: 1 }, 'ECONNREFUSED', 'one'],
  );
  const response = only(await rig.events('response'));
  assert.deepEqual(
    [response['upstreamerror'], 'status' in response, 'data' in response],
    ['ECONNREFUSED', false, false],
  );
});

test('aborts and cut answers are stored with who ended them and what had passed', async (t) => {
  const half = 'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nhalf of it';
  const server = await rawServer((socket: Socket) => {
    socket.once('data', (bytes: Buffer) => {
      socket.write(half);
      if (bytes.includes('/cut')) setTimeout(() => socket.resetAndDestroy(), 30);
      if (bytes.includes('/end')) socket.end();
    });
  });
  const rig = await startTapRig({ upstreamPort: server.port, settings: { samplingRate: 0, errorRate: 1 } });
  t.after(async () => {
    await rig.close();
    server.close();
  });
  const get = (path: string) => GET.replace('/score', path).replace('one', path);
  await play(rig.port, [get('/abort'), { waitFor: 'half of it' }, { side: 'reset' }]);
  assert.equal((await play(rig.port, [get('/cut')])).ending, 'ECONNRESET');
  assert.equal((await play(rig.port, [get('/end')])).ending, 'end');
  const found = new Map((await rig.events('response')).map((event) => [event['correlationid'], event]));
  for (const path of ['/abort', '/cut', '/end']) {
    const event = found.get(path);
    assert.equal(event?.['data'], 'half of it');
    assert.deepEqual([event?.['incomplete'], event?.['contentrange'], event?.['status']], [true, 'bytes 0-9/100', 200]);
  }
  assert.equal(found.get('/abort')?.['clientaborted'], true);
  assert.equal(found.get('/cut')?.['upstreamerror'], 'ECONNRESET');
  assert.equal(found.get('/end')?.['upstreamerror'], 'closed');
});

test('each piece of a stream reaches the client before the next is made, and the event holds them all', async (t) => {
  const next: (() => void)[] = [];
  const server = await httpServer((_request, response) => {
    response.setHeader('content-type', 'text/event-stream');
    let index = 0;
    const write = () => {
      if (index === 5) response.end();
      else response.write(`data: ${index++}\n\n`);
      next.push(write);
    };
    write();
  });
  const rig = await startTapRig({ upstreamPort: server.port });
  t.after(async () => {
    await rig.close();
    server.close();
  });
  const answer = await fetch(`http://127.0.0.1:${rig.port}/stream`);
  let text = '';
  for await (const piece of answer.body ?? []) {
    text += Buffer.from(piece).toString();
    // The server goes on only when its last piece has arrived here.
    next.shift()?.();
  }
  assert.equal(text, 'data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\n');
  const event = only(await rig.events('response'));
  assert.deepEqual([event['data'], event['datacontenttype']], [text, 'text/event-stream']);
});

test('a client that does not read holds the server back, as directly', async (t) => {
  let written = 0;
  const server = await rawServer((socket) => {
    socket.write('HTTP/1.1 200 OK\r\n\r\n');
    const fill = () => {
      while (written < 10 ** 9 && socket.write(Buffer.alloc(65_536))) written += 65_536;
      socket.once('drain', fill);
    };
    socket.once('data', fill);
  });
  const rig = await startTapRig({ upstreamPort: server.port, settings: { request: undefined, response: undefined } });
  t.after(async () => {
    await rig.close();
    server.close();
  });
  const socket = connect(rig.port, '127.0.0.1');
  await once(socket, 'connect');
  socket.pause();
  socket.write(GET);
  let before = -1;
  for (let tries = 0; before !== written && tries < 50; tries += 1) {
    before = written;
    await new Promise((done) => setTimeout(done, 100));
  }
  assert.ok(written > 0 && written < 64 * 1024 ** 2, `${written} bytes were taken from the server`);
  socket.destroy();
});

/** A spool whose side files are as slow, or as broken, as told. */
function slowDisk(spool: SpoolWriter, delayMs: number, error?: 'spool_full'): SpoolWriter {
  const slow = (file: SideFile): SideFile => ({
    get name() {
      return file.name;
    },
    get bytes() {
      return file.bytes;
    },
    async write(chunk) {
      await new Promise((done) => setTimeout(done, delayMs));
      if (error !== undefined) throw new ModeltapError(error, { directory: 'spool' });
      await file.write(chunk);
    },
    seal: () => file.seal(),
    abort: () => file.abort(),
  });
  return new Proxy(spool, {
    get(target, name) {
      if (name === 'openSideFile') return async () => slow(await target.openSideFile());
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}

/** Sends `count` bodies of 2 MB and checks that each comes back as it was. */
async function echoes(port: number, count: number): Promise<number> {
  const body = Buffer.alloc(2 * 1024 ** 2, 'abcdefgh');
  const began = performance.now();
  for (let index = 0; index < count; index += 1) {
    const answer = await fetch(`http://127.0.0.1:${port}/score`, { method: 'POST', body });
    assert.equal(Buffer.from(await answer.arrayBuffer()).equals(body), true);
  }
  return performance.now() - began;
}

test('a disk that is slow or full and a memory that is too small cost records, which are counted, and no byte or time', async (t) => {
  const server = await httpServer((request, response) => request.pipe(response));
  t.after(() => server.close());
  const direct = await echoes(server.port, 6);
  const rigs: [string, Parameters<typeof startTapRig>[0], RegExp][] = [
    [
      'slow',
      { upstreamPort: server.port, maxCaptureBytes: 4 * 1024 ** 2, spool: (spool) => slowDisk(spool, 300) },
      /tap_(disk_slow|memory) /,
    ],
    ['full', { upstreamPort: server.port, spool: (spool) => slowDisk(spool, 0, 'spool_full') }, /spool_full /],
    ['really full', { upstreamPort: server.port, spoolBytes: 1024 ** 2 }, /spool_full /],
    ['no memory', { upstreamPort: server.port, maxCaptureBytes: 10_000 }, /tap_memory /],
  ];
  for (const [name, options, reason] of rigs) {
    const rig = await startTapRig(options);
    t.after(() => rig.close());
    const took = await echoes(rig.port, 6);
    assert.ok(took < direct * 4 + 500, `${name}: ${took} ms, directly ${direct} ms`);
    await rig.events();
    // What a slow disk is writing at this moment is in memory until it is done.
    for (let tries = 0; rig.used() > 0 && tries < 50; tries += 1) await new Promise((done) => setTimeout(done, 100));
    assert.ok(
      rig.counted.some((line) => reason.test(line)),
      `${name}: ${rig.counted.join(', ')}`,
    );
    // Seen = accepted + lost, on both sides of each exchange.
    assert.equal(rig.counted.length, 12, `${name}: ${rig.counted.join(', ')}`);
    assert.equal(rig.used(), 0, name);
  }
});

test('memory stays flat while 256 MB pass and are captured', async (t) => {
  const server = await httpServer((request, response) => {
    let bytes = 0;
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
    });
    request.on('end', () => response.end(String(bytes)));
  });
  const rig = await startTapRig({ upstreamPort: server.port, maxCaptureBytes: 64 * 1024 ** 2 });
  t.after(async () => {
    await rig.close();
    server.close();
  });
  const piece = Buffer.alloc(1024 ** 2, 'upload ');
  let most = 0;
  async function* upload() {
    for (let index = 0; index < 256; index += 1) {
      yield piece;
      // The rate of a fast network: the test is about memory, and a disk may be slower than loopback.
      await new Promise((done) => setTimeout(done, 4));
      most = Math.max(most, rig.used());
    }
  }
  const init = { method: 'POST', body: upload() as unknown as ReadableStream, duplex: 'half' } as const;
  const headers = { 'content-type': 'application/octet-stream' };
  const answer = await fetch(`http://127.0.0.1:${rig.port}/upload`, { ...init, headers });
  assert.equal(await answer.text(), String(256 * 1024 ** 2));
  assert.ok(most <= 9 * 1024 ** 2, `${most} bytes of capture memory`);
  const event = only(await rig.events('request'));
  assert.equal(event.raw?.length, 256 * 1024 ** 2);
  assert.equal(event['contentrange'], `bytes 0-${256 * 1024 ** 2 - 1}/*`);
});

test('a tap that stops ends idle connections, lets exchanges finish, and stores them', async () => {
  const server = await httpServer((_request, response) => {
    setTimeout(() => response.end('late'), 200);
  });
  const rig = await startTapRig({ upstreamPort: server.port });
  const idle = play(rig.port, [GET, { waitFor: 'late' }]);
  await new Promise((done) => setTimeout(done, 300));
  const busy = play(rig.port, [GET]);
  await new Promise((done) => setTimeout(done, 50));
  const began = performance.now();
  await rig.tap.close(5000);
  assert.ok(performance.now() - began < 2000);
  assert.ok((await busy).bytes.includes('late'));
  assert.equal((await idle).ending, 'end');
  assert.equal((await rig.events('response')).length, 2);
  await rig.close();
  server.close();
});
