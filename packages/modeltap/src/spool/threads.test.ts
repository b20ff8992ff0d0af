import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import test from 'node:test';
import { Worker } from 'node:worker_threads';
import { openSpool } from './spool.ts';
import { KiB, MiB, named, put, readBack, scratch } from './support.test-suite.ts';

const SPOOL = JSON.stringify(new URL('./spool.ts', import.meta.url).href);

const READER = `
  import { parentPort, workerData } from 'node:worker_threads';
  import { openSpoolReader } from ${SPOOL};
  const reader = await openSpoolReader(workerData);
  let at = 0;
  parentPort.on('message', async (until) => {
    const numbers = [];
    while (at < until) {
      const { frames, next } = await reader.read(at, until, 50000);
      for (const { payload } of frames) numbers.push(payload.readUInt32LE(0));
      at = next;
    }
    parentPort.postMessage({ at, numbers });
  });
`;

test('a reader in another thread sees every payload once and in order while segments are recycled under it', async (t) => {
  const directory = await scratch(t);
  const spool = await openSpool({ directory, maxBytes: 1 * MiB, segmentBytes: 64 * KiB, batchBytes: 16 * KiB });
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(READER)}`), { workerData: directory });
  const total = 3000;
  let expected = 0;
  let idle = true;
  let told = 0;
  const tell = () => {
    if (!idle || spool.committed === told) return;
    idle = false;
    told = spool.committed;
    worker.postMessage(told);
  };
  spool.onCommit(tell);
  const finished = new Promise<void>((resolve, reject) => {
    worker.on('error', reject);
    worker.on('message', ({ at, numbers }: { at: number; numbers: number[] }) => {
      idle = true;
      for (const number of numbers) {
        if (number !== expected) reject(new RangeError(`${number} instead of ${expected}`));
        expected += 1;
      }
      void spool.release(at);
      if (expected === total) resolve();
      tell();
    });
  });
  for (let i = 0; i < total; ) {
    const payload = Buffer.alloc(4 + ((i * 37) % 3000));
    payload.writeUInt32LE(i);
    if (spool.append([payload], (refusal) => assert.equal(refusal, undefined))) i += 1;
    else await new Promise((resolve) => setImmediate(resolve));
  }
  await finished;
  await worker.terminate();
  assert.ok(spool.committed > 4 * MiB);
  await spool.close();
});

const WRITER = `
  import { openSpool } from ${SPOOL};
  import { writeSync } from 'node:fs';
  const spool = await openSpool({ directory: process.argv[1], maxBytes: ${8 * MiB}, segmentBytes: ${256 * KiB} });
  let n = Number(process.argv[2]);
  const next = () => {
    const mine = n++;
    spool.append([Buffer.from(String(mine).padEnd(20 + (mine * 97) % 5000, '.'))], (refusal) => {
      if (refusal) return setTimeout(next, 5);
      writeSync(1, mine + '\\n');
      next();
    });
  };
  for (let i = 0; i < 16; i += 1) next();
`;

test('after kill -9 at any moment everything acknowledged is read back, once and in order', async (t) => {
  const directory = await scratch(t);
  const acknowledged = new Set<number>();
  let start = 0;
  for (let round = 0; round < 5; round += 1) {
    const args = [
      '--disable-warning=ExperimentalWarning',
      '--input-type=module',
      '-e',
      WRITER,
      directory,
      String(start),
    ];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    let output = '';
    child.stdout.on('data', (data: Buffer) => {
      output += data.toString();
    });
    await once(child.stdout, 'data');
    setTimeout(() => child.kill('SIGKILL'), 5 + ((round * 31) % 60));
    await once(child, 'close');
    for (const line of output.split('\n').slice(0, -1)) acknowledged.add(Number(line));
    const spool = await openSpool({ directory, maxBytes: 8 * MiB, segmentBytes: 256 * KiB });
    assert.deepEqual(spool.recovery.damaged, []);
    const numbers = (await readBack(directory, spool.released, spool.committed)).map(({ text }) =>
      Number.parseInt(text, 10),
    );
    assert.equal(numbers.length, spool.recovery.frames);
    assert.deepEqual(
      numbers,
      [...new Set(numbers)].sort((a, b) => a - b),
      'once and in order',
    );
    const found = new Set(numbers);
    assert.deepEqual(
      [...acknowledged].filter((number) => !found.has(number)),
      [],
    );
    start = 1 + Math.max(...numbers);
    assert.equal(await put(spool, named(start, 100)), 'ok');
    start += 1;
    await spool.close();
  }
  assert.ok(acknowledged.size > 50);
});
