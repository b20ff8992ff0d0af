import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type JsonValue, objectEnd, readJson } from './json-text.ts';
import { LIMITS } from './types.ts';

function valueOf(text: string): JsonValue {
  const read = readJson(text);
  assert.ok('value' in read, `${text.slice(0, 60)}: ${JSON.stringify(read)}`);
  return read.value;
}

/** The text put together again from what the walk finds. */
function rebuilt(value: JsonValue): string {
  if (value.kind === 'array') return `[${[...value.items()].map(rebuilt).join(',')}]`;
  if (value.kind === 'object') {
    return `{${[...value.members()].map(([name, member]) => `${JSON.stringify(name)}:${rebuilt(member)}`).join(',')}}`;
  }
  return value.text;
}

const NUMBERS = ['0', '-0', '1.0', '1e400', '-1E-7', '9223372036854775807', '0.1000000000000000055', '1.50', '12e+3'];

test('numbers keep their text, and white space between tokens goes', () => {
  for (const number of NUMBERS)
    assert.equal(valueOf(` [ ${number} ,\r\n\t{ "a b" : ${number} } ] `).text, `[${number},{"a b":${number}}]`);
});

test('what JSON.parse takes is read and walked over to the same value, and what it refuses is refused', () => {
  const text = fc.oneof(
    fc.json(),
    fc.jsonValue().map((value) => JSON.stringify(value, undefined, 1)),
    fc.string({ unit: fc.constantFrom(...Array.from('{}[]",:\\u0 1-.eEtrufalsn\n')) }),
    fc.tuple(fc.json(), fc.nat(), fc.constantFrom(...Array.from('{}[]",:\\x0-'))).map(([json, at, extra]) => {
      const place = at % (json.length + 1);
      return json.slice(0, place) + extra + json.slice(place);
    }),
  );
  fc.assert(
    fc.property(text, (text) => {
      let expected: unknown;
      try {
        expected = JSON.parse(text);
      } catch {
        assert.ok('reason' in readJson(text), text);
        return;
      }
      const value = valueOf(text);
      assert.deepEqual(JSON.parse(value.text), expected);
      assert.deepEqual(JSON.parse(rebuilt(value)), expected);
    }),
    { numRuns: 3000 },
  );
});

test('a problem names its place', () => {
  const problems: readonly (readonly [string, string, number])[] = [
    ['', 'the text ends early', 0],
    ['[1, 2', 'the text ends early', 5],
    ['{"a":"x', 'the text ends early', 7],
    ['[1 2]', 'expected , or ]', 3],
    ['{"a" 1}', 'expected :', 5],
    ['{a:1}', 'expected a name in double quotes', 1],
    ['[1,]', 'expected a value', 3],
    ['01', 'something follows the value', 1],
    ['1.', 'the text ends early', 2],
    ['[1.x]', 'expected a digit', 3],
    ['["a\nb"]', 'a control character in a string', 3],
    ['["\\x"]', 'an unknown escape', 3],
    ['\uFEFF1', 'expected a value', 0],
  ];
  for (const [text, reason, at] of problems) assert.deepEqual(readJson(text), { reason, at }, text);
});

test('nesting has a limit', () => {
  const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth);
  assert.equal(valueOf(nested(LIMITS.depth)).kind, 'array');
  assert.deepEqual(readJson(nested(LIMITS.depth + 1)), {
    reason: `nested deeper than ${LIMITS.depth}`,
    at: LIMITS.depth,
  });
  assert.ok('reason' in readJson('['.repeat(5_000_000)));
});

test('NaN and infinite values are null and counted; words in strings are not touched', () => {
  const read = readJson('[NaN, -Infinity,"NaN", Infinity]');
  assert.ok('value' in read);
  assert.equal(read.value.text, '[null,null,"NaN",null]');
  assert.equal(read.nonFinite, 3);
});

test('escaped quotes and backslashes end strings where they should; of repeated names the last value is found', () => {
  const value = valueOf('{"a\\"b\\\\":"\\\\","x":1,"\\u0078":[2]}');
  assert.deepEqual(
    [...value.members()].map(([name, member]) => [name, member.text]),
    [
      ['a"b\\', '"\\\\"'],
      ['x', '1'],
      ['x', '[2]'],
    ],
  );
  assert.equal(value.fields().get('x')?.text, '[2]');
});

test('the end of an object in front of other bytes is found', () => {
  assert.equal(objectEnd(Buffer.from(' {"a":"}\\"{"}\u0000{}')), 13);
  assert.equal(objectEnd(Buffer.from('{"a":{}')), undefined);
  assert.equal(objectEnd(Buffer.alloc(0)), undefined);
});
