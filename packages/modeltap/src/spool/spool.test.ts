import assert from 'node:assert/strict';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'node:test';
import fc from 'fast-check';
import { realEffects, realFiles } from './files.ts';
import { openSpool, openSpoolReader, scanKept, scanSpool } from './spool.ts';
import { KiB, MiB, named, put, readBack, scratch, texts } from './support.test-suite.ts';

const small = { maxBytes: 4 * MiB, segmentBytes: 256 * KiB };

test('payloads come back in order, byte for byte, with positions that name them', async (t) => {
  const directory = await scratch(t);
  const spool = await openSpool({ directory, ...small });
  const order: number[] = [];
  const payloads = [Buffer.alloc(0), Buffer.from([0, 1, 255]), Buffer.alloc(70_000, 7), Buffer.from('é{"a":1}')];
  await Promise.all(
    payloads.map(
      (payload, index) =>
        new Promise<void>((resolve) => {
          const parts = [payload.subarray(0, 2), payload.subarray(2)];
          assert.ok(spool.append(parts, (refusal) => (assert.equal(refusal, undefined), order.push(index), resolve())));
        }),
    ),
  );
  assert.deepEqual(order, [0, 1, 2, 3]);
  const frames = await readBack(directory, 0, spool.committed, 1);
  assert.deepEqual(
    frames.map(({ text }) => Buffer.from(text, 'latin1')),
    payloads,
  );
  assert.equal(frames.at(-1)?.next, spool.committed);
  const again = await readBack(directory, frames[2]?.position ?? 0, spool.committed);
  assert.deepEqual(texts(again), texts(frames.slice(2)), 'reading can begin at any position that was given out');
  await spool.close();
});

test('an acknowledged payload is in the file at the moment of the acknowledgement', async (t) => {
  const directory = await scratch(t);
  const spool = await openSpool({ directory, ...small });
  for (let i = 0; i < 20; i += 1) {
    assert.equal(await put(spool, named(i, 900)), 'ok');
    assert.equal((await readBack(directory, 0, Number.POSITIVE_INFINITY)).length, i + 1);
  }
  await spool.close();
});

test('nothing at or behind "until" is read, and about maxBytes at a time', async (t) => {
  const directory = await scratch(t);
  const spool = await openSpool({ directory, ...small });
  for (let i = 0; i < 10; i += 1) await put(spool, named(i, 1000));
  const all = await readBack(directory, 0, spool.committed);
  const some = await readBack(directory, 0, all[4]?.position ?? 0);
  assert.deepEqual(texts(some), texts(all.slice(0, 4)));
  const reader = await openSpoolReader(directory);
  const { frames } = await reader.read(0, spool.committed, 3500);
  assert.equal(frames.length, 3);
  assert.deepEqual(await reader.read(spool.committed, spool.committed, 1000), { frames: [], next: spool.committed });
  await reader.close();
  await spool.close();
});

test('a payload larger than a segment gets a segment of its own, one that can never fit is refused', async (t) => {
  const directory = await scratch(t);
  const spool = await openSpool({ directory, ...small });
  const payloads = [named('a', 100), named('b', 1.5 * MiB), named('c', 100)];
  for (const payload of payloads) assert.equal(await put(spool, payload), 'ok');
  assert.equal(await put(spool, Buffer.alloc(2 * MiB + 1)), 'spool_too_large');
  await spool.close();
  const again = await openSpool({ directory, ...small });
  assert.equal(again.recovery.frames, 3);
  assert.deepEqual(texts(await readBack(directory, 0, again.committed)), payloads);
  await again.release(again.committed);
  assert.equal(again.pendingBytes, 0);
  await again.close();
});

test('released segments are used again, the newest one is kept until the next is full, and disk use stays flat', async (t) => {
  const directory = await scratch(t);
  const spool = await openSpool({ directory, maxBytes: 2 * MiB, segmentBytes: 256 * KiB });
  const inodes = new Set<number>();
  let most = 0;
  let last = 0;
  for (let i = 0; i < 400; i += 1) {
    assert.equal(await put(spool, named(i, 20_000)), 'ok');
    const [frame] = await readBack(directory, last, spool.committed);
    assert.equal(frame?.text, named(i, 20_000), 'never the old content of a recycled file');
    last = spool.committed;
    await spool.release(last);
    most = Math.max(most, spool.diskBytes);
    for (const name of await readdir(directory)) inodes.add((await stat(join(directory, name))).ino);
  }
  assert.ok(spool.committed > 7 * MiB);
  assert.ok(most <= MiB, `${most} bytes on disk`);
  assert.ok(inodes.size < 16, `${inodes.size} files were made`);
  assert.ok((await readdir(directory)).filter((name) => name.endsWith('.seg')).length >= 2);
  await spool.close();
});

test('the spool id, the positions and what is not released survive closing', async (t) => {
  const directory = await scratch(t);
  const first = await openSpool({ directory, ...small });
  for (const text of ['a', 'b', 'c']) await put(first, text);
  const [, b] = await readBack(directory, 0, first.committed);
  await first.release(b?.position ?? 0);
  const { spoolId, committed } = first;
  assert.match(spoolId, /^[0-9a-f]{32}$/);
  await first.close();
  assert.equal(await put(first, 'late'), 'spool_closed');
  const second = await openSpool({ directory, ...small });
  assert.deepEqual(
    { id: second.spoolId, at: second.committed, released: second.released, frames: second.recovery.frames },
    { id: spoolId, at: committed, released: b?.position, frames: 2 },
  );
  assert.equal(second.recovery.tornBytes, 0);
  await put(second, 'd');
  assert.deepEqual(texts(await readBack(directory, second.released, second.committed)), ['b', 'c', 'd']);
  await second.close();
  const scanned: string[] = [];
  for await (const frame of scanSpool(directory)) scanned.push(frame.payload.toString());
  assert.deepEqual(scanned, ['b', 'c', 'd']);
  const kept: string[] = [];
  for await (const frame of scanKept(directory, second.committed)) kept.push(frame.payload.toString());
  assert.deepEqual(kept, ['a', 'b', 'c', 'd'], 'what was released but is still on disk');
});

test('closing waits for what was appended', async (t) => {
  const directory = await scratch(t);
  const spool = await openSpool({ directory, ...small });
  const fates: unknown[] = [];
  for (let i = 0; i < 50; i += 1) assert.ok(spool.append([Buffer.alloc(2000)], (refusal) => fates.push(refusal)));
  await Promise.all([spool.close(), spool.close()]);
  assert.deepEqual(
    fates,
    Array.from({ length: 50 }, () => undefined),
  );
});

test('one that waits and throws does not keep the others from their answer', async (t) => {
  const directory = await scratch(t);
  const spool = await openSpool({ directory, ...small });
  const thrown = new Promise((resolve) => process.once('uncaughtException', resolve));
  const listeners = process.listeners('uncaughtException').slice(0, -1);
  for (const listener of listeners) process.removeListener('uncaughtException', listener);
  spool.append([Buffer.from('a')], () => {
    throw new RangeError('mine');
  });
  assert.equal(await put(spool, 'b'), 'ok');
  assert.equal(String(await thrown), 'RangeError: mine');
  for (const listener of listeners) process.on('uncaughtException', listener);
  await spool.close();
});

test('without O_DSYNC every batch is written and then synced before the answer', async (t) => {
  const directory = await scratch(t);
  const log: string[] = [];
  const files = {
    ...realFiles,
    durableWrites: false,
    open: (path: string, mode: 'fresh' | 'plain' | 'durable') =>
      realFiles.open(path, mode === 'durable' ? 'plain' : mode),
    async sync(fd: number) {
      await realFiles.sync(fd);
      log.push('sync');
    },
  };
  const spool = await openSpool({ directory, ...small }, { ...realEffects, files });
  await put(spool, 'a');
  log.length = 0;
  assert.ok(spool.append([Buffer.from('b')], () => log.push('done')));
  await spool.close();
  assert.deepEqual(log.slice(0, 2), ['sync', 'done']);
});

test('any sequence of appends, reads, releases and reopenings equals a list in memory', async (t) => {
  const step = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant('append' as const),
        sizes: fc.array(fc.nat(40_000), { maxLength: 12 }),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constant('release' as const), part: fc.double({ min: 0, max: 1, noNaN: true }) }),
    },
    { weight: 1, arbitrary: fc.constant({ kind: 'reopen' as const }) },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      const directory = await scratch(t);
      const options = { directory, maxBytes: 1 * MiB, segmentBytes: 64 * KiB, batchBytes: 16 * KiB };
      let spool = await openSpool(options);
      let model: { position: number; text: string }[] = [];
      let count = 0;
      let seen = 0;
      for (const action of steps) {
        if (action.kind === 'append') {
          const fates = action.sizes.map((size) => ({
            text: named((count += 1), size),
            fate: put(spool, named(count, size)),
          }));
          const taken: string[] = [];
          for (const { text, fate } of fates) if ((await fate) === 'ok') taken.push(text);
          const fresh = await readBack(directory, seen, spool.committed, 4096);
          assert.deepEqual(texts(fresh), taken);
          model.push(...fresh);
          seen = spool.committed;
        } else if (action.kind === 'release') {
          const to = model[Math.floor(action.part * model.length)]?.position ?? spool.committed;
          await spool.release(to);
          model = model.filter(({ position }) => position >= to);
        } else {
          const { released } = spool;
          await spool.close();
          spool = await openSpool(options);
          assert.deepEqual([spool.committed, spool.released, spool.recovery.frames], [seen, released, model.length]);
          assert.equal(spool.recovery.tornBytes + spool.recovery.damaged.length, 0);
        }
        assert.ok(spool.diskBytes <= options.maxBytes);
        const all = await readBack(directory, spool.released, spool.committed);
        assert.deepEqual(texts(all), texts(model));
        assert.equal(spool.pendingBytes === 0, model.length === 0);
      }
      await spool.close();
    }),
    { numRuns: 25 },
  );
});
