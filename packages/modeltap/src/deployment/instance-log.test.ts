import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { InstanceLog } from './instance-log.ts';
import { temporaryFolder } from './process.test-suite.ts';

const texts = (lines: readonly string[]) => lines.map((line) => line.split(' ').slice(3).join(' '));

test('output is cut into lines with the time, the process and the stream, across chunks and characters', async () => {
  using folder = temporaryFolder();
  const log = new InstanceLog({ path: join(folder.path, 'deep', 'a.log') });
  const out = log.stream(7, 'out');
  const bytes = Buffer.from('één\r\ntwo\n\nlast');
  for (const byte of bytes) out(Buffer.of(byte));
  out(undefined);
  log.line(8, 'sup', 'with\nbreaks');
  assert.deepEqual(texts(await log.tail(10)), ['één', 'two', '', 'last', 'with breaks']);
  assert.match((await log.tail(1))[0] ?? '', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z 8 sup with breaks$/);
  assert.deepEqual(texts(log.recent(7)), ['één', 'two', '', 'last']);
  await log.close();
});

test('a line without an end is cut, so that memory stays bounded', async () => {
  using folder = temporaryFolder();
  const log = new InstanceLog({ path: join(folder.path, 'a.log'), maxLineLength: 10 });
  log.stream(1, 'out')(Buffer.from('x'.repeat(25)));
  assert.deepEqual(
    texts(await log.tail(10)).map((text) => text.length),
    [10, 10, 5],
  );
  await log.close();
});

test('files are rotated by size and only the newest are kept', async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, 'a.log');
  const log = new InstanceLog({ path, maxBytes: 1000, files: 3 });
  for (let index = 0; index < 200; index += 1) {
    log.line(1, 'out', `line ${index}`);
    await log.tail(0);
  }
  await log.close();
  assert.deepEqual(readdirSync(folder.path).toSorted(), ['a.log', 'a.log.1', 'a.log.2']);
  for (const name of readdirSync(folder.path)) assert.ok(statSync(join(folder.path, name)).size <= 1000);
  const again = new InstanceLog({ path, maxBytes: 1000 });
  const lines = texts(await again.tail(30));
  assert.equal(lines.length, 30, 'the tail goes on into the file before');
  assert.deepEqual(
    lines,
    Array.from({ length: 30 }, (_, index) => `line ${170 + index}`),
  );
  assert.match(readFileSync(`${path}.2`, 'utf8'), /line \d+\n$/);
});

test('lines that come faster than the disk are dropped and counted in the log', async () => {
  using folder = temporaryFolder();
  const log = new InstanceLog({ path: join(folder.path, 'a.log'), maxPendingBytes: 1000 });
  for (let index = 0; index < 100; index += 1) log.line(1, 'out', `line ${index}`);
  await log.tail(0);
  log.line(1, 'out', 'after');
  const lines = texts(await log.tail(100));
  const [, count = '0'] = /^(\d+) lines dropped$/.exec(lines.at(-2) ?? '') ?? [];
  assert.equal(lines.at(-1), 'after');
  assert.equal(lines.filter((line) => line.startsWith('line ')).length + Number(count), 100);
  await log.close();
});

test('a disk that does not take lines costs lines, not the instance, and is used again when it works', async () => {
  using folder = temporaryFolder();
  const blocked = join(folder.path, 'logs');
  writeFileSync(blocked, 'a file where the folder should be');
  const log = new InstanceLog({ path: join(blocked, 'a.log') });
  log.line(1, 'out', 'lost');
  await log.close();
  rmSync(blocked);
  mkdirSync(blocked);
  log.line(1, 'out', 'kept');
  assert.deepEqual(texts(await log.tail(10)), ['kept', '1 lines dropped']);
  await log.close();
});
