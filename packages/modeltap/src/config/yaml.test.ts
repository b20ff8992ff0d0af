import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { ConfigError, formatIssues } from './issues.ts';
import { loadEndpoint } from './load.ts';
import { parseSource, toInput, toPlain } from './yaml.ts';

const directory = mkdtempSync(join(tmpdir(), 'modeltap-yaml-'));
after(() => rmSync(directory, { recursive: true }));

function refusal(text: string): string {
  try {
    parseSource(text, 'a.yml');
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return formatIssues(error.issues);
  }
  return assert.fail('the text was not refused');
}

const plain = (text: string) => toPlain(toInput(parseSource(text, 'a.yml').root));

const MALFORMED: readonly (readonly [what: string, text: string, answer: string])[] = [
  ['a duplicate key', 'a: 1\nb: 2\na: 3\n', '3:1 error: the key "a" is written twice; keep one of them'],
  ['a tab', 'a:\n\tb: 1\n', '2:1 error: is not valid YAML: Tabs are not allowed as indentation'],
  [
    'bad indentation',
    'a:\n  b: 1\n c: 2\n',
    '3:1 error: is not valid YAML: All mapping items must start at the same column',
  ],
  ['an open quote', 'a: "x\nb: 2\n', '3:1 error: is not valid YAML: Missing closing "quote'],
  ['a second document', 'a: 1\n---\nb: 2\n', '3:1 error: a second YAML document begins here; a file may have only one'],
  ['a list', '- a\n', '1:1 error: must be a mapping (key: value lines), not a list'],
  ['one value', '\nhello\n', '2:1 error: must be a mapping (key: value lines), not one value'],
  ['nothing', '# only a comment\n', '1:1 error: is empty; it must be a mapping (key: value lines)'],
  [
    'an unknown alias',
    'a: *b\n',
    '1:4 error: an alias (*name) has no anchor (&name) before it; quote text that begins with an asterisk',
  ],
  [
    'a tag',
    'a: !!python/object:os.system x\n',
    '1:4 error: tags (!name) are not read; quote text that begins with "!"',
  ],
  [
    'a reserved character',
    'a: 1\nb: @x\n',
    '2:4 error: is not valid YAML: Plain value cannot start with reserved character @',
  ],
  [
    'two values in a line',
    'a: b: c\n',
    '1:4 error: is not valid YAML: Nested mappings are not allowed in compact mappings',
  ],
  ['a key that is a list', '? [a]\n: 1\n', '1:3 error: a key must be plain text'],
  ['a NUL', 'a: b\0c\n', '1:5 error: has a NUL character; a YAML file is text'],
  ['a mapping in itself', 'a: &x\n  b: *x\n', '2:3 error: contains itself through an alias'],
];

for (const [what, text, answer] of MALFORMED) {
  test(`${what} is refused at its place`, () => assert.equal(refusal(text), `a.yml:${answer}`));
}

test('several syntax errors are reported together', () => {
  assert.equal(refusal('a: @x\nb: 1\nc: `y\n').split('\n').length, 2);
});

test('a byte order mark and Windows line ends do not move the places', () => {
  assert.match(refusal('\uFEFFa: 1\r\nb: 2\r\na: 3\r\n'), /^a\.yml:3:1 error: the key "a" is written twice/);
});

test('nested aliases cannot make a short file huge', () => {
  const levels = 'bcdefghi'.split('').map((name, index) => {
    const before = 'abcdefgh'[index];
    return `${name}: &${name} [${Array.from({ length: 9 }, () => `*${before}`).join(', ')}]`;
  });
  assert.match(refusal(`a: &a [x, x, x, x, x, x, x, x, x]\n${levels.join('\n')}\n`), /more than 50000 values/);
});

test('deep nesting and many keys are refused in reasonable time', () => {
  assert.match(refusal(`a: ${'['.repeat(50_000)}`), /nested too deeply/);
  const lines = Array.from({ length: 200 }, (_, index) => `${' '.repeat(index)}a:`);
  assert.match(refusal(lines.join('\n')), /nested more than 64 levels/);
  // 50 000 keys took the parser's own duplicate check 20 s.
  assert.match(
    refusal(Array.from({ length: 50_001 }, (_, index) => `k${index}: v`).join('\n')),
    /more than 50000 values/,
  );
  assert.match(refusal(`a: 1\n#${'x'.repeat(1024 ** 2)}`), /larger than 1 MiB/);
});

test('at most 100 problems are printed', () => {
  const lines = refusal(Array.from({ length: 150 }, () => 'a: 1').join('\n')).split('\n');
  assert.equal(lines.length, 101);
  assert.equal(lines.at(-1), 'and 49 more');
});

test('aliases and merge keys are followed; what is written wins over what is merged', () => {
  const text = 'base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\nlist: [*b]\nmany: {<<: [*b, {z: 4, x: 9}]}\n';
  assert.deepEqual(plain(text), {
    base: { x: 1, y: 2 },
    use: { y: 3, x: 1 },
    list: [{ x: 1, y: 2 }],
    many: { x: 1, y: 2, z: 4 },
  });
});

test('a key cannot reach the prototype', () => {
  assert.match(refusal('__proto__: {polluted: 1}\n'), /a key must not be "__proto__"/);
  assert.deepEqual(plain('constructor: 1\n'), { constructor: 1 });
});

test('whatever the text, it is read or refused with places inside it', () => {
  const fragment = fc.constantFrom(
    'a',
    'b: ',
    '- ',
    '\n',
    '  ',
    '\t',
    '"',
    "'",
    '{',
    '}',
    '[',
    ']',
    ',',
    '&a ',
    '*a',
    '!t ',
    '|',
    '>',
    '#',
    '---\n',
    '? ',
    ': ',
    '<<: ',
    '%',
    '\0',
    '1',
  );
  fc.assert(
    fc.property(fc.array(fragment, { maxLength: 30 }), (parts) => {
      const text = parts.join('');
      try {
        parseSource(text, 'a.yml');
      } catch (error) {
        assert.ok(error instanceof ConfigError, String(error));
        const lines = text.split('\n').length;
        for (const { place } of error.issues) assert.ok(place.line >= 1 && place.line <= lines && place.column >= 1);
      }
    }),
    { numRuns: 500 },
  );
});

test('files that are missing, a folder, or too large are refused by name', async () => {
  const large = join(directory, 'large.yml');
  writeFileSync(large, 'x'.repeat(1024 ** 2 + 1));
  const missing = join(directory, 'missing.yml');
  await assert.rejects(loadEndpoint(missing), {
    message: `the configuration is not valid:\n${missing}:1:1 error: there is no such file`,
  });
  await assert.rejects(loadEndpoint(directory), /is a folder; give a YAML file/);
  await assert.rejects(loadEndpoint(large), /larger than 1 MiB/);
});
