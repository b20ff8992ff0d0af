import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import test from 'node:test';
import { openSpool } from './spool.ts';
import { MiB, put, scratch } from './support.test-suite.ts';

const HOLDER = `
  import { openSpool } from ${JSON.stringify(new URL('./spool.ts', import.meta.url).href)};
  await openSpool({ directory: process.argv[1], maxBytes: ${4 * MiB} });
  console.log('open');
  setInterval(() => {}, 1000);
`;

test('a second opening is refused with spool_locked, in the same process and after closing no more', async (t) => {
  const directory = await scratch(t);
  const spool = await openSpool({ directory, maxBytes: 4 * MiB });
  await assert.rejects(openSpool({ directory, maxBytes: 4 * MiB }), { code: 'spool_locked' });
  assert.equal(await put(spool, 'still mine'), 'ok');
  await spool.close();
  const again = await openSpool({ directory, maxBytes: 4 * MiB });
  await again.close();
});

test('the lock holds against another process and ends when that is killed', async (t) => {
  const directory = await scratch(t);
  const args = ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', HOLDER, directory];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  await assert.rejects(openSpool({ directory, maxBytes: 4 * MiB }), { code: 'spool_locked' });
  child.kill('SIGKILL');
  await once(child, 'exit');
  const spool = await openSpool({ directory, maxBytes: 4 * MiB });
  assert.equal(await put(spool, 'mine now'), 'ok');
  await spool.close();
});

test('a failed opening gives the lock back', async (t) => {
  const directory = await scratch(t);
  await assert.rejects(openSpool({ directory, maxBytes: 1000 }), { code: 'spool_too_small' });
  const spool = await openSpool({ directory, maxBytes: 4 * MiB });
  await spool.close();
});
