import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { cp, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { openSpool, scanSpool } from './spool.ts';
import {
  type Faults,
  KiB,
  MiB,
  faulty,
  named,
  put,
  readBack,
  scratch,
  systemError,
  texts,
} from './support.test-suite.ts';
import type { SpoolWriter } from './types.ts';

const small = { maxBytes: 4 * MiB, segmentBytes: 256 * KiB };

async function contents(directory: string): Promise<string[]> {
  const found: string[] = [];
  for await (const frame of scanSpool(directory)) found.push(frame.payload.toString('latin1'));
  return found;
}

/** Appends until it is refused. */
async function fill(spool: SpoolWriter, bytes: number, from = 0): Promise<{ taken: string[]; refusal: string }> {
  const taken: string[] = [];
  for (let i = from; ; i += 1) {
    const fate = await put(spool, named(i, bytes));
    if (fate !== 'ok') return { taken, refusal: fate };
    taken.push(named(i, bytes));
  }
}

/** Appends the payload until the spool takes it again. */
async function eventually(spool: SpoolWriter, payload: string): Promise<void> {
  for (let i = 0; i < 200; i += 1) {
    if ((await put(spool, payload)) === 'ok') return;
    await sleep(20);
  }
  assert.fail(`never taken again: ${spool.refusal}`);
}

test('a full spool refuses, stays under its limit, loses nothing and goes on after a release', async (t) => {
  const directory = await scratch(t);
  const spool = await openSpool({ directory, ...small });
  const { taken, refusal } = await fill(spool, 10_000);
  assert.equal(refusal, 'spool_full');
  assert.ok(taken.length * 10_000 > 3.6 * MiB && spool.diskBytes <= small.maxBytes, `${taken.length} of 10 kB`);
  const all = await readBack(directory, 0, spool.committed);
  assert.deepEqual(texts(all), taken);
  await spool.release(all[100]?.position ?? 0);
  const more = await fill(spool, 10_000, 1000);
  assert.ok(more.taken.length > 50 && spool.diskBytes <= small.maxBytes);
  await spool.close();
  assert.deepEqual(await contents(directory), [...taken.slice(100), ...more.taken]);
});

test('a full spool can be closed, opened, emptied and used again', async (t) => {
  const directory = await scratch(t);
  const first = await openSpool({ directory, ...small });
  const { taken } = await fill(first, 50_000);
  await first.close();
  const second = await openSpool({ directory, ...small });
  assert.equal(second.recovery.frames, taken.length);
  assert.equal(await put(second, named('x', 50_000)), 'spool_full');
  await second.release(second.committed);
  assert.equal(await put(second, named('x', 50_000)), 'ok');
  await second.close();
  assert.deepEqual(await contents(directory), [named('x', 50_000)]);
});

test('appends beyond the buffers are refused as busy, and the spool takes more when the disk has caught up', async (t) => {
  const directory = await scratch(t);
  const spool = await openSpool({ directory, ...small, batchBytes: 64 * KiB, queueBytes: 128 * KiB });
  const fates: unknown[] = [];
  let taken = 0;
  while (spool.append([Buffer.alloc(10_000)], (refusal) => fates.push(refusal))) taken += 1;
  assert.equal(spool.refusal, 'spool_busy');
  assert.ok(taken >= 12 && taken <= 20, `${taken} of 10 kB in 128 KiB and a buffer`);
  await eventually(spool, 'later');
  assert.deepEqual(
    fates,
    Array.from({ length: taken }, () => undefined),
  );
  await spool.close();
});

for (const ways of ['file can be cut', 'file cannot be cut', 'disk refuses every way but the meta file'] as const) {
  test(`a batch that fails half written is refused and never read, also after a crash: ${ways}`, async (t) => {
    const directory = await scratch(t);
    const live = join(directory, 'live');
    const faults: Faults = {};
    const spool = await openSpool({ directory: live, ...small }, faulty(faults));
    for (const text of ['a', 'b', 'c']) assert.equal(await put(spool, text), 'ok');
    faults.partial = 14_000; // Four whole frames and the beginning of a fifth.
    const onlyMeta = ways === 'disk refuses every way but the meta file';
    faults.write = (_, data, batch) => (batch || (onlyMeta && data[0] !== 0x7b) ? systemError('EIO') : undefined);
    if (ways !== 'file can be cut') faults.truncate = () => systemError('EIO');
    const fates = await Promise.all(['d', 'e', 'f', 'g', 'h'].map((text) => put(spool, named(text, 3000))));
    assert.deepEqual(new Set(fates), new Set(['spool_disk_error']));
    await cp(live, join(directory, 'crashed'), { recursive: true });
    assert.deepEqual(await contents(join(directory, 'crashed')), ['a', 'b', 'c']);

    delete faults.write;
    delete faults.truncate;
    await eventually(spool, named('i', 3000));
    assert.equal(await put(spool, 'j'), 'ok');
    const all = await readBack(live, 0, spool.committed);
    assert.deepEqual(texts(all), ['a', 'b', 'c', named('i', 3000), 'j']);
    await cp(live, join(directory, 'later'), { recursive: true });
    assert.deepEqual(await contents(join(directory, 'later')), texts(all));
    await spool.close();
    const again = await openSpool({ directory: live, ...small });
    assert.deepEqual([again.recovery.frames, again.recovery.damaged, again.recovery.tornBytes], [5, [], 0]);
    await again.close();
  });
}

test('while a failed batch cannot be removed nothing is taken, and closing still ends', async (t) => {
  const directory = await scratch(t);
  const faults: Faults = {};
  const spool = await openSpool({ directory, ...small }, faulty(faults));
  await put(spool, 'a');
  faults.write = () => systemError('EIO');
  faults.truncate = () => systemError('EIO');
  faults.rename = () => systemError('EIO');
  assert.equal(await put(spool, 'b'), 'spool_disk_error');
  await sleep(300);
  for (let i = 0; i < 3; i += 1) assert.equal(await put(spool, 'c'), 'spool_disk_error');
  await spool.close();
  assert.deepEqual(await contents(directory), ['a']);
});

test('a disk that fails at the first batch of a segment leaves no trace of it', async (t) => {
  const directory = await scratch(t);
  const faults: Faults = { partial: 5000 };
  const spool = await openSpool({ directory, ...small }, faulty(faults));
  faults.write = (position, _, batch) => (batch && position === 0 ? systemError('EIO') : undefined);
  assert.equal(await put(spool, 'lost'), 'spool_disk_error');
  assert.deepEqual(await contents(directory), []);
  delete faults.write;
  await eventually(spool, named('a', 200_000));
  faults.write = (position, _, batch) => (batch && position === 0 ? systemError('EIO') : undefined);
  assert.equal(await put(spool, named('next segment', 100_000)), 'spool_disk_error');
  assert.equal(await put(spool, 'x'), 'spool_disk_error', 'refused at once for a while');
  delete faults.write;
  await eventually(spool, named('b', 100_000));
  await spool.close();
  assert.deepEqual(await contents(directory), [named('a', 200_000), named('b', 100_000)]);
});

test('a disk without room refuses with spool_full before anything of a batch is written, and uses what it has', async (t) => {
  const directory = await scratch(t);
  const faults: Faults = {};
  const spool = await openSpool({ directory, ...small }, faulty(faults));
  await put(spool, 'a');
  faults.write = (_, __, batch) => (batch ? undefined : systemError('ENOSPC'));
  const { taken, refusal } = await fill(spool, 9100);
  assert.equal(refusal, 'spool_full');
  assert.ok(taken.length >= 25, 'the segment that was already filled with zeros is used');
  assert.equal(
    spool.append([Buffer.alloc(9000)], () => assert.fail()),
    false,
  );
  await sleep(260);
  assert.equal(await put(spool, named('s', 1000)), 'ok', 'a small one still fits');
  delete faults.write;
  await eventually(spool, named('z', 9100));
  await spool.close();
  assert.deepEqual(await contents(directory), ['a', ...taken, named('s', 1000), named('z', 9100)]);
});

const mountable = (() => {
  try {
    return (
      process.platform === 'linux' && process.getuid?.() === 0 && execFileSync('unshare', ['-m', 'true']).length === 0
    );
  } catch {
    return false;
  }
})();

test('on a small file system that is really full nothing acknowledged is lost', {
  skip: !mountable && 'needs root on Linux',
}, async (t) => {
  const directory = await scratch(t);
  const disk = join(directory, 'disk');
  mkdirSync(disk);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', disk]);
  try {
    const live = join(disk, 'spool');
    const spool = await openSpool({ directory: live, maxBytes: 64 * MiB, segmentBytes: 512 * KiB });
    const { taken, refusal } = await fill(spool, 20_000);
    assert.equal(refusal, 'spool_full');
    assert.ok(taken.length * 20_000 > 2 * MiB);
    assert.deepEqual(texts(await readBack(live, 0, spool.committed)), taken);
    await spool.release(spool.committed);
    await eventually(spool, named('x', 20_000));
    const { bavail, bsize } = await statfs(disk);
    await writeFile(join(disk, 'ballast'), Buffer.alloc(bavail * bsize));
    await eventually(spool, named('y', 20_000));
    await spool.close();
    const again = await openSpool({ directory: live, maxBytes: 64 * MiB, segmentBytes: 512 * KiB });
    assert.deepEqual([again.spoolId, again.recovery.frames], [spool.spoolId, 2], 'opens on a full disk too');
    await eventually(again, named('z', 20_000));
    await again.close();
    assert.deepEqual(await contents(live), [named('x', 20_000), named('y', 20_000), named('z', 20_000)]);
  } finally {
    execFileSync('umount', ['-l', disk]);
  }
});
