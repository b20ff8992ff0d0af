/** Proves that the documentation and the code agree. */
import assert from 'node:assert/strict';
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { test } from 'node:test';
import { ERRORS } from '../packages/modeltap/src/kit/error-codes.ts';
import { PAGES } from '../scripts/docs.ts';
import { freePort, startAgent, writeAgentFile } from './support/agent.ts';

const root = resolve(import.meta.dirname, '..');
const read = (file: string) => readFileSync(join(root, file), 'utf8');

for (const { file, text } of PAGES) {
  test(`${file} is what the code says (npm run docs)`, () => {
    assert.equal(read(file), text());
  });
}

test('every error code of the registry is raised somewhere, and the table is sorted', () => {
  const codes = Object.keys(ERRORS);
  assert.deepEqual(codes, codes.toSorted());
  const source = globSync('packages/modeltap/src/**/*.ts', { cwd: root })
    .filter((file) => !file.endsWith('.test.ts') && !file.endsWith('error-codes.ts'))
    .map(read)
    .join('\n');
  assert.deepEqual(
    codes.filter((code) => !source.includes(`'${code}'`)),
    [],
  );
});

test('every metric of a running agent is in docs/operations.md', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'modeltap-docs-'));
  const port = await freePort();
  const datastore = { type: 'local', path: join(directory, 'store') };
  const agent = await startAgent(writeAgentFile({ directory, port, datastore }), port);
  const text = await (await fetch(`${agent.url}/metrics`)).text();
  assert.equal(await agent.end('SIGTERM'), 0);
  rmSync(directory, { recursive: true });
  const names = [...text.matchAll(/^# HELP (\S+)/gm)].map((match) => match[1] ?? '');
  assert.ok(names.length > 10);
  const page = read('docs/operations.md');
  assert.deepEqual(
    names.filter((name) => !page.includes(`\`${name}\``)),
    [],
  );
});

test('links in the documentation lead somewhere', () => {
  const pages = [
    ...globSync('docs/**/*.md', { cwd: root }),
    ...globSync('*.md', { cwd: root }),
    ...globSync('examples/*/*.md', { cwd: root }),
  ];
  const broken = pages.flatMap((page) =>
    [...read(page).matchAll(/\]\((?!https?:|#|mailto:)([^)#\s]+)/g)]
      .map((match) => match[1] ?? '')
      .filter((target) => !existsSync(join(root, dirname(page), target)))
      .map((target) => `${page} → ${target}`),
  );
  assert.deepEqual(broken, []);
});

test('each invariant of the architecture names a test file that exists', () => {
  const section = read('ARCHITECTURE.md').split('## Invariants')[1]?.split('\n## ')[0] ?? '';
  const named = [...section.matchAll(/^\d+\. .*$/gm)].map((match) => match[0]);
  assert.ok(named.length >= 9, `found ${named.length} invariants`);
  for (const line of named) {
    const files = [...line.matchAll(/`([\w./-]+\.test\.ts)`/g)].map((match) => match[1] ?? '');
    assert.ok(files.length > 0, `no test named in: ${line}`);
    for (const file of files) assert.ok(existsSync(join(root, file)), `${file} does not exist (${line})`);
  }
});

test('every script the README and CONTRIBUTING name exists', () => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
  const named = ['README.md', 'CONTRIBUTING.md', ...globSync('docs/**/*.md', { cwd: root })].flatMap((page) =>
    [...read(page).matchAll(/npm run ([\w:]+)/g)].map((match) => ({ page, script: match[1] ?? '' })),
  );
  assert.deepEqual(
    named.filter(({ script }) => !(script in scripts)),
    [],
  );
});
