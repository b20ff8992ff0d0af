/** What needs no Python; the real thing is in test/python/environments.test.ts. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { runCommand } from './command.ts';
import { createEnvironments } from './environments.ts';

const folder = mkdtempSync(join(tmpdir(), 'modeltap-environments-'));
after(() => rmSync(folder, { recursive: true }));

test('without a usable Python the error says what was found and what to install', async () => {
  const directory = join(folder, 'none');
  const list = [
    { path: '/usr/bin/python3.11', version: '3.11.2', hasVenv: false },
    { path: '/opt/old/python3.6', version: '3.6.15', hasVenv: true },
  ];
  const machineEnvironment = { PATH: folder };
  const environments = createEnvironments({ directory, machineEnvironment, interpreters: async () => list });
  await assert.rejects(environments.prepare(undefined), {
    code: 'python_missing',
    message:
      'there is no usable Python on this machine; found: /usr/bin/python3.11 (3.11.2, without venv), /opt/old/python3.6 (3.6.15)',
    fix: /python3-venv/,
  });
  assert.equal(existsSync(directory), false);
});

test('a build that cannot even start fails with the reason and leaves its log', async () => {
  const directory = join(folder, 'broken');
  const list = [{ path: join(folder, 'python-that-is-not-there'), version: '3.11.2', hasVenv: true }];
  const machineEnvironment = { PATH: folder };
  const environments = createEnvironments({ directory, machineEnvironment, interpreters: async () => list });
  await assert.rejects(environments.prepare(undefined), { code: 'environment_build_failed', message: /ENOENT/ });
});

test('a folder that cannot be made is named', async () => {
  const list = [{ path: '/usr/bin/python3', version: '3.11.2', hasVenv: true }];
  const directory = join('/dev/null', 'environments');
  const environments = createEnvironments({ directory, interpreters: async () => list });
  await assert.rejects(environments.prepare(undefined), { code: 'environment_unusable', message: /\/dev\/null/ });
});

test('a command is ended with everything it has started', async () => {
  const lines: string[] = [];
  const stop = new AbortController();
  const end = await runCommand({
    command: 'sh',
    args: ['-c', 'sleep 60 & echo child $!; wait'],
    cwd: folder,
    environment: { PATH: process.env.PATH ?? '' },
    signal: stop.signal,
    onLine: (line) => {
      lines.push(line);
      stop.abort();
    },
  });
  assert.equal(end.text, 'signal SIGKILL');
  const child = Number(/^child (\d+)$/.exec(lines[0] ?? '')?.[1]);
  assert.ok(child > 0);
  assert.equal(isRunning(child), false);
});

function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
