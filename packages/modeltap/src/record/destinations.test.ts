import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { isModeltapError } from '../kit/errors.ts';
import { type DestinationSettings, openDestinations, readDestinations } from './destinations.ts';

async function directory(t: { after(fn: () => Promise<void>): void }): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'modeltap-destinations-'));
  t.after(() => rm(path, { recursive: true }));
  return path;
}

function settings(collection: string, batchWindowMs = 500): DestinationSettings {
  return {
    endpoint: 'e',
    deployment: 'd',
    collection,
    source: 's',
    datastore: 'w',
    path: `p/${collection}`,
    rollingRate: 'hour',
    batch: 'same_id',
    batchWindowMs,
  };
}

test('the same settings get the same number, others the next, and both outlive the process', async (t) => {
  const path = await directory(t);
  const first = await openDestinations(path);
  const made = await Promise.all([
    first.intern(settings('a')),
    first.intern(settings('b')),
    first.intern(settings('a')),
  ]);
  assert.deepEqual(
    made.map((one) => one.id),
    [1, 2, 1],
  );
  assert.equal(made[0], made[2]);

  const second = await openDestinations(path);
  assert.deepEqual(second.all(), [made[0], made[1]]);
  assert.equal((await second.intern(settings('b'))).id, 2);
  assert.equal((await second.intern(settings('b', 900))).id, 3);
  assert.equal(second.get(3)?.batchWindowMs, 900);
  assert.deepEqual(await readDestinations(path), second.all());
  assert.deepEqual(await readdir(path), ['destinations.json']);
});

test('a file that is not one is an error that names it, and is left as it is', async (t) => {
  const path = await directory(t);
  for (const text of ['{"version":1,"desti', '{"version":99,"destinations":[]}', '[]']) {
    await writeFile(join(path, 'destinations.json'), text);
    await assert.rejects(
      openDestinations(path),
      (error) => isModeltapError(error) && error.code === 'destinations_damaged',
    );
    assert.equal(await readFile(join(path, 'destinations.json'), 'utf8'), text);
  }
});

test('a crash while writing leaves the old list', async (t) => {
  const path = await directory(t);
  await (await openDestinations(path)).intern(settings('a'));
  await writeFile(join(path, 'destinations.json.new'), '{"version":1,"destinat');
  const again = await openDestinations(path);
  assert.equal(again.all().length, 1);
  assert.equal((await again.intern(settings('b'))).id, 2);
});
