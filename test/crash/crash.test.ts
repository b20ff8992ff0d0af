/**
 * Kills the agent with SIGKILL at seeded random moments under load and counts. An oracle gives every row a number of its
 * own and remembers which were acknowledged: each of those must be stored exactly once, everything else at most once.
 * `CRASH_SEED` repeats a run, `CRASH_ROUNDS` sets how many kills (default 50 for each store).
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
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
import { startAzurite } from '../support/azurite.ts';
import { Load } from '../support/load.ts';
import { seeded } from '../support/random.ts';

const seed = Number(process.env.CRASH_SEED ?? Math.floor(Math.random() * 2 ** 31));
const rounds = Number(process.env.CRASH_ROUNDS ?? 50);
console.log(`crash tests: CRASH_SEED=${seed} CRASH_ROUNDS=${rounds}`);

const root = mkdtempSync(join(tmpdir(), 'modeltap-crash-'));
after(() => {
  killAgents();
  rmSync(root, { recursive: true, force: true });
});
const sleep = (ms: number) => new Promise((done) => setTimeout(done, ms));

/** What the oracle knows against what lies in the store. */
async function verify(load: Load, store: ObjectStore, agent: TestAgent): Promise<void> {
  const stored = new Map<string, number>();
  for (const { event } of await storedEvents(store, 'modelDataCollector/')) {
    for (const row of event.data as { n: string }[]) stored.set(row.n, (stored.get(row.n) ?? 0) + 1);
  }
  const lost = [...load.acknowledged].filter((n) => !stored.has(n));
  const twice = [...stored].filter(([, count]) => count > 1).map(([n]) => n);
  const unknown = [...stored.keys()].filter((n) => !load.sent.has(n));
  assert.deepEqual({ lost, twice, unknown }, { lost: [], twice: [], unknown: [] });
  const ledger = await ledgerOf(agent);
  assert.deepEqual(ledger.broken, []);
  assert.equal(ledger.spooled, 0);
  assert.equal(ledger.dropped, 0);
}

async function crashCampaign(name: string, datastore: Record<string, unknown>, store: ObjectStore): Promise<void> {
  const random = seeded(seed);
  const directory = join(root, name);
  const port = await freePort();
  const file = writeAgentFile({ directory, port, datastore });
  const load = new Load({ port, random });
  let agent = await startAgent(file, port);
  for (let round = 1; round <= rounds; round += 1) {
    load.start();
    await sleep(20 + random() * 700);
    await agent.end('SIGKILL');
    await load.pause();
    agent = await startAgent(file, port);
    if (round % 10 === 0) {
      await untilDelivered(agent);
      await verify(load, store, agent);
      console.log(`  ${name}: ${round} kills, ${load.acknowledged.size} rows acknowledged, all stored once`);
    }
  }
  load.start();
  await sleep(1_000);
  load.stop();
  await load.finish();
  await untilDelivered(agent);
  await verify(load, store, agent);
  await agent.end('SIGTERM');
  assert.ok(load.acknowledged.size > rounds, 'the load was real');
}

test(`SIGKILL ${rounds} times under load, local disk: every acknowledged row is stored exactly once`, async () => {
  const path = join(root, 'local-store');
  await crashCampaign('local', { type: 'local', path }, await openStore({ type: 'local', name: 'store', path }));
});

test(`SIGKILL ${rounds} times under load, Azurite: every acknowledged row is stored exactly once`, async () => {
  const azurite = await startAzurite();
  try {
    await azurite.createContainer('crash');
    const { accountName, accountKey, serviceUrl } = azurite;
    const store = await openStore({
      type: 'azure_blob',
      name: 'store',
      accountName,
      containerName: 'crash',
      serviceUrl,
      credentials: { kind: 'account_key', accountKey },
    });
    process.env.CRASH_ACCOUNT_KEY = accountKey;
    await crashCampaign('azurite', azuriteDatastore(serviceUrl, accountName, 'crash'), store);
  } finally {
    await azurite.stop();
  }
});

/** Azurite's address has the account in its path, so it is given whole. */
function azuriteDatastore(serviceUrl: string, accountName: string, container: string): Record<string, unknown> {
  return {
    type: 'azure_blob',
    account_name: accountName,
    container_name: container,
    endpoint: serviceUrl,
    credentials: { account_key: '${env:CRASH_ACCOUNT_KEY}' },
  };
}

test('SIGTERM under load leaves nothing behind while the store is up', async () => {
  const random = seeded(seed + 1);
  const directory = join(root, 'term');
  const path = join(root, 'term-store');
  const port = await freePort();
  const file = writeAgentFile({ directory, port, datastore: { type: 'local', path } });
  const store = await openStore({ type: 'local', name: 'store', path });
  const load = new Load({ port, random });
  for (let round = 0; round < 5; round += 1) {
    const agent = await startAgent(file, port);
    load.start();
    await sleep(300 + random() * 500);
    assert.equal(await agent.end('SIGTERM'), 0);
    await load.pause();
    const stored = new Set<string>();
    for (const { event } of await storedEvents(store, 'modelDataCollector/')) {
      for (const row of event.data as { n: string }[]) stored.add(row.n);
    }
    const left = [...load.acknowledged].filter((n) => !stored.has(n));
    assert.deepEqual(left, [], 'everything acknowledged was stored before the process ended');
  }
  load.stop();
});
