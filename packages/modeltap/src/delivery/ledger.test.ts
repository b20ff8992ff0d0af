import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { CountsBuffer } from './counts.ts';
import { DELIVERY_DB, openDeliveryDatabase } from './database.ts';
import { HOUR, openFixture, settings } from './fixture.test.ts';
import { Followers } from './followers.ts';
import { LedgerTable } from './ledger-table.ts';

test('a damaged stretch counts once as dropped and accepted, however often recovery finds it', async (t) => {
  const fixture = await openFixture(t);
  const database = openDeliveryDatabase(join(fixture.spoolDirectory, DELIVERY_DB));
  t.after(() => database.close());
  const table = new LedgerTable(database);
  for (let start = 0; start < 2; start += 1) {
    table.addDamaged(
      [
        { segment: 'a', from: 5, to: 9 },
        { segment: 'a', from: 20, to: 30 },
      ],
      HOUR,
    );
    table.resetAccepted();
  }
  const [row] = fixture.ledger().rows();
  assert.deepEqual(
    { dropped: row?.dropped, accepted: row?.accepted, name: row?.collection },
    { dropped: { corrupt: 2 }, accepted: 2, name: '' },
  );
});

test('the check finds a record that was accepted and is nowhere, and one that nobody accepted', async (t) => {
  const fixture = await openFixture(t);
  const { lane } = await fixture.lane();
  await fixture.append();
  await lane.cycle();
  const ledger = fixture.ledger();
  fixture.counts.accepted(1, HOUR, 1, 1);
  assert.deepEqual(
    (await ledger.check()).map(({ row, found }) => [row.spooled, found]),
    [[1, 0]],
  );
  await fixture.append({ timeMs: HOUR + 3_600_000 });
  fixture.counts.take();
  assert.deepEqual(
    (await ledger.check({ fromMs: HOUR + 1 })).map(({ row, found }) => [row.spooled, found]),
    [[0, 1]],
  );
});

test('rows are filtered by name and hour and given newest first, up to the limit', async (t) => {
  const fixture = await openFixture(t);
  const other = await fixture.destinations.intern(settings({ collection: 'other' }));
  await fixture.lane();
  for (let n = 0; n < 3; n += 1) fixture.counts.duplicate(n === 0 ? other.id : 1, HOUR + n * 3_600_000);
  const ledger = fixture.ledger();
  const hours = (filter: object) => ledger.rows(filter).map((row) => row.hour.slice(11, 13));
  assert.deepEqual(hours({}), ['20', '19', '18']);
  assert.deepEqual(hours({ collection: 'model_inputs', limit: 1 }), ['20']);
  assert.deepEqual(hours({ fromMs: HOUR, toMs: HOUR + 3_600_000 }), ['18']);
  assert.deepEqual(hours({ endpoint: 'nobody' }), []);
});

test('counts of very many hours are handed over early, and strange codes share one name', () => {
  let handed = 0;
  const counts = new CountsBuffer(
    () => undefined,
    () => {
      handed += counts.take().length;
    },
  );
  for (let hour = 0; hour < 10_000; hour += 1) counts.accepted(1, hour * 3_600_000, 1, 1);
  assert.ok(handed >= 8000);
  assert.equal(handed + counts.take().length, 10_000);
  counts.rejected('no such\ncode', 0, HOUR);
  counts.rejected('x'.repeat(100), 0, HOUR);
  assert.deepEqual(
    counts.take().map(({ name, by }) => [name, by]),
    [['rejected:other', 2]],
  );
});

test('a follower that does not keep up loses lines, is told how many, and holds up no other', () => {
  const got = new Map<number, { lines: number; missed: number; bytes: number }>();
  const followers = new Followers((id, lines, bytes, missed) => {
    const before = got.get(id) ?? { lines: 0, missed: 0, bytes: 0 };
    got.set(id, { lines: before.lines + lines.length, missed: before.missed + missed, bytes });
    if (id === 1) followers.took(id, bytes);
  });
  followers.add(1, {});
  followers.add(2, { collection: 'c' });
  const line = Buffer.from(`${'x'.repeat(299_999)}\n`);
  for (let n = 0; n < 10; n += 1) {
    followers.line({ endpoint: 'e', deployment: 'd', collection: 'c' }, line);
    followers.flush();
  }
  assert.equal(got.get(1)?.lines, 10);
  assert.deepEqual({ ...got.get(2), bytes: 0 }, { lines: 3, missed: 7, bytes: 0 });
  followers.remove(1);
  followers.remove(2);
  assert.equal(followers.some, false);
});
