import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { AppendDone, SpoolWriter } from '../../spool/types.ts';
import { type Rig, type RigOptions, routesTo, startRig } from '../rig.test.ts';

const FIELDS = 'host: localhost\r\ncontent-type: application/json\r\nce-type: azureml.inference.model_inputs\r\n';
const ACCEPTED = 'HTTP/1.1 204 No Content';

/** A record; `id` becomes its correlation id. */
function record(id: string, body = '[1]', fields = ''): string {
  const length = `content-length: ${Buffer.byteLength(body)}\r\n`;
  return `POST /modeldata/log HTTP/1.1\r\n${FIELDS}${fields}ce-x-request-id: ${id}\r\n${length}\r\n${body}`;
}

/** A request that is not ingest's. */
const GET = 'GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n';
const next: RigOptions['next'] = (request, response) => response.end(`next ${request.url}`);

async function withRig(options: RigOptions, run: (rig: Rig) => Promise<void>): Promise<void> {
  const rig = await startRig(options);
  try {
    await run(rig);
  } finally {
    await rig.close();
  }
}

/** A sender that says what it is told and keeps what it hears. */
class Sender {
  readonly socket: Socket;
  text = '';
  ended = false;
  closed = false;

  constructor(port: number) {
    this.socket = connect({ port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true });
    this.socket.on('data', (chunk: Buffer) => {
      this.text += chunk.toString('latin1');
    });
    this.socket.on('error', () => undefined);
    this.socket.on('end', () => {
      this.ended = true;
      this.socket.end();
    });
    this.socket.on('close', () => {
      this.closed = true;
    });
  }

  get statuses(): string[] {
    return [...this.text.matchAll(/HTTP\/1\.1 (\d{3})/g)].map(([, status]) => status ?? '');
  }

  say(text: string | Buffer): void {
    this.socket.write(text);
  }

  async heard(count: number): Promise<void> {
    await until(() => this.statuses.length >= count);
  }

  async over(): Promise<void> {
    await until(() => this.closed);
  }
}

/** Waits until it holds; the test runner's time limit ends what never does. */
async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await sleep(2);
}

/** Open connections of this process, both ends counted. */
function sockets(): number {
  return process.getActiveResourcesInfo().filter((kind) => kind === 'TCPSocketWrap').length;
}

const ids = async (rig: Rig) => (await rig.records()).map(({ correlationId }) => correlationId);

test('ten thousand requests in one write are answered and stored, all of them and in order', async () => {
  await withRig({}, async (rig) => {
    const expected = Array.from({ length: 10_000 }, (_, index) => `r${index}`);
    const sender = new Sender(rig.port);
    // The last one asks for the end, so that its answer is the last thing heard.
    const texts = expected.map((id, index) => record(id, '[1]', index === 9999 ? 'connection: close\r\n' : ''));
    sender.say(Buffer.from(texts.join('')));
    await sender.over();
    assert.equal(sender.text.split(ACCEPTED).length - 1, 10_000);
    assert.deepEqual(await ids(rig), expected);
  });
});

test('a record in single bytes, in any pieces and behind another is one record', async () => {
  await withRig({}, async (rig) => {
    for (const piece of [1, 2, 9, 100, 1000]) {
      const sender = new Sender(rig.port);
      const text = record(`p${piece}`) + record(`q${piece}`, '{"a":"ä"}');
      const bytes = Buffer.from(text);
      for (let at = 0; at < bytes.length; at += piece) {
        sender.say(bytes.subarray(at, at + piece));
        await new Promise(setImmediate);
      }
      await sender.heard(2);
      assert.deepEqual(sender.statuses, ['204', '204']);
      sender.socket.destroy();
    }
    const pieces = [1, 2, 9, 100, 1000];
    assert.deepEqual(
      await ids(rig),
      pieces.flatMap((piece) => [`p${piece}`, `q${piece}`]),
    );
  });
});

test('a sender that closes its side behind its request is answered', async () => {
  await withRig({}, async (rig) => {
    for (const fields of ['', 'connection: close\r\n']) {
      const sender = new Sender(rig.port);
      sender.socket.end(record('half') + record('closed', '[2]', fields));
      await sender.over();
      assert.deepEqual(sender.statuses, ['204', '204']);
      assert.match(sender.text, /Connection: close\r\n\r\n$/);
    }
    assert.deepEqual(await ids(rig), ['half', 'closed', 'half', 'closed']);
    const broken = new Sender(rig.port);
    broken.socket.end(record('cut').slice(0, -1));
    await broken.over();
    assert.deepEqual(broken.statuses, ['400']);
    const begun = new Sender(rig.port);
    begun.socket.end('POST /modeldata');
    await begun.over();
    assert.deepEqual(begun.statuses, ['400']);
    const silent = new Sender(rig.port);
    silent.socket.end();
    await silent.over();
    assert.equal(silent.text, '');
    assert.equal((await ids(rig)).length, 4);
    assert.equal(rig.ingest.inflightBytes, 0);
  });
});

test('a sender that is gone in the middle of a body, or before the answer, leaves nothing open', async () => {
  const waiting: AppendDone[] = [];
  const append: SpoolWriter['append'] = (_parts, done) => {
    waiting.push(done);
    return true;
  };
  const route = (spool: SpoolWriter) => routesTo(Object.create(spool, { append: { value: append } }) as SpoolWriter);
  await withRig({ route }, async (rig) => {
    const before = sockets();
    const [cut, early] = [new Sender(rig.port), new Sender(rig.port)];
    cut.say(record('cut', `[${'1'.repeat(1000)}]`).slice(0, -1));
    early.say(record('early'));
    await until(() => rig.ingest.inflightBytes > 0 && waiting.length === 1);
    cut.socket.resetAndDestroy();
    early.socket.resetAndDestroy();
    await until(() => rig.ingest.inflightBytes === 0 && sockets() === before);
    for (const done of waiting) done(undefined);
    assert.equal(waiting.length, 1);
    assert.deepEqual(rig.counted, ['accepted 1 1 3', 'time 1']);
  });
});

test('slow heads and slow requests get 408, silent and idle connections are closed', async () => {
  const limits = { headersMs: 60, requestMs: 200, keepAliveMs: 300 };
  await withRig({ limits }, async (rig) => {
    const silent = new Sender(rig.port);
    const slow = new Sender(rig.port);
    const idle = new Sender(rig.port);
    const second = new Sender(rig.port);
    const trickle = new Sender(rig.port);
    idle.say(record('idle'));
    second.say(`${record('second')}POST /mod`);
    trickle.say(record('trickle', `[${'1'.repeat(1000)}]`).slice(0, -900));
    slow.say('P');
    const timer = setInterval(() => {
      slow.say('O');
      trickle.say('1');
    }, 20);
    const head = setTimeout(() => slow.say('ST /modeldata/log'), 5);
    for (const sender of [silent, slow, second, trickle]) await sender.over();
    clearInterval(timer);
    clearTimeout(head);
    assert.equal(silent.text, 'HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n');
    assert.deepEqual(second.statuses, ['204', '408']);
    assert.deepEqual(trickle.statuses, ['408']);
    assert.equal(slow.statuses.length, 1);
    const began = performance.now();
    await idle.over();
    assert.deepEqual(idle.statuses, ['204']);
    assert.ok(performance.now() - began < 5000);
    assert.equal(rig.ingest.inflightBytes, 0);
    assert.deepEqual(rig.counted.filter((line) => line.startsWith('accepted')).length, 2);
  });
});

test('a refused sender that neither goes on nor goes away is cut off in the end', async () => {
  await withRig({ limits: { maxRecordBytes: 10 } }, async (rig) => {
    const sender = new Sender(rig.port);
    sender.say(record('large', '"0123456789"').slice(0, -2));
    await sender.heard(1);
    const began = performance.now();
    assert.deepEqual([sender.statuses, sender.ended], [['413'], false]);
    await sender.over();
    const waited = performance.now() - began;
    assert.ok(waited > 1900 && waited < 6000, `${waited}`);
  });
});

test('a connection beyond the limit is refused, also when the others were handed over, and taken when one has gone', async () => {
  await withRig({ limits: { maxConnections: 3 }, next }, async (rig) => {
    const [fast, handed, third] = [new Sender(rig.port), new Sender(rig.port), new Sender(rig.port)];
    for (const sender of [fast, third]) sender.say(record('r'));
    handed.say(GET);
    for (const sender of [fast, handed, third]) await sender.heard(1);
    const refused = new Sender(rig.port);
    refused.say(record('refused'));
    await refused.over();
    assert.equal(refused.text, '');
    handed.socket.destroy();
    await until(async () => {
      const sender = new Sender(rig.port);
      sender.say(record('later'));
      await until(() => sender.closed || sender.statuses.length > 0);
      return sender.statuses.length > 0;
    });
    assert.deepEqual(await ids(rig), ['r', 'r', 'later']);
  });
});

test('a large body goes through its file with the sender held back, and the next request is read behind it', async () => {
  await withRig({ limits: { sideFileBytes: 100_000 } }, async (rig) => {
    const body = JSON.stringify('x'.repeat(3 * 1024 * 1024));
    const sender = new Sender(rig.port);
    sender.say(record('large', body) + record('small') + record('wrong', `${body.slice(0, -2)}\n"`) + record('never'));
    await sender.over();
    assert.deepEqual(sender.statuses, ['204', '204', '400']);
    assert.match(sender.text, /connection: close/);
    const records = await rig.records();
    assert.deepEqual(
      records.map(({ correlationId, aside }) => [correlationId, aside]),
      [
        ['large', true],
        ['small', false],
      ],
    );
    assert.equal(records[0]?.text === body, true);
    assert.equal(rig.ingest.inflightBytes, 0);
  });
});

test('a body that is held back for the disk at its last byte does not hold the next request back', async () => {
  const route = (spool: SpoolWriter) => {
    const openSideFile = async () => {
      await sleep(50);
      return await spool.openSideFile();
    };
    const append: SpoolWriter['append'] = (...given) => spool.append(...given);
    return routesTo(
      Object.create(spool, { openSideFile: { value: openSideFile }, append: { value: append } }) as SpoolWriter,
    );
  };
  await withRig({ route, limits: { sideFileBytes: 100_000 } }, async (rig) => {
    const sender = new Sender(rig.port);
    // Just more than may wait for the disk.
    sender.say(record('large', `"${'x'.repeat(1024 * 1024)}"`));
    await sender.heard(1);
    sender.say(record('small'));
    await sender.heard(2);
    assert.deepEqual(await ids(rig), ['large', 'small']);
  });
});

test('other requests are answered before, between and behind records, and in order', async () => {
  const chunked = `POST /modeldata/log HTTP/1.1\r\n${FIELDS}ce-x-request-id: chunked\r\ntransfer-encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n`;
  await withRig({ next }, async (rig) => {
    const glued = new Sender(rig.port);
    glued.say(record('a') + record('b') + record('c') + GET);
    await glued.heard(4);
    assert.deepEqual(glued.statuses, ['204', '204', '204', '200']);
    assert.match(glued.text, /next \/healthz$/);
    glued.say(record('d'));
    await glued.heard(5);
    glued.say(chunked);
    await glued.heard(6);
    const first = new Sender(rig.port);
    first.say(GET + record('e', `"${'x'.repeat(200_000)}"`));
    await first.heard(2);
    assert.deepEqual(first.statuses, ['200', '204']);
    first.socket.end();
    await first.over();
    assert.deepEqual(await ids(rig), ['a', 'b', 'c', 'd', 'chunked', 'e']);
  });
});

test('a sender that reads no answers gets no more of them, and nothing is lost when it reads again', async () => {
  await withRig({}, async (rig) => {
    const sender = new Sender(rig.port);
    sender.socket.pause();
    const bad = record('bad', '');
    const count = 60_000;
    const rounds = 30;
    const burst = Buffer.from(bad.repeat(count / rounds));
    for (let round = 0; round < rounds; round += 1) sender.say(burst);
    let seen = -1;
    // Until no more of them are looked at.
    await until(async () => {
      const before = rig.counted.length;
      await sleep(100);
      seen = rig.counted.length;
      return seen > 0 && seen === before;
    });
    assert.ok(seen < count, `${seen} of ${count} were answered`);
    sender.socket.resume();
    await until(() => sender.text.length > 0 && rig.counted.length === count);
    await sender.heard(count);
    assert.equal(sender.statuses.length, count);
  });
});

test('closing ends idle connections at once, lets requests finish, and cuts the rest', async () => {
  await withRig({ next }, async (rig) => {
    const before = sockets();
    const [idle, fresh, handed] = [new Sender(rig.port), new Sender(rig.port), new Sender(rig.port)];
    const [finishing, stuck, begun] = [new Sender(rig.port), new Sender(rig.port), new Sender(rig.port)];
    idle.say(record('idle'));
    handed.say(GET);
    finishing.say(record('finishing', '[12345]').slice(0, -3));
    stuck.say(record('stuck', '[12345]').slice(0, -3));
    begun.say('POST /modeldata/log HTTP/1.1\r\nhost: loc');
    for (const sender of [idle, handed]) await sender.heard(1);
    await until(() => rig.ingest.inflightBytes > 1000);
    const late = new Sender(rig.port);
    if (late.socket.connecting) await once(late.socket, 'connect');
    // It has come, and was not read when the end began.
    late.say(record('late'));
    const began = performance.now();
    const closed = rig.ingest.close(400);
    for (const sender of [idle, fresh, handed]) await sender.over();
    assert.ok(performance.now() - began < 300);
    await late.over();
    finishing.say('45]');
    await finishing.over();
    await closed;
    assert.ok(performance.now() - began >= 390);
    for (const sender of [stuck, begun]) await sender.over();
    assert.match(late.text, /^HTTP\/1\.1 204[^]*Connection: close\r\n\r\n$/);
    assert.match(finishing.text, /^HTTP\/1\.1 204[^]*Connection: close\r\n\r\n$/);
    assert.deepEqual([stuck.text, begun.text, fresh.text], ['', '', '']);
    await until(() => sockets() <= before);
    assert.deepEqual((await ids(rig)).toSorted(), ['finishing', 'idle', 'late']);
  });
});
