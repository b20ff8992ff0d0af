import assert from 'node:assert/strict';
import { cp, readFile, readdir, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import fc from 'fast-check';
import { openSpool, scanSpool } from './spool.ts';
import { KiB, MiB, named, put, readBack, scratch, texts } from './support.test-suite.ts';
import type { SpoolWriter } from './types.ts';

const small = { maxBytes: 1 * MiB, segmentBytes: 64 * KiB };

async function segmentsOf(directory: string): Promise<string[]> {
  return (await readdir(directory)).filter((name) => name.endsWith('.seg')).sort();
}

/** One batch. */
async function together(spool: SpoolWriter, payloads: readonly string[]): Promise<void> {
  for (const fate of await Promise.all(payloads.map((payload) => put(spool, payload)))) assert.equal(fate, 'ok');
}

/** Changes bytes of a file. */
async function patch(path: string, change: (bytes: Buffer) => void): Promise<void> {
  const bytes = await readFile(path);
  change(bytes);
  await writeFile(path, bytes);
}

async function contents(directory: string): Promise<string[]> {
  const found: string[] = [];
  for await (const frame of scanSpool(directory)) found.push(frame.payload.toString('latin1'));
  return found;
}

/** A spool as a power failure leaves it: the files before and after its last batch, and where that batch lies. */
async function lastBatch(t: TestContext, recycled: boolean) {
  const directory = await scratch(t);
  const live = join(directory, 'live');
  let spool = await openSpool({ directory: live, ...small });
  if (recycled) {
    for (let i = 0; i < 120; i += 1) {
      await put(spool, named(`old${i}`, 45 + (i % 3) * 2000));
      await spool.release(spool.committed);
    }
    await spool.close();
    spool = await openSpool({ directory: live, ...small });
  }
  await together(spool, ['first', 'second']);
  const kept = await readBack(live, spool.released, spool.committed);
  const from = spool.committed;
  await cp(live, join(directory, 'before'), { recursive: true });
  await together(spool, [named('a', 20), named('b', 13), named('c', 8)]);
  await cp(live, join(directory, 'after'), { recursive: true });
  const batch = await readBack(live, from, spool.committed);
  await spool.close();
  const segment =
    (await segmentsOf(join(directory, 'after'))).findLast((name) => Number.parseInt(name, 10) <= from) ?? '';
  const offset = from - Number.parseInt(segment, 10);
  const before = await readFile(join(directory, 'before', segment));
  const after = await readFile(join(directory, 'after', segment));
  return { directory, segment, offset, before, after, kept, batch, from, bytes: (batch.at(-1)?.next ?? 0) - from };
}

for (const recycled of [false, true]) {
  const where = recycled ? 'recycled' : 'fresh';
  test(`a last batch torn at any place of a ${where} segment is cut behind its last whole frame and never returns`, async (t) => {
    const { directory, segment, offset, before, after, kept, batch, from, bytes } = await lastBatch(t, recycled);
    assert.ok(bytes > 140 && before.subarray(offset, offset + bytes).some((byte) => byte !== 0) === recycled);
    const crashed = join(directory, 'crashed');
    for (let torn = 0; torn < bytes; torn += recycled ? 3 : 1) {
      await rm(crashed, { recursive: true, force: true });
      await cp(join(directory, 'after'), crashed, { recursive: true });
      const cut = offset + torn;
      await writeFile(join(crashed, segment), Buffer.concat([after.subarray(0, cut), before.subarray(cut)]));
      const whole = batch.filter(({ position, text }) => position + 32 + text.length - from <= torn);
      const spool = await openSpool({ directory: crashed, ...small });
      const { recovery } = spool;
      const expected = [...texts(kept), ...texts(whole)];
      assert.deepEqual(
        { frames: recovery.frames, end: recovery.end, damaged: recovery.damaged },
        { frames: expected.length, end: whole.at(-1)?.next ?? from, damaged: [] },
        `torn at ${torn}`,
      );
      if (!recycled)
        assert.equal(recovery.tornBytes > 0, torn > (whole.at(-1)?.next ?? from) - from, `torn at ${torn}`);
      assert.equal(await put(spool, named('z', 20)), 'ok');
      await spool.close();
      assert.deepEqual(await contents(crashed), [...expected, named('z', 20)], `torn at ${torn}`);
    }
  });

  test(`a batch whose blocks reached a ${where} segment out of order is cut as a whole, its later frames too`, async (t) => {
    const { directory, segment, offset, before, after, kept, batch, from } = await lastBatch(t, recycled);
    const crashed = join(directory, 'after');
    const second = (batch[1]?.position ?? 0) - from;
    await writeFile(
      join(crashed, segment),
      Buffer.concat([
        after.subarray(0, offset),
        before.subarray(offset, offset + second),
        after.subarray(offset + second),
      ]),
    );
    assert.deepEqual(await contents(crashed), texts(kept));
    const spool = await openSpool({ directory: crashed, ...small });
    assert.equal(spool.recovery.end, from);
    assert.ok(spool.recovery.tornBytes >= (batch.at(-1)?.position ?? 0) - from);
    assert.deepEqual(spool.recovery.damaged, []);
    assert.equal(await put(spool, named('z', 20)), 'ok'); // As long as the frame that was lost: the stale ones would line up.
    await spool.close();
    assert.deepEqual(await contents(crashed), [...texts(kept), named('z', 20)]);
  });
}

test('a damaged batch with a later one behind it is skipped and reported, and nothing else is lost', async (t) => {
  const directory = await scratch(t);
  const live = join(directory, 'live');
  const spool = await openSpool({ directory: live, ...small });
  await together(spool, ['a1', 'a2']);
  await together(spool, ['b1', 'b2', 'b3']);
  await together(spool, ['c1']);
  const all = await readBack(live, 0, spool.committed);
  await cp(live, join(directory, 'crashed'), { recursive: true });
  await spool.close();
  const [segment = ''] = await segmentsOf(live);
  const hit = all[3];
  assert.ok(hit);
  for (const copy of ['live', 'crashed']) {
    await patch(join(directory, copy, segment), (bytes) => bytes.writeUInt8(1, hit.position + 33));
    const again = await openSpool({ directory: join(directory, copy), ...small });
    assert.deepEqual(again.recovery.damaged, [{ segment, from: hit.position, to: hit.next }], copy);
    assert.deepEqual([again.recovery.frames, again.recovery.tornBytes, again.recovery.end], [5, 0, spool.committed]);
    const left = await readBack(join(directory, copy), 0, again.committed);
    assert.deepEqual(texts(left), ['a1', 'a2', 'b1', 'b3', 'c1']);
    await again.close();
  }
});

test('a copy of frames inside a payload is not taken for frames, even where the search after damage meets it', async (t) => {
  const directory = await scratch(t);
  const spool = await openSpool({ directory, ...small });
  await together(spool, ['a', 'b']);
  const [segment = ''] = await segmentsOf(directory);
  const copy = (await readFile(join(directory, segment))).subarray(64, spool.committed);
  const at = spool.committed;
  assert.equal(await put(spool, Buffer.concat([copy, copy])), 'ok');
  assert.equal(await put(spool, 'c'), 'ok');
  await spool.close();
  await patch(join(directory, segment), (bytes) => bytes.writeUInt8(0, at));
  assert.deepEqual(await contents(directory), ['a', 'b', 'c']);
});

test('any flipped byte costs at most the frame it lies in', async (t) => {
  const directory = await scratch(t);
  const live = join(directory, 'live');
  const spool = await openSpool({ directory: live, ...small });
  for (let i = 0; i < 12; i += 1) await together(spool, [named(`x${i}`, 9000), named(`y${i}`, 100), named(`z${i}`, 3)]);
  const all = await readBack(live, 0, spool.committed);
  await spool.close();
  assert.ok((await segmentsOf(live)).length >= 2);
  await fc.assert(
    fc.asyncProperty(fc.nat(all.length - 1), fc.nat(), fc.integer({ min: 1, max: 255 }), async (index, at, mask) => {
      const copy = await scratch(t);
      await cp(live, copy, { recursive: true });
      const hit = all[index];
      assert.ok(hit);
      const segment = (await segmentsOf(live)).findLast((name) => Number.parseInt(name, 10) <= hit.position) ?? '';
      const offset = hit.position - Number.parseInt(segment, 10) + (at % (32 + hit.text.length));
      await patch(join(copy, segment), (bytes) => bytes.writeUInt8(bytes.readUInt8(offset) ^ mask, offset));
      const again = await openSpool({ directory: copy, ...small });
      assert.deepEqual(again.recovery.damaged, [{ segment, from: hit.position, to: hit.next }]);
      assert.equal(again.recovery.frames, all.length - 1);
      assert.equal(await put(again, 'more'), 'ok');
      const rest = [...texts(all).toSpliced(index, 1), 'more'];
      assert.deepEqual(texts(await readBack(copy, 0, again.committed)), rest);
      assert.ok(again.committed > spool.committed, 'no position is given out twice');
      await again.close();
    }),
    { numRuns: 25 },
  );
});

test('a lost segment head, a lost meta file and a cut segment cost nothing but what is gone', async (t) => {
  const directory = await scratch(t);
  const spool = await openSpool({ directory, ...small });
  for (let i = 0; i < 10; i += 1) await put(spool, named(i, 15_000));
  const all = await readBack(directory, 0, spool.committed);
  const { spoolId } = spool;
  await spool.close();
  const [first = '', second = '', third = ''] = await segmentsOf(directory);
  await patch(join(directory, second), (bytes) => bytes.fill(0, 0, 64));
  await patch(join(directory, 'meta.json'), (bytes) => bytes.writeUInt8(0x30, 14));
  const again = await openSpool({ directory, ...small });
  assert.equal(again.spoolId, spoolId);
  assert.equal(again.recovery.frames, 10);
  assert.deepEqual(texts(await readBack(directory, 0, again.committed)), texts(all));
  await again.close();

  await truncate(join(directory, third), 20_000);
  const cut = await openSpool({ directory, ...small });
  const lost = cut.recovery.damaged[0];
  assert.equal(lost?.segment, third);
  assert.equal(lost?.to, again.committed);
  assert.equal(cut.recovery.end, again.committed, 'positions of lost frames are not given out again');
  const kept = all.filter(({ next }) => next <= lost.from);
  assert.equal(await put(cut, 'after the loss'), 'ok');
  assert.deepEqual(texts(await readBack(directory, 0, cut.committed)), [...texts(kept), 'after the loss']);
  await cut.close();

  await rm(join(directory, first));
  const without = await openSpool({ directory, ...small });
  const left = kept.filter(({ position }) => position >= Number.parseInt(second, 10));
  assert.deepEqual(texts(await readBack(directory, 0, without.committed)), [...texts(left), 'after the loss']);
  await without.close();
});

test('the newest released segment is still there after closing and opening, older ones are free', async (t) => {
  const directory = await scratch(t);
  const spool = await openSpool({ directory, ...small });
  for (let i = 0; i < 14; i += 1) await put(spool, named(i, 15_000));
  await spool.release(spool.committed);
  await spool.close();
  const [, ...bases] = (await segmentsOf(directory)).map((name) => Number.parseInt(name, 10));
  const again = await openSpool({ directory, ...small });
  const kept = await readBack(directory, bases.at(-2) ?? 0, again.committed);
  assert.deepEqual(
    kept.map(({ text }) => Number.parseInt(text, 10)),
    [8, 9, 10, 11, 12, 13],
  );
  assert.deepEqual([again.recovery.frames, again.pendingBytes], [0, 0]);
  for (let i = 0; i < 30; i += 1) {
    assert.equal(await put(again, named(i, 15_000)), 'ok');
    await again.release(again.committed);
  }
  assert.ok(again.diskBytes < 6 * 64 * KiB);
  await again.close();
});

test('files of another spool or of a newer format are refused and left as they are', async (t) => {
  const directory = await scratch(t);
  const [mine, other] = [join(directory, 'mine'), join(directory, 'other')];
  for (const each of [mine, other]) {
    const spool = await openSpool({ directory: each, ...small });
    await put(spool, each);
    await spool.close();
  }
  const [segment = ''] = await segmentsOf(other);
  await cp(join(other, segment), join(mine, '0000000000065536.seg'));
  await rename(join(mine, '0000000000065536.seg'), join(mine, segment));
  await assert.rejects(openSpool({ directory: mine, ...small }), { code: 'spool_foreign' });
  assert.deepEqual(await readFile(join(mine, segment)), await readFile(join(other, segment)));
  const { crc32 } = await import('node:zlib');
  const body = '{"format":2}';
  await writeFile(join(other, 'meta.json'), `${body}\n${crc32(body).toString(16).padStart(8, '0')}\n`);
  await assert.rejects(openSpool({ directory: other, ...small }), { code: 'spool_format' });
});

test('files that are not the spool’s are never touched', async (t) => {
  const directory = await scratch(t);
  for (const name of ['cursor.json', 'notes.seg', 'x.side', '12.seg']) await writeFile(join(directory, name), name);
  const spool = await openSpool({ directory, ...small });
  await put(spool, 'a');
  await spool.release(spool.committed);
  await spool.close();
  for (const name of ['cursor.json', 'notes.seg', 'x.side', '12.seg']) {
    assert.equal(await readFile(join(directory, name), 'utf8'), name);
  }
});
