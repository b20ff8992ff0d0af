/**
 * Outages: the store refuses, the disk is full, the agent is gone. Nothing acknowledged is lost, counters tell what
 * happened, everything resumes alone. `FAULT_SECONDS` sets how long the store and the agent are away (default 60).
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, test } from 'node:test';
import type { ObjectStore } from '../../packages/modeltap/src/storage/store.ts';
import { openStore } from '../../packages/modeltap/src/storage/stores.ts';
import {
  freePort,
  killAgents,
  ledgerOf,
  startAgent,
  storedEvents,
  type TestAgent,
  untilDelivered,
  writeAgentFile,
} from '../support/agent.ts';
import { type Azurite, startAzurite } from '../support/azurite.ts';
import { type FaultyProxy, startFaultyProxy } from '../support/faulty-proxy.ts';
import { Load } from '../support/load.ts';
import { seeded } from '../support/random.ts';
import { sendAsSdk } from '../support/raw-client.ts';

const seconds = Number(process.env.FAULT_SECONDS ?? 60);
const root = mkdtempSync(join(tmpdir(), 'modeltap-faults-'));
const sleep = (ms: number) => new Promise((done) => setTimeout(done, ms));
let azurite: Azurite;
let proxy: FaultyProxy;

before(async () => {
  azurite = await startAzurite();
  proxy = await startFaultyProxy(azurite.serviceUrl);
  process.env.FAULT_ACCOUNT_KEY = azurite.accountKey;
});
after(async () => {
  killAgents();
  await proxy.stop();
  await azurite.stop();
  rmSync(root, { recursive: true, force: true });
});

async function azureSetup(container: string): Promise<{ store: ObjectStore; datastore: Record<string, unknown> }> {
  await azurite.createContainer(container);
  const { accountName, accountKey } = azurite;
  return {
    store: await openStore({
      type: 'azure_blob',
      name: 'store',
      accountName,
      containerName: container,
      serviceUrl: proxy.url,
      credentials: { kind: 'account_key', accountKey },
    }),
    datastore: {
      type: 'azure_blob',
      account_name: accountName,
      container_name: container,
      endpoint: proxy.url,
      credentials: { account_key: '${env:FAULT_ACCOUNT_KEY}' },
    },
  };
}

async function rowsOf(store: ObjectStore): Promise<Map<string, number>> {
  const rows = new Map<string, number>();
  for (const { event } of await storedEvents(store, 'modelDataCollector/')) {
    for (const row of event.data as { n: string }[]) rows.set(row.n, (rows.get(row.n) ?? 0) + 1);
  }
  return rows;
}

async function assertStoredOnce(acknowledged: ReadonlySet<string>, store: ObjectStore): Promise<void> {
  const rows = await rowsOf(store);
  assert.deepEqual(
    [...acknowledged].filter((n) => rows.get(n) !== 1),
    [],
  );
  assert.deepEqual(
    [...rows].filter(([, count]) => count !== 1),
    [],
  );
}

interface Health {
  readonly status: string;
  readonly problems: readonly { readonly problem: string; readonly fix: string }[];
}

async function untilHealth(agent: TestAgent, status: string): Promise<Health> {
  const until = Date.now() + 30_000;
  for (;;) {
    const health = await agent.get<Health>('/healthz');
    if (health.status === status) return health;
    if (Date.now() > until) throw new Error(`health stays ${JSON.stringify(health)}`);
    await sleep(100);
  }
}

test(`a store that refuses, throttles, fails and hangs for ${seconds} s loses nothing and resumes alone`, async () => {
  const { store, datastore } = await azureSetup('refused');
  const port = await freePort();
  const agent = await startAgent(writeAgentFile({ directory: join(root, 'refused'), port, datastore }), port);
  const load = new Load({ port, random: seeded(11), clients: 3 });
  load.start();
  await sleep(1_000);
  const faults = [
    { kind: 'status', status: 403, code: 'AuthorizationPermissionMismatch' },
    { kind: 'status', status: 429, code: 'TooManyRequests', retryAfter: '1' },
    { kind: 'status', status: 503, code: 'ServerBusy' },
    { kind: 'reset_answer' },
    { kind: 'reset_request' },
  ] as const;
  for (const fault of faults) {
    proxy.setFault(fault);
    const health = await untilHealth(agent, 'degraded');
    if (fault.kind === 'status' && fault.status === 403) {
      assert.match(health.problems[0]?.fix ?? '', /Storage Blob Data Contributor/);
      assert.match(await (await fetch(`${agent.url}/metrics`)).text(), /modeltap_datastore_up\{datastore="store"\} 0/);
    }
    await sleep((seconds / faults.length) * 1_000);
    assert.equal((await ledgerOf(agent)).broken.length, 0);
  }
  const before = await ledgerOf(agent);
  assert.ok(before.spooled > 0, 'records waited in the spool');
  proxy.setFault(undefined);
  await load.pause();
  await load.finish();
  await untilHealth(agent, 'ok');
  await untilDelivered(agent);
  await assertStoredOnce(load.acknowledged, store);
  const ledger = await ledgerOf(agent);
  assert.deepEqual(ledger.broken, []);
  assert.equal(ledger.dropped, 0);
  assert.equal(await agent.end('SIGTERM'), 0);
});

test('a full spool refuses by name, keeps what it acknowledged, and takes records again', async () => {
  const { store, datastore } = await azureSetup('fullspool');
  const port = await freePort();
  const directory = join(root, 'fullspool');
  const extra = { spool: { path: './spool', max_bytes: '4MB' } };
  const agent = await startAgent(writeAgentFile({ directory, port, datastore, extra }), port);
  proxy.setFault({ kind: 'status', status: 403, code: 'AuthorizationFailure' });
  const acknowledged = new Set<string>();
  let refused: { status: number; body: string } | undefined;
  for (let n = 1; n < 200 && refused === undefined; n += 1) {
    const body = Buffer.from(JSON.stringify([{ n: `f${n}`, filler: 'z'.repeat(100_000) }]));
    const answer = await sendAsSdk(port, { collection: 'model_inputs', body, correlationId: `f${n}` });
    if (answer.status === 204) acknowledged.add(`f${n}`);
    else refused = answer;
  }
  assert.equal(refused?.status, 503);
  assert.match(refused?.body ?? '', /"code":"spool_full"/);
  proxy.setFault(undefined);
  await untilDelivered(agent);
  const again = await sendAsSdk(port, {
    collection: 'model_inputs',
    body: Buffer.from('[{"n":"again"}]'),
    correlationId: 'again',
  });
  assert.equal(again.status, 204);
  acknowledged.add('again');
  await untilDelivered(agent);
  await assertStoredOnce(acknowledged, store);
  const { rows } = await agent.get<{ rows: { rejected: Record<string, number> }[] }>('/v1/ledger');
  assert.ok(
    rows.some((row) => (row.rejected.spool_full ?? 0) > 0),
    JSON.stringify(rows),
  );
  assert.equal(await agent.end('SIGTERM'), 0);
});

const mayMount = process.platform === 'linux' && process.getuid?.() === 0 && canMount();

function canMount(): boolean {
  const probe = mkdtempSync(join(tmpdir(), 'modeltap-mount-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', probe], { stdio: 'ignore' });
    execFileSync('umount', [probe]);
    return true;
  } catch {
    return false;
  } finally {
    rmSync(probe, { recursive: true, force: true });
  }
}

test('a disk that is full refuses, keeps what it acknowledged, and resumes when there is space', {
  skip: mayMount ? false : 'mounting a tmpfs needs root',
}, async () => {
  const { store, datastore } = await azureSetup('fulldisk');
  const port = await freePort();
  const directory = join(root, 'fulldisk');
  const disk = join(directory, 'spool');
  mkdirSync(disk, { recursive: true });
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=12m', 'tmpfs', disk]);
  try {
    writeFileSync(join(disk, 'other-program'), Buffer.alloc(3 * 1024 ** 2));
    const extra = { spool: { path: './spool', max_bytes: '64MB' } };
    const agent = await startAgent(writeAgentFile({ directory, port, datastore, extra }), port);
    proxy.setFault({ kind: 'hang' });
    const acknowledged = new Set<string>();
    const refusals = new Set<number>();
    const send = async (n: number) => {
      const body = Buffer.from(JSON.stringify([{ n: `d${n}`, filler: 'q'.repeat(60_000) }]));
      const { status } = await sendAsSdk(port, { collection: 'model_outputs', body, correlationId: `d${n}` });
      if (status === 204) acknowledged.add(`d${n}`);
      else refusals.add(status);
    };
    for (let n = 1; n <= 300; n += 4) await Promise.all([send(n), send(n + 1), send(n + 2), send(n + 3)]);
    assert.deepEqual([...refusals], [503]);
    assert.ok(acknowledged.size > 20, `${acknowledged.size} were acknowledged`);
    rmSync(join(disk, 'other-program'));
    proxy.setFault(undefined);
    await untilDelivered(agent);
    const before = acknowledged.size;
    for (let n = 1_000; n < 1_010; n += 1) await send(n);
    assert.equal(acknowledged.size, before + 10, 'records are taken again');
    await untilDelivered(agent);
    await assertStoredOnce(acknowledged, store);
    assert.deepEqual((await ledgerOf(agent)).broken, []);
    assert.equal(await agent.end('SIGTERM'), 0);
  } finally {
    execFileSync('umount', ['-l', disk]);
  }
});

test(`an agent that is gone for ${seconds} s costs the SDK nothing but memory`, async () => {
  const path = join(root, 'gone-store');
  const port = await freePort();
  const file = writeAgentFile({ directory: join(root, 'gone'), port, datastore: { type: 'local', path } });
  let agent = await startAgent(file, port);
  const host = spawn(
    process.execPath,
    [resolve(import.meta.dirname, '../support/collector-process.mjs'), String(port)],
    {
      stdio: ['pipe', 'pipe', 'inherit'],
    },
  );
  let text = '';
  host.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  const ended = new Promise<number | null>((done) => {
    host.once('close', done);
  });
  await sleep(2_000);
  await agent.end('SIGKILL');
  // Within the SDK's delivery deadline of 60 s for the first record that could not be sent.
  await sleep(Math.min(seconds, 50) * 1_000);
  agent = await startAgent(file, port);
  await sleep(2_000);
  host.stdin.end();
  assert.equal(await ended, 0);
  const report = JSON.parse(text) as {
    collected: number;
    failures: number;
    errors: string[];
    result: { accepted: number; sent: number; pending: number; dropped: Record<string, number> };
  };
  assert.equal(report.result.accepted, report.collected, text);
  assert.equal(report.result.sent, report.collected, text);
  assert.equal(report.result.pending, 0);
  await untilDelivered(agent);
  const rows = await rowsOf(await openStore({ type: 'local', name: 'store', path }));
  assert.equal(rows.size, report.collected);
  assert.deepEqual(
    [...rows].filter(([, count]) => count !== 1),
    [],
  );
  assert.equal(await agent.end('SIGTERM'), 0);
});
