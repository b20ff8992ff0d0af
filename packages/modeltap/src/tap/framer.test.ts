import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Framer, type StopReason } from './framer.ts';
import { framingOf, parseHead, parseRequestLine } from './head.ts';

/** What a framer says about bytes that come in these pieces, bodies joined. */
function told(pieces: readonly Buffer[], options: { closes?: boolean; maxHeadBytes?: number } = {}): string[] {
  const said: string[] = [];
  let body = '';
  const flush = () => {
    if (body !== '') said.push(`body ${body}`);
    body = '';
  };
  const framer = new Framer(
    {
      head(text) {
        const head = parseHead(text);
        if (head === undefined) return 'not_http';
        said.push(`head ${text}`);
        return framingOf(head, parseRequestLine(head.first)?.minor ?? 1, {
          kind: options.closes === true ? 'close' : 'none',
        });
      },
      body(bytes) {
        body += bytes.toString('latin1');
      },
      end() {
        flush();
        said.push('end');
      },
      stopped(reason: StopReason) {
        flush();
        said.push(`stopped ${reason}`);
      },
    },
    { maxHeadBytes: options.maxHeadBytes ?? 256, skipsBreaks: true },
  );
  for (const piece of pieces) framer.push(piece);
  framer.finish();
  flush();
  return said;
}

const one = (text: string, options = {}) => told([Buffer.from(text, 'latin1')], options);

test('lengths, chunks with extensions and trailers, and bodies until the end of the connection are found', () => {
  assert.deepEqual(one('POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n'), [
    'head POST / HTTP/1.1\r\nContent-Length: 3\r\n',
    'body abc',
    'end',
    'head GET / HTTP/1.1\r\n',
    'end',
  ]);
  const chunked = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n';
  const head = 'head HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n';
  assert.deepEqual(one(`${chunked}3;a="b"\r\nabc\r\n0000A\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n`), [
    head,
    'body abc0123456789',
    'end',
  ]);
  assert.deepEqual(one('HTTP/1.0 200 OK\r\n\r\nall of it', { closes: true }), [
    'head HTTP/1.0 200 OK\r\n',
    'body all of it',
    'end',
  ]);
});

test('what is not certain ends the watching, and says why', () => {
  const after = (fields: string) => one(`POST / HTTP/1.1\r\n${fields}\r\n\r\nabc`).at(-1);
  assert.equal(after('Content-Length: 3\r\nContent-Length: 3'), 'stopped length_unclear');
  assert.equal(after('Content-Length: 3, 3'), 'stopped length_unclear');
  assert.equal(after('Content-Length: +3'), 'stopped length_unclear');
  assert.equal(after('Content-Length: 99999999999999999'), 'stopped length_unclear');
  assert.equal(after('Content-Length: 3\r\nTransfer-Encoding: chunked'), 'stopped length_unclear');
  assert.equal(after('Transfer-Encoding: gzip, chunked'), 'stopped length_unclear');
  assert.equal(one('POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n').at(-1), 'stopped length_unclear');
  assert.equal(after('Name : x'), 'stopped not_http');
  assert.equal(after('a: b\r\n folded'), 'stopped not_http');
  assert.equal(after('a: b\nc: d'), 'stopped not_http');
  assert.equal(after('a: b\rc'), 'stopped not_http');
  assert.equal(after('a: b\0'), 'stopped not_http');
  assert.equal(after('no colon'), 'stopped not_http');
  assert.equal(after(`a: ${'x'.repeat(300)}`), 'stopped head_too_large');
  for (const bad of ['x', '', '3\n', '3 x\n', '3;\0', '20000000000000', '3\r\nabcX', '3\r\nabc\rX', '0\r\nA: b\n']) {
    const text = `POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n${bad}\r\n`;
    assert.equal(one(text).at(-1), 'stopped bad_chunk', JSON.stringify(bad));
  }
});

const pieces = fc.oneof(
  fc.constantFrom(
    'GET / HTTP/1.1\r\n\r\n',
    'POST /score HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello',
    'POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nT: u\r\n\r\n',
    'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n',
    'POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n',
    'POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n',
    '\r\n',
    '0\r\n\r\n',
    'a\r\n0123456789\r\n',
    'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    `X-Long: ${'y'.repeat(200)}\r\n`,
  ),
  fc.string({ maxLength: 12 }),
  fc.string({ maxLength: 6, unit: fc.constantFrom('\r', '\n', ':', ' ', '0', 'a', ';') }),
);

test('any bytes in any pieces give the same frames as in one piece, and nothing throws', () => {
  fc.assert(
    fc.property(
      fc.array(pieces, { maxLength: 8 }),
      fc.array(fc.nat(400), { maxLength: 30 }),
      fc.boolean(),
      (texts, cuts, closes) => {
        const bytes = Buffer.from(texts.join(''), 'latin1');
        const places = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).toSorted((a, b) => a - b), bytes.length];
        const split = places.slice(1).map((to, index) => bytes.subarray(places[index], to));
        assert.deepEqual(told(split, { closes }), told([bytes], { closes }));
        const single = Array.from(bytes, (_, at) => bytes.subarray(at, at + 1));
        assert.deepEqual(told(single, { closes }), told([bytes], { closes }));
      },
    ),
    { numRuns: 2000 },
  );
});

test('a head byte by byte costs no more than its length', () => {
  const head = Buffer.from(`POST / HTTP/1.1\r\nX: ${'y'.repeat(60_000)}\r\nContent-Length: 1\r\n\r\nz`);
  const said = told(
    Array.from(head, (_, at) => head.subarray(at, at + 1)),
    { maxHeadBytes: 65_536 },
  );
  assert.deepEqual(said.slice(1), ['body z', 'end']);
});
