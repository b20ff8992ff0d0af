/**
 * Weaknesses of the SDK that a server can make good: it opens a connection for every payload, has no timeout, and reads
 * its config file to the letter.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { loadDeployment } from '../../packages/modeltap/src/config/load.ts';
import { mdcConfigFile } from '../../packages/modeltap/src/deployment/mdc-config.ts';
import { killAgents, ledgerOf, untilDelivered } from '../support/agent.ts';
import { sendAsSdk } from '../support/raw-client.ts';
import { pythonReason } from './support/available.ts';
import { type PythonProcess, startPython } from './support/python-process.ts';
import { startPlace } from './support/place.ts';
import { newestPandas } from './support/sdk-matrix.ts';
import { type Collected, type Opened, type SdkRig, startRig } from './support/sdk-rig.ts';
import { storedLines } from './support/stored.ts';
import type { Venv } from './support/venv.ts';

/** No request may take longer, whatever else the machine does. */
const SLOWEST_MS = 5_000;
const reason = await pythonReason();
const venvs = reason === undefined ? await newestPandas() : new Map<string, Venv>();
const [venv] = venvs.values();
const withoutSdk = reason ?? (venv === undefined ? 'SKIPPED: no version of the SDK installs here' : undefined);
const withoutProc = existsSync('/proc/self/fd')
  ? undefined
  : 'SKIPPED: this system does not tell the files of a process';
after(killAgents);

/** What a process has open: sockets, and everything. A file that closes meanwhile counts as nothing. */
function openFiles(pid: number | undefined): { sockets: number; all: number } {
  const names = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      return '';
    }
  });
  return { sockets: names.filter((name) => name.startsWith('socket:')).length, all: names.filter(Boolean).length };
}

/** The process has no more open than before; sockets close a moment after their clients do. */
async function untilFilesAreBack(pid: number | undefined, before: { sockets: number; all: number }): Promise<void> {
  for (let tries = 0; ; tries += 1) {
    const now = openFiles(pid);
    if (now.sockets <= before.sockets && now.all <= before.all) return;
    assert.ok(tries < 200, `open before: ${JSON.stringify(before)}, now: ${JSON.stringify(now)}`);
    await wait(50);
  }
}

const idsOf = (lines: readonly Buffer[]) =>
  lines.map((line) => (JSON.parse(line.toString()) as { correlationid: string }).correlationid);

test('thousands of short connections a second are all answered, stored and closed', { skip: withoutProc }, async () => {
  const { agent, store, close } = await startPlace();
  try {
    await send(agent.port, 'warm');
    await untilDelivered(agent);
    const before = openFiles(agent.child.pid);
    const took: number[] = [];
    const refused: string[] = [];
    let next = 0;
    const begin = performance.now();
    // Bounded twice: by time, and by the ports a client has.
    const client = async () => {
      while (performance.now() - begin < 4_000 && next < 20_000) {
        const id = `n${(next += 1)}`;
        const start = performance.now();
        const { status, body } = await send(agent.port, id);
        took.push(performance.now() - start);
        if (status !== 204) refused.push(`${id}: ${status} ${body}`);
      }
    };
    await Promise.all(Array.from({ length: 64 }, client));
    report('short connections', took, performance.now() - begin);
    assert.deepEqual(refused.slice(0, 5), []);
    assert.ok(Math.max(...took) < SLOWEST_MS, `the slowest took ${Math.max(...took)} ms`);
    await untilDelivered(agent);
    const ids = idsOf(storedLines(store, 'model_inputs'));
    assert.equal(ids.length, next + 1, 'every record once');
    assert.equal(new Set(ids).size, next + 1);
    await untilFilesAreBack(agent.child.pid, before);
    assert.deepEqual((await ledgerOf(agent)).broken, []);
  } finally {
    await close();
  }
});

function send(port: number, correlationId: string) {
  const body = Buffer.from(`[{"id":"${correlationId}","x":1.5}]`);
  return sendAsSdk(port, { collection: 'model_inputs', body, correlationId }, SLOWEST_MS * 2);
}

function report(what: string, tookMs: readonly number[], totalMs: number): void {
  const sorted = tookMs.toSorted((a, b) => a - b);
  const at = (share: number) => (sorted[Math.floor((sorted.length - 1) * share)] ?? 0).toFixed(1);
  const rate = Math.round((tookMs.length / totalMs) * 1000);
  console.log(`${what}: ${tookMs.length}, ${rate}/s, p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, slowest ${at(1)} ms`);
}

test('real SDK processes that send at once lose nothing and leave nothing open', {
  skip: withoutSdk ?? withoutProc,
}, async () => {
  assert.ok(venv);
  const { agent, store, close } = await startPlace();
  const processes = Array.from({ length: 3 }, () => startPython(venv, 'collect.py'));
  try {
    await send(agent.port, 'warm');
    await untilDelivered(agent);
    const before = openFiles(agent.child.pid);
    const calls = 1000;
    const set = { AZUREML_MDC_ENABLED: 'true', AZUREML_MDC_PORT: String(agent.port), AZUREML_MDC_WORKER_COUNT: '4' };
    const burst = async (python: PythonProcess) => {
      await python.ask({ do: 'env', set });
      await python.ask({ do: 'open', collection: 'model_outputs' });
      const collect = { do: 'collect', collection: 'model_outputs', frame: 'one_row', times: calls };
      assert.equal((await python.ask<Collected>(collect)).raised, null);
      await python.ask({ do: 'flush' });
    };
    // Somebody else asks meanwhile.
    const took: number[] = [];
    const begin = performance.now();
    const work = { done: false };
    const ended = Promise.all(processes.map(burst)).finally(() => {
      work.done = true;
    });
    while (!work.done) {
      const start = performance.now();
      assert.equal((await send(agent.port, `other ${took.length}`)).status, 204);
      took.push(performance.now() - start);
      await wait(10);
    }
    await ended;
    report(`beside ${processes.length * calls} payloads of the SDK`, took, performance.now() - begin);
    assert.ok(Math.max(...took) < SLOWEST_MS, `the slowest took ${Math.max(...took)} ms`);
    await untilDelivered(agent);
    for (const python of processes) assert.ok(!/failed to send|raise exception/.test(python.log()), python.log());
    const ids = idsOf(storedLines(store, 'model_outputs'));
    assert.equal(new Set(ids).size, processes.length * calls);
    assert.equal(ids.length, processes.length * calls);
    await untilFilesAreBack(agent.child.pid, before);
  } finally {
    await Promise.all(processes.map((python) => python.end()));
    await close();
  }
});

const BODY = '[{"x":1}]';
const HEAD = [
  'POST /modeldata/log HTTP/1.1',
  'Host: 127.0.0.1',
  'Content-Type: application/json',
  'ce-type: azureml.inference.model_inputs',
  'ce-x-request-id: whole',
  `Content-Length: ${BODY.length}`,
].join('\r\n');

/** Ways in which a client stops in the middle, and how it then goes. */
const BROKEN: readonly (readonly [string, 'reset' | 'close' | 'half-close'])[] = [
  ['', 'reset'],
  ['', 'half-close'],
  ['POST /modeldata/log HT', 'reset'],
  [HEAD, 'close'],
  [HEAD, 'half-close'],
  [`${HEAD}\r\n\r\n`, 'reset'],
  [`${HEAD}\r\n\r\n${BODY.slice(0, 4)}`, 'close'],
  [`${HEAD}\r\n\r\n${BODY.slice(0, 4)}`, 'half-close'],
  // Whole, but nobody waits for the answer: taken or not, it must not be counted wrongly.
  [`${HEAD}\r\n\r\n${BODY}`, 'reset'],
];

test('connections that break off leave nothing open and disturb nobody', { skip: withoutProc }, async () => {
  const { agent, store, close } = await startPlace();
  try {
    await send(agent.port, 'warm');
    await untilDelivered(agent);
    const before = openFiles(agent.child.pid);
    const sockets: Socket[] = [];
    for (let round = 0; round < 20; round += 1) {
      for (const [text, end] of BROKEN) sockets.push(await breakOff(agent.port, text, end));
      const start = performance.now();
      assert.equal((await send(agent.port, `between ${round}`)).status, 204);
      assert.ok(performance.now() - start < SLOWEST_MS);
    }
    // A client that only shut its own side down is still there: the agent must close, answer or not.
    await untilFilesAreBack(agent.child.pid, before);
    for (const socket of sockets) socket.destroy();
    await untilDelivered(agent);
    const ids = idsOf(storedLines(store, 'model_inputs')).filter((id) => id !== 'whole');
    assert.deepEqual(ids.toSorted(), ['warm', ...Array.from({ length: 20 }, (_, n) => `between ${n}`)].toSorted());
    const ledger = await ledgerOf(agent);
    assert.deepEqual([ledger.broken, ledger.dropped, ledger.spooled], [[], 0, 0]);
  } finally {
    await close();
  }
});

/** Connects, writes the text, and goes. */
function breakOff(port: number, text: string, end: (typeof BROKEN)[number][1]): Promise<Socket> {
  return new Promise((done) => {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    // The other side may close first.
    socket.on('error', () => socket.destroy());
    socket.resume();
    socket.once('connect', () => {
      const go = () => {
        if (end === 'reset') socket.resetAndDestroy();
        else if (end === 'close') socket.destroy();
        else socket.end();
        done(socket);
      };
      if (text === '') go();
      else socket.write(text, go);
    });
  });
}

test('a deployment file that says Model_Inputs enables Collector(name="model_inputs")', {
  skip: withoutSdk,
}, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'modeltap-habits-'));
  mkdirSync(join(directory, 'model'));
  writeFileSync(join(directory, 'score.py'), 'def init():\n    pass\n\n\ndef run(data):\n    return data\n');
  writeFileSync(
    join(directory, 'deployment.yml'),
    [
      'name: blue',
      'endpoint_name: iris',
      'model:',
      '  path: ./model',
      'code_configuration:',
      '  code: .',
      '  scoring_script: score.py',
      'environment:',
      '  image: mcr.example/base:latest',
      'instance_count: 1',
      'data_collector:',
      '  collections:',
      '    Model_Inputs:',
      '      enabled: "True"',
      '    MODEL_OUTPUTS:',
      '      enabled: "False"',
      '',
    ].join('\n'),
  );
  const { dataCollector } = (await loadDeployment(join(directory, 'deployment.yml'))).value;
  assert.ok(dataCollector);
  const file = JSON.parse(mdcConfigFile(dataCollector)) as Record<string, unknown>;
  assert.equal(Object.hasOwn(file, 'runMode'), false);
  assert.deepEqual(Object.keys(file.collections as object), ['model_inputs', 'model_outputs']);
  const versions = [...venvs].map(([version, venv]) =>
    t.test(version, async () => {
      const rig: SdkRig = await startRig(venv);
      try {
        await rig.useConfig(dataCollector);
        assert.deepEqual(await rig.python.ask<Opened>({ do: 'open', collection: 'model_inputs' }), {
          raised: null,
          errors: [],
        });
        const { raised } = await rig.python.ask<Opened>({ do: 'open', collection: 'model_outputs' });
        assert.equal(raised?.message, 'collection model_outputs is not enabled, drop the data');
        await rig.python.ask({ do: 'collect', collection: 'model_inputs', frame: 'one_row' });
        await rig.python.ask({ do: 'flush' });
        await untilDelivered(rig.agent());
        assert.equal(storedLines(rig.store, 'model_inputs').length, 1);
      } finally {
        await rig.close();
      }
    }),
  );
  await Promise.all(versions);
  rmSync(directory, { recursive: true, force: true });
});
