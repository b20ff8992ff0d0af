import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../kit/clock.ts';
import { takeLock, tryLock } from './build-lock.ts';
import { pruneEnvironments } from './prune.ts';

const DAY_MS = 24 * 3_600_000;

test('environments that nobody uses any more are removed; kept, young and busy ones stay', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'modeltap-prune-'));
  const ages = { aaaaaaaaaaaaaaaa: 40, bbbbbbbbbbbbbbbb: 40, cccccccccccccccc: 3, dddddddddddddddd: 40 };
  for (const [hash, days] of Object.entries(ages)) {
    mkdirSync(join(folder, hash, 'bin'), { recursive: true });
    const mark = join(folder, hash, 'complete');
    writeFileSync(mark, '{}');
    const then = new Date(Date.now() - days * DAY_MS);
    utimesSync(mark, then, then);
  }
  mkdirSync(join(folder, 'something-else'));
  const release = tryLock(join(folder, 'dddddddddddddddd.lock'));
  assert.deepEqual(await pruneEnvironments(folder, ['bbbbbbbbbbbbbbbb']), ['aaaaaaaaaaaaaaaa']);
  release?.();
  assert.deepEqual(
    [...Object.keys(ages), 'something-else'].filter((name) => existsSync(join(folder, name))),
    ['bbbbbbbbbbbbbbbb', 'cccccccccccccccc', 'dddddddddddddddd', 'something-else'],
  );
  assert.deepEqual(await pruneEnvironments(folder, [], DAY_MS), [
    'bbbbbbbbbbbbbbbb',
    'cccccccccccccccc',
    'dddddddddddddddd',
  ]);
  assert.deepEqual(await pruneEnvironments(join(folder, 'not-there'), []), []);
  rmSync(folder, { recursive: true });
});

test('a lock is taken by one at a time, and waiting for it can be given up', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'modeltap-lock-'));
  const path = join(folder, 'one.lock');
  const order: string[] = [];
  const first = await takeLock(path, { clock: systemClock });
  const second = takeLock(path, { clock: systemClock, onWait: () => order.push('waiting') });
  const given = await takeLock(path, { clock: systemClock, signal: AbortSignal.timeout(60) });
  assert.equal(given, undefined);
  order.push('released');
  first?.();
  const release = await second;
  assert.deepEqual(order, ['waiting', 'released']);
  assert.equal(tryLock(path), undefined);
  release?.();
  rmSync(folder, { recursive: true });
});
