/**
 * Bodies that are no frames of today's SDK: promptflow's spans and the compact text through the real SDK, and what its
 * forerunners sent, which are no longer published: lists, numpy arrays as JSON and as `.npy` bytes, over raw sockets.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { killAgents, untilDelivered } from '../support/agent.ts';
import { sendAsSdk } from '../support/raw-client.ts';
import { pythonReason } from './support/available.ts';
import { type Place, startPlace } from './support/place.ts';
import { type Recorder, type Recording, startRecorder } from './support/recorder.ts';
import { newestPandas } from './support/sdk-matrix.ts';
import { type Collected, type SdkRig, startRig } from './support/sdk-rig.ts';
import { assertStored, type Body, storedLines } from './support/stored.ts';
import type { Venv } from './support/venv.ts';

const reason = await pythonReason();
const venvs = reason === undefined ? await newestPandas() : new Map<string, Venv>();
const withoutSdk = reason ?? (venvs.size === 0 ? 'SKIPPED: no version of the SDK installs here' : undefined);
const MEGABYTE = 1024 ** 2;
let place: Place;
let recorder: Recorder;

before(async () => {
  place = await startPlace(['model_inputs']);
  recorder = await startRecorder(() => place.agent.port);
});
after(async () => {
  await recorder?.stop();
  await place?.close();
  killAgents();
});

test('through each version of the SDK', { skip: withoutSdk, concurrency: 2 }, async (t) => {
  const versions = [...venvs].map(([sdk, venv]) =>
    t.test(sdk, async (t) => {
      const rig = await startRig(venv);
      try {
        await t.test('spans of promptflow are stored one a line', () => spans(rig));
        await t.test('compact text is stored as bytes beside its event', () => compactText(rig));
      } finally {
        await rig.close();
      }
    }),
  );
  await Promise.all(versions);
});

async function flushed(rig: SdkRig): Promise<readonly Recording[]> {
  await rig.python.ask({ do: 'flush' });
  const sent = await rig.recorder.take();
  await untilDelivered(rig.agent());
  return sent;
}

async function spans(rig: SdkRig): Promise<void> {
  await rig.useConfig({});
  await rig.python.ask({ do: 'open', collection: 'app_traces' });
  // The exporter gives no context: every span has a correlation id of its own.
  const job = { do: 'collect', collection: 'app_traces', frame: 'span', times: 3 };
  assert.deepEqual((await rig.python.ask<Collected>(job)).outcomes, { accepted: 3 });
  const sent = await flushed(rig);
  assert.equal(sent.length, 3);
  for (const one of sent) assertStored(rig.store, one);
  const lines = storedLines(rig.store, 'app_traces').map((line) => line.toString());
  assert.equal(lines.length, 3);
  const [line = ''] = lines;
  assert.ok(line.includes('"question\\": \\"is 1 \\u003c 2 \\u0026\\u0026 3 \\u003e 2?'), line);
  const event = JSON.parse(line) as { type: string; data: [Record<string, Record<string, unknown>>] };
  assert.equal(event.type, 'azureml.inference.app_traces');
  const [span, ...more] = event.data;
  assert.equal(more.length, 0);
  const names = 'name context kind parent_id start_time end_time status attributes events links resource';
  assert.deepEqual(Object.keys(span), names.split(' '));
  assert.equal(span.context?.trace_id, '0x4f4ef6f1cdbf4a9cb2c0ac1db2b1d0a5');
  assert.equal(span.attributes?.output, '{"answer": "yes / да"}');
  assert.equal(span.attributes?.['__computed__.cumulative_token_count.total'], 42);
}

async function compactText(rig: SdkRig): Promise<void> {
  await rig.useVariables({ AZUREML_MDC_FORMAT_COMPACT: 'true' });
  await rig.python.ask({ do: 'open', collection: 'model_inputs' });
  const frames = ['one_row', 'no_columns', 'unicode', 'ten_megabytes'];
  for (const frame of frames) {
    const job = { do: 'collect', collection: 'model_inputs', frame, context: { id: `compact ${frame}` } };
    assert.equal((await rig.python.ask<Collected>(job)).raised, null, frame);
  }
  const sent = await flushed(rig);
  assert.equal(sent.length, frames.length);
  for (const one of sent) {
    assert.equal(one.headers.get('content-type'), 'application/octet-stream');
    assertStored(rig.store, one, { body: 'blob' });
  }
  const [row, empty, unicode] = sent.map(({ body }) => body.toString());
  assert.equal(row, '   sepal length    name  n\n0           5.1  setosa  1');
  assert.match(empty ?? '', /^Empty DataFrame\n/);
  assert.match(unicode ?? '', /é€😀/);
}

/** A body with the headers that differ from today's, and how it is stored. */
type OldBody = readonly [Buffer, Readonly<Record<string, string>>, Body];

let ids = 0;

/** Sends bodies as a forerunner of the SDK did and compares what is stored. */
async function sendOld(bodies: readonly OldBody[]): Promise<void> {
  for (const [body, headers] of bodies) {
    const correlationId = `old ${(ids += 1)}`;
    const more = { 'ce-agent': 'mlmonitoring/0.1.0', ...headers };
    const answer = await sendAsSdk(recorder.port, { collection: 'model_inputs', body, correlationId, headers: more });
    assert.deepEqual(answer, { status: 204, body: '' });
  }
  const sent = await recorder.take();
  assert.equal(sent.length, bodies.length);
  await untilDelivered(place.agent);
  for (const [index, one] of sent.entries()) assertStored(place.store, one, { body: bodies[index]?.[2] ?? 'inline' });
}

const LIST = { 'ce-collect-data-type': 'python.list' };
const DICT = { 'ce-collect-data-type': 'python.dict' };
const ARRAY = { 'ce-collect-data-type': 'numpy.ndarray' };

test('lists, and arrays as JSON, are stored as the JSON they are', async () => {
  const json = (headers: Readonly<Record<string, string>>, ...texts: readonly string[]) =>
    texts.map((text): OldBody => [Buffer.from(text), headers, 'inline']);
  await sendOld([
    ...json(LIST, '[1, 2.0, 9007199254740993, "a<b", null]', '[[1, 2], [3, 4]]', '[]', '["text"]'),
    ...json(ARRAY, '[[5.1,3.5,1.4,0.2]]', '[[[1,2],[3,4]],[[5,6],[7,8]]]', '[[18446744073709551615]]'),
    ...json(DICT, '{"a/b": [1, 2]}', '"text & <more>"', '17', 'true', 'null'),
  ]);
});

test('a long list goes beside its line as rows, another long value as an object of its own', async () => {
  const list = `[${Array.from({ length: 5 * MEGABYTE }, (_, n) => n % 10).join(',')}]`;
  const value = `{"text":"${'x'.repeat(5 * MEGABYTE)}"}`;
  await sendOld([
    [Buffer.from(list), LIST, 'reference'],
    [Buffer.from(value), DICT, 'blob'],
  ]);
});

test('.npy bytes of any size are stored beside their event, unchanged', async () => {
  const headers = { ...ARRAY, 'Content-Type': 'application/octet-stream' };
  await sendOld([1, 80_771, 6 * MEGABYTE].map((bytes): OldBody => [npy(bytes), headers, 'blob']));
});

/** A one-dimensional array of bytes in numpy's file format, version 1.0: every byte value, as an image has. */
function npy(length: number): Buffer {
  const text = `{'descr': '|u1', 'fortran_order': False, 'shape': (${length},), }`;
  const header = `${text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11)}\n`;
  const size = Buffer.alloc(2);
  size.writeUInt16LE(header.length);
  const data = Buffer.from(Uint8Array.from({ length }, (_, n) => (n * 31) & 0xff));
  return Buffer.concat([Buffer.from('\x93NUMPY\x01\x00', 'latin1'), size, Buffer.from(header), data]);
}
