import assert from 'node:assert/strict';
import { appendFile, mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import { createCounters } from '../kit/counters.ts';
import { isModeltapError } from '../kit/errors.ts';
import { silentLogger } from '../kit/logger.ts';
import { openDestinations } from '../record/destinations.ts';
import { openSpool } from '../spool/spool.ts';
import { encode, events, type Fixture, HOUR, openFixture, settings } from './fixture.test.ts';
import { startDelivery } from './start.ts';
import type { Delivery } from './types.ts';

async function start(t: TestContext, fixture: Fixture, path = fixture.blobs) {
  const counters = createCounters();
  const delivery = await startDelivery({
    lanes: [
      {
        datastore: { type: 'local', name: 'disk', path },
        spoolDirectory: fixture.spoolDirectory,
        writer: fixture.writer,
        destinations: fixture.destinations,
      },
    ],
    logger: silentLogger,
    counters,
  });
  t.after(() => delivery.stop());
  return { delivery, counters };
}

/** Waits until `done`, for at most ten seconds. */
async function until(done: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 10_000; Date.now() < end; await delay(20)) if (await done()) return;
  assert.fail('did not happen within ten seconds');
}

const shipped = (delivery: Delivery) => delivery.state().every((lane) => lane.pendingBytes === 0);

/** Appends and counts as ingest does. */
async function take(fixture: Fixture, delivery: Delivery, record: { correlationId: string; timeMs?: number }) {
  const { head, body, rows } = encode(record);
  await new Promise<void>((resolve) => {
    fixture.writer.append([head, body], () => {
      delivery.counts('disk').accepted(1, record.timeMs ?? HOUR, rows, body.length);
      resolve();
    });
  });
}

test('records appended while delivery runs are stored, counted, told to followers and released', async (t) => {
  const fixture = await openFixture(t);
  const { delivery, counters } = await start(t, fixture);
  const lines: string[] = [];
  const end = delivery.subscribe({ collection: 'model_inputs' }, (some) => lines.push(...some));
  delivery.subscribe({ collection: 'another' }, () => assert.fail('not asked for'));
  for (let n = 0; n < 20; n += 1) await take(fixture, delivery, { correlationId: `r${n}` });
  await until(() => shipped(delivery) && lines.length === 20);
  assert.deepEqual(
    (await events(fixture.blobs)).map((event) => JSON.stringify(event)),
    lines,
  );
  await until(() => fixture.writer.released === fixture.writer.committed);
  delivery.counts('disk').rejected('record_too_large', 1, HOUR);
  delivery.counts('disk').duplicate(1, HOUR);
  delivery.counts('disk').sampledOut(0, HOUR, 3);
  const [unknown, row] = delivery.ledger.rows();
  assert.equal(unknown?.sampledOut, 3);
  assert.deepEqual(row, {
    endpoint: 'ep',
    deployment: 'blue',
    collection: 'model_inputs',
    hour: '2024-03-05T18:00:00Z',
    seen: 22,
    sampledOut: 0,
    accepted: 20,
    stored: 20,
    dropped: {},
    rejected: { record_too_large: 1 },
    duplicate: 1,
    spooled: 0,
    rows: 20,
    bytes: 180,
  });
  assert.deepEqual(await delivery.ledger.check(), []);
  assert.match(await counters.text(), /modeltap_records_stored_total\{datastore="disk"\} 20/);
  end();
});

test('drain ships at once what waits, and the next process starts from a ledger that agrees', async (t) => {
  const fixture = await openFixture(t);
  const first = await start(t, fixture);
  await take(fixture, first.delivery, { correlationId: 'a' });
  assert.equal(await first.delivery.drain(5000), true);
  await first.delivery.stop();
  assert.equal((await events(fixture.blobs)).length, 1);
  await fixture.writer.close();

  // What came in without being shipped or counted: a process that died.
  const writer = await openSpool({ directory: fixture.spoolDirectory, maxBytes: 64 * 1024 * 1024 });
  const { head, body } = encode({ correlationId: 'b', timeMs: HOUR + 3_600_000 });
  await new Promise<void>((resolve) => writer.append([head, body], () => resolve()));
  await writer.close();
  const again = {
    ...fixture,
    writer: await openSpool({ directory: fixture.spoolDirectory, maxBytes: 64 * 1024 * 1024 }),
  };
  t.after(() => again.writer.close());
  const second = await start(t, again);
  assert.deepEqual(await second.delivery.ledger.check(), []);
  assert.deepEqual(
    second.delivery.ledger.rows().map(({ accepted }) => accepted),
    [1, 1],
  );
  await until(() => shipped(second.delivery));
  assert.deepEqual(
    second.delivery.ledger.rows({ fromMs: HOUR + 1 }).map(({ stored }) => stored),
    [1],
  );
  assert.deepEqual(await second.delivery.ledger.check(), []);
  const ids = (await events(fixture.blobs)).map((event) => event.correlationid);
  assert.deepEqual(ids.sort(), ['a', 'b']);
});

test('a datastore that does not work keeps records in the spool until its settings are mended', async (t) => {
  const fixture = await openFixture(t);
  const blocked = join(fixture.root, 'blocked');
  await writeFile(blocked, 'a file where a folder should be');
  const { delivery } = await start(t, fixture, blocked);
  await take(fixture, delivery, { correlationId: 'held' });
  await until(() => delivery.state()[0]?.status === 'retrying');
  assert.equal(delivery.ledger.rows()[0]?.spooled, 1);
  assert.deepEqual(await delivery.ledger.check(), []);
  assert.equal(await delivery.drain(50), false);
  delivery.updateDatastore({ type: 'local', name: 'disk', path: fixture.blobs });
  await until(() => shipped(delivery));
  assert.equal((await events(fixture.blobs)).length, 1);
});

test('a delivery thread that dies is started again and loses neither records nor counts', async (t) => {
  const fixture = await openFixture(t);
  const threads: Worker[] = [];
  const note = (thread: Worker) => threads.push(thread);
  process.on('worker', note);
  t.after(() => process.off('worker', note));
  const { delivery } = await start(t, fixture);
  for (let n = 0; n < 5; n += 1) await take(fixture, delivery, { correlationId: `r${n}` });
  await threads[0]?.terminate();
  for (let n = 5; n < 9; n += 1) await take(fixture, delivery, { correlationId: `r${n}` });
  await until(() => threads.length === 2 && shipped(delivery));
  assert.equal((await events(fixture.blobs)).length, 9);
  await until(() => delivery.ledger.rows()[0]?.stored === 9);
  assert.equal(delivery.ledger.rows()[0]?.accepted, 9);
  assert.deepEqual(await delivery.ledger.check(), []);
  assert.equal(delivery.state()[0]?.status, 'ok');
});

test('an unknown datastore and a damaged directory are errors that say so', async (t) => {
  const fixture = await openFixture(t);
  const { delivery } = await start(t, fixture);
  assert.throws(
    () => delivery.counts('nowhere'),
    (error) => isModeltapError(error) && error.code === 'not_found',
  );
  await delivery.stop();
  await appendFile(join(fixture.spoolDirectory, 'destinations.json'), 'x');
  await assert.rejects(start(t, fixture), (error) => isModeltapError(error) && error.code === 'delivery_failed');
});

test('a journal that belongs to another spool is not believed', async (t) => {
  const fixture = await openFixture(t);
  const first = await start(t, fixture);
  await take(fixture, first.delivery, { correlationId: 'a' });
  await first.delivery.drain(5000);
  await first.delivery.stop();

  const other = join(fixture.root, 'other');
  await mkdir(other);
  await rename(join(fixture.spoolDirectory, 'delivery.db'), join(other, 'delivery.db'));
  const writer = await openSpool({ directory: other, maxBytes: 64 * 1024 * 1024 });
  t.after(() => writer.close());
  const destinations = await openDestinations(other);
  await destinations.intern(settings());
  const moved = { ...fixture, writer, destinations, spoolDirectory: other };
  const second = await start(t, moved);
  await take(moved, second.delivery, { correlationId: 'b' });
  await until(() => shipped(second.delivery));
  assert.deepEqual((await events(fixture.blobs)).map((event) => event.correlationid).sort(), ['a', 'b']);
});
