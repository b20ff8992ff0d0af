import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { crc32 } from 'node:zlib';
import { ReadGate } from './read-gate.ts';
import { type Rig, routesTo, SOURCE, startRig } from './rig.test.ts';

const MiB = 1024 * 1024;
const TYPE = 'azureml.inference.model_inputs';
const LOG = { 'content-type': 'application/json', 'ce-type': TYPE };
const BATCH = { 'content-type': 'application/cloudevents-batch+json' };

async function withRig(run: (rig: Rig) => Promise<void>): Promise<void> {
  const rig = await startRig();
  try {
    await run(rig);
  } finally {
    await rig.close();
  }
}

/** JSON text of a string, of exactly this length. */
function text(bytes: number, letter = 'x'): string {
  return `"${letter.repeat(bytes - 2)}"`;
}

function binary(id: string): Record<string, string> {
  return { ...LOG, 'ce-specversion': '1.0', 'ce-source': SOURCE, 'ce-id': id };
}

function batchOf(bodies: readonly string[]): string {
  const events = bodies.map(
    (body, n) => `{"specversion":"1.0","id":"e${n}","source":"${SOURCE}","type":"${TYPE}","data":${body}}`,
  );
  return `[${events.join(',')}]`;
}

test('bodies above 1 MiB are kept beside the spool, those up to it in the spool, by every way in', async () => {
  await withRig(async (rig) => {
    const bodies = [text(MiB), text(MiB + 1)];
    for (const [n, body] of bodies.entries()) {
      assert.equal((await rig.post('/modeldata/log', LOG, body)).status, 204);
      assert.equal((await rig.post('/v1/events', binary(`b${n}`), body)).status, 204);
    }
    assert.equal((await rig.post('/v1/events', BATCH, batchOf(bodies))).status, 204);
    const records = await rig.records();
    assert.equal(records.length, 6);
    for (const { aside, text: kept } of records) assert.equal(kept === bodies[Number(aside)], true);
    assert.deepEqual(
      records.map(({ aside }) => Number(aside)).toSorted((a, b) => a - b),
      [0, 0, 0, 1, 1, 1],
    );
    assert.equal(rig.ingest.inflightBytes, 0);
  });
});

test('a batch of many megabytes, small events and large, is stored byte for byte and recognised when it is sent again', async () => {
  await withRig(async (rig) => {
    const bodies = Array.from({ length: 44 }, (_, n) => text(n % 11 === 10 ? 3 * MiB - n : 120_000 + n, 'abcd'[n % 4]));
    const batch = batchOf(bodies);
    for (let turn = 0; turn < 2; turn += 1) assert.equal((await rig.post('/v1/events', BATCH, batch)).status, 204);
    const records = await rig.records();
    assert.equal(records.length, bodies.length);
    for (const record of records) {
      const body = bodies[Number(record.id.slice(1))] ?? '';
      assert.equal(record.text === body, true, record.id);
      assert.equal(record.aside, body.length > MiB, record.id);
    }
    assert.deepEqual(new Set(rig.counted.map((line) => line.split(' ', 1)[0])), new Set(['accepted', 'duplicate']));
    assert.equal(rig.counted.length, 88);
    assert.equal(rig.ingest.inflightBytes, 0);
  });
});

test('a large event of an earlier run is recognised by the checksum of its side file, and an empty one without', async () => {
  await withRig(async (rig) => {
    const body = text(2 * MiB);
    assert.equal((await rig.post('/v1/events', binary('first'), body)).status, 204);
    const { 'content-type': _type, ...typeless } = binary('nothing');
    assert.equal((await rig.post('/v1/events', typeless, '')).status, 204);
    const [large, empty] = await rig.records();
    assert.ok(large?.aside && empty);
    // As an agent does that starts: only the ids are of an earlier run here.
    rig.ingest.prime(rig.spool, { ...large, id: 'known' }, crc32(body));
    rig.ingest.prime(rig.spool, { ...large, id: 'no checksum' });
    rig.ingest.prime(rig.spool, { ...empty, id: 'known too' });
    for (const id of ['known', 'no checksum']) await rig.post('/v1/events', binary(id), body);
    await rig.post('/v1/events', { ...typeless, 'ce-id': 'known too' }, '');
    assert.deepEqual(
      (await rig.records()).map(({ id }) => id),
      ['first', 'nothing', 'no checksum'],
    );
    assert.equal(rig.counted.filter((line) => line === 'duplicate 1').length, 2);
  });
});

test('a gate is open only when nobody holds it, and after 64 KiB the others have a turn', async () => {
  const calls: string[] = [];
  const gate = new ReadGate({
    pause: () => calls.push('pause'),
    resume: () => calls.push('resume'),
  });
  gate.count(65_535);
  assert.deepEqual(calls, []);
  gate.count(1);
  gate.count(65_536);
  gate.hold();
  assert.deepEqual(calls, ['pause']);
  await nextTurn();
  assert.deepEqual(calls, ['pause']);
  gate.release();
  assert.deepEqual(calls, ['pause', 'resume']);
  gate.count(65_536);
  await nextTurn();
  assert.deepEqual(calls, ['pause', 'resume', 'pause', 'resume']);
});

test('a replaced time is counted by the ingest where the counts of the destination do not', async () => {
  const counts = { accepted: () => undefined, rejected: () => undefined, duplicate: () => undefined };
  const rig = await startRig({
    route: (spool) => (request) => ({ ...routesTo(spool)(request), counts }),
  });
  try {
    assert.equal((await rig.post('/modeldata/log', { ...LOG, 'ce-time': 'soon' }, '[1]')).status, 204);
    assert.deepEqual(rig.counted, ['time 1']);
  } finally {
    await rig.close();
  }
});
