import fc from 'fast-check';
import { Duplex } from 'node:stream';

/* Shared by the tests of this folder: bytes as senders (also bad ones) write them, and a line to `node:http` without a network. */

/** A connection whose other end is the test: what is fed is read at once, what is written is kept. */
export class Line extends Duplex {
  /** What the server wrote. */
  text = '';
  /** The server has ended or cut the connection. */
  over = false;

  constructor() {
    super({ decodeStrings: true });
  }

  override _read(): void {
    // `feed` pushes.
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString('latin1');
    done();
  }

  override _final(done: () => void): void {
    this.over = true;
    done();
  }

  override _destroy(_error: Error | null, done: (error: Error | null) => void): void {
    this.over = true;
    done(null);
  }

  feed(bytes: Buffer): void {
    if (!this.over) this.push(bytes);
  }
}

/** Answers without the time they were made at. */
export function undated(text: string): string {
  return text.replace(/Date: [^\r]*\r\n/g, '');
}

/** What an arbitrary request is made of. */
interface Parts {
  readonly lead: string;
  readonly line: string;
  readonly fields: readonly string[];
  readonly eol: string;
  readonly body: string;
}

const BODIES = ['[{"a":1}]', '[]', '{"a":[1,2.50]}', 'not json', ''];
const METHODS = ['post', 'GET', 'PUT', 'OPTIONS', 'HEAD', 'POST\t', 'P', 'PRI', 'CONNECT', 'QUERY'];
const TARGETS = [
  '/v1/events',
  '/modeldata/log?a=b&c=%20',
  '/modeldata/log?',
  '/modeldata/log?x#y',
  '/modeldata/log#x',
  '/modeldata/log/',
  '/modeldata/log2',
  '/modeldata/LOG',
  '/healthz',
  '*',
  '//modeldata/log',
  'http://127.0.0.1/modeldata/log',
  '/modeldata/log?\x80',
  '/modeldata/log?"<>',
];
const VERSIONS = ['HTTP/1.0', 'HTTP/1.2', 'HTTP/2.0', 'http/1.1', 'HTTP/1.1 ', 'HTTP/1.1x', 'HTTP/0.9', ''];
const EOLS = ['\n', '\r', '\r\r\n', '\n\r', ' \r\n'];
/** Fields that make trouble; `{n}` stands for the length of the body. */
const ODD_FIELDS = [
  'Content-Length: {n}',
  'content-length:{n}',
  'Content-Length: 0{n}',
  'Content-Length: {n}{n}',
  'Content-Length: +{n}',
  'Content-Length: -{n}',
  'Content-Length: 0x{n}',
  'Content-Length: {n}, {n}',
  'Content-Length: {n},5',
  'Content-Length: {n} ',
  'Content-Length: {n}\t',
  'Content-Length:  {n}',
  'Content-Length:\t{n}',
  'Content-Length: {n} 5',
  'Content-Length:',
  'Content-Length: ',
  'Content-Length: a',
  'Content-Length: 1e1',
  'Content-Length: 5',
  'Content-Length: 0',
  'Content-Length: 18446744073709551616',
  'Content-Length: 99999999999999999999999999',
  'Content-Length : {n}',
  'Content-Length\t: {n}',
  'Content_Length: 5',
  'Content-Length\0: 5',
  'Transfer-Encoding: chunked',
  'transfer-encoding:chunked',
  'Transfer-Encoding : chunked',
  'Transfer-Encoding\t: chunked',
  'Transfer-Encoding: Chunked',
  'Transfer-Encoding: xchunked',
  'Transfer-Encoding:\tchunked',
  'Transfer-Encoding: chunked, identity',
  'Transfer-Encoding: identity, chunked',
  'Transfer-Encoding: identity',
  'Transfer-Encoding:',
  'Transfer-Encoding: "chunked"',
  'Transfer-Encoding:\x0bchunked',
  'X: y\nTransfer-Encoding: chunked',
  'X: y\rTransfer-Encoding: chunked',
  'X: y\r\n Transfer-Encoding: chunked',
  'X: y\r\n\tz',
  ' X: y',
  'Foo',
  ': y',
  'X:',
  'X : y',
  'X: \0',
  'X: a\0b',
  'X: \x7f',
  'X: \xe9\xff',
  'X\xe9: y',
  'X: \x01',
  'X(): y',
  'Host: localhost',
  'host: example.com',
  'HOST:',
  'Host : localhost',
  'Connection: close',
  'Connection: Keep-Alive',
  'connection: CLOSE',
  'Connection: close, keep-alive',
  'Connection: keep-alive, Upgrade',
  'Connection: close ',
  'Connection: x',
  'Connection:',
  'Proxy-Connection: close',
  'Upgrade: h2c',
  'Upgrade: websocket',
  'Expect: 100-continue',
  'TE: trailers',
  'Trailer: X',
  'Content-Encoding: gzip',
  'Content-Encoding: identity',
  'Keep-Alive: timeout=1',
  'ce-time: 1704164646.5',
  'ce-time:  1704164646 ',
  'ce-time:',
  'ce-x-request-id: \xe9\xa0 ',
  'ce-x-request-id:',
  'ce-type: azureml.inference.off',
  'modeltap-sampled-out: model_inputs=3',
  'Content-Type: text/plain',
];

/** Stands for many letters, so that a counterexample can be read. */
const LONG = '\ue000';
const LONG_BYTES = 16_150;

const either = <T>(usual: T, weight: number, odd: readonly T[]) =>
  fc.oneof({ weight, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary: fc.constantFrom(...odd) });

/** How the length of the body is said. */
const framings = fc.oneof(
  { weight: 8, arbitrary: fc.constant('length') },
  { weight: 1, arbitrary: fc.constantFrom('short', 'long', 'none', 'chunked', 'both', 'trailers') },
);

function framed(body: string, framing: string): { fields: string[]; body: string } {
  const chunked = `${body.length.toString(16)}\r\n${body}\r\n0\r\n`;
  const said = [`Content-Length: ${body.length}`];
  const te = 'Transfer-Encoding: chunked';
  if (framing === 'short') return { fields: [`Content-Length: ${Math.max(0, body.length - 1)}`], body };
  if (framing === 'long') return { fields: [`Content-Length: ${body.length + 1}`], body };
  if (framing === 'none') return { fields: [], body };
  if (framing === 'chunked') return { fields: [te], body: `${chunked}\r\n` };
  if (framing === 'both') return { fields: [...said, te], body: `${chunked}\r\n` };
  if (framing === 'trailers') return { fields: [te, 'Trailer: X'], body: `${chunked}X: y\r\n\r\n` };
  return { fields: said, body };
}

const parts: fc.Arbitrary<Parts> = fc
  .record({
    lead: either('', 30, ['\r\n', '\n', '\r', ' ', '\0', 'x']),
    method: either('POST', 20, METHODS),
    target: either('/modeldata/log', 12, TARGETS),
    version: either('HTTP/1.1', 20, VERSIONS),
    eol: either('\r\n', 40, EOLS),
    body: fc.constantFrom(...BODIES),
    framing: framings,
    odd: fc.oneof(
      { weight: 3, arbitrary: fc.constant<string[]>([]) },
      { weight: 2, arbitrary: fc.array(fc.constantFrom(...ODD_FIELDS), { minLength: 1, maxLength: 2 }) },
    ),
    id: fc.stringMatching(/^[a-z0-9]{1,8}$/),
    order: fc.nat(5),
    host: either('Host: localhost', 25, ['host: 127.0.0.1:50011', '', 'Host: evil.example', 'hOsT:localhost']),
    long: fc.oneof(
      { weight: 60, arbitrary: fc.constant('') },
      { weight: 1, arbitrary: fc.constantFrom(`n${LONG}`, 'n'.repeat(200), `n: ${LONG}`, `n: ${LONG}${LONG}`) },
    ),
  })
  .map(({ lead, method, target, version, eol, host, id, order, long, ...rest }) => {
    const { fields, body } = framed(rest.body, rest.framing);
    const odd = rest.odd.map((field) => field.replaceAll('{n}', String(rest.body.length)));
    const all = [
      ...(host === '' ? [] : [host]),
      'content-type: application/json',
      'ce-type: azureml.inference.model_inputs',
      'ce-time: 1704164645',
      `ce-x-request-id: ${id}`,
      ...(long === '' ? [] : [long.includes(':') ? long : `${long}: v`]),
      ...fields,
    ];
    all.splice(order, 0, ...odd);
    return { lead, line: `${method} ${target} ${version}`, fields: all, eol, body };
  });

function textOf({ lead, line, fields, eol, body }: Parts): string {
  return `${lead}${[line, ...fields].join(eol)}${eol}${eol}${body}`;
}

/** The bytes that a text of `requests` stands for. */
export function wire(text: string): Buffer {
  return Buffer.from(text.replaceAll(LONG, 'n'.repeat(LONG_BYTES)), 'latin1');
}

const INTERESTING = [0, 9, 10, 13, 32, 34, 44, 45, 48, 53, 58, 63, 95, 126, 127, 128, 255];

const damage = fc.record({
  at: fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
  cut: fc.nat(2),
  bytes: fc.array(fc.constantFrom(...INTERESTING), { maxLength: 2 }),
});

/**
 * Requests as text, one character a byte: most of them good, with headers, lines and lengths of every wrong kind among them,
 * and some with bytes damaged. `wire` makes bytes of them.
 */
export const requests: fc.Arbitrary<string> = fc
  .tuple(parts, fc.oneof({ weight: 4, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: damage }))
  .map(([given, damaged]) => {
    const text = textOf(given);
    if (damaged === undefined) return text;
    const at = Math.floor(damaged.at * text.length);
    return text.slice(0, at) + String.fromCharCode(...damaged.bytes) + text.slice(at + damaged.cut);
  });

/** Requests without fault, as text: records, good and bad, and now and then what the front leaves to `node:http`. */
export const goodRequests: fc.Arbitrary<string> = fc
  .record({
    line: either('POST /modeldata/log', 9, ['GET /healthz', 'OPTIONS /v1/events', 'POST /modeldata/log?x=y']),
    type: either('model_inputs', 4, ['model_outputs', 'off', 'unknown']),
    body: fc.constantFrom(...BODIES),
    id: fc.stringMatching(/^[a-z0-9]{0,8}$/),
    time: fc.constantFrom('1704164645', '1704164646.25', 'soon'),
    framing: either('length', 9, ['chunked', 'trailers']),
    close: either('', 12, ['Connection: keep-alive\r\n', 'connection: close\r\n']),
  })
  .map(({ line, type, id, time, close, ...rest }) => {
    const { fields, body } = framed(rest.body, rest.framing);
    const all = [
      'host: localhost',
      'content-type: application/json',
      `ce-type: azureml.inference.${type}`,
      `ce-time: ${time}`,
      `ce-x-request-id: ${id}`,
      ...fields,
    ];
    return `${line} HTTP/1.1\r\n${all.join('\r\n')}\r\n${close}\r\n${body}`;
  });

/** Runs of the property tests: `FUZZ_RUNS` in the environment, or the given number. */
export function fuzzRuns(usual: number): number {
  return Number(process.env['FUZZ_RUNS'] ?? usual);
}
