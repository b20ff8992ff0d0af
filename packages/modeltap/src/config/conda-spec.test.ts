import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type CondaSpec, formatCondaSpec, readCondaSpec } from './conda-spec.ts';

const read = (text: string) => {
  const reading = readCondaSpec(text);
  return reading.ok ? reading.value : `${reading.at} ${reading.problem}`;
};

test('dependency lines are taken apart as conda reads them', () => {
  const cases: [string, CondaSpec][] = [
    ['numpy', { name: 'numpy', version: '' }],
    [' NumPy # the fast one', { name: 'numpy', version: '' }],
    ['numpy=1.26', { name: 'numpy', version: '=1.26' }],
    ['numpy==1.26.*', { name: 'numpy', version: '==1.26.*' }],
    ['numpy 1.26.*', { name: 'numpy', version: '1.26.*' }],
    ['numpy >=1.20,<2', { name: 'numpy', version: '>=1.20,<2' }],
    ['numpy>= 1.20 , <2  # not 2', { name: 'numpy', version: '>=1.20,<2' }],
    ['numpy 1.7|1.8', { name: 'numpy', version: '1.7|1.8' }],
    ['numpy!=1.3', { name: 'numpy', version: '!=1.3' }],
    ['numpy~=1.26', { name: 'numpy', version: '~=1.26' }],
    ['numpy=*', { name: 'numpy', version: '=*' }],
    ['tzdata=2023c', { name: 'tzdata', version: '=2023c' }],
    ['x=1!2.0', { name: 'x', version: '=1!2.0' }],
    ['numpy=1.26.4=py310hb13e2d6_0', { name: 'numpy', version: '=1.26.4', build: 'py310hb13e2d6_0' }],
    ['numpy==1.26.4=py310*', { name: 'numpy', version: '==1.26.4', build: 'py310*' }],
    ['numpy 1.26.4 py310hb13e2d6_0', { name: 'numpy', version: '1.26.4', build: 'py310hb13e2d6_0' }],
    ['conda-forge::numpy', { name: 'numpy', version: '', channel: 'conda-forge' }],
    ['conda-forge/linux-64::numpy=1.26', { name: 'numpy', version: '=1.26', channel: 'conda-forge/linux-64' }],
    ['https://host.example/c::numpy', { name: 'numpy', version: '', channel: 'https://host.example/c' }],
    ['_libgcc_mutex=0.1', { name: '_libgcc_mutex', version: '=0.1' }],
    ['ruamel.yaml', { name: 'ruamel.yaml', version: '' }],
    ['python=3.10', { name: 'python', version: '=3.10' }],
  ];
  for (const [text, spec] of cases) assert.deepEqual(read(text), spec, text);
});

test('a line that conda would not take is refused at the character it goes wrong at', () => {
  const cases: [string, RegExp][] = [
    ['=1.26', /^0 must begin with the name of a package/],
    ['3.10', /^0 must begin with the name of a package/],
    ['numpy[mkl]', /^5 the form in brackets is not read here/],
    ['numpy[version=">=1"]', /^5 the form in brackets is not read here/],
    ['numpy=', /^5 a version is expected here/],
    ['numpy >=', /^6 a version is expected here/],
    ['numpy latest', /^6 a version is expected here/],
    ['numpy >=1.20 <2', /^12 several conditions need a comma/],
    ['numpy=1.26==2', /^10 several conditions need a comma/],
    ['numpy 1.26 py310 x', /^10 "py310 x" cannot stand behind a version/],
    ['numpy=1.26;python_version', /^10 ";python_version" cannot stand behind a version/],
    ['numpy@1.26', /^5 "@" cannot stand in the name of a package/],
    ['::numpy', /^0 the channel before "::" is missing/],
    ['conda forge::numpy', /^0 the channel before "::" is missing or is not one word/],
  ];
  for (const [text, said] of cases) {
    const problem = read(text);
    assert.ok(typeof problem === 'string', text);
    assert.match(problem, said, text);
  }
});

const word = (first: string, rest: string) =>
  fc
    .tuple(fc.constantFrom(...first.split('')), fc.array(fc.constantFrom(...rest.split('')), { maxLength: 12 }))
    .map(([head, tail]) => head + tail.join(''));
const number = word('0123456789', '0123456789abc._*+');
const condition = fc
  .tuple(fc.constantFrom('=', '==', '>=', '<=', '>', '<', '!=', '~='), number)
  .map((parts) => parts.join(''));
const version = fc.oneof(
  fc.constant(''),
  number,
  fc.array(condition, { minLength: 1, maxLength: 4 }).map((all) => all.join(',')),
);
const spec: fc.Arbitrary<CondaSpec> = fc
  .record({
    name: word('abcdefghijklmnopqrstuvwxyz_', 'abcxyz0189_.-'),
    version,
    build: fc.option(word('abcpy0189_', 'abcpy0189_*'), { nil: undefined }),
    channel: fc.option(word('abcxyz', 'abcxyz0189-/'), { nil: undefined }),
  })
  .map(({ build, channel, ...rest }) => ({
    ...rest,
    ...(build === undefined || rest.version === '' ? {} : { build }),
    ...(channel === undefined ? {} : { channel }),
  }));

test('what is written is read back, whatever the blanks and the comment', () => {
  const blanks = fc.constantFrom('', ' ', '  ');
  fc.assert(
    fc.property(spec, blanks, fc.constantFrom('', ' # why', '  #'), (given, blank, comment) => {
      const text = formatCondaSpec(given);
      // Blanks may stand around the operators, except before a build.
      const wide = given.build === undefined ? text.replace(/([=<>!~]=?|,)(?=[\d<>=!~])/g, `${blank}$1`) : text;
      for (const each of [text, `${blank}${text}${blank}${comment}`, wide]) assert.deepEqual(read(each), given, each);
    }),
  );
});

test('whatever the text, it is read or refused at a place inside it', () => {
  const text = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.array(fc.constantFrom(...'ab1.=<>!~,|*: #[]"\t'.split(''))).map((all) => all.join('')),
  );
  fc.assert(
    fc.property(text, (given) => {
      const reading = readCondaSpec(given);
      if (!reading.ok) assert.ok(reading.at >= 0 && reading.at <= given.length, given);
      else assert.deepEqual(read(formatCondaSpec(reading.value)), reading.value, given);
    }),
    { numRuns: 2_000 },
  );
});
