import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { crc32 } from 'node:zlib';
import { createCounters } from '../kit/counters.ts';
import { silentLogger } from '../kit/logger.ts';
import { encodeHead, FLAG, maxHeadBytes } from '../record/codec.ts';
import { openSpool } from '../spool/spool.ts';
import type { SpoolWriter } from '../spool/types.ts';
import { openLane } from './lane.ts';

/** Appends an event, its body in a side file or in the frame. */
async function append(writer: SpoolWriter, id: string, body: Buffer, beside: boolean): Promise<void> {
  const fields = {
    destinationId: 1,
    timeMs: 0,
    receivedMs: 0,
    attributes: Buffer.from('{"type":"t","datacontenttype":"application/json"}'),
    id,
    correlationId: 'c',
    flags: FLAG.json | (beside ? FLAG.sideFile : 0),
    rows: 1,
    bodyBytes: body.length,
  };
  const head = Buffer.alloc(maxHeadBytes(fields));
  const parts = [head.subarray(0, encodeHead(head, 0, fields)), ...(beside ? [] : [body])];
  const side = beside ? await writer.openSideFile() : undefined;
  await side?.write(body);
  await side?.seal();
  await new Promise<void>((done, failed) => {
    writer.append(parts, (refusal) => (refusal === undefined ? done() : failed(new RangeError(refusal))), side);
  });
}

/** Opens a lane on a spool filled like this and gives what it remembered: id and checksum. */
async function remembered(t: TestContext, fillSpool: (writer: SpoolWriter, directory: string) => Promise<void>) {
  const root = await mkdtemp(join(tmpdir(), 'modeltap-lane-'));
  t.after(() => rm(root, { recursive: true, force: true }));
  const directory = join(root, 'spool', 'store');
  const blobs = join(root, 'blobs');
  await mkdir(directory, { recursive: true });
  await mkdir(blobs);
  const writer = await openSpool({ directory, maxBytes: 64 * 1024 ** 2 });
  await fillSpool(writer, directory);
  await writer.close();
  const seen: (readonly [string, number | undefined])[] = [];
  const lane = await openLane({
    datastore: { type: 'local', name: 'store', path: blobs },
    directory: join(root, 'spool'),
    maxBytes: 64 * 1024 ** 2,
    inlineBytes: 4 * 1024 ** 2,
    logger: silentLogger,
    counters: createCounters(),
    remember: (_writer, record, crc) => seen.push([record.id, crc]),
  });
  await lane.close(0);
  return seen;
}

test('events of an earlier run are remembered, large ones with the checksum of their side file', async (t) => {
  const body = Buffer.from(`"${'x'.repeat(600_000)}"`);
  const seen = await remembered(t, async (writer) => {
    await append(writer, 'small', Buffer.from('1'), false);
    await append(writer, '', body, true);
    await append(writer, 'large', body, true);
  });
  assert.deepEqual(seen, [
    ['small', undefined],
    ['large', crc32(body)],
  ]);
});

test('a start reads the 64 newest side files and none that is gone', async (t) => {
  const seen = await remembered(t, async (writer, directory) => {
    const names = async () => (await readdir(directory)).filter((name) => name.endsWith('.side'));
    for (let n = 0; n < 70; n += 1) {
      const before = await names();
      await append(writer, `e${n}`, Buffer.from(String(n)), true);
      const [made = ''] = (await names()).filter((name) => !before.includes(name));
      if (n === 60) await rm(join(directory, made));
    }
  });
  const expected = Array.from({ length: 64 }, (_, n) => `e${69 - n}`).filter((id) => id !== 'e60');
  assert.deepEqual(
    seen.map(([id]) => id),
    expected,
  );
});
