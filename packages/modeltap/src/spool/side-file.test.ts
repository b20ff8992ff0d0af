import assert from 'node:assert/strict';
import { readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'node:test';
import { openSpool, scanSpool } from './spool.ts';
import { type Faults, KiB, MiB, faulty, put, readBack, scratch, systemError } from './support.test-suite.ts';
import type { SpoolWriter } from './types.ts';

const small = { maxBytes: 4 * MiB, segmentBytes: 256 * KiB };

async function sealed(spool: SpoolWriter, chunks: readonly Uint8Array[]) {
  const side = await spool.openSideFile();
  for (const chunk of chunks) await side.write(chunk);
  await side.seal();
  return side;
}

async function sidesOf(directory: string): Promise<string[]> {
  return (await readdir(directory)).filter((name) => name.endsWith('.side'));
}

test('a side file is found through its frame, survives closing and goes when the frame is released', async (t) => {
  const directory = await scratch(t);
  const first = await openSpool({ directory, ...small });
  const before = first.diskBytes;
  const side = await sealed(first, [Buffer.alloc(500_000, 'a'), Buffer.alloc(300_000, 'b')]);
  assert.equal(side.bytes, 800_000);
  assert.equal(first.diskBytes, before + 800_000);
  assert.equal(await put(first, 'with', side), 'ok');
  assert.equal(await put(first, 'without'), 'ok');
  assert.ok(first.pendingBytes > 800_000 && first.pendingBytes < 801_000);
  await side.abort();
  assert.equal((await sidesOf(directory)).length, 1, 'abort does nothing once it is appended');
  await first.close();

  const second = await openSpool({ directory, ...small });
  assert.deepEqual([second.recovery.orphanSideFiles, second.recovery.missingSideFiles], [0, 0]);
  const [a, b] = await readBack(directory, 0, second.committed);
  assert.equal(b?.sideFile, undefined);
  assert.equal((await readFile(a?.sideFile ?? '')).toString(), 'a'.repeat(500_000) + 'b'.repeat(300_000));
  const full = second.diskBytes;
  await second.release(a?.position ?? 0);
  assert.equal((await sidesOf(directory)).length, 1);
  await second.release(b?.position ?? 0);
  assert.deepEqual(await sidesOf(directory), []);
  assert.equal(second.diskBytes, full - 800_000);
  assert.ok(second.pendingBytes < 100);
  await second.close();
});

test('a side file that is given up or forgotten leaves nothing behind', async (t) => {
  const directory = await scratch(t);
  const spool = await openSpool({ directory, ...small });
  const before = spool.diskBytes;
  const half = await spool.openSideFile();
  await half.write(Buffer.alloc(1000));
  await half.abort();
  await half.abort();
  await assert.rejects(half.write(Buffer.alloc(1)), { code: 'spool_disk_error' });
  const whole = await sealed(spool, [Buffer.alloc(1000)]);
  await whole.abort();
  assert.deepEqual([await sidesOf(directory), spool.diskBytes], [[], before]);
  await sealed(spool, [Buffer.alloc(1000)]);
  await spool.close();
  await writeFile(join(directory, 'notes.side'), 'not ours');
  const again = await openSpool({ directory, ...small });
  assert.equal(again.recovery.orphanSideFiles, 1);
  assert.deepEqual(await sidesOf(directory), ['notes.side']);
  await again.close();
});

test('a frame whose side file is gone is reported and still read', async (t) => {
  const directory = await scratch(t);
  const spool = await openSpool({ directory, ...small });
  await put(spool, 'a', await sealed(spool, [Buffer.from('body')]));
  await spool.close();
  for (const name of await sidesOf(directory)) await rm(join(directory, name));
  const again = await openSpool({ directory, ...small });
  assert.deepEqual([again.recovery.frames, again.recovery.missingSideFiles], [1, 1]);
  for await (const frame of scanSpool(directory)) assert.match(frame.sideFile ?? '', /[0-9a-f]{32}\.side$/);
  await again.release(again.committed);
  await again.close();
});

test('side files count against the limit and a refused write leaves the rest usable', async (t) => {
  const directory = await scratch(t);
  const spool = await openSpool({ directory, ...small });
  const side = await spool.openSideFile();
  let taken = 0;
  await assert.rejects(
    async () => {
      for (;;) {
        await side.write(Buffer.alloc(100_000));
        taken += 1;
        assert.ok(spool.diskBytes <= small.maxBytes);
      }
    },
    { code: 'spool_full', httpStatus: 503 },
  );
  assert.ok(taken >= 41);
  assert.equal(await put(spool, 'no room'), 'spool_full');
  await side.abort();
  assert.equal(await put(spool, 'room'), 'ok');
  await spool.close();
});

test('so many side files and no more, stored ones and those of an earlier run included', async (t) => {
  const directory = await scratch(t);
  const options = { directory, ...small, maxSideFiles: 3 };
  const first = await openSpool(options);
  assert.equal(await put(first, 'one', await sealed(first, [Buffer.from('1')])), 'ok');
  assert.equal(await put(first, 'two', await sealed(first, [Buffer.from('2')])), 'ok');
  const third = await first.openSideFile();
  await assert.rejects(first.openSideFile(), { code: 'spool_full' });
  await third.abort();
  await first.close();

  const spool = await openSpool(options);
  const own = await sealed(spool, [Buffer.from('3')]);
  await assert.rejects(spool.openSideFile(), { code: 'spool_full' });
  assert.equal(await put(spool, 'three', own), 'ok');
  await assert.rejects(spool.openSideFile(), { code: 'spool_full' });
  await spool.release(spool.committed);
  for (let room = 0; room < 3; room += 1) await sealed(spool, [Buffer.from('4')]);
  await assert.rejects(spool.openSideFile(), { code: 'spool_full' });
  await spool.close();
});

test('a side file that could not be written is not sealed, one that is not sealed is not appended', async (t) => {
  const directory = await scratch(t);
  const faults: Faults = {};
  const spool = await openSpool({ directory, ...small }, faulty(faults));
  const side = await spool.openSideFile();
  assert.throws(() => spool.append([Buffer.from('x')], () => assert.fail(), side), { code: 'internal' });
  faults.write = () => systemError('ENOSPC');
  await assert.rejects(side.write(Buffer.from('x')), { code: 'spool_full' });
  delete faults.write;
  await assert.rejects(side.seal(), { code: 'spool_full' });
  await side.abort();

  const lost = await sealed(spool, [Buffer.from('body')]);
  faults.write = (_, __, batch) => (batch ? systemError('EIO') : undefined);
  assert.equal(await put(spool, 'fails', lost), 'spool_disk_error');
  assert.deepEqual(await sidesOf(directory), [], 'an append that fails later takes its side file with it');
  await spool.close();
  await assert.rejects(spool.openSideFile(), { code: 'spool_closed' });
});
