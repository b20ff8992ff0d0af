import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { test } from 'node:test';
import fc from 'fast-check';
import { readHeaders } from '../headers.ts';
import { FOREIGN, INCOMPLETE, parseHead, targetOf } from './head.ts';
import { HeadReader } from './head-reader.ts';
import { fuzzRuns, Line, requests, wire } from './wire.test.kit.ts';

const PATHS = ['/modeldata/log', '/v1/events'];
const targets = PATHS.map(targetOf);
const SEED = 20_261_123;

interface Seen {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

/** What `node:http` makes of bytes, given to it bit by bit. */
class Judge {
  readonly #server = createServer((request, response) => this.#seen.push({ request, response }));
  readonly #line = new Line();
  readonly #seen: Seen[] = [];
  refused = false;

  constructor() {
    this.#server.on('checkContinue', (request, response) => this.#seen.push({ request, response }));
    this.#server.on('clientError', () => {
      this.refused = true;
    });
    this.#line.on('error', () => undefined);
    this.#server.emit('connection', this.#line);
    // The first bytes wait for the stream to flow.
    this.#line.resume();
  }

  /** Gives the bytes and waits until they were read. */
  async feed(bytes: Buffer): Promise<readonly Seen[]> {
    this.#line.feed(bytes);
    await new Promise(setImmediate);
    return this.#seen;
  }
}

async function checkTaken(bytes: Buffer, head: Exclude<ReturnType<typeof parseHead>, number>): Promise<void> {
  const judge = new Judge();
  assert.equal(
    (await judge.feed(bytes.subarray(0, head.end - 1))).length,
    0,
    'node:http sees the end of the head before',
  );
  const [seen, ...others] = await judge.feed(bytes.subarray(head.end - 1, head.end));
  assert.ok(seen && others.length === 0 && !judge.refused, 'node:http does not take it');
  assert.deepEqual(seen.request.rawHeaders, head.raw);
  assert.equal(seen.request.method, 'POST');
  assert.equal((seen.request.url ?? '').split('?')[0], PATHS[head.target]);
  assert.equal(seen.response.shouldKeepAlive, !head.close);
  assert.equal(seen.request.headers.expect, undefined);
  if (head.length === 0 || head.length > 100) return;
  await judge.feed(Buffer.alloc(head.length - 1, 'x'));
  assert.equal(seen.request.complete, false, 'node:http sees the end of the body before');
  await judge.feed(Buffer.from('x'));
  assert.equal(seen.request.complete, true, 'node:http waits for more of the body');
}

async function check(bytes: Buffer): Promise<void> {
  const head = parseHead(bytes, 0, targets);
  if (head === FOREIGN) return;
  if (head !== INCOMPLETE) {
    await checkTaken(bytes, head);
    return;
  }
  const judge = new Judge();
  assert.equal((await judge.feed(bytes)).length, 0, 'node:http has a request where the front waits');
  assert.equal(judge.refused, false, 'node:http refuses where the front waits');
}

for (const seed of [SEED, Math.floor(Math.random() * 2 ** 31)]) {
  test(`what the front takes is one request to node:http with the same headers and the same end (seed ${seed})`, async () => {
    let taken = 0;
    await fc.assert(
      fc.asyncProperty(requests, fc.double({ min: 0, max: 1, noNaN: true }), async (text, part) => {
        const bytes = wire(text);
        if (typeof parseHead(bytes, 0, targets) !== 'number') taken += 1;
        await check(bytes);
        await check(bytes.subarray(0, Math.floor(part * bytes.length)));
      }),
      { seed, numRuns: fuzzRuns(2500) },
    );
    // A grammar that never makes what is taken would prove nothing.
    assert.ok(taken > fuzzRuns(2500) / 20, `${taken} were taken`);
  });
}

/** What a reader says, and what it must say. */
function readings(reader: HeadReader, bytes: Buffer): [unknown, unknown] {
  const end = reader.read(bytes, 0);
  const head = parseHead(bytes, 0, targets);
  if (typeof head === 'number') return [end, head];
  const headers = readHeaders(head.raw);
  const facts = ({ bytes: length, time, requestId, sampledOut, shape }: typeof headers) => ({
    length,
    time,
    requestId,
    sampledOut,
    shape: [shape.host, shape.contentType, shape.all(4), shape.all(8)],
  });
  return [
    [end, reader.target, reader.close, facts(reader.headers), reader.raw(bytes, 0)],
    [head.end, head.target, head.close, facts(headers), head.raw],
  ];
}

test('a head that is like the last ones is read as if it were parsed', () => {
  const reader = new HeadReader(targets);
  fc.assert(
    fc.property(requests, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 }), (text, changes) => {
      const bytes = wire(text);
      // Three times, so that its shape is known.
      for (let turn = 0; turn < 3; turn += 1) assert.deepEqual(...readings(reader, bytes));
      for (const [at, byte] of changes) {
        const changed = Buffer.from(bytes);
        changed[at % bytes.length] = byte;
        assert.deepEqual(...readings(reader, changed));
      }
      assert.deepEqual(...readings(reader, wire(text.replace('ce-x-request-id: ', 'ce-x-request-id: abc'))));
    }),
    { seed: SEED, numRuns: fuzzRuns(2500) },
  );
});

test('what a second reader could read in another way is left to node:http, legal or not', () => {
  const good = ['host: h', 'content-length: 1', 'connection: close', 'x: y'];
  const head = (fields: readonly string[], line = 'POST /v1/events?a=b HTTP/1.1') =>
    parseHead(Buffer.from(`${[line, ...fields].join('\r\n')}\r\n\r\n`, 'latin1'), 0, targets);
  assert.notEqual(head(good), FOREIGN);
  const odd = [
    'host: h',
    'Host: other',
    'content-length: 1',
    'connection: close',
    'transfer-encoding: chunked',
    'te: trailers',
    'trailer: x',
    'expect: 100-continue',
    'upgrade: h2c',
    'proxy-connection: close',
    'Proxy-Authorization: x',
    'content-encoding: gzip',
    'content-encoding: identity',
    'http2-settings: x',
    'x : y',
    ' x: y',
    'x: \x7f',
  ];
  for (const field of odd) assert.equal(head([...good, field]), FOREIGN, field);
  const lengths = ['1 ', ' 1', '\t1', '1\t', '+1', '-1', '0x1', '1,1', '1e1', '', '1234567890123456'];
  for (const length of lengths) assert.equal(head(['host: h', `content-length: ${length}`]), FOREIGN, length);
  for (const missing of ['host: h', 'content-length: 1']) assert.equal(head([missing]), FOREIGN, missing);
  for (const connection of ['x', 'close, keep-alive', 'upgrade', 'close ', ''])
    assert.equal(head(['host: h', 'content-length: 1', `connection: ${connection}`]), FOREIGN, connection);
  for (const line of ['post /v1/events HTTP/1.1', 'POST /v1/events HTTP/1.0', 'POST http://h/v1/events HTTP/1.1'])
    assert.equal(head(good, line), FOREIGN, line);
});

test('a head is long, or has many headers, up to a limit', () => {
  const head = (fields: string) =>
    Buffer.from(`POST /modeldata/log HTTP/1.1\r\nhost: h\r\n${fields}content-length: 1\r\n\r\n`);
  const reader = new HeadReader(targets);
  const base = head('x: \r\n').length;
  const sized = (bytes: number) => head(`x: ${'y'.repeat(bytes - base)}\r\n`);
  // Until its shape is known and behind it.
  for (let turn = 0; turn < 3; turn += 1) {
    assert.equal(reader.read(sized(16_384), 0), 16_384);
    assert.equal(reader.read(sized(16_385), 0), FOREIGN);
    assert.equal(reader.read(sized(16_385).subarray(0, 16_384), 0), INCOMPLETE);
    assert.equal(reader.read(sized(20_000).subarray(0, 16_385), 0), FOREIGN);
  }
  assert.ok(reader.read(head('x: y\r\n'.repeat(98)), 0) > 0);
  assert.equal(reader.read(head('x: y\r\n'.repeat(99)), 0), FOREIGN);
});
