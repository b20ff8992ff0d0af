import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { type TestContext, test } from 'node:test';
import type { CycleStep } from './apply.ts';
import { events, files, type Fixture, hastyClock, openFixture, type TestRecord } from './fixture.test.ts';

/** What the collection files hold, as text, after these records were shipped in one cycle. */
async function linesOf(t: TestContext, batch: 'off' | 'same_id', records: readonly TestRecord[]): Promise<string> {
  const fixture = await openFixture(t, { batch });
  for (const record of records) await fixture.append(record);
  const { lane, kill } = await fixture.lane();
  await lane.cycle();
  await kill();
  const stored = [...(await files(fixture.blobs))];
  assert.ok(stored.every(([path]) => path.endsWith('.jsonl')));
  return stored.map(([, bytes]) => String(bytes)).join('');
}

/** Rows of at least 2 MB with all that a line writes in another way. */
const LARGE = `[{"text":"a<b>&c\\/ ${'é'.repeat(1_000_000)}"},\n {"n":9007199254740993}]`;

test('a body beside the spool that is small enough for a line is stored as one in the spool is, byte for byte', async (t) => {
  for (const batch of ['off', 'same_id'] as const) {
    const records = [
      { id: 'a', body: LARGE },
      { id: 'b', body: '[1]' },
      { id: 'c', body: '{"text":"not rows"}' },
    ];
    const inside = await linesOf(t, batch, records);
    const beside = await linesOf(
      t,
      batch,
      records.map((record, n) => ({ ...record, beside: n !== 1 })),
    );
    assert.equal(beside === inside, true);
    assert.ok(inside.includes(`\\u003cb\\u003e\\u0026c\\/ ${'é'.repeat(1_000_000)}"}, `));
    assert.ok(inside.includes('{"n":9007199254740993}'));
  }
});

async function appendLarge(fixture: Fixture, ids: readonly string[], bytes: number): Promise<void> {
  for (const correlationId of ids) {
    await fixture.append({ correlationId, body: JSON.stringify(['x'.repeat(bytes)]), beside: true });
  }
}

async function storedIds(fixture: Fixture): Promise<readonly string[]> {
  return (await events(fixture.blobs)).map((event) => event.correlationid);
}

test('one cycle reads at most 8 MiB of side files into memory, and the next one does not wait', async (t) => {
  const fixture = await openFixture(t);
  await appendLarge(fixture, ['a', 'b', 'c', 'd', 'e'], 3_000_000);
  // Above the size for a line: these go from file to store and count for nothing.
  await appendLarge(fixture, ['f', 'g', 'h'], 4_300_000);
  const cursors: number[] = [];
  const clock = hastyClock();
  const { lane, kill } = await fixture.lane({
    clock,
    onReleased: (position) => {
      cursors.push(position);
      if (position === fixture.writer.committed) lane.stop();
    },
  });
  await lane.run();
  await kill();
  assert.equal(cursors.length, 3);
  // What it let gather before the first one.
  assert.deepEqual(clock.slept, [100, 100, 100, 100, 100]);
  assert.deepEqual(await storedIds(fixture), ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']);
});

for (const step of ['intent', 'append', 'finish'] as const satisfies readonly CycleStep[]) {
  test(`a crash behind step ${step} repeats the stretch that was cut, from side files that are still there`, async (t) => {
    const fixture = await openFixture(t);
    await appendLarge(fixture, ['a', 'b', 'c'], 3_000_000);
    const released: number[] = [];
    const crash = new Error('crash');
    const first = await fixture.lane({
      onReleased: (position) => released.push(position),
      onStep: (at) => {
        if (at === step) throw crash;
      },
    });
    await assert.rejects(first.lane.cycle(), crash);
    const intent = first.journal.intent();
    await first.kill();
    assert.equal(released.length, 0);
    await appendLarge(fixture, ['d'], 3_000_000);
    const second = await fixture.lane({
      onReleased: (position) => {
        assert.equal(second.journal.cursor, position, 'released before the cursor had moved');
        released.push(position);
      },
    });
    await second.lane.cycle();
    assert.deepEqual(await storedIds(fixture), ['a', 'b']);
    assert.deepEqual(released, [intent?.to]);
    await fixture.writer.release(released[0] ?? 0);
    const left = (await readdir(fixture.spoolDirectory)).filter((name) => name.endsWith('.side'));
    assert.equal(left.length, 2);
    await second.lane.cycle();
    await second.kill();
    assert.deepEqual(await storedIds(fixture), ['a', 'b', 'c', 'd']);
    assert.deepEqual(await fixture.ledger().check(), []);
  });
}
