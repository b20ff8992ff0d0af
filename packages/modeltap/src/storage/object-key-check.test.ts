import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { compareKeys, keyProblem, showKey } from './object-key-check.ts';

test('keys compare as their UTF-8 bytes do', () => {
  const text = fc.string({ unit: fc.constantFrom('a', '/', '-', 'é', '\ud7ff', '\ue000', '\uffee', '😀', '𐀀') });
  fc.assert(
    fc.property(text, text, (a, b) => {
      assert.equal(Math.sign(compareKeys(a, b)), Buffer.compare(Buffer.from(a), Buffer.from(b)));
    }),
  );
});

test('an allowed key joined to a root never leaves it', () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom('.', '/', 'a', ' ', '\\', '\0') }), (key) => {
      if (keyProblem(key) !== undefined) return;
      const path = new URL(`file:///root/${key.split('/').map(encodeURIComponent).join('/')}`).pathname;
      assert.equal(decodeURIComponent(path), `/root/${key}`);
    }),
  );
});

test('a key of 1 024 bytes is allowed and one of 1 025 is not', () => {
  assert.equal(keyProblem('é'.repeat(512)), undefined);
  assert.match(keyProblem(`${'é'.repeat(512)}x`) ?? '', /1024/);
});

test('a key in a message is quoted, escaped and cut', () => {
  assert.equal(showKey('a\nb'), '"a\\nb"');
  assert.ok(showKey('x'.repeat(5000)).length < 220);
});
