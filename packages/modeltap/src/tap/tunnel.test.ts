import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { corpus, type CorpusCase, type ServerScript } from './corpus.test.ts';
import { play, rawServer, type Seen, startTapRig } from './rig.test.ts';

/** What a server saw of one connection. */
interface Served {
  bytes: Buffer[];
  ending: string;
  closed: Promise<void>;
}

/** A server whose script is changed between connections, and what it saw of the last one. */
async function scriptedServer() {
  let script: ServerScript = { raw: () => undefined };
  let served: Served | undefined;
  const http: Server = createServer(
    { keepAliveTimeout: 60_000 },
    (request: IncomingMessage, response: ServerResponse) => {
      if ('http' in script) script.http(request, response);
    },
  );
  http.on('clientError', (_error, socket) => {
    if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n');
  });
  http.on('upgrade', (_request, socket: Socket) => {
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n');
    socket.pipe(socket);
  });
  const server = await rawServer((socket) => {
    let close = () => undefined as void;
    const seen: Served = { bytes: [], ending: 'end', closed: new Promise<void>((done) => (close = done)) };
    served = seen;
    const now = script;
    socket.on('error', (error: NodeJS.ErrnoException) => {
      seen.ending = error.code ?? 'error';
    });
    socket.on('close', () => close());
    if ('http' in now) {
      http.emit('connection', socket);
      // Behind the server's own listener: from then on it takes its bytes as events, and they can be seen here too.
      socket.on('data', (chunk: Buffer) => seen.bytes.push(chunk));
      return;
    }
    socket.on('data', (chunk: Buffer) => {
      seen.bytes.push(chunk);
      now.raw(socket, Buffer.concat(seen.bytes).toString('latin1'));
    });
    socket.on('end', () => socket.end());
  });
  return {
    port: server.port,
    close: server.close,
    use(next: ServerScript) {
      script = next;
      served = undefined;
    },
    served: () => served,
  };
}

/** Without the one field that the tap adds. */
function withoutAdded(bytes: Buffer): Buffer {
  return Buffer.from(bytes.toString('latin1').replaceAll(/x-request-id: [0-9a-f-]{36}\r\n/g, ''), 'latin1');
}

async function run(server: Awaited<ReturnType<typeof scriptedServer>>, port: number, one: CorpusCase) {
  server.use(one.server);
  const seen: Seen = await play(port, one.steps);
  const served = server.served();
  await Promise.race([served?.closed, new Promise((done) => setTimeout(done, 2000))]);
  return { client: seen, server: { bytes: Buffer.concat(served?.bytes ?? []), ending: served?.ending ?? 'none' } };
}

const cases = corpus();

test(`${cases.length} exchanges are the same through the tap as directly, byte for byte and end for end`, async (t) => {
  assert.ok(cases.length >= 200);
  const server = await scriptedServer();
  const rig = await startTapRig({ upstreamPort: server.port });
  t.after(async () => {
    await rig.close();
    server.close();
  });
  for (const mode of ['add', 'pass'] as const) {
    rig.update({ requestId: mode });
    // What differs between the two is the added field, so that a part of the corpus is enough without it.
    for (const one of mode === 'add'
      ? cases
      : cases.filter((_, index) => index % 4 === 0 || index === cases.length - 1)) {
      const direct = await run(server, server.port, one);
      const before = rig.counted.length;
      const tapped = await run(server, rig.port, one);
      const clean = (bytes: Buffer) => (mode === 'add' && bytes.length < 10 ** 7 ? withoutAdded(bytes) : bytes);
      const where = `${one.name}, request_id: ${mode}`;
      const lengths = (side: 'client' | 'server') =>
        `${where}: ${side} ${clean(tapped[side].bytes).length} bytes, directly ${direct[side].bytes.length}`;
      if (one.name !== '64 MB both ways' || mode === 'pass') {
        assert.ok(clean(tapped.client.bytes).equals(direct.client.bytes), lengths('client'));
        // The clock decides how much reaches a server before a reset; node:http's parser keeps some bytes to itself.
        assert.ok(clean(tapped.server.bytes).equals(direct.server.bytes), lengths('server'));
      }
      assert.equal(tapped.client.ending, direct.client.ending, `${where}: how the client's connection ended`);
      assert.equal(tapped.server.ending, direct.server.ending, `${where}: how the server's connection ended`);
      for (let tries = 0; rig.tap.connections > 0 && tries < 400; tries += 1)
        await new Promise((done) => setTimeout(done, 5));
      assert.equal(rig.tap.connections, 0, `${where}: the connection is still open`);
      await rig.tap.settled();
      if (one.captured === undefined) continue;
      const taken = rig.counted.slice(before).filter((line) => line === 'accepted 1').length;
      assert.equal(taken, one.captured, `${where}: ${rig.counted.slice(before).join(', ')}`);
    }
  }
  assert.equal(rig.used(), 0);
});
