import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { closest, editDistance } from './closest.ts';

test('the nearest word is suggested, and none when nothing is near', () => {
  const words = ['instance_count', 'instance_type', 'name'];
  assert.equal(closest('instance_cuont', words), 'instance_count');
  assert.equal(closest('INSTANCE-TYPE', words), 'instance_type');
  assert.equal(closest('nme', words), 'name');
  assert.equal(closest('replicas', words), undefined);
  assert.equal(closest('', words), undefined);
});

test('the distance is a metric: zero only for equals, symmetric, at most the longer length', () => {
  const word = fc.string({ maxLength: 8 });
  fc.assert(
    fc.property(word, word, word, (a, b, c) => {
      const distance = editDistance(a, b);
      assert.equal(distance === 0, a === b);
      assert.equal(distance, editDistance(b, a));
      assert.ok(distance <= Math.max(a.length, b.length));
      assert.ok(editDistance(a, c) <= distance + editDistance(b, c));
    }),
  );
});
