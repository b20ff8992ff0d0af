/** Python scoring scripts, served by the real azureml-inference-server-http from a real workspace, as Azure ML's users have them. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { pythonReason } from './support/available.ts';
import {
  condaFile,
  groupOf,
  listeningOn,
  PACKAGES,
  type PythonWorkspace,
  startPythonWorkspace,
} from './support/python-deployments.ts';

const skip = (await pythonReason()) ?? false;
let here: PythonWorkspace;
let started: PythonWorkspace | undefined;

interface Shown {
  readonly provisioning_state: string;
  readonly provisioning_detail?: string;
  readonly provisioning_warnings?: readonly string[];
  readonly python?: { readonly version: string; readonly build_log: string };
  readonly instances: readonly { pid: number; restarts: number; state: string; last_exit?: { text: string } }[];
}

const show = (name: string) => here.up().json<Shown>('online-deployment', 'show', '-n', name, '-e', 'scoring');

async function until(what: string, condition: () => Promise<boolean> | boolean): Promise<void> {
  const end = Date.now() + 30_000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited too long for: ${what}`);
    await wait(100);
  }
}

/** A fast request limit would make slow machines fail. */
const PATIENT = 'request_settings:\n  request_timeout_ms: 20000\n  max_queue_wait_ms: 20000\n';

const GOOD: Record<string, [script: string, extra: string]> = {
  automatic: ['automatic_id.py', PATIENT],
  custom: ['custom_id.py', PATIENT],
  onerror: ['on_error.py', PATIENT],
  schema: ['input_schema.py', PATIENT],
  raw: ['raw_http.py', PATIENT],
  headers: ['request_headers.py', PATIENT],
  weights: ['model_dir.py', `${PATIENT}model: azureml:weights@latest\n`],
  mutates: ['mutates.py', PATIENT],
  process: [
    'process.py',
    `${PATIENT}environment_variables:\n  WORKER_COUNT: "2"\n  PATH: /mine\n  AZUREML_MDC_PORT: "1"\n`,
  ],
};

before(async () => {
  if (skip !== false) return;
  started = await startPythonWorkspace();
  here = started;
  await here.up().run('model', 'create', '-n', 'weights', '--path', join(here.root, 'model'));
  for (const [name, [script, extra]] of Object.entries(GOOD)) {
    await here.up().run('online-deployment', 'create', '-f', here.yaml(name, script, extra), '--no-wait');
  }
  const end = Date.now() + 600_000;
  for (const name of Object.keys(GOOD)) {
    for (;;) {
      const shown = await show(name);
      if (shown.provisioning_state === 'Succeeded') break;
      if (shown.provisioning_state === 'Failed' || Date.now() > end) {
        throw new Error(`${name} did not start: ${JSON.stringify(shown)}\n${await here.logs(name)}`);
      }
      await wait(300);
    }
  }
});
after(() => started?.close());

const run = (name: string, body: () => Promise<void>): void => void test(name, { skip }, body);

run('the complete script with automatic ids answers, and its inputs and outputs are joined by their ids', async () => {
  const body = JSON.stringify({ data: { col1: [1, 2, 3], col2: [2, 3, 4] } });
  const answers = [await here.score('automatic', body), await here.score('automatic', body)];
  for (const answer of answers) {
    assert.deepEqual([answer.status, answer.text], [200, '{"sum": {"0": 3, "1": 5, "2": 7}}']);
    assert.match(answer.headers.get('x-ms-server-version') ?? '', /^azmlinfsrv\//);
    assert.equal(answer.headers.get('x-ms-run-function-failed'), 'False');
  }
  const inputs = await here.collected('automatic', 'model_inputs', 6);
  const outputs = await here.collected('automatic', 'model_outputs', 6);
  const ids = (records: typeof inputs) => records.map(({ correlationid }) => correlationid).toSorted();
  assert.deepEqual(ids(inputs), ids(outputs));
  assert.equal(new Set(ids(inputs)).size, 2);
  for (const record of inputs) {
    assert.deepEqual(record.data, [
      { col1: 1, col2: 2 },
      { col1: 2, col2: 3 },
      { col1: 3, col2: 4 },
    ]);
  }
  for (const record of outputs) assert.deepEqual(record.data, [{ sum: 3 }, { sum: 5 }, { sum: 7 }]);
});

run('the complete script with an id of its own stores that id', async () => {
  const answer = await here.score('custom', JSON.stringify({ data: { col1: [1], col2: [2] } }));
  assert.deepEqual([answer.status, answer.text], [200, '{"sum": {"0": 3}}']);
  for (const [collection, row] of [
    ['model_inputs', { col1: 1, col2: 2 }],
    ['model_outputs', { sum: 3 }],
  ] as const) {
    const [record] = await here.collected('custom', collection, 1);
    assert.deepEqual([record?.data, record?.correlationid], [[row], 'test']);
  }
});

run('on_error gets what the collector refuses, the answer and the rest of the records are not touched', async () => {
  const answer = await here.score('onerror', '[{"a": 1}, {"a": 2}]');
  assert.deepEqual([answer.status, answer.text], [200, '2']);
  assert.match(await here.logs('onerror'), /ex:.*\bDataFrame\b/i);
  assert.deepEqual(
    (await here.collected('onerror', 'model_inputs', 2)).flatMap(({ data }) => data),
    [{ a: 1 }, { a: 2 }],
  );
});

run('@input_schema converts the arguments, is in the swagger document, and refuses what does not fit', async () => {
  const body = JSON.stringify({ flowers: [{ petal: 1.5, color: 'red' }], factor: 2 });
  const answer = await here.score('schema', body);
  assert.deepEqual([answer.status, answer.text], [200, '[3.0]']);
  const swagger = await here.score('schema', '', { path: '/swagger.json', method: 'GET' });
  assert.match(swagger.text, /"petal"/);
  assert.equal((await here.score('schema', '{"flowers": []}')).status, 400);
  assert.deepEqual((await here.collected('schema', 'model_inputs', 1))[0]?.data, [{ petal: 1.5, color: 'red' }]);
});

run('@rawhttp gets the request and gives its own response, bytes, status and headers', async () => {
  const bytes = await here.score('raw', 'abc\u0000');
  assert.deepEqual([bytes.status, bytes.text, bytes.headers.get('x-length')], [201, '\u0000cba', '4']);
  const asked = await here.score('raw', '', { path: '/score?what=this', method: 'GET' });
  assert.deepEqual([asked.status, asked.text], [200, 'asked for this']);
});

run('request_headers has the id that the answer and the records have', async () => {
  const answer = await here.score('headers', '{"x": [1, 2]}', { headers: { 'x-caller': 'me' } });
  const id = answer.headers.get('x-request-id') ?? '';
  assert.deepEqual(JSON.parse(answer.text), { id, caller: 'me' });
  for (const collection of ['model_inputs', 'model_outputs']) {
    const [record] = await here.collected('headers', collection, 2);
    assert.equal(record?.correlationid, id);
  }
});

run('init loads from AZUREML_MODEL_DIR and imports a module of the code folder', async () => {
  const answer = await here.score('weights', '{"x": [1, 2]}');
  assert.deepEqual([answer.status, answer.text], [200, '[3, 6]']);
  assert.deepEqual((await here.collected('weights', 'model_inputs', 2))[0]?.data, [{ x: 1 }, { x: 2 }]);
});

run(
  'a frame that is changed after collect is stored whole, as it was when the SDK sent it; a copy as it was',
  async () => {
    const rows = Array.from({ length: 2000 }, (_, index) => index + 1);
    const answer = await here.score('mutates', JSON.stringify({ x: rows, y: rows }));
    assert.equal(answer.status, 200);
    const outputs = await here.collected('mutates', 'model_outputs', rows.length);
    assert.deepEqual(
      outputs.flatMap(({ data }) => data),
      rows.map((x) => ({ x: -x, y: x })),
    );
    const inputs = await here.collected('mutates', 'model_inputs', rows.length);
    // The SDK makes its JSON later, in a thread: before a change, or after it.
    const sign = Number(inputs[0]?.data[0]?.x);
    assert.deepEqual(
      inputs.flatMap(({ data }) => data),
      rows.map((x) => (sign === 0 ? { x: 0, y: 0 } : { x: x * sign, y: x })),
    );
    assert.equal(inputs[0]?.correlationid, outputs[0]?.correlationid);
  },
);

run(
  'a script sees the environment of Azure ML, its Python first on the PATH, and listens on loopback only',
  async () => {
    const names = [
      'AML_APP_ROOT',
      'AZUREML_ENTRY_SCRIPT',
      'AZUREML_MDC_HOST',
      'SERVICE_NAME',
      'SERVICE_VERSION',
      'WORKER_COUNT',
      'PYTHONUNBUFFERED',
      'NODE_CHANNEL_FD',
      'LISTEN_FDS',
    ];
    const scripts = join(here.root, 'scripts');
    const env = JSON.parse((await here.score('process', JSON.stringify({ env: names }))).text) as Record<
      string,
      string
    >;
    assert.deepEqual(env, {
      AML_APP_ROOT: scripts,
      AZUREML_ENTRY_SCRIPT: join(scripts, 'process.py'),
      AZUREML_MDC_HOST: '127.0.0.1',
      SERVICE_NAME: 'scoring',
      SERVICE_VERSION: 'process',
      WORKER_COUNT: '2',
      PYTHONUNBUFFERED: '1',
      NODE_CHANNEL_FD: null,
      LISTEN_FDS: null,
    });
    const paths = JSON.parse(
      (await here.score('process', '{"env": ["PATH", "VIRTUAL_ENV", "AZUREML_MDC_PORT"]}')).text,
    ) as Record<string, string>;
    assert.equal(paths.PATH, `${paths.VIRTUAL_ENV}/bin:/mine`);
    assert.notEqual(paths.AZUREML_MDC_PORT, '1');
    const { prefix, cwd } = JSON.parse((await here.score('process', '{}')).text) as { prefix: string; cwd: string };
    assert.deepEqual([prefix, cwd], [paths.VIRTUAL_ENV, scripts]);
    assert.match(await here.logs('process'), /Modeltap sets them: AZUREML_MDC_PORT/);
    const [instance] = (await show('process')).instances;
    const group = groupOf(instance?.pid ?? 0);
    assert.ok(group.length >= 3, `a master and two workers: ${group.join()}`);
    assert.deepEqual(new Set(listeningOn(group)), new Set(['0100007F']));
  },
);

run('run that throws is 500 for the client, and its traceback is in the log with all that it printed', async () => {
  const answer = await here.score('process', '{"error": "no luck", "lines": 300}');
  assert.deepEqual([answer.status, answer.headers.get('x-ms-run-function-failed')], [500, 'True']);
  assert.match(answer.text, /^\{"message": /);
  await wait(100);
  const logs = await here.logs('process');
  assert.match(logs, /ValueError: no luck/);
  for (const line of [0, 150, 299]) assert.match(logs, new RegExp(`line ${line}$`, 'm'));
});

run('a killed worker is replaced by its server, a killed server by Modeltap', async () => {
  const worker = JSON.parse((await here.score('process', '{}')).text) as { pid: number; parent: number };
  process.kill(worker.pid, 'SIGKILL');
  await until(
    'another worker',
    async () => groupOf(worker.parent).length >= 4 && !groupOf(worker.parent).includes(worker.pid),
  );
  assert.equal((await here.score('process', '{}')).status, 200);
  assert.equal((await show('process')).instances[0]?.restarts, 0);
  process.kill(worker.parent, 'SIGKILL');
  await until('another server', async () => (await show('process')).instances[0]?.restarts === 1);
  await until('it is ready', async () => (await show('process')).instances[0]?.state === 'ready');
  const again = await here.score('process', '{}');
  assert.notEqual((JSON.parse(again.text) as { parent: number }).parent, worker.parent);
  await until('all that the killed server left has ended', async () => groupOf(worker.parent).length === 0);
  assert.match(await here.logs('process'), /sup process-0: signal SIGKILL/);
});

run(
  'request_settings are kept: 429 after the queue, 408 after the timeout, and the place stays taken meanwhile',
  async () => {
    const limits =
      'request_settings:\n  request_timeout_ms: 1500\n  max_queue_wait_ms: 300\n  max_concurrent_requests_per_instance: 1\n';
    const created = await here.apply('create', here.yaml('limits', 'process.py', limits));
    assert.equal(created.code, 0, created.err);
    const slow = here.score('limits', '{"sleep": 3}');
    await wait(200);
    const queued = await here.score('limits', '{}');
    assert.equal(queued.status, 429);
    assert.match(queued.text, /"too_many_requests"/);
    const late = await slow;
    assert.equal(late.status, 408);
    assert.match(late.text, /"request_timeout"/);
    assert.equal((await here.score('limits', '{}')).status, 429, 'the only worker still sleeps');
    await until('it is free again', async () => (await here.score('limits', '{}')).status === 200);
  },
);

run('config.json of the code folder sets the server as in Azure ML', async () => {
  mkdirSync(join(here.root, 'scripts/configured'));
  writeFileSync(join(here.root, 'scripts/config.json'), '{"SCORING_TIMEOUT_MS": 300}');
  const created = await here.apply('create', here.yaml('configured', 'process.py', PATIENT));
  assert.equal(created.code, 0, created.err);
  const answer = await here.score('configured', '{"sleep": 5}');
  assert.deepEqual([answer.status, answer.text], [500, '{"message": "Scoring timeout after 300 ms"}']);
});

const BAD: Record<string, [script: string | undefined, extra: string, complaint: RegExp]> = {
  'a missing script': [undefined, '', /bad\.py/],
  'an import that fails': [
    'import no_such_module_at_all\n',
    '',
    /ModuleNotFoundError: No module named 'no_such_module_at_all' \(exit code 3\)/,
  ],
  'no init': ['def run(data): pass\n', '', /does not have a init\(\) function/],
  'no run': ['def init(): pass\n', '', /does not have a run\(\) function/],
  'init that throws': [
    'def init(): raise RuntimeError("no weights")\ndef run(data): pass\n',
    '',
    /RuntimeError: no weights \(exit code 3\)/,
  ],
  'init that hangs': [
    'import time\ndef init(): time.sleep(600)\ndef run(data): pass\n',
    'readiness_probe:\n  initial_delay: 1\n  period: 1\n  failure_threshold: 1\n',
    /not ready within 2 s \(readiness_probe\)/,
  ],
  'a model path that does not exist': [
    'def init(): pass\ndef run(data): pass\n',
    'model:\n  path: ./nowhere\n',
    /nowhere/,
  ],
  'a package that does not exist': [
    'def init(): pass\ndef run(data): pass\n',
    'environment:\n  conda_file:\n    dependencies: [python=3.10, {pip: [modeltap-has-no-such-package==1.0]}]\n',
    /modeltap-has-no-such-package[\s\S]*build\.log/,
  ],
};

for (const [what, [script, extra, complaint]] of Object.entries(BAD)) {
  run(`${what} fails the update with the reason, and the version before keeps serving`, async () => {
    if (script !== undefined) writeFileSync(join(here.root, 'scripts/bad.py'), script);
    const updated = await here.apply('update', here.yaml('process', 'bad.py', extra));
    assert.notEqual(updated.code, 0, updated.out);
    assert.match(updated.err, complaint);
    if (/exit code/.test(complaint.source)) assert.match(updated.err, /Its log is .*instance-0\.log/);
    assert.equal((await here.score('process', '{}')).status, 200);
  });
}

run('a deployment is deleted while its environment is being built, and nothing of the build stays', async () => {
  const unique = `requests!=0.0.${Date.now()}`;
  writeFileSync(join(here.root, 'unique.yaml'), condaFile([...PACKAGES, unique]));
  const file = here.yaml('given-up', 'process.py', 'environment:\n  conda_file: unique.yaml\n');
  const environments = join(here.directory, 'environments');
  const folders = () => readdirSync(environments).filter((name) => /^[0-9a-f]{16}$/.test(name));
  const earlier = new Set(folders());
  const creating = here.apply('create', file);
  await until('progress is shown', async () => {
    const shown = await here.up().attempt('online-deployment', 'show', '-n', 'given-up', '-e', 'scoring', '-o', 'json');
    return shown.code === 0 && /Python environment: /.test((JSON.parse(shown.out) as Shown).provisioning_detail ?? '');
  });
  await until('the folder is made', () => folders().some((name) => !earlier.has(name)));
  await here.up().run('online-deployment', 'delete', '-n', 'given-up', '-e', 'scoring');
  const waiting = await creating;
  assert.notEqual(waiting.code, 0);
  assert.equal((await here.up().attempt('online-deployment', 'show', '-n', 'given-up', '-e', 'scoring')).code, 3);
  const left = folders().filter((name) => !earlier.has(name) && existsSync(join(environments, name, 'bin')));
  assert.deepEqual(left, []);
});

run('the Python is named, and a warning says so when it is not the one that was asked for', async () => {
  const shown = await show('automatic');
  assert.match(shown.python?.version ?? '', /^3\.\d+\.\d+/);
  assert.ok(existsSync(shown.python?.build_log ?? ''));
  if (!shown.python?.version.startsWith('3.10.')) assert.match(shown.provisioning_warnings?.join('\n') ?? '', /3\.10/);
});

run(
  'when Modeltap is killed its Python processes end; started again it serves from the environments it has',
  async () => {
    const pids = (await show('automatic')).instances.map(({ pid }) => pid);
    // Nothing may be fetched now.
    process.env.PIP_INDEX_URL = 'http://127.0.0.1:9/simple';
    process.env.UV_INDEX_URL = process.env.PIP_INDEX_URL;
    try {
      await here.restart('SIGKILL');
    } finally {
      delete process.env.PIP_INDEX_URL;
      delete process.env.UV_INDEX_URL;
    }
    await until('the earlier processes are gone', () => pids.every((pid) => groupOf(pid).length === 0));
    await until('it serves', async () => (await show('automatic')).provisioning_state === 'Succeeded');
    const answer = await here.score('automatic', JSON.stringify({ data: { col1: [1], col2: [2] } }));
    assert.equal(answer.status, 200, answer.text);
  },
);
