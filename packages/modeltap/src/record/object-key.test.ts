import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { eventIdOf } from './event-id.ts';
import { fileKeyOf, folderOf, rawKeyOf, suffixOf } from './object-key.ts';
import { parseSource, sourceOf } from './source.ts';
import { clampTimeMs, hourOf, isoSeconds } from './time.ts';

const SPOOL = '0123456789abcdef0123456789abcdef';

test('each rolling rate has its depth of folders, in UTC', () => {
  const time = Date.parse('2024-03-05T18:16:25.999+00:00');
  const folders = (['year', 'month', 'day', 'hour', 'minute'] as const).map((rate) => folderOf('a/b', rate, time));
  assert.deepEqual(folders, ['a/b/2024', 'a/b/2024/03', 'a/b/2024/03/05', 'a/b/2024/03/05/18', 'a/b/2024/03/05/18/16']);
});

test('the last millisecond of an hour and the first of the next lie in different folders', () => {
  const midnight = Date.parse('2025-01-01T00:00:00.000Z');
  assert.equal(folderOf('p', 'hour', midnight - 1), 'p/2024/12/31/23');
  assert.equal(folderOf('p', 'hour', midnight), 'p/2025/01/01/00');
  assert.equal(hourOf(midnight - 1), midnight - 3_600_000);
  assert.equal(hourOf(midnight), midnight);
  assert.equal(isoSeconds(midnight - 1), '2024-12-31T23:59:59Z');
});

test('times before 1970 are filed by their hour, and times that no folder can name within the years 1 to 9999', () => {
  assert.equal(folderOf('p', 'hour', -1), 'p/1969/12/31/23');
  assert.equal(hourOf(-1), -3_600_000);
  assert.equal(isoSeconds(-1), '1969-12-31T23:59:59Z');
  assert.equal(folderOf('p', 'hour', -1e300), 'p/0001/01/01/00');
  assert.equal(folderOf('p', 'minute', Number.POSITIVE_INFINITY), 'p/9999/12/31/23/59');
  assert.equal(isoSeconds(Number.NaN), '1970-01-01T00:00:00Z');
  assert.equal(clampTimeMs(1e300), Date.parse('9999-12-31T23:59:59.999Z'));
});

test('files are named by 32 hex digits and a count of six, raw objects never end in .jsonl', () => {
  assert.equal(fileKeyOf('f', SPOOL, 7), `f/${SPOOL}000007.jsonl`);
  assert.equal(suffixOf(`f/${SPOOL}000007.jsonl`, SPOOL), 7);
  assert.equal(suffixOf(`f/${SPOOL.replace('0', 'f')}000007.jsonl`, SPOOL), undefined);
  assert.equal(rawKeyOf('f', 'i', 'json'), 'f/i.json');
  assert.equal(rawKeyOf('f', 'i', 'binary'), 'f/i');
});

test('derived event ids are version 8 UUIDs, the same for the same position and different for any other', () => {
  const position = fc.nat({ max: Number.MAX_SAFE_INTEGER });
  const spool = fc.uuid().map((uuid) => uuid.replaceAll('-', ''));
  fc.assert(
    fc.property(spool, position, position, (id, a, b) => {
      assert.match(eventIdOf(id, a), /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
      assert.equal(eventIdOf(id, a) === eventIdOf(id, b), a === b);
    }),
  );
});

test('the ARM id of a deployment is built and read back, also with the empty names of the binary sample', () => {
  const names = { subscription: 's', resourceGroup: 'g', workspace: 'w', endpoint: 'e', deployment: 'd' };
  const source =
    '/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w/onlineEndpoints/e/deployments/d';
  assert.equal(sourceOf(names), source);
  assert.deepEqual(parseSource(source), names);
  assert.equal(parseSource(source.replace('/s/', '//').replace('/g/', '//'))?.subscription, '');
  assert.equal(parseSource(`${source}/more`), undefined);
  assert.equal(parseSource('urn:x'), undefined);
});
