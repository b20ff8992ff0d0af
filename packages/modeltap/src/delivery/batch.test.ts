import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeRecord } from '../record/codec.ts';
import type { DestinationSettings } from '../record/destinations.ts';
import { type BatchItem, createBatcher } from './batch.ts';
import { encode, HOUR, settings, type TestRecord } from './fixture.test.ts';

interface Line {
  readonly id: string;
  readonly time: string;
  readonly data: readonly Record<string, unknown>[];
  readonly correlationid: string;
}

/** The lines that records of these destinations become, in order. */
function plan(
  records: readonly TestRecord[],
  changes: Partial<DestinationSettings> = {},
  inlineBytes = 10_000,
): Line[] {
  const destinations = new Map(
    [1, 2].map((id) => [id, { ...settings({ batch: 'same_id', ...changes, path: `p${id}` }), id }]),
  );
  const batcher = createBatcher({
    spoolId: '0'.repeat(32),
    inlineBytes,
    url: (key) => `u:${key}`,
    destination: (id) => destinations.get(id),
  });
  const items = records.map((record, n): BatchItem => {
    const { head, body } = encode(record);
    return { position: n, record: decodeRecord(Buffer.concat([head, body])), sideFile: undefined, fault: undefined };
  });
  return batcher
    .plan(items)
    .targets.flatMap((target) => target.lines.toString().trimEnd().split('\n'))
    .map((line) => JSON.parse(line) as Line);
}

const row = (n: number) => `[{"n":${n}}]`;
const numbers = (lines: readonly Line[]) => lines.map((line) => line.data.map((one) => one['n']));

test('consecutive records of one id become one event with the earliest time and the first id', () => {
  const lines = plan([
    { body: row(1), id: 'first', timeMs: HOUR + 5000 },
    { body: row(2), id: 'second', timeMs: HOUR + 2000 },
    { body: '[]' },
    { body: row(3), correlationId: 'other' },
  ]);
  assert.deepEqual(numbers(lines), [[1, 2], [3]]);
  assert.equal(lines[0]?.id, 'first');
  assert.equal(lines[0]?.time, '2024-03-05T18:00:00Z');
});

test('records of another collection in between do not part an event', () => {
  const lines = plan([{ body: row(1) }, { body: row(9), destinationId: 2 }, { body: row(2) }]);
  assert.deepEqual(numbers(lines), [[1, 2], [9]]);
});

test('another id, hour, attribute or a body that is no array begins a new event', () => {
  const attributes = '{"type":"azureml.inference.model_inputs","datacontenttype":"application/json","sampledrate":2}';
  assert.equal(plan([{ body: row(1) }, { body: row(2), attributes }]).length, 2);
  assert.equal(plan([{ body: row(1) }, { body: row(2), timeMs: HOUR + 3_600_000 }]).length, 2);
  assert.equal(plan([{ body: row(1) }, { body: '{"n":2}' }, { body: row(3) }]).length, 3);
  assert.equal(plan([{ body: row(1) }, { body: 'opaque' }, { body: row(3) }]).length, 3);
  assert.equal(
    plan([
      { body: row(1), correlationId: '' },
      { body: row(2), correlationId: '' },
    ]).length,
    2,
  );
});

test('the window counts from the arrival of the first record', () => {
  const at = (receivedMs: number) => ({ body: row(receivedMs), receivedMs });
  assert.deepEqual(numbers(plan([at(0), at(400), at(500), at(501), at(900)])), [
    [0, 400, 500],
    [501, 900],
  ]);
});

test('an event does not grow above the inline limit', () => {
  const lines = plan([{ body: row(1) }, { body: row(2) }, { body: row(3) }], {}, 25);
  assert.deepEqual(numbers(lines), [[1, 2], [3]]);
});

test('off never merges', () => {
  assert.equal(plan([{ body: row(1) }, { body: row(2) }], { batch: 'off' }).length, 2);
});

test('across ids merges different ids and keeps the id of every row', () => {
  const lines = plan(
    [
      { body: row(1), correlationId: 'a' },
      { body: '[{"n":2,"correlationid":"own"},{"n":3}]', correlationId: 'b<' },
    ],
    { batch: 'across_ids' },
  );
  assert.equal(lines.length, 1);
  assert.equal(lines[0]?.correlationid, 'a');
  assert.deepEqual(lines[0]?.data, [
    { n: 1, correlationid: 'a' },
    { n: 2, correlationid: 'own' },
    { n: 3, correlationid: 'b<' },
  ]);
});

test('across ids leaves the rows alone when all records have one id', () => {
  const lines = plan([{ body: row(1) }, { body: row(2) }], { batch: 'across_ids' });
  assert.deepEqual(lines[0]?.data, [{ n: 1 }, { n: 2 }]);
});

test('across ids counts the added ids against the inline limit', () => {
  const records = [
    { body: row(1), correlationId: 'a' },
    { body: row(2), correlationId: 'b' },
  ];
  assert.equal(plan(records, { batch: 'across_ids' }, 57).length, 2);
  assert.equal(plan(records, { batch: 'across_ids' }, 58).length, 1);
});

test('a body above the inline limit goes beside the event, wherever the spool has it', () => {
  const [small, large] = plan([{ body: row(1) }, { body: JSON.stringify(['x'.repeat(30)]) }], {}, 25);
  assert.equal(small !== undefined && 'data' in small, true);
  assert.equal(large !== undefined && 'dataref' in large && !('data' in large), true);
});
