import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib';
import type { ClientStep } from './rig.test.ts';

/* The exchanges that are played against a server directly and through a tap. */

/** What the server of an exchange is. */
export type ServerScript =
  | { readonly http: (request: IncomingMessage, response: ServerResponse) => void }
  /** Told each time bytes have come, with all that came so far. */
  | { readonly raw: (socket: Socket, received: string) => void };

/** One connection with what both ends do on it. */
export interface CorpusCase {
  readonly name: string;
  readonly steps: readonly ClientStep[];
  readonly server: ServerScript;
  /** Exchanges that the tap must have captured; undefined: any number. */
  readonly captured?: number;
}

const ECHO: ServerScript = {
  http(request, response) {
    response.sendDate = false;
    response.setHeader('content-type', request.headers['content-type'] ?? 'text/plain');
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    // Answered whole, with its length: where chunks end would depend on the clock.
    request.on('end', () => {
      const body = Buffer.concat(chunks);
      response.setHeader('content-length', body.length).end(body);
    });
  },
};

/** A server that answers each whole head with these bytes. */
function answering(answer: string | Buffer, then: 'keep' | 'end' | 'reset' = 'keep', pieceBytes = 0): ServerScript {
  const answered = new WeakMap<Socket, number>();
  return {
    raw(socket, received) {
      const heads = received.split('\r\n\r\n').length - 1;
      const before = answered.get(socket) ?? 0;
      answered.set(socket, heads);
      for (let index = before; index < heads; index += 1) {
        const bytes = Buffer.isBuffer(answer) ? answer : Buffer.from(answer, 'latin1');
        const step = pieceBytes === 0 ? bytes.length || 1 : pieceBytes;
        for (let at = 0; at < bytes.length; at += step) socket.write(bytes.subarray(at, at + step));
        if (then === 'end') socket.end();
        if (then === 'reset') setTimeout(() => socket.resetAndDestroy(), 20);
      }
    },
  };
}

const head = (line: string, fields: Readonly<Record<string, string>> = {}) =>
  `${line} HTTP/1.1\r\nHost: model\r\n${Object.entries(fields)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')}\r\n`;

function chunked(body: Buffer, size: number, extras: { extension?: string; trailer?: string } = {}): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at < body.length; at += size) {
    const piece = body.subarray(at, at + size);
    parts.push(Buffer.from(`${piece.length.toString(16)}${extras.extension ?? ''}\r\n`), piece, Buffer.from('\r\n'));
  }
  parts.push(Buffer.from(`0\r\n${extras.trailer ?? ''}\r\n`));
  return Buffer.concat(parts);
}

/** The bytes in pieces of so many. */
function split(bytes: string | Buffer, size: number): Buffer[] {
  const all = Buffer.from(bytes as string, 'latin1');
  return Array.from({ length: Math.ceil(all.length / size) }, (_, index) =>
    all.subarray(index * size, (index + 1) * size),
  );
}

function noise(length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let at = 0, state = length; at < length; at += 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) | 0;
    bytes[at] = state >>> 16;
  }
  return bytes;
}

const CLOSE = { Connection: 'close' };

function* bodies(): Generator<CorpusCase> {
  const sizes = [0, 1, 2, 60, 800, 4095, 16_384, 65_536, 262_144, 300_001, 4 * 1024 ** 2 + 1];
  for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
    for (const size of sizes) {
      const body = noise(size);
      const fields = { ...CLOSE, 'Content-Type': 'application/octet-stream' };
      const line = `${method} /score?size=${size}`;
      const length = head(line, { ...fields, 'Content-Length': String(size) });
      yield { name: `${method} ${size} bytes by length`, steps: [length, body], server: ECHO, captured: 1 };
      const open = head(line, { ...fields, 'Transfer-Encoding': 'chunked' });
      const coded = chunked(body, Math.max(1, Math.ceil(size / 3)));
      yield { name: `${method} ${size} bytes in chunks`, steps: [open, coded], server: ECHO, captured: 1 };
    }
  }
  const json = Buffer.from(JSON.stringify({ data: Array.from({ length: 500 }, (_, index) => index) }));
  for (const [coding, body] of Object.entries({
    gzip: gzipSync(json),
    br: brotliCompressSync(json),
    deflate: deflateSync(json),
    zip: json,
  })) {
    const fields = { ...CLOSE, 'Content-Type': 'application/json', 'Content-Encoding': coding };
    const start = head('POST /score', { ...fields, 'Content-Length': String(body.length) });
    yield { name: `a request in ${coding}`, steps: [start, body], server: ECHO, captured: 1 };
    const answer = Buffer.concat([
      Buffer.from(`HTTP/1.1 200 OK\r\nContent-Encoding: ${coding}\r\nContent-Length: ${body.length}\r\n\r\n`),
      body,
    ]);
    yield {
      name: `an answer in ${coding}`,
      steps: [head('GET /'), { waitFor: answer.length }, { side: 'end' }],
      server: answering(answer, 'end'),
      captured: 1,
    };
  }
}

function* pieces(): Generator<CorpusCase> {
  const body = Buffer.from('{"data":[1,2,3]}');
  const whole = head('POST /score', { ...CLOSE, 'Content-Length': String(body.length) }) + body.toString();
  const open = head('POST /score', { ...CLOSE, 'Transfer-Encoding': 'chunked' });
  const coded = chunked(body, 5, { extension: ';a="b;c"', trailer: 'X-Sum: 1\r\nX-More: 2\r\n' }).toString();
  for (const size of [1, 2, 3, 5, 7, 9, 13, 21, 40, 64, 100]) {
    const paced = (bytes: string) => split(bytes, size).flatMap((piece): ClientStep[] => [piece, { pauseMs: 0 }]);
    yield { name: `a request in pieces of ${size}`, steps: paced(whole), server: ECHO, captured: 1 };
    yield {
      name: `chunks with extensions and trailers in pieces of ${size}`,
      steps: paced(open + coded),
      server: ECHO,
      captured: 1,
    };
    const answer = `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${coded}`;
    yield {
      name: `an answer in pieces of ${size}`,
      steps: [head('GET /'), { waitFor: answer.length }, { side: 'end' }],
      server: answering(answer, 'keep', size),
      captured: 1,
    };
  }
  // Every place in the blank line of a head, where a field may have to be added.
  const get = head('GET /');
  for (let back = 1; back <= 5; back += 1) {
    const at = get.length - back;
    const steps: ClientStep[] = [get.slice(0, at), { pauseMs: 15 }, get.slice(at), { waitFor: 'fin' }, { side: 'end' }];
    yield {
      name: `a head cut ${back} bytes before its end`,
      steps,
      server: answering('HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nfin'),
      captured: 1,
    };
  }
}

function* answers(): Generator<CorpusCase> {
  const known: Record<string, string> = {
    'no content': 'HTTP/1.1 204 No Content\r\n\r\n',
    'not modified with a length': 'HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n',
    'an empty body': 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n',
    'an informational answer first':
      'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
    'an error with a body': 'HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops',
    'no reason phrase': 'HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok',
    'odd fields': 'HTTP/1.1 200 OK\r\nX-Empty:\r\nx-a:   b  \r\nX-\xe9: 1\r\nContent-Length: 2\r\n\r\nok',
    'a length given twice': 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok',
    'length and chunks':
      'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
    'line feeds only': 'HTTP/1.1 200 OK\nContent-Length: 2\n\nok',
    'another protocol': 'SSH-2.0-x\r\n',
    'bad chunks': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n',
    'more than announced': 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more',
    'a folded field': 'HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 2\r\n\r\nok',
  };
  for (const [name, answer] of Object.entries(known)) {
    const steps: ClientStep[] = [head('GET /x'), { waitFor: answer.length }, { side: 'end' }];
    yield { name: `answer: ${name}`, steps, server: answering(answer) };
    yield { name: `answer until the end: ${name}`, steps: [head('GET /x')], server: answering(answer, 'end') };
  }
  for (const version of ['1.0', '1.1']) {
    const answer = `HTTP/${version} 200 OK\r\nContent-Type: text/plain\r\n\r\n${'body until the end '.repeat(500)}`;
    yield {
      name: `a body until the end of the connection, HTTP/${version}`,
      steps: [head('GET /')],
      server: answering(answer, 'end'),
      captured: 1,
    };
  }
  const short = 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this';
  yield { name: 'an answer cut by an end', steps: [head('GET /')], server: answering(short, 'end'), captured: 1 };
  yield { name: 'an answer cut by a reset', steps: [head('GET /')], server: answering(short, 'reset'), captured: 1 };
  yield { name: 'an end instead of an answer', steps: [head('GET /')], server: answering('', 'end'), captured: 1 };
  yield { name: 'a reset instead of an answer', steps: [head('GET /')], server: answering('', 'reset'), captured: 1 };
}

function* connections(): Generator<CorpusCase> {
  const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
  const server = answering(ok);
  const get = head('GET /');
  for (const count of [2, 3, 10, 50]) {
    yield {
      name: `${count} requests sent ahead`,
      steps: [get.repeat(count), { waitFor: ok.length * count }, { side: 'end' }],
      server,
      captured: count,
    };
    const turns = Array.from({ length: count }, (_, index): ClientStep[] => [
      get,
      { waitFor: ok.length * (index + 1) },
    ]);
    yield {
      name: `${count} requests, one after the other`,
      steps: [...turns.flat(), { side: 'end' }],
      server,
      captured: count,
    };
  }
  yield {
    name: 'HEAD and GET sent ahead',
    steps: [head('HEAD /') + get, { waitFor: 60 }, { side: 'end' }],
    server: headServer(),
    captured: 2,
  };
  yield {
    name: 'a client that ends its side at once',
    steps: [get, { side: 'end' }, { waitFor: 'ok' }],
    server,
    captured: 1,
  };
  yield {
    name: 'a client that resets',
    steps: [get, { pauseMs: 30 }, { side: 'reset' }],
    server: answering(''),
    captured: 1,
  };
  yield {
    name: 'a client that goes away in the middle of its body',
    steps: [head('POST /', { 'Content-Length': '100' }), 'part', { pauseMs: 30 }, { side: 'reset' }],
    server: answering(''),
    captured: 1,
  };
  yield { name: 'a connection without a byte', steps: [{ side: 'end' }], server: answering('', 'end'), captured: 0 };
  yield {
    name: 'half a head',
    steps: ['GET / HTTP/1.1\r\nHost: x\r\n', { pauseMs: 20 }, { side: 'end' }],
    server: answering(ok),
    captured: 0,
  };
  yield {
    name: 'line breaks before a request',
    steps: [`\r\n${get}`, { waitFor: 'ok' }, { side: 'end' }],
    server,
    captured: 1,
  };
  const upgrade = head('GET /chat', { Connection: 'Upgrade', Upgrade: 'echo' });
  yield {
    name: 'an upgrade',
    steps: [upgrade, { waitFor: '\r\n\r\n' }, 'any bytes \x00\xff', { waitFor: 'any bytes' }, { side: 'end' }],
    server: ECHO,
    captured: 0,
  };
  yield {
    name: 'CONNECT',
    steps: [head('CONNECT a:1'), { waitFor: 'ok' }, 'raw', { side: 'end' }],
    server,
    captured: 0,
  };
  yield {
    name: 'HTTP/2 with prior knowledge',
    steps: ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', Buffer.alloc(9), { waitFor: 'ok' }, { side: 'end' }],
    server,
    captured: 0,
  };
  yield {
    name: 'TLS',
    steps: [Buffer.from('1603010200', 'hex'), { pauseMs: 20 }, { side: 'end' }],
    server: ECHO,
    captured: 0,
  };
  for (const [name, field] of Object.entries({
    'two lengths': 'Content-Length: 2\r\nContent-Length: 3',
    'length and chunks': 'Content-Length: 2\r\nTransfer-Encoding: chunked',
    'a folded field': 'A: b\r\n c',
    'a line feed alone': 'A: b\nC: d',
    'a blank before the colon': 'A : b',
  })) {
    const bad = `POST / HTTP/1.1\r\nHost: x\r\n${field}\r\n\r\nab`;
    yield { name: `malformed: ${name}`, steps: [bad, { waitFor: 'HTTP/1.1' }, { side: 'end' }], server: ECHO };
    yield {
      name: `malformed behind a good one: ${name}`,
      steps: [get, { waitFor: 'ok' }, bad, { waitFor: ok.length + 10 }, { side: 'end' }],
      server,
    };
  }
  const big = `GET / HTTP/1.1\r\nX-Big: ${'b'.repeat(70_000)}\r\n\r\n`;
  yield { name: 'a head larger than is read', steps: [big, { waitFor: 'ok' }, { side: 'end' }], server, captured: 0 };
  yield {
    name: 'a request without a version',
    steps: ['GET /\r\n\r\n', { waitFor: 'ok' }, { side: 'end' }],
    server,
    captured: 0,
  };
}

function headServer(): ServerScript {
  return {
    http(_request, response) {
      response.sendDate = false;
      response.setHeader('content-length', 2);
      response.end('ok');
    },
  };
}

function* expectations(): Generator<CorpusCase> {
  const fields = { 'Content-Length': '5', Expect: '100-continue', 'Content-Type': 'text/plain' };
  const steps: ClientStep[] = [
    head('POST /', fields),
    { waitFor: '100 Continue' },
    'hello',
    { waitFor: 'hello' },
    { side: 'end' },
  ];
  yield { name: 'a body that waits to be asked for', steps, server: ECHO, captured: 1 };
  const refused = 'HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n';
  const server = answering(refused);
  yield {
    name: 'a body that is refused and not sent',
    steps: [head('POST /', fields), { waitFor: '417' }, { side: 'end' }],
    server,
    captured: 1,
  };
  yield {
    name: 'a body that is refused, and another request',
    steps: [
      head('POST /', fields),
      { waitFor: refused.length },
      head('GET /'),
      { waitFor: 2 * refused.length },
      { side: 'end' },
    ],
    server,
    captured: 1,
  };
  const early = 'HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\n\r\nbig';
  yield {
    name: 'an answer before the end of the request',
    steps: [head('POST /', { 'Content-Length': '6' }), { waitFor: 'big' }, 'abcdef', { side: 'end' }],
    server: answering(early),
    captured: 1,
  };
  const stream = 'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n';
  const events = chunked(Buffer.from(Array.from({ length: 20 }, (_, index) => `data: ${index}\n\n`).join('')), 9);
  yield {
    name: 'server-sent events',
    steps: [head('GET /stream'), { waitFor: '0\r\n\r\n' }, { side: 'end' }],
    server: answering(Buffer.concat([Buffer.from(stream), events]), 'keep', 17),
    captured: 1,
  };
}

function* large(): Generator<CorpusCase> {
  const body = noise(64 * 1024 ** 2);
  const start = head('POST /large', {
    ...CLOSE,
    'Content-Type': 'application/octet-stream',
    'Content-Length': String(body.length),
  });
  yield { name: '64 MB both ways', steps: [start, body], server: ECHO };
}

/** All of them: over 200. */
export function corpus(): readonly CorpusCase[] {
  return [...bodies(), ...pieces(), ...answers(), ...connections(), ...expectations(), ...large()];
}
