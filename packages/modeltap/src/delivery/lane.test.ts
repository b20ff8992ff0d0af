import assert from 'node:assert/strict';
import { appendFile, rm, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type ObjectStore, StorageError, type StorageErrorKind } from '../storage/store.ts';
import type { CycleStep } from './apply.ts';
import { events, files, type Fixture, hastyClock, HOUR, openFixture, settings, type TestLane } from './fixture.test.ts';

const FOLDER = 'mdc/ep/blue/model_inputs/2024/03/05/18';

/** Runs a lane until nothing is left. */
async function finish({ lane, kill }: TestLane): Promise<void> {
  lane.drain();
  await lane.run();
  await kill();
}

/** Every accepted record is stored or dropped, and the ledger says the same. */
async function assertLedger(fixture: Fixture, expected: { stored: number; dropped?: object }): Promise<void> {
  const ledger = fixture.ledger();
  assert.deepEqual(await ledger.check(), []);
  const rows = ledger.rows();
  assert.equal(
    rows.reduce((sum, row) => sum + row.spooled, 0),
    0,
  );
  assert.equal(
    rows.reduce((sum, row) => sum + row.stored, 0),
    expected.stored,
  );
  assert.deepEqual(Object.assign({}, ...rows.map((row) => row.dropped)), expected.dropped ?? {});
}

/** The ids each record carries as its correlation id, in stored order. */
async function storedIds(fixture: Fixture): Promise<readonly string[]> {
  return (await events(fixture.blobs)).map((event) => event.correlationid).sort();
}

/** Names of the side files of the spool. */
async function sideFiles(fixture: Fixture): Promise<readonly string[]> {
  return [...(await files(fixture.spoolDirectory)).keys()].filter((name) => name.endsWith('.side'));
}

/** A store that answers as `rule` says before or after the real one does its work. */
function unruly(
  store: ObjectStore,
  rule: (call: string, key: string, when: 'before' | 'after') => StorageErrorKind | undefined,
  limits = store.limits,
): ObjectStore {
  const around = async <T>(call: string, key: string, work: () => Promise<T>): Promise<T> => {
    const before = rule(call, key, 'before');
    if (before) throw new StorageError(before, `${call} ${before}`, { fix: 'mend it', retryAfterMs: 1234 });
    const result = await work();
    const after = rule(call, key, 'after');
    if (after) throw new StorageError(after, `${call} ${after}`);
    return result;
  };
  return {
    kind: store.kind,
    limits,
    url: (key) => store.url(key),
    put: (key, body, options) => around('put', key, () => store.put(key, body, options)),
    append: (key, chunk, offset) => around('append', key, () => store.append(key, chunk, offset)),
    get: (key, range) => store.get(key, range),
    head: (key) => store.head(key),
    list: (options) => around('list', options?.prefix ?? '', () => store.list(options)),
    delete: (key) => store.delete(key),
  };
}

test('records are filed by their own hour, in order, each on a line of its own', async (t) => {
  const fixture = await openFixture(t);
  await fixture.append({ correlationId: 'one', timeMs: HOUR + 3_599_999 });
  await fixture.append({ correlationId: 'late', timeMs: HOUR - 1 });
  await fixture.append({ correlationId: 'two', body: '[{"n":9007199254740993,"p":"a\\/b"}]' });
  await finish(await fixture.lane());
  const stored = await files(fixture.blobs);
  const file = `${fixture.writer.spoolId}000000.jsonl`;
  assert.deepEqual([...stored.keys()].sort(), [`${FOLDER.replace(/18$/, '17')}/${file}`, `${FOLDER}/${file}`]);
  const lines = String(stored.get(`${FOLDER}/${file}`)).split('\n');
  assert.match(lines[0] ?? '', /"time":"2024-03-05T18:59:59Z".*"correlationid":"one"/);
  assert.ok(lines[1]?.includes('"data":[{"n":9007199254740993,"p":"a\\/b"}],"contentrange":"bytes 0-34/35"'), lines[1]);
  await assertLedger(fixture, { stored: 3 });
});

test('a second cycle grows the same file', async (t) => {
  const fixture = await openFixture(t);
  const { lane, kill } = await fixture.lane();
  for (const correlationId of ['a', 'b', 'c']) {
    await fixture.append({ correlationId });
    assert.equal(await lane.cycle(), true);
  }
  assert.equal(await lane.cycle(), false);
  await kill();
  assert.equal((await files(fixture.blobs)).size, 1);
  assert.deepEqual(await storedIds(fixture), ['a', 'b', 'c']);
});

test('large rows and opaque bytes lie beside the events that name them', async (t) => {
  const fixture = await openFixture(t);
  const large = JSON.stringify([{ text: 'x'.repeat(5_000_000) }]);
  await fixture.append({ correlationId: 'rows', body: large, beside: true });
  await fixture.append({ correlationId: 'bytes', body: Buffer.from([0, 255, 10]), id: '../../evil' });
  await finish(await fixture.lane());
  const [rows, bytes] = await events(fixture.blobs);
  const stored = await files(fixture.blobs);
  assert.equal(rows && 'data' in rows, false);
  assert.equal(rows?.contentrange, `bytes 0-${large.length - 1}/${large.length}`);
  assert.equal(rows?.dataref, fixture.store.url(`${FOLDER}/${rows?.id}.json`));
  assert.equal(stored.get(`${FOLDER}/${rows?.id}.json`)?.equals(Buffer.from(large)), true);
  assert.equal(bytes?.id, '../../evil');
  assert.equal(bytes?.data, bytes?.dataref);
  const name = String(bytes?.dataref).split('/').at(-1);
  assert.deepEqual(stored.get(`${FOLDER}/${name}`), Buffer.from([0, 255, 10]));
  await assertLedger(fixture, { stored: 2 });
});

/** Some records of every kind, over two hours and two destinations. */
async function appendMixture(fixture: Fixture): Promise<readonly string[]> {
  const other = await fixture.destinations.intern(
    settings({ collection: 'model_outputs', path: 'mdc/ep/blue/model_outputs' }),
  );
  const ids = Array.from({ length: 12 }, (_, n) => `r${String(n).padStart(2, '0')}`);
  for (const [n, correlationId] of ids.entries()) {
    await fixture.append({
      correlationId,
      destinationId: n % 3 === 0 ? other.id : 1,
      timeMs: HOUR + (n % 2) * 3_600_000,
      ...(n === 5 && { body: 'not json' }),
      ...(n === 7 && { body: JSON.stringify(['y'.repeat(4_200_000)]), beside: true }),
      ...(n === 9 && { body: JSON.stringify(['z'.repeat(2_000_000)]), beside: true }),
    });
  }
  return ids;
}

async function crashOnce(t: TestContext, step: CycleStep, occurrence: number): Promise<void> {
  const fixture = await openFixture(t);
  const ids = await appendMixture(fixture);
  let seen = 0;
  const crash = new Error('crash');
  const first = await fixture.lane({
    onStep: (at) => {
      if (at !== step) return;
      seen += 1;
      if (seen === occurrence) throw crash;
    },
  });
  await assert.rejects(first.lane.cycle(), crash);
  await first.kill();
  await finish(await fixture.lane());
  assert.deepEqual(await storedIds(fixture), ids);
  assert.equal([...(await files(fixture.blobs)).keys()].filter((path) => path.endsWith('.jsonl')).length, 4);
  await assertLedger(fixture, { stored: 12 });
}

const CRASHES: readonly (readonly [CycleStep, number])[] = [
  ['intent', 1],
  ['raws', 1],
  ['append', 1],
  ['append', 3],
  ['finish', 1],
];
for (const [step, occurrence] of CRASHES) {
  test(`a crash behind step ${step} (${occurrence}) leaves every record stored exactly once`, (t) =>
    crashOnce(t, step, occurrence));
}

test('lost answers do not store anything twice', async (t) => {
  const fixture = await openFixture(t);
  const ids = await appendMixture(fixture);
  const answers = new Map<string, number>();
  const store = unruly(fixture.store, (call, key, when) => {
    if (when === 'before') return undefined;
    const n = (answers.get(call + key) ?? 0) + 1;
    answers.set(call + key, n);
    return n <= 2 ? 'unreachable' : undefined;
  });
  await finish(await fixture.lane({ store }));
  assert.deepEqual(await storedIds(fixture), ids);
  await assertLedger(fixture, { stored: 12 });
});

for (const kind of ['refused', 'throttled', 'unreachable', 'full', 'no_container'] as const) {
  test(`a store that is ${kind} for a while holds the records, says so, and gets them when it is back`, async (t) => {
    const fixture = await openFixture(t);
    await fixture.append({ correlationId: 'held' });
    let left = 6;
    const store = unruly(fixture.store, (_call, _key, when) => {
      if (when === 'after' || left === 0) return undefined;
      left -= 1;
      return kind;
    });
    const clock = hastyClock();
    const test = await fixture.lane({ store, clock });
    await test.lane.attempt();
    assert.equal(test.lane.state.status, 'retrying');
    assert.deepEqual(
      { ...test.lane.state.trouble, sinceMs: 0, message: '' },
      { kind, message: '', fix: 'mend it', sinceMs: 0, attempts: 1 },
    );
    assert.equal(fixture.ledger().rows()[0]?.spooled, 1);
    await finish(test);
    assert.equal(test.lane.state.status, 'ok');
    assert.deepEqual(await storedIds(fixture), ['held']);
    assert.deepEqual(test.logs, [
      'warn Records cannot be stored now; they stay in the spool.',
      'info Records are being stored again.',
    ]);
    assert.ok((clock.slept[0] ?? 0) >= 1234, 'waits as long as the store asked');
    await assertLedger(fixture, { stored: 1 });
  });
}

test('a foreign writer makes the lane go on in the next file, nothing lost and nothing twice', async (t) => {
  const fixture = await openFixture(t);
  const file = join(fixture.blobs, FOLDER, `${fixture.writer.spoolId}000000.jsonl`);
  const first = await fixture.lane();
  await fixture.append({ correlationId: 'a' });
  await first.lane.cycle();
  await appendFile(file, '{"correlationid":"foreign"}\n');
  await fixture.append({ correlationId: 'b' });
  await finish(first);
  assert.deepEqual(await storedIds(fixture), ['a', 'b', 'foreign']);
  assert.ok((await files(fixture.blobs)).has(`${FOLDER}/${fixture.writer.spoolId}000001.jsonl`));
  assert.equal(first.lane.state.conflicts, 1);
  await assertLedger(fixture, { stored: 2 });
});

for (const [what, change, ids] of [
  ['grown', (file: string) => appendFile(file, '{"correlationid":"foreign"}\n'), ['a', 'b', 'c', 'foreign']],
  ['emptied', (file: string) => truncate(file, 0), ['b', 'c']],
] as const) {
  test(`a file ${what} by someone else between a crash and the next start does not double or lose the batch`, async (t) => {
    const fixture = await openFixture(t);
    const file = join(fixture.blobs, FOLDER, `${fixture.writer.spoolId}000000.jsonl`);
    const setup = await fixture.lane();
    await fixture.append({ correlationId: 'a' });
    await setup.lane.cycle();
    await setup.kill();
    await fixture.append({ correlationId: 'b' });
    const crash = new Error('crash');
    const crashing = await fixture.lane({
      onStep: (step) => {
        if (step === 'finish') throw crash;
      },
    });
    await assert.rejects(crashing.lane.cycle(), crash);
    await crashing.kill();
    await change(file);
    await fixture.append({ correlationId: 'c' });
    await finish(await fixture.lane());
    assert.deepEqual(await storedIds(fixture), ids);
    await assertLedger(fixture, { stored: 3 });
  });
}

test('a batch that was written before a crash is not written again when the program would now make other bytes', async (t) => {
  for (const step of ['intent', 'finish'] as const) {
    const fixture = await openFixture(t);
    await fixture.append({ correlationId: 'blob', body: 'opaque' });
    const crash = new Error('crash');
    const crashing = await fixture.lane({
      onStep: (at) => {
        if (at === step) throw crash;
      },
    });
    await assert.rejects(crashing.lane.cycle(), crash);
    await crashing.kill();
    const moved: ObjectStore = { ...unruly(fixture.store, () => undefined), url: (key) => `https://elsewhere/${key}` };
    const second = await fixture.lane({ store: moved });
    await second.lane.cycle();
    await fixture.append({ correlationId: 'next' });
    await finish(second);
    assert.deepEqual(await storedIds(fixture), ['blob', 'next']);
    assert.equal((await files(fixture.blobs)).size, 2);
  }
});

test('records that cannot be stored are dropped for a counted reason, and only those', async (t) => {
  const fixture = await openFixture(t);
  const bad = await fixture.destinations.intern(settings({ collection: 'bad', path: 'mdc/../../up' }));
  await fixture.append({ correlationId: 'good' });
  await fixture.append({ destinationId: 77 });
  await fixture.append({ attributes: '"nothing"' });
  await fixture.append({ destinationId: bad.id });
  await fixture.append({ beside: true, body: '["cut"]' });
  await fixture.append({ beside: true, body: '["gone"]' });
  await new Promise<void>((resolve) => {
    fixture.writer.append([Buffer.from('not a record of any version')], () => resolve());
  });
  fixture.counts.accepted(0, 0, 0, 0);
  const [cut = '', gone = ''] = await sideFiles(fixture);
  await truncate(join(fixture.spoolDirectory, cut), 3);
  await rm(join(fixture.spoolDirectory, gone));
  const test = await fixture.lane();
  await finish(test);
  assert.deepEqual(await storedIds(fixture), ['good']);
  assert.ok(test.logs.some((line) => line.startsWith('error Accepted records could not be stored')));
  await assertLedger(fixture, {
    stored: 1,
    dropped: { corrupt: 1, destination_unknown: 1, store_invalid: 1, side_file_missing: 2 },
  });
});

test('an object the store never takes is given up after the store is seen to take others', async (t) => {
  const fixture = await openFixture(t);
  const poison = await fixture.destinations.intern(settings({ collection: 'poison', path: 'poison' }));
  await fixture.append({ destinationId: poison.id, correlationId: 'lines' });
  await fixture.append({ correlationId: 'raw', body: 'opaque' });
  await fixture.append({ correlationId: 'good' });
  const store = unruly(fixture.store, (call, key) =>
    key.startsWith('poison') || (call === 'put' && key.startsWith('mdc')) ? 'invalid' : undefined,
  );
  await finish(await fixture.lane({ store }));
  assert.deepEqual(await storedIds(fixture), ['good']);
  await assertLedger(fixture, { stored: 1, dropped: { store_invalid: 1 } });
  const dropped = fixture
    .ledger()
    .rows()
    .map((row) => [row.collection, row.dropped.store_invalid]);
  assert.deepEqual(dropped, [
    ['model_inputs', 1],
    ['poison', 1],
  ]);
});

test('a store that calls everything invalid is held against the store: nothing is dropped', async (t) => {
  const fixture = await openFixture(t);
  await fixture.append({ correlationId: 'held' });
  let broken = true;
  const test = await fixture.lane({ store: unruly(fixture.store, () => (broken ? 'invalid' : undefined)) });
  for (let n = 0; n < 8; n += 1) await test.lane.attempt();
  assert.equal(test.lane.state.trouble?.kind, 'invalid');
  broken = false;
  await finish(test);
  await assertLedger(fixture, { stored: 1 });
});

test('files are sealed at the number of appends a store takes, and each cycle makes one where it takes none', async (t) => {
  for (const [appends, expected] of [
    [2, 3],
    [0, 5],
  ] as const) {
    const fixture = await openFixture(t);
    const store = unruly(fixture.store, () => undefined, { appends, appendBytes: 1_000_000 });
    const { lane, kill } = await fixture.lane({ store });
    const ids = ['a', 'b', 'c', 'd', 'e'];
    for (const correlationId of ids) {
      await fixture.append({ correlationId });
      await lane.cycle();
    }
    await kill();
    const names = [...(await files(fixture.blobs)).keys()].map((path) => path.slice(-12)).sort();
    assert.deepEqual(
      names,
      Array.from({ length: expected }, (_, n) => `00000${n}.jsonl`),
    );
    assert.deepEqual(await storedIds(fixture), ids);
  }
});

test('a file is sealed before it grows above what the store lets it grow to', async (t) => {
  const fixture = await openFixture(t);
  const { lane } = await fixture.lane({
    store: unruly(fixture.store, () => undefined, { appends: 9, appendBytes: 2500 }),
  });
  for (let n = 0; n < 4; n += 1) {
    await fixture.append({ body: JSON.stringify(['z'.repeat(1000)]) });
    await lane.cycle();
  }
  const sizes = [...(await files(fixture.blobs)).values()].map((bytes) => bytes.length);
  assert.equal(sizes.length, 4);
  assert.ok(Math.max(...sizes) <= 2500, String(sizes));
});

test('late records of many hours are all filed, and a folder that was forgotten goes on in a new file', async (t) => {
  const fixture = await openFixture(t);
  const first = await fixture.lane();
  const ids = Array.from({ length: 60 }, (_, n) => String(n).padStart(3, '0'));
  for (const [n, correlationId] of ids.entries()) await fixture.append({ correlationId, timeMs: HOUR - n * 3_600_000 });
  await first.lane.cycle();
  first.journal.prune(10);
  for (const [n, correlationId] of ids.entries()) {
    await fixture.append({ correlationId: `x${correlationId}`, timeMs: HOUR - n * 3_600_000 });
  }
  await finish(first);
  assert.deepEqual(await storedIds(fixture), [...ids, ...ids.map((id) => `x${id}`)]);
  assert.equal((await files(fixture.blobs)).size, 60 + 50);
  assert.equal(fixture.ledger().rows().length, 60);
  await assertLedger(fixture, { stored: 120 });
});

test('one cycle writes a bounded number of folders', async (t) => {
  const fixture = await openFixture(t);
  for (let n = 0; n < 7; n += 1) await fixture.append({ correlationId: String(n), timeMs: HOUR + n * 3_600_000 });
  const { lane, kill } = await fixture.lane({ maxFolders: 3 });
  const sizes: number[] = [];
  while (await lane.cycle()) sizes.push((await files(fixture.blobs)).size);
  await kill();
  assert.deepEqual(sizes, [3, 6, 7]);
  await assertLedger(fixture, { stored: 7 });
});
