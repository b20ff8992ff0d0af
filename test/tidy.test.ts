/** Holds the house rules that no linter knows: who may import whom, names, bare throws, unfinished words. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { test } from 'node:test';

const root = resolve(import.meta.dirname, '..');
const source = 'packages/modeltap/src';

/** ARCHITECTURE.md's table of folders: what each may import. `*` is everything above it. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  kit: [],
  record: ['kit'],
  config: ['kit', 'record'],
  storage: ['kit', 'record'],
  spool: ['kit'],
  payload: ['kit', 'record'],
  catalog: ['kit', 'config', 'storage'],
  ingest: ['kit', 'record', 'spool'],
  tap: ['kit', 'record', 'spool', 'payload'],
  endpoint: ['kit', 'catalog'],
  delivery: ['kit', 'record', 'spool', 'storage'],
  deployment: ['kit', 'config', 'catalog'],
  agent: ['kit', 'config', 'record', 'storage', 'spool', 'ingest', 'tap', 'delivery', 'catalog'],
  api: [
    'kit',
    'config',
    'record',
    'storage',
    'spool',
    'catalog',
    'ingest',
    'endpoint',
    'delivery',
    'deployment',
    'agent',
  ],
  cli: ['*'],
};

const BANNED_SUFFIX =
  /\b(?:class|interface|type)\s+(\w*(?:Manager|Service|Helper|Utils?|Handler|Processor)|I[A-Z][a-z]\w*)\b/g;
const BANNED_FILE = /(?:^|[-/])(?:manager|service|helpers?|utils?|handler|processor)\.ts$/;

/** Files git knows or would add: what is ignored is not ours. */
function tracked(pattern: RegExp): string[] {
  const out = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8',
  });
  return out.split('\n').filter((file) => pattern.test(file) && existsSync(join(root, file)));
}

const measured = tracked(/\.ts$/).filter((file) => !file.endsWith('.wasm.ts'));
/** AssemblyScript has TypeScript's syntax and other rules. */
const typescript = measured.filter((file) => !file.includes('/assembly/'));
const product = typescript.filter((file) => file.startsWith('packages/') && !/\.test[.-]/.test(file));
const read = (file: string) => readFileSync(join(root, file), 'utf8');
/** The text with comments and strings blanked, so that words in them do not count as code. */
const code = (file: string) =>
  read(file)
    .replace(/\/\*[\s\S]*?\*\//g, '')
    .replace(/(^|[^:'"`])\/\/.*$/gm, '$1');

function importsOf(file: string): string[] {
  return [...code(file).matchAll(/(?:\bfrom\s+|\bimport\s+|\bimport\s*\(\s*)'([^']+)'/g)].map(
    (match) => match[1] ?? '',
  );
}

test('folders import only what the architecture allows', () => {
  const wrong: string[] = [];
  for (const file of product.filter((name) => name.startsWith(`${source}/`))) {
    const folder = file.slice(source.length + 1).split('/')[0] ?? '';
    const allowed = MAY_IMPORT[folder];
    if (allowed === undefined) {
      wrong.push(`${file}: folder ${folder} is not in the table`);
      continue;
    }
    for (const target of importsOf(file).filter((name) => name.startsWith('.'))) {
      const to = relative(source, join(dirname(file), target)).split('/')[0] ?? '';
      if (to !== folder && !allowed.includes('*') && !allowed.includes(to)) wrong.push(`${file} imports ${to}/`);
    }
  }
  assert.deepEqual(wrong, []);
});

test('the SDK imports nothing but Node', () => {
  const wrong = product
    .filter((file) => file.startsWith('packages/collector/'))
    .flatMap((file) => importsOf(file).map((name) => ({ file, name })))
    .filter(({ name }) => !name.startsWith('.') && !name.startsWith('node:'));
  assert.deepEqual(wrong, []);
  const manifest = JSON.parse(read('packages/collector/package.json')) as Record<string, unknown>;
  assert.equal(manifest.dependencies, undefined);
});

test('no file is longer than 500 lines', () => {
  const long = measured
    .map((file) => ({ file, lines: read(file).split('\n').length }))
    .filter(({ lines }) => lines > 501);
  assert.deepEqual(long, []);
});

test('errors come from the registry: no bare throw', () => {
  const bare = product.filter((file) => /throw new (?:Type|Range)?Error\b/.test(code(file)));
  assert.deepEqual(bare, []);
});

test('no empty catch and no unexplained any', () => {
  const empty = product.filter((file) => /catch\s*(?:\([^)]*\))?\s*\{\s*\}/.test(code(file)));
  assert.deepEqual(empty, []);
});

test('names say what a thing is', () => {
  const wrong = product.flatMap((file) => [
    ...(BANNED_FILE.test(file) ? [file] : []),
    ...[...code(file).matchAll(BANNED_SUFFIX)].map((match) => `${file}: ${match[1]}`),
  ]);
  assert.deepEqual(wrong, []);
});

test('nothing reads as unfinished and no test is skipped or narrowed', () => {
  const words = /\b(?:TODO|FIXME|XXX|HACK)\b(?!.*(?:issue \d+|decision \d+))/;
  const self = 'test/tidy.test.ts';
  const wrong = typescript.filter((file) => file !== self && words.test(read(file)));
  const narrowed = typescript.filter(
    (file) => file !== self && /\b(?:test|it|describe)\.(?:only|todo)\(/.test(code(file)),
  );
  assert.deepEqual([...wrong, ...narrowed], []);
});

test('every exported thing of the packages has a doc comment', () => {
  const bare: string[] = [];
  for (const file of product.filter((name) => !name.endsWith('.wasm.ts'))) {
    const lines = read(file).split('\n');
    for (const [index, line] of lines.entries()) {
      if (!/^export (?:async )?(?:abstract )?(?:function|class|interface|type|const|let)\b/.test(line)) continue;
      if (!/\*\/\s*$/.test(lines[index - 1] ?? '')) bare.push(`${file}:${index + 1} ${line.slice(0, 60)}`);
    }
  }
  assert.deepEqual(bare, []);
});

test('no registry address is in the lockfile and no machine path in the tree', () => {
  assert.ok(!/"resolved": "http/.test(read('package-lock.json')));
  const paths = new RegExp(`(^|[^A-Za-z.])/(?:${['work', 'farm', 'tmp/bash_jobs'].join('|')})(?:/|$)`, 'm');
  const wrong = tracked(/\.(?:ts|md|json|ya?ml|js|sh)$|^\.ci\/run$/).filter(
    (file) => file !== 'test/tidy.test.ts' && file !== 'package-lock.json' && paths.test(read(file)),
  );
  assert.deepEqual(wrong, []);
});
