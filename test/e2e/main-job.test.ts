/** The main job from the command line, as a newcomer does it, with real processes and files. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync, globSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { ENTRY } from '../support/agent.ts';
import { sendAsSdk } from '../support/raw-client.ts';
import { cli, keyHeader, startWorkspace, type TestWorkspace } from '../support/workspace.ts';

const root = mkdtempSync(join(tmpdir(), 'modeltap-e2e-'));
const directory = join(root, 'ws');
let workspace: TestWorkspace;

const SCORE = `
import { Collector } from '@modeltap/collector';
const collectors: Record<string, Collector> = {};
export function init() {
  for (const name of (process.env.COLLECT ?? 'model_inputs,model_outputs').split(',')) collectors[name] = new Collector({ name });
}
export async function run(data: string) {
  const { data: columns } = JSON.parse(data) as { data: Record<string, number[]> };
  const context = collectors.model_inputs?.collect(columns);
  const result = { sum: (columns.a ?? []).map((a, i) => a + (columns.b?.[i] ?? 0)) };
  collectors.model_outputs?.collect(result, context);
  collectors.features?.collect([{ doubled: (columns.a?.[0] ?? 0) * 2 }], context);
  return { ...result, version: process.env.VERSION ?? '1' };
}
`;

function deploymentYaml(options: { collections?: string; variables?: string; name?: string } = {}): string {
  return `$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineDeployment.schema.json
name: ${options.name ?? 'blue'}
endpoint_name: my-endpoint
model:
  path: ./model
code_configuration:
  code: scripts
  scoring_script: score.ts
instance_type: Standard_F2s_v2
instance_count: 2
request_settings:
  max_concurrent_requests_per_instance: 20
${options.variables ?? ''}
data_collector:
  collections:
${options.collections ?? "    model_inputs:\n      enabled: 'True'\n    model_outputs:\n      enabled: 'True'\n"}`;
}

before(async () => {
  mkdirSync(join(root, 'scripts'), { recursive: true });
  mkdirSync(join(root, 'model'));
  writeFileSync(join(root, 'scripts/score.ts'), SCORE);
  writeFileSync(join(root, 'deployment.yml'), deploymentYaml());
  writeFileSync(join(root, 'request.json'), '{"data":{"a":[1,2],"b":[10,20]}}');
  workspace = await startWorkspace(directory);
});
after(async () => {
  await workspace.stop();
  rmSync(root, { recursive: true, force: true });
});

interface Endpoint {
  readonly name: string;
  readonly scoring_uri: string;
  readonly traffic: Record<string, number>;
}
interface LedgerRow {
  readonly collection: string;
  readonly accepted: number;
  readonly stored: number;
  readonly spooled: number;
}

const files = (collection: string) =>
  globSync(join(directory, `**/modelDataCollector/my-endpoint/blue/${collection}/**/*.jsonl`));
const events = (collection: string) =>
  files(collection).flatMap((file) =>
    readFileSync(file, 'utf8')
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Record<string, unknown>),
  );
async function eventually<T>(what: () => T | Promise<T>, holds: (value: T) => boolean, timeoutMs = 15_000): Promise<T> {
  const until = Date.now() + timeoutMs;
  for (;;) {
    const value = await what();
    if (holds(value)) return value;
    if (Date.now() > until) throw new Error(`still ${JSON.stringify(value)}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

test('an endpoint and a deployment from YAML answer requests', async () => {
  await workspace.run('online-endpoint', 'create', '--name', 'my-endpoint');
  const created = await workspace.attempt(
    'online-deployment',
    'create',
    '-f',
    join(root, 'deployment.yml'),
    '--all-traffic',
  );
  assert.equal(created.code, 0, created.err);
  assert.match(created.err, /deployment\.yml:9:\d+ warning instance_type/);
  const endpoint = await workspace.json<Endpoint>('online-endpoint', 'show', '-n', 'my-endpoint');
  assert.match(endpoint.scoring_uri, /^http:\/\/127\.0\.0\.1:\d+\/.*score$/);
  assert.deepEqual(endpoint.traffic, { blue: 100 });
  const answer = await workspace.run(
    'online-endpoint',
    'invoke',
    '--name',
    'my-endpoint',
    '--request-file',
    join(root, 'request.json'),
  );
  assert.deepEqual(JSON.parse(answer), { sum: [11, 22], version: '1' });
});

test('inputs and outputs are stored within two seconds as Azure ML events with one correlation id', async () => {
  const [input] = await eventually(
    () => events('model_inputs'),
    (found) => found.length > 0,
    2_500,
  );
  const [output] = await eventually(
    () => events('model_outputs'),
    (found) => found.length > 0,
    2_500,
  );
  assert.deepEqual(input?.data, [
    { a: 1, b: 10 },
    { a: 2, b: 20 },
  ]);
  assert.deepEqual(output?.data, [{ sum: 11 }, { sum: 22 }]);
  assert.equal(input?.correlationid, output?.correlationid);
  assert.equal(
    Object.keys(input ?? {}).join(),
    'specversion,id,source,type,datacontenttype,time,data,contentrange,correlationid,xrequestid,modelversion,collectdatatype,agent',
  );
  assert.match(String(input?.source), /\/onlineEndpoints\/my-endpoint\/deployments\/blue$/);
  assert.match(files('model_inputs')[0] ?? '', /\/\d{4}\/\d\d\/\d\d\/\d\d\/[0-9a-f]{32}\d{6}\.jsonl$/);
});

test('the collections are data assets', async () => {
  const assets = await workspace.json<{ name: string; version: string; type: string; path: string }[]>('data', 'list');
  assert.deepEqual(
    assets.map(({ name, version, type }) => ({ name, version, type })),
    ['my-endpoint-blue-model_inputs', 'my-endpoint-blue-model_outputs'].map((name) => ({
      name,
      version: '1',
      type: 'uri_folder',
    })),
  );
  const asset = await workspace.json<{ path: string }>('data', 'show', '-n', 'my-endpoint-blue-model_inputs');
  assert.equal(
    asset.path,
    'azureml://datastores/workspaceblobstore/paths/modelDataCollector/my-endpoint/blue/model_inputs',
  );
});

test('the raw protocol of the Python SDK is taken on the port of the deployment', async () => {
  const { collector_port: port } = await workspace.json<{ collector_port: number }>(
    'online-deployment',
    'show',
    '-n',
    'blue',
    '-e',
    'my-endpoint',
  );
  const body = Buffer.from(
    '[{"id":9007199254740993,"path":"a\\/b","x":"<é>".length}]'.replace('"<é>".length', '1e400'),
  );
  const answer = await sendAsSdk(port, {
    collection: 'model_inputs',
    body,
    correlationId: 'caf\u00e9',
    time: '1704164645',
  });
  assert.deepEqual(answer, { status: 204, body: '' });
  const file = await eventually(
    () => files('model_inputs').find((name) => name.includes('/2024/01/02/03/')),
    (found) => found !== undefined,
  );
  const line = readFileSync(file ?? '', 'utf8');
  assert.ok(
    line.includes(
      `"data":${body.toString()},"contentrange":"bytes 0-${body.length - 1}/${body.length}","correlationid":"café"`,
    ),
    line,
  );
  assert.ok(line.includes('"time":"2024-01-02T03:04:05Z"'), line);
});

test('the ledger accounts for every record and tail follows them', async () => {
  const tail = cli(['tail', 'my-endpoint', 'blue', 'model_inputs', '--records', '1', '--workspace', directory]);
  await new Promise((done) => setTimeout(done, 1_500));
  await workspace.run('online-endpoint', 'invoke', '-n', 'my-endpoint', '-r', join(root, 'request.json'));
  const followed = await tail;
  assert.equal(followed.code, 0, followed.err);
  assert.match(followed.out, /2 rows\n\s+a=1 {2}b=10\n\s+a=2 {2}b=20/);
  const rows = await eventually(
    () => workspace.json<LedgerRow[]>('ledger'),
    (all) => all.every((row) => row.spooled === 0),
  );
  const stored = rows.filter((row) => row.collection === 'model_inputs').reduce((sum, row) => sum + row.stored, 0);
  assert.equal(stored, 3);
  for (const row of rows) assert.equal(row.accepted, row.stored, JSON.stringify(row));
});

test('collection is changed on a running deployment without dropping a request', async () => {
  const { scoring_uri: uri } = await workspace.json<Endpoint>('online-endpoint', 'show', '-n', 'my-endpoint');
  const headers = await keyHeader(workspace, 'my-endpoint');
  const statuses = new Map<number, number>();
  const load = { running: true };
  const clients = Array.from({ length: 4 }, async () => {
    while (load.running) {
      const answer = await fetch(uri, { method: 'POST', headers, body: '{"data":{"a":[5],"b":[6]}}' });
      await answer.text();
      statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
    }
  });
  const collections = ['model_inputs', 'model_outputs', 'features']
    .map((name) => `    ${name}:\n      enabled: 'True'\n`)
    .join('');
  writeFileSync(
    join(root, 'update.yml'),
    deploymentYaml({
      collections,
      variables: 'environment_variables:\n  VERSION: 2\n  COLLECT: model_inputs,model_outputs,features\n',
    }),
  );
  const updated = await workspace.attempt('online-deployment', 'update', '-f', join(root, 'update.yml'));
  await new Promise((done) => setTimeout(done, 500));
  load.running = false;
  await Promise.all(clients);
  assert.equal(updated.code, 0, updated.err);
  assert.deepEqual([...statuses.keys()], [200], JSON.stringify([...statuses]));
  const answer = await workspace.run(
    'online-endpoint',
    'invoke',
    '-n',
    'my-endpoint',
    '-r',
    join(root, 'request.json'),
  );
  assert.equal((JSON.parse(answer) as { version: string }).version, '2');
  await eventually(
    () => events('features'),
    (found) => found.length > 0,
  );
  const sent = (statuses.get(200) ?? 0) + 4;
  await eventually(
    async () =>
      (await workspace.json<LedgerRow[]>('ledger'))
        .filter((row) => row.collection === 'model_inputs')
        .reduce((sum, row) => sum + row.stored, 0),
    (stored) => stored === sent,
  );
});

test('a deployment that cannot start says why, and the one before keeps serving', async () => {
  writeFileSync(
    join(root, 'scripts/broken.ts'),
    "export function init() { throw new Error('no such model'); }\nexport function run() { return {}; }\n",
  );
  writeFileSync(join(root, 'broken.yml'), deploymentYaml().replace('score.ts', 'broken.ts'));
  const broken = await workspace.attempt('online-deployment', 'update', '-f', join(root, 'broken.yml'));
  assert.equal(broken.code, 1);
  assert.match(broken.err, /deployment_failed[\s\S]*no such model/);
  const answer = await workspace.run(
    'online-endpoint',
    'invoke',
    '-n',
    'my-endpoint',
    '-r',
    join(root, 'request.json'),
  );
  assert.equal((JSON.parse(answer) as { version: string }).version, '2');
  const logs = await workspace.run(
    'online-deployment',
    'get-logs',
    '-n',
    'blue',
    '-e',
    'my-endpoint',
    '--lines',
    '200',
  );
  assert.match(logs, /no such model/);
});

test('YAML that is wrong is refused with places, all at once', async () => {
  writeFileSync(
    join(root, 'wrong.yml'),
    deploymentYaml().replace('instance_count: 2', 'instance_count: many').replace("'True'", "'maybe'"),
  );
  const wrong = await workspace.attempt('online-deployment', 'create', '-f', join(root, 'wrong.yml'));
  assert.equal(wrong.code, 2);
  assert.match(wrong.err, /wrong\.yml:10:17 error instance_count/);
  assert.match(wrong.err, /wrong\.yml:17:16 error data_collector\.collections\.model_inputs\.enabled/);
});

test('an agent that is killed is started again, and what was asked meanwhile is stored', async () => {
  const { scoring_uri: uri } = await workspace.json<Endpoint>('online-endpoint', 'show', '-n', 'my-endpoint');
  const info = async () => {
    const answer = await fetch(new URL('/api/v1/workspace', uri));
    return (await answer.json()) as { agent_pid?: number; agent_restarts: number };
  };
  const headers = await keyHeader(workspace, 'my-endpoint');
  const before = events('model_inputs').length;
  const { agent_pid: pid } = await info();
  process.kill(pid ?? 0, 'SIGKILL');
  for (let n = 0; n < 5; n += 1) {
    const answer = await fetch(uri, { method: 'POST', headers, body: '{"data":{"a":[7],"b":[8]}}' });
    assert.equal(answer.status, 200, 'scoring goes on without the agent');
    await answer.text();
  }
  await eventually(info, ({ agent_pid: now, agent_restarts: restarts }) => restarts === 1 && now !== pid);
  await eventually(
    () => events('model_inputs').length,
    (count) => count === before + 5,
  );
});

test('after a restart the deployments serve again', async () => {
  assert.equal(await workspace.stop(), 0);
  workspace = await startWorkspace(directory);
  const answer = await eventually(
    () => workspace.attempt('online-endpoint', 'invoke', '-n', 'my-endpoint', '-r', join(root, 'request.json')),
    (result) => result.code === 0,
  );
  assert.equal((JSON.parse(answer.out) as { version: string }).version, '2');
});

test('a second workspace in the same directory and a public address are refused', async () => {
  const second = await cli(['up', '--workspace', directory, '--port', '0', '--agent-port', '0']);
  assert.equal(second.code, 4, second.err);
  assert.match(second.err, /workspace_running/);
  const open = await cli(['up', '--workspace', join(root, 'other'), '--host', '0.0.0.0']);
  assert.equal(open.code, 2);
  assert.match(open.err, /address_not_loopback: refusing to listen on 0\.0\.0\.0/);
});

test('deleting the deployment and the endpoint leaves what was collected', async () => {
  const refused = await workspace.attempt('online-deployment', 'delete', '-n', 'blue', '-e', 'my-endpoint', '--yes');
  assert.equal(refused.code, 4);
  assert.match(refused.err, /deployment_has_traffic[\s\S]*--traffic "blue=0"/);
  await workspace.run('online-endpoint', 'update', '-n', 'my-endpoint', '--traffic', 'blue=0');
  await workspace.run('online-deployment', 'delete', '-n', 'blue', '-e', 'my-endpoint', '--yes');
  await workspace.run('online-endpoint', 'delete', '-n', 'my-endpoint', '--yes');
  assert.deepEqual(await workspace.json<unknown[]>('online-endpoint', 'list'), []);
  const gone = await workspace.attempt('online-endpoint', 'show', '-n', 'my-endpoint');
  assert.equal(gone.code, 3);
  assert.ok(events('model_inputs').length > 0);
});

test('Ctrl-C in a terminal, which goes to the whole process group, stops in order', async () => {
  const child = spawn(
    process.execPath,
    [ENTRY, 'up', '--workspace', join(root, 'ctrl-c'), '--port', '0', '--agent-port', '0', '--log-level', 'warn'],
    { stdio: ['ignore', 'ignore', 'pipe'], detached: true },
  );
  let text = '';
  child.stderr.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  const ended = new Promise<number | null>((done) => {
    child.once('close', done);
  });
  await eventually(
    () => text,
    (output) => output.includes('Modeltap is up'),
  );
  process.kill(-(child.pid ?? 0), 'SIGINT');
  assert.equal(await ended, 0, text);
  const log = readFileSync(join(root, 'ctrl-c/agent/agent.log'), 'utf8');
  assert.match(log, /stopped, all stored/);
});
