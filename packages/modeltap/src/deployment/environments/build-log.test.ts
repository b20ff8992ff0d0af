import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { BuildLog, Progress, progressOf } from './build-log.ts';

test('the log has every line without passwords, and the last 15 of a command', () => {
  const folder = mkdtempSync(join(tmpdir(), 'modeltap-build-log-'));
  const log = new BuildLog(join(folder, 'build.log'));
  log.line('before');
  log.begin('pip install --extra-index-url https://me:se/cret@host/simple'.replace('se/cret', 'p@ss'));
  for (let line = 1; line <= 20; line += 1) log.line(`line ${line}`);
  log.line('Looking in indexes: https://host/simple, https://user:word@other/simple');
  log.line('Collecting https://store/x.whl?sv=1&sig=abc%2F&x=1');
  log.close();
  const text = readFileSync(log.path, 'utf8');
  rmSync(folder, { recursive: true });
  assert.match(text, /^before\n\$ pip install --extra-index-url https:\/\/\[redacted\]@host\/simple\nline 1\n/);
  assert.ok(!/p@ss|word|abc%2F/.test(text));
  assert.equal(log.tail().split('\n').length, 15);
  assert.match(log.tail(), /^line 8\n[\s\S]*https:\/\/\[redacted\]@other\/simple\n.*sig=\[redacted\]&x=1$/);
});

for (const [line, text] of [
  ['Collecting pandas<3,>=2', 'collecting pandas'],
  ['Collecting azureml-core[x]~=1.0', 'collecting azureml-core'],
  ['  Downloading numpy-1.26.4-cp310-cp310-manylinux_2_17_x86_64.whl (18.2 MB)', 'downloading numpy-1.26.4, 18.2 MB'],
  ['  Downloading https://host/a/fusepy-3.0.1.tar.gz (11 kB)', 'downloading fusepy-3.0.1, 11 kB'],
  ['Downloading scipy (35.9MiB)', 'downloading scipy, 35.9MiB'],
  ['  Building wheel for fusepy (setup.py): started', 'building fusepy'],
  ['   Building fusepy==3.0.1', 'building fusepy==3.0.1'],
  ['Installing collected packages: six, idna, numpy', 'installing 3 packages'],
  ['Resolved 1 package in 75ms', 'resolved 1 package'],
  ['Prepared 19 packages in 2.62s', 'installing 19 packages'],
  ['Requirement already satisfied: six', undefined],
] as const) {
  test(`"${line.trim()}" tells a person: ${text}`, () => assert.equal(progressOf(line), text));
}

test('of many texts a few are told, and the last one always', () => {
  const told: string[] = [];
  const progress = new Progress((text) => told.push(text));
  for (let step = 0; step <= 1000; step += 1) progress.say(`step ${step}`);
  progress.end();
  assert.deepEqual(told, ['step 0', 'step 1000']);
});
