import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { type Rig, startRig } from '../rig.test.ts';

/*
 * Ways known to make two servers disagree about where a request ends. Each is sent with a request inside that only a wrong
 * reading would see: it must never be stored, whatever becomes of the one around it.
 */

const FIELDS = 'host: localhost\r\ncontent-type: application/json\r\nce-type: azureml.inference.model_inputs\r\n';
/** A good request that nobody sent as such. */
const INNER = `POST /modeldata/log HTTP/1.1\r\n${FIELDS}content-length: 10\r\n\r\n"smuggled"`;
const LAST = 'GET /last HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n';

interface Vector {
  readonly name: string;
  readonly text: string;
  readonly statuses: readonly number[];
  /** Bodies stored. */
  readonly stored?: readonly string[];
}

/** A request with these lines in its head, then the body, then the inner request. */
function around(lines: string, body: string, line = 'POST /modeldata/log HTTP/1.1'): string {
  return `${line}\r\n${FIELDS}${lines}\r\n\r\n${body}${INNER}`;
}

/** The inner request as the whole body of another one. */
function inside(lines: string, line = 'POST /modeldata/log HTTP/1.1'): string {
  return `${line}\r\n${FIELDS}${lines}content-length: ${INNER.length}\r\n\r\n${INNER}${LAST}`;
}

const chunk = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`;
const refused = (name: string, text: string): Vector => ({ name, text, statuses: [400] });

const VECTORS: readonly Vector[] = [
  refused('CL.TE', around('content-length: 6\r\ntransfer-encoding: chunked', '0\r\n\r\n')),
  refused('TE.CL', around('transfer-encoding: chunked\r\ncontent-length: 3', '0\r\n\r\n')),
  refused('CL.TE, spelled oddly', around('Content-Length: 6\r\ntRANSFER-eNCODING:chunked', '0\r\n\r\n')),
  refused(
    'CL.TE with a blank before the colon',
    around('content-length: 5\r\ntransfer-encoding : chunked', '0\r\n\r\n'),
  ),
  refused(
    'CL.TE with a tab before the colon',
    around('content-length: 5\r\ntransfer-encoding\t: chunked', '0\r\n\r\n'),
  ),
  refused(
    'CL.TE behind a folded line',
    around('content-length: 5\r\nx: y\r\n transfer-encoding: chunked', '0\r\n\r\n'),
  ),
  refused('CL.TE behind a bare LF', around('content-length: 5\r\nx: y\ntransfer-encoding: chunked', '0\r\n\r\n')),
  refused('CL.TE behind a bare CR', around('content-length: 5\r\nx: y\rtransfer-encoding: chunked', '0\r\n\r\n')),
  refused('CL.TE with NUL in the name', around('content-length: 5\r\ntransfer\0-encoding: chunked', '0\r\n\r\n')),
  refused('CL.TE with a vertical tab', around('content-length: 5\r\ntransfer-encoding:\x0bchunked', '0\r\n\r\n')),
  refused('TE.TE', around('transfer-encoding: chunked\r\ntransfer-encoding: identity', '0\r\n\r\n')),
  refused('TE.TE in one list', around('transfer-encoding: chunked, identity', '0\r\n\r\n')),
  refused('TE of no kind', around('transfer-encoding: xchunked', '0\r\n\r\n')),
  refused('CL.CL, different', around('content-length: 3\r\ncontent-length: 5', '[1]')),
  refused('CL.CL, equal', around('content-length: 3\r\ncontent-length: 3', '[1]')),
  refused('CL.CL in one list', around('content-length: 3, 5', '[1]')),
  refused('CL with a plus', around('content-length: +3', '[1]')),
  refused('CL with a minus', around('content-length: -3', '[1]')),
  refused('CL in hexadecimal', around('content-length: 0x3', '[1]')),
  refused('CL beyond 64 bits', around('content-length: 18446744073709551619', '[1]')),
  refused('CL with a line break inside', around('content-length: 3\r\n 0', '[1]')),
  refused('CL with a blank inside', around('content-length: 3 0', '[1]')),
  refused('CL with a blank before the colon', around('content-length : 3', '[1]')),
  refused('CL with NUL behind the name', around('content-length\0: 3', '[1]')),
  refused(
    'CL behind a folded first line',
    `POST /modeldata/log HTTP/1.1\r\n ${FIELDS}content-length: 3\r\n\r\n[1]${INNER}`,
  ),
  refused('head that ends in a bare LF', `POST /modeldata/log HTTP/1.1\r\n${FIELDS}content-length: 3\n\n[1]${INNER}`),
  refused(
    'head that ends in CR CR LF',
    `POST /modeldata/log HTTP/1.1\r\n${FIELDS}content-length: 3\r\r\n\r\n[1]${INNER}`,
  ),
  refused('chunk with a negative size', around('transfer-encoding: chunked', '-1\r\n\r\n')),
  refused('chunk with a prefixed size', around('transfer-encoding: chunked', '0x3\r\n[1]\r\n0\r\n\r\n')),
  refused('chunk that ends in a bare LF', around('transfer-encoding: chunked', '3\r\n[1]\n0\r\n\r\n')),
  refused('chunk that is longer than it says', around('transfer-encoding: chunked', '3\r\n[1]2\r\n0\r\n\r\n')),
  { name: 'CL, the inner one as body', text: inside(''), statuses: [400, 404] },
  { name: 'CL.0 on a path that reads no body', text: inside('', 'GET /healthz HTTP/1.1'), statuses: [404] },
  {
    name: 'CL.0 on a request that is refused early',
    text: inside('ce-type: x\r\n').replace('model_inputs', 'off'),
    statuses: [403],
  },
  { name: 'CL.0 on another method', text: inside('', 'PUT /modeldata/log HTTP/1.1'), statuses: [405] },
  {
    name: 'TE, the inner one as body',
    text: `POST /modeldata/log HTTP/1.1\r\n${FIELDS}transfer-encoding: chunked\r\n\r\n${chunk(INNER)}0\r\n\r\n${LAST}`,
    statuses: [400, 404],
  },
  {
    name: 'HTTP/1.0 with TE',
    text: around('transfer-encoding: chunked', '0\r\n\r\n', 'POST /modeldata/log HTTP/1.0'),
    statuses: [400],
  },
  {
    name: 'two hosts, the first of them foreign',
    text: inside('').replace('host: localhost', 'host: evil.example\r\nhost: localhost'),
    statuses: [403],
  },
  {
    name: 'two lengths far apart in one good record',
    text: `POST /modeldata/log HTTP/1.1\r\n${FIELDS}content-length: 3\r\nx: y\r\ncontent-length: ${3 + INNER.length}\r\n\r\n[1]${INNER}`,
    statuses: [400],
  },
  {
    name: 'bytes behind a request that closes the connection',
    text: `POST /modeldata/log HTTP/1.1\r\n${FIELDS}connection: close\r\ncontent-length: 3\r\n\r\n[1]${INNER}`,
    statuses: [204],
    stored: ['[1]'],
  },
  {
    name: 'a good record before a bad one',
    text: `POST /modeldata/log HTTP/1.1\r\n${FIELDS}content-length: 3\r\n\r\n[1]${around('content-length: 5\r\ntransfer-encoding: chunked', '0\r\n\r\n')}`,
    statuses: [204, 400],
    stored: ['[1]'],
  },
];

/** All that comes back until the connection is closed. `piece`: bytes sent at a time. */
async function exchange(port: number, text: string, piece: number): Promise<string> {
  const bytes = Buffer.from(text, 'latin1');
  const socket = connect({ port, host: '127.0.0.1', noDelay: true });
  let answer = '';
  socket.on('data', (chunk: Buffer) => {
    answer += chunk.toString('latin1');
  });
  socket.on('error', () => undefined);
  const closed = new Promise<void>((done) => {
    socket.on('close', () => done());
  });
  for (let at = 0; at < bytes.length && !socket.destroyed; at += piece) {
    socket.write(bytes.subarray(at, at + piece));
    if (piece < bytes.length) await turn();
  }
  await closed;
  return answer;
}

async function sent(rig: Rig, text: string, piece: number): Promise<{ statuses: number[]; stored: string[] }> {
  const before = (await rig.records()).length;
  const answer = await exchange(rig.port, text, piece);
  const statuses = [...answer.matchAll(/HTTP\/1\.1 (\d{3})/g)].map(([, status]) => Number(status));
  return { statuses, stored: (await rig.records()).slice(before).map((record) => record.text) };
}

test('no known way of smuggling makes a request of what is not one', async () => {
  const rig = await startRig();
  try {
    for (const { name, text, statuses, stored = [] } of VECTORS) {
      for (const piece of [Number.POSITIVE_INFINITY, 7]) {
        assert.deepEqual(await sent(rig, text, piece), { statuses, stored }, `${name}, ${piece} bytes at a time`);
      }
    }
  } finally {
    await rig.close();
  }
});
