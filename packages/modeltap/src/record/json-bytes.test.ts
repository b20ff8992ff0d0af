import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { insideArray, withMember } from './json-bytes.ts';

const add = (array: string) => `[${withMember(insideArray(Buffer.from(array)), 'correlationid', '"x"').toString()}]`;

test('a member is put behind the last one of every object and nowhere else', () => {
  assert.equal(
    add('[{"a":1},{"b":"}{,"},{}, { } ]'),
    '[{"a":1,"correlationid":"x"},{"b":"}{,","correlationid":"x"},{"correlationid":"x"}, { "correlationid":"x"}]',
  );
  assert.equal(
    add('[1,"a,{b}",[{"a":1}],null,{"n":{"correlationid":1}}]'),
    '[1,"a,{b}",[{"a":1}],null,{"n":{"correlationid":1},"correlationid":"x"}]',
  );
});

test('an object that has the member keeps it, however its name is escaped', () => {
  assert.equal(
    add('[{"correlationid":"mine"},{"correlation\\u0069d":2},{"a":"correlationid"}]'),
    '[{"correlationid":"mine"},{"correlation\\u0069d":2},{"a":"correlationid","correlationid":"x"}]',
  );
  assert.equal(
    add('[{"a\\"correlationid":1,"b\\\\":[1,{"correlationid":3}]}]'),
    '[{"a\\"correlationid":1,"b\\\\":[1,{"correlationid":3}],"correlationid":"x"}]',
  );
});

test('the inside of any array, white space or not, has the elements of the array', () => {
  fc.assert(
    fc.property(
      fc.array(fc.jsonValue()),
      fc.constantFrom(undefined, 1, '\t'),
      fc.constantFrom('', ' \r\n'),
      (array, indent, space) => {
        const inside = insideArray(Buffer.from(`${space}${JSON.stringify(array, undefined, indent)}${space}`));
        assert.deepEqual(JSON.parse(`[${inside.toString()}]`), JSON.parse(JSON.stringify(array)));
        assert.equal(inside.length === 0, array.length === 0);
      },
    ),
  );
});

test('a member is added to any rows as adding it to the parsed rows would', () => {
  fc.assert(
    fc.property(fc.array(fc.dictionary(fc.string(), fc.jsonValue())), fc.constantFrom(undefined, 2), (rows, indent) => {
      const result = JSON.parse(add(JSON.stringify(rows, undefined, indent))) as object[];
      assert.deepEqual(result, JSON.parse(JSON.stringify(rows.map((row) => ({ correlationid: 'x', ...row })))));
    }),
  );
});
