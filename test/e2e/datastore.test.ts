/** A collection that goes to a container of its own in Azure Blob, from the command line, on a real Azurite. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { openStore } from '../../packages/modeltap/src/storage/stores.ts';
import { freePort, killAgents, startAgent, storedEvents, untilDelivered, writeAgentFile } from '../support/agent.ts';
import { type Azurite, startAzurite } from '../support/azurite.ts';
import { sendAsSdk } from '../support/raw-client.ts';
import { cli, startWorkspace, type TestWorkspace } from '../support/workspace.ts';

const root = mkdtempSync(join(tmpdir(), 'modeltap-e2e-datastore-'));
let azurite: Azurite;
let workspace: TestWorkspace;

function datastoreYaml(container: string, key = '${env:E2E_ACCOUNT_KEY}'): string {
  return `$schema: https://azuremlschemas.azureedge.net/latest/azureBlob.schema.json
name: collected
type: azure_blob
account_name: ${azurite.accountName}
container_name: ${container}
endpoint: ${azurite.serviceUrl}
credentials:
  account_key: ${key}
`;
}

const DEPLOYMENT = `name: blue
endpoint_name: my-endpoint
code_configuration: { code: scripts, scoring_script: score.ts }
instance_type: Standard_F2s_v2
instance_count: 1
data_collector:
  rolling_rate: Hour
  collections:
    model_inputs:
      enabled: 'True'
      data:
        name: my_inputs
        path: azureml://datastores/collected/paths/production/inputs
        version: 3
`;

before(async () => {
  azurite = await startAzurite();
  await azurite.createContainer('production');
  process.env.E2E_ACCOUNT_KEY = azurite.accountKey;
  mkdirSync(join(root, 'scripts'));
  writeFileSync(
    join(root, 'scripts/score.ts'),
    `import { Collector } from '@modeltap/collector';
let inputs: Collector;
export function init() { inputs = new Collector({ name: 'model_inputs' }); }
export function run(data: string) { inputs.collect(JSON.parse(data)); return { ok: true }; }
`,
  );
  writeFileSync(join(root, 'deployment.yml'), DEPLOYMENT);
  writeFileSync(join(root, 'request.json'), '[{"x":1}]');
  workspace = await startWorkspace(join(root, 'ws'));
  await workspace.run('online-endpoint', 'create', '--name', 'my-endpoint');
});
after(async () => {
  await workspace.stop();
  killAgents();
  await azurite.stop();
  rmSync(root, { recursive: true, force: true });
});

test('a datastore that cannot be written is refused with what mends it, before anything uses it', async () => {
  writeFileSync(join(root, 'absent.yml'), datastoreYaml('absent'));
  const absent = await workspace.attempt('datastore', 'create', '-f', join(root, 'absent.yml'));
  assert.equal(absent.code, 1);
  assert.match(absent.err, /datastore_not_writable: .*absent/);
  const wrongKey = Buffer.alloc(64, 1).toString('base64');
  writeFileSync(join(root, 'wrong.yml'), datastoreYaml('production', wrongKey));
  const wrong = await workspace.attempt('datastore', 'create', '-f', join(root, 'wrong.yml'));
  assert.equal(wrong.code, 1);
  assert.ok(!wrong.err.includes(wrongKey), 'the key is not shown');
  const unknown = await workspace.attempt('online-deployment', 'create', '-f', join(root, 'deployment.yml'));
  assert.equal(unknown.code, 3);
  assert.match(unknown.err, /datastore "collected", which does not exist/);
});

test('records of the collection are in the container within two seconds, and the asset points there', async () => {
  writeFileSync(join(root, 'datastore.yml'), datastoreYaml('production'));
  const created = await workspace.run('datastore', 'create', '-f', join(root, 'datastore.yml'));
  assert.ok(!created.includes(azurite.accountKey));
  await workspace.run('online-deployment', 'create', '-f', join(root, 'deployment.yml'), '--all-traffic');
  await workspace.run('online-endpoint', 'invoke', '-n', 'my-endpoint', '-r', join(root, 'request.json'));
  const store = await openStore({
    type: 'azure_blob',
    name: 'collected',
    accountName: azurite.accountName,
    containerName: 'production',
    serviceUrl: azurite.serviceUrl,
    credentials: { kind: 'account_key', accountKey: azurite.accountKey },
  });
  const until = Date.now() + 2_500;
  let events = await storedEvents(store, 'production/inputs/');
  while (events.length === 0 && Date.now() < until) {
    await new Promise((done) => setTimeout(done, 50));
    events = await storedEvents(store, 'production/inputs/');
  }
  assert.deepEqual(
    events.map(({ event }) => event.data),
    [[{ x: 1 }]],
  );
  assert.match(events[0]?.key ?? '', /^production\/inputs\/\d{4}\/\d\d\/\d\d\/\d\d\/[0-9a-f]{32}\d{6}\.jsonl$/);
  const asset = await workspace.json<{ version: string; path: string }>('data', 'show', '-n', 'my_inputs');
  assert.deepEqual(
    { version: asset.version, path: asset.path },
    { version: '3', path: 'azureml://datastores/collected/paths/production/inputs' },
  );
});

test('a sidecar agent answers the same commands', async () => {
  const port = await freePort();
  const directory = join(root, 'sidecar');
  const datastore = { type: 'local', path: join(directory, 'store') };
  const agent = await startAgent(writeAgentFile({ directory, port, datastore }), port);
  await sendAsSdk(port, { collection: 'model_inputs', body: Buffer.from('[{"a":1}]'), correlationId: 'one' });
  await untilDelivered(agent);
  const ledger = await cli(['ledger', '-o', 'json'], { env: { MODELTAP_URL: agent.url } });
  assert.equal(ledger.code, 0, ledger.err);
  const [row] = JSON.parse(ledger.out) as { collection: string; stored: number }[];
  assert.deepEqual({ collection: row?.collection, stored: row?.stored }, { collection: 'model_inputs', stored: 1 });
  assert.equal(await agent.end('SIGTERM'), 0);
});
