import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseLooseTime, parseRfc3339, TimeReader } from './time.ts';

test('ce-time is read as epoch seconds in every spelling Python gives, and as RFC 3339', () => {
  const expected: readonly (readonly [string, number | undefined])[] = [
    ['1704164645', 1_704_164_645_000],
    ['1704164645.25', 1_704_164_645_250],
    ['1.704164645e9', 1_704_164_645_000],
    ['0', 0],
    ['-1', -1000],
    [' 1704164645 ', 1_704_164_645_000],
    ['2024-01-02T03:04:05Z', 1_704_164_645_000],
    ['2024-01-02 03:04:05+01:00', 1_704_161_045_000],
    ['253402300799', 253_402_300_799_000],
    ['253402300800', undefined],
    ['-62135596801', undefined],
    ['99999999999999999999', undefined],
  ];
  for (const [text, ms] of expected) assert.equal(parseLooseTime(text), ms, text);
  for (const text of ['', 'now', 'None', 'nan', 'inf', '1e999', '0x10', '1,5', '2024-01-02', '١٢']) {
    assert.equal(parseLooseTime(text), undefined, text);
  }
});

test('RFC 3339 is strict: no such day, hour, offset or shape', () => {
  assert.equal(parseRfc3339('0001-01-01T00:00:00Z'), -62_135_596_800_000);
  assert.equal(parseRfc3339('2016-12-31T23:59:60Z'), Date.UTC(2017, 0, 1));
  assert.equal(parseRfc3339('2024-02-29T00:00:00.1239999Z'), Date.UTC(2024, 1, 29, 0, 0, 0, 123));
  assert.equal(parseRfc3339('2024-01-02t03:04:05z'), 1_704_164_645_000);
  for (const text of [
    ['2023-02-29T00:00:00Z', '2024-13-01T00:00:00Z', '2024-00-01T00:00:00Z', '2024-01-32T00:00:00Z'],
    ['2024-01-01T24:00:00Z', '2024-01-01T00:60:00Z', '2024-01-01T00:00:61Z', '2024-01-01T00:00:00', '2024-1-1T0:0:0Z'],
    [
      '2024-01-01T00:00:00.Z',
      '2024-01-01T00:00:00+24:00',
      '2024-01-01T00:00:00 Z',
      '0000-01-01T00:00:00Z',
      '1704164645',
    ],
  ].flat()) {
    assert.equal(parseRfc3339(text), undefined, text);
  }
});

test('the reader of bytes gives what the reader of text gives, also for what is no time', () => {
  const reader = new TimeReader();
  const same = (text: string) => {
    const bytes = Buffer.from(`"${text}"`, 'latin1');
    assert.equal(reader.read(bytes, 1, bytes.length - 1), parseRfc3339(text), text);
  };
  const time = fc.date({ noInvalidDate: true, min: new Date('0001-01-01'), max: new Date('9999-12-30') });
  fc.assert(
    fc.property(time, fc.nat(25), fc.constantFrom(...'0123456789Z.:-+ T'.split('')), (date, at, character) => {
      const text = date.toISOString();
      same(text);
      same(text.replace(/\.\d+/, ''));
      same(text.slice(0, at) + character + text.slice(at + 1));
      same(text.slice(0, at) + text.slice(at + 1));
    }),
    { numRuns: 500 },
  );
  for (const text of ['2024-01-01T00:00:00.123456789Z', '2024-01-01T00:00:00.1234567891Z', '2016-12-31T23:59:60Z', ''])
    same(text);
});
