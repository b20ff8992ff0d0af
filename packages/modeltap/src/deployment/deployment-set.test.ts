import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { Agent, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import type { DeploymentConfig, EnvironmentConfig, ProbeConfig } from '../config/types.ts';
import { createEndpointRouter } from '../endpoint/router.ts';
import { isModeltapError } from '../kit/errors.ts';
import { createDeployments, type Deployments, type DeploymentsOptions } from './deployment-set.ts';
import { call, deploymentConfig, isAlive, temporaryFolder, until } from './process.test-suite.ts';
import type { DeploymentSpec } from './version.ts';

const SCORE = `
export function init() { console.log('init of ' + process.env.GREETING); }
export async function run(data) {
  if (data === 'crash') process.kill(process.pid, 'SIGKILL');
  if (data === 'env') return { ...process.env };
  if (data === 'cwd') return process.cwd();
  const wait = Number(data);
  if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
  return process.env.GREETING;
}
`;

interface World extends AsyncDisposable {
  readonly deployments: Deployments;
  readonly folder: string;
  spec(changes?: Partial<DeploymentConfig>, more?: Partial<DeploymentSpec>): DeploymentSpec;
  score(body: string): Promise<{ status: number; body: string; json(): unknown }>;
  pids(): number[];
}

function world(files: Record<string, string> = { 'score.mjs': SCORE }, options: DeploymentsOptions = {}): World {
  const folder = temporaryFolder(files);
  const deployments = createDeployments({ stopDeadlineMs: 2000, ...options });
  return {
    deployments,
    folder: folder.path,
    spec: (changes = {}, more = {}) => ({
      config: deploymentConfig(folder.path, 'score.mjs', { environmentVariables: { GREETING: 'hello' }, ...changes }),
      logDirectory: join(folder.path, 'logs'),
      environment: {},
      ...more,
    }),
    async score(body) {
      const lease = await deployments.acquire('iris', 'blue');
      assert.ok(lease, 'no instance is ready');
      try {
        return await call(lease.port, '/score', { body });
      } finally {
        lease.release();
      }
    },
    pids: () => (deployments.status('iris', 'blue')?.instances ?? []).flatMap(({ pid }) => pid ?? []),
    async [Symbol.asyncDispose]() {
      await deployments.stop(2000);
      folder[Symbol.dispose]();
    },
  };
}

const probe = (changes: Partial<ProbeConfig>): ProbeConfig => ({
  initialDelay: 1,
  period: 1,
  timeout: 1,
  successThreshold: 1,
  failureThreshold: 1,
  ...changes,
});

test('a deployment is applied, served by all its instances, shown, logged and removed without a trace', async () => {
  await using here = world();
  const { deployments } = here;
  assert.equal(deployments.status('iris', 'blue'), undefined);
  assert.equal(deployments.acquire('iris', 'blue'), undefined);
  await deployments.apply(here.spec({ instanceCount: 2 }));
  const status = deployments.status('iris', 'blue');
  assert.equal(status?.state, 'ready');
  assert.deepEqual(
    status.instances.map(({ name, state, restarts, inFlight }) => ({ name, state, restarts, inFlight })),
    [0, 1].map((slot) => ({ name: `blue-${slot}`, state: 'ready', restarts: 0, inFlight: 0 })),
  );
  assert.equal((await here.score('')).body, '"hello"');
  const leases = [await deployments.acquire('iris', 'blue'), await deployments.acquire('iris', 'blue')];
  assert.equal(new Set(leases.map((lease) => lease?.port)).size, 2, 'least in flight: both get one');
  for (const lease of leases) lease?.release();
  const logs = await deployments.logs('iris', 'blue', { lines: 10 });
  assert.match(logs.join('\n'), /\[instance-0\] \d{4}-\d\d-\d\dT[\d:.]+Z \d+ out init of hello/);
  assert.match(logs.join('\n'), /\[instance-1\] .* err modeltap: score\.mjs is served on port \d+/);
  assert.equal((await deployments.logs('iris', 'blue', { lines: 1 })).length, 1);
  const pids = here.pids();
  await deployments.remove('iris', 'blue');
  assert.equal(deployments.status('iris', 'blue'), undefined);
  assert.deepEqual(pids.map(isAlive), [false, false]);
});

test('an instance sees what its file declares and what Modeltap gives, and nothing else of the workspace', async () => {
  await using here = world(undefined, {
    machineEnvironment: { PATH: '/bin', AZURE_STORAGE_KEY: 'secret', HTTPS_PROXY: 'http://proxy' },
  });
  const environmentVariables = { MINE: '1', AZUREML_MDC_PORT: '1', AML_APP_ROOT: '/elsewhere', SERVICE_VERSION: 'own' };
  const given = { AZUREML_MDC_HOST: '127.0.0.1', AZUREML_MDC_PORT: '50011', AZUREML_MDC_CONFIG_PATH: '/mdc.json' };
  await here.deployments.apply(here.spec({ environmentVariables }, { modelDirectory: '/model', environment: given }));
  const env = (await here.score('env')).json() as Record<string, string>;
  const own = Object.entries(env).filter(([name]) => !name.startsWith('NODE_CHANNEL_'));
  assert.deepEqual(Object.fromEntries(own), {
    ...given,
    PATH: '/bin',
    HTTPS_PROXY: 'http://proxy',
    MINE: '1',
    SERVICE_NAME: 'iris',
    SERVICE_VERSION: 'own',
    AML_APP_ROOT: here.folder,
    AZUREML_ENTRY_SCRIPT: 'score.mjs',
    AZUREML_MODEL_DIR: '/model',
    MODELTAP_MAX_CONCURRENT_REQUESTS: '8',
    MODELTAP_MAX_QUEUE_WAIT_MS: '500',
    MODELTAP_REQUEST_TIMEOUT_MS: '5000',
    MODELTAP_STOP_DEADLINE_MS: '1800',
  });
  assert.equal((await here.score('cwd')).json(), here.folder);
  assert.match(
    (await here.deployments.logs('iris', 'blue')).join('\n'),
    /Modeltap sets them: AML_APP_ROOT, AZUREML_MDC_PORT/,
  );
});

test('a script whose init fails is deployment_failed with its last lines and the place of the log', async () => {
  await using here = world({
    'score.mjs': 'export function init() { throw new Error("no weights"); }\nexport function run() {}',
  });
  await assert.rejects(here.deployments.apply(here.spec()), (error) => {
    assert.ok(isModeltapError(error));
    assert.equal(error.code, 'deployment_failed');
    assert.match(
      error.message,
      /instance blue-0: exit code 3\. Its log is .*instance-0\.log\.[\s\S]*Error: no weights/,
    );
    return true;
  });
  const status = here.deployments.status('iris', 'blue');
  assert.deepEqual([status?.state, status?.instances[0]?.state], ['failed', 'failed']);
  assert.match(status?.failure ?? '', /no weights/);
  assert.match(readFileSync(join(here.folder, 'logs', 'instance-0.log'), 'utf8'), /no weights/);
  assert.match((await here.deployments.logs('iris', 'blue')).join('\n'), /no weights/);
});

test('an init that hangs is given up when the readiness probe has no tries left', async () => {
  await using here = world({
    'score.mjs':
      'export const init = () => new Promise(() => setInterval(() => {}, 1000));\nexport const run = () => 1;',
  });
  await assert.rejects(
    here.deployments.apply(here.spec({ readinessProbe: probe({ initialDelay: 0.2, period: 0.2 }) })),
    /did not become ready: instance blue-0: not ready within 0\.4 s \(readiness_probe\)/,
  );
});

test('a process that dies at random while it starts is tried again before the deployment fails', async () => {
  const dying = `
    import { existsSync, writeFileSync } from 'node:fs';
    export function init() {
      const mark = process.env.AML_APP_ROOT + '/second';
      if (existsSync(mark)) return;
      writeFileSync(mark, '');
      process.kill(process.pid, 'SIGKILL');
    }
    export const run = () => 'alive';`;
  await using here = world({ 'score.mjs': dying });
  await here.deployments.apply(here.spec());
  const [instance] = here.deployments.status('iris', 'blue')?.instances ?? [];
  assert.equal(instance?.restarts, 1);
  assert.equal(instance.lastExit?.text, 'signal SIGKILL');
  assert.equal((await here.score('')).body, '"alive"');
});

const TRITON: EnvironmentConfig = {
  name: undefined,
  version: undefined,
  description: '',
  tags: {},
  image: 'triton',
  conda: undefined,
  inferenceConfig: undefined,
};

test('a deployment no launcher can run is refused, and what runs is named', async () => {
  await using here = world();
  const refuse = async (changes: Partial<DeploymentConfig>, detail: RegExp) => {
    await assert.rejects(here.deployments.apply(here.spec(changes)), (error) => {
      assert.ok(isModeltapError(error));
      assert.equal(error.code, 'launcher_missing');
      assert.match(error.message, detail);
      assert.match(error.fix, /Python, TypeScript or JavaScript/);
      return true;
    });
  };
  await refuse(
    { code: { directory: here.folder, scoringScript: 'score.R' } },
    /nothing here runs the scoring script score\.R/,
  );
  await refuse({ code: undefined, environment: TRITON }, /custom container/);
  await refuse({ code: undefined }, /no code_configuration/);
});

test('a killed instance is out of rotation at once, started again, and its restart is shown', async () => {
  await using here = world();
  await here.deployments.apply(here.spec({ instanceCount: 2 }));
  const before = here.pids();
  process.kill(before[0] ?? 0, 'SIGKILL');
  await until('one instance is out', () => here.deployments.status('iris', 'blue')?.state === 'degraded');
  for (let index = 0; index < 4; index += 1) assert.equal((await here.score('')).status, 200);
  await until('it is back', () => here.deployments.status('iris', 'blue')?.state === 'ready');
  const [first, second] = here.deployments.status('iris', 'blue')?.instances ?? [];
  assert.deepEqual([first?.restarts, first?.lastExit?.text, second?.restarts], [1, 'signal SIGKILL', 0]);
  assert.notEqual(first?.pid, before[0]);
  assert.match((await here.deployments.logs('iris', 'blue')).join('\n'), /sup blue-0: signal SIGKILL/);
});

test('an instance that stops answering its liveness probe is killed and started again', async () => {
  const stuck = 'export const init = () => {};\nexport const run = () => { for (;;); };';
  await using here = world({ 'score.mjs': stuck }, { stopDeadlineMs: 100 });
  const livenessProbe = probe({ initialDelay: 0.1, period: 0.1, timeout: 0.2 });
  await here.deployments.apply(here.spec({ livenessProbe }));
  const [pid = 0] = here.pids();
  const hanging = here.score('x').catch(() => undefined);
  await until('a restart', () => (here.deployments.status('iris', 'blue')?.instances[0]?.restarts ?? 0) > 0);
  await hanging;
  assert.equal(isAlive(pid), false);
  assert.equal(here.deployments.status('iris', 'blue')?.instances[0]?.lastExit?.text, 'liveness probe failed 1 times');
});

test('an instance that fails its readiness probe gets no requests until it passes again', async () => {
  const busy = `
    export const init = () => {};
    export const run = (data) => { const end = Date.now() + Number(data); while (Date.now() < end); return 'x'; };`;
  await using here = world({ 'score.mjs': busy });
  await here.deployments.apply(here.spec({ readinessProbe: probe({ period: 0.05, timeout: 0.1 }) }));
  const running = here.score('700');
  await until('it is unready', () => here.deployments.status('iris', 'blue')?.instances[0]?.state === 'unready');
  assert.equal(here.deployments.acquire('iris', 'blue'), undefined);
  assert.equal(here.deployments.status('iris', 'blue')?.state, 'unavailable');
  await running;
  await until('it is ready', () => here.deployments.status('iris', 'blue')?.state === 'ready');
  assert.equal(here.deployments.status('iris', 'blue')?.instances[0]?.restarts, 0);
});

test('an update under load drops no request and switches every one of them to the new version', async () => {
  await using here = world();
  const { deployments } = here;
  await deployments.apply(here.spec({ instanceCount: 2 }));
  const router = createEndpointRouter({
    endpoint: () => ({ name: 'iris', traffic: {}, deployments: { blue: { requestTimeoutMs: 5000 } } }),
    acquire: (endpoint, deployment) => deployments.acquire(endpoint, deployment),
  });
  const front = createServer((request, response) => router.serve(request, response)).listen(0, '127.0.0.1');
  await once(front, 'listening');
  const { port } = front.address() as AddressInfo;
  const seen: string[] = [];
  /** Answers to requests that were sent when the last version was in place. */
  const late: string[] = [];
  const last = { applied: false };
  const over = new AbortController();
  const client = async (_: unknown, index: number) => {
    const agent = new Agent({ keepAlive: index % 2 === 0 });
    while (!over.signal.aborted) {
      const body = String(1 + (seen.length % 9));
      const { applied } = last;
      const answer = await call(port, '/endpoints/iris/score', { body, agent });
      seen.push(`${answer.status} ${answer.body}`);
      if (applied) late.push(`${answer.status} ${answer.body}`);
    }
    agent.destroy();
  };
  const clients = Array.from({ length: 6 }, client);
  const old = here.pids();
  for (const GREETING of ['two', 'three']) await deployments.apply(here.spec({ environmentVariables: { GREETING } }));
  last.applied = true;
  await until('requests to the last version', () => late.length > 50);
  over.abort();
  await Promise.all(clients);
  await router.stop(1000);
  front.close();
  assert.deepEqual([...new Set(seen)].toSorted(), ['200 "hello"', '200 "three"', '200 "two"']);
  assert.deepEqual([...new Set(late)], ['200 "three"']);
  await until('the old instances are gone', () => !old.some(isAlive));
});

test('a failed update leaves the earlier version serving, and a later one that works replaces it', async () => {
  await using here = world({ 'score.mjs': SCORE, 'bad.mjs': 'export const init = 1;' });
  await here.deployments.apply(here.spec());
  const bad = here.spec({ code: { directory: here.folder, scoringScript: 'bad.mjs' } });
  await assert.rejects(here.deployments.apply(bad), /init and run are missing/);
  assert.equal((await here.score('')).body, '"hello"');
  const status = here.deployments.status('iris', 'blue');
  assert.equal(status?.state, 'ready');
  assert.match(status.failure ?? '', /init and run are missing/);
  await here.deployments.apply(here.spec({ environmentVariables: { GREETING: 'again' } }));
  assert.equal((await here.score('')).body, '"again"');
  assert.equal(here.deployments.status('iris', 'blue')?.failure, undefined);
});

test('removing a deployment lets its requests finish and stops one that is still starting', async () => {
  await using here = world();
  await here.deployments.apply(here.spec());
  const running = here.score('300');
  await until('the request is in flight', () => here.deployments.status('iris', 'blue')?.instances[0]?.inFlight === 1);
  await here.deployments.remove('iris', 'blue');
  assert.deepEqual([(await running).status, (await running).body], [200, '"hello"']);

  const starting = here.deployments.apply(here.spec());
  await until('a process', () => here.pids().length === 1);
  const [pid = 0] = here.pids();
  await Promise.all([
    assert.rejects(starting, { code: 'deployment_stopped' }),
    here.deployments.remove('iris', 'blue'),
  ]);
  assert.equal(isAlive(pid), false);
});

test('stop ends every process, also what a script has started itself, and refuses new work', async () => {
  const parent = `
    import { spawn } from 'node:child_process';
    export function init() { process.env.CHILD = String(spawn('sleep', ['1000'], { stdio: 'ignore' }).pid); }
    export const run = () => process.env.CHILD;`;
  await using here = world({ 'score.mjs': parent });
  await here.deployments.apply(here.spec());
  const child = Number((await here.score('')).json());
  const pids = [...here.pids(), child];
  assert.deepEqual(pids.map(isAlive), [true, true]);
  await here.deployments.stop(2000);
  await until('all are gone', () => !pids.some(isAlive));
  await assert.rejects(here.deployments.apply(here.spec()), { code: 'deployment_stopped' });
});

test('a process that ignores SIGTERM is killed at the deadline', async () => {
  const deaf = `
    export function init() { process.removeAllListeners('SIGTERM'); process.on('SIGTERM', () => {}); }
    export const run = () => 1;`;
  await using here = world({ 'score.mjs': deaf }, { stopDeadlineMs: 150 });
  await here.deployments.apply(here.spec());
  const [pid = 0] = here.pids();
  await here.deployments.stop(5000);
  assert.equal(isAlive(pid), false);
  assert.ok(existsSync(join(here.folder, 'logs', 'instance-0.log')));
});

test('ports are on loopback only', async () => {
  await using here = world();
  await here.deployments.apply(here.spec());
  const { port = 0 } = here.deployments.status('iris', 'blue')?.instances[0] ?? {};
  // Another listener can take the same port on another address only when the first is not on all of them.
  const other = createServer().listen(port, '127.0.0.2');
  await once(other, 'listening');
  assert.equal((other.address() as AddressInfo).port, port);
  other.close();
});
