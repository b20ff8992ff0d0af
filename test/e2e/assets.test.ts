/** Models and environments from the command line: what a user types, sees and finds on disk. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { startWorkspace, type TestWorkspace } from '../support/workspace.ts';

const root = mkdtempSync(join(tmpdir(), 'modeltap-e2e-assets-'));
const directory = join(root, 'workspace');
let workspace: TestWorkspace;

interface Asset {
  readonly name: string;
  readonly version: string;
  readonly path: string;
  readonly conda_file: { readonly dependencies: readonly unknown[] };
}

const file = (name: string, text: string) => {
  writeFileSync(join(root, name), text);
  return join(root, name);
};

before(async () => {
  mkdirSync(join(root, 'model'));
  file('model/weights.json', '{"answer": 42}');
  workspace = await startWorkspace(directory);
});
after(async () => {
  await workspace.stop();
  rmSync(root, { recursive: true });
});

test('a model is registered, listed, shown, archived and restored', async () => {
  const yaml = file('model.yml', 'name: answer\npath: ./model\ntags: {a: b}\nstage: Production\n');
  const created = await workspace.attempt('model', 'create', '-f', yaml);
  assert.equal(created.code, 0, created.err);
  assert.match(created.err, /model\.yml:4:1 warning stage: has no effect in Modeltap/);
  const first = JSON.parse(created.out) as Asset;
  assert.deepEqual([first.name, first.version], ['answer', '1']);
  assert.equal(first.path, join(directory, 'models/answer/1/model'));
  assert.equal(readFileSync(join(first.path, 'weights.json'), 'utf8'), '{"answer": 42}');

  const other = await workspace.json<Asset>('model', 'create', '-n', 'answer', '-p', join(root, 'model/weights.json'));
  assert.equal(other.path, join(directory, 'models/answer/2/weights.json'));
  const taken = await workspace.attempt('model', 'create', '-f', yaml, '--version', '2');
  assert.equal(taken.code, 4);
  assert.match(taken.err, /error version_taken: model "answer" version 2 .*\nfix: .*Leave the version out/);

  assert.match(await workspace.run('model', 'list', '-n', 'answer', '-o', 'tsv'), /^answer\t2\t.*\nanswer\t1\t.*\n$/);
  await workspace.run('model', 'archive', '-n', 'answer', '-v', '2');
  assert.equal((await workspace.json<Asset>('model', 'show', '-n', 'answer')).version, '1');
  await workspace.run('model', 'restore', '-n', 'answer', '-v', '2');
  assert.equal((await workspace.json<Asset>('model', 'show', '-n', 'answer', '-l', 'latest')).version, '2');
  assert.equal((await workspace.attempt('model', 'show', '-n', 'answer', '-v', '9')).code, 3);
});

test('a model that cannot be registered says why, and leaves nothing', async () => {
  const missing = await workspace.attempt('model', 'create', '-f', file('bad.yml', 'name: bad\npath: ./nowhere\n'));
  assert.equal(missing.code, 2);
  assert.match(missing.err, /bad\.yml:2:7 error path: there is no file or folder .*nowhere/);
  const uri = 'azureml://datastores/workspaceblobstore/paths/nothing/here';
  const empty = await workspace.attempt('model', 'create', '-n', 'bad', '-p', uri);
  assert.equal(empty.code, 2);
  assert.match(empty.err, /error model_empty: the model path azureml:\/\/datastores\/.*\/nothing\/here holds no file/);
  assert.equal(existsSync(join(directory, 'models/bad')), false);
});

test('an environment is kept as it was when it was registered', async () => {
  file('req.txt', 'pandas==2.2.3\n');
  file('conda.yml', 'dependencies:\n  - python=3.10\n  - pip:\n      - -r req.txt\n');
  const yaml = file('env.yml', 'name: sk\nimage: i\nconda_file: conda.yml\n');
  const expected = ['python=3.10', 'pip', { pip: ['pandas==2.2.3'] }];
  const made = await workspace.json<Asset>('environment', 'create', '-f', yaml);
  assert.deepEqual([made.version, made.conda_file.dependencies], ['1', expected]);
  file('req.txt', 'pandas==3.0.0\n');
  const changed = await workspace.attempt('environment', 'create', '-f', yaml, '-v', '1');
  assert.equal(changed.code, 4);
  assert.match(changed.err, /error version_taken: environment "sk" version 1/);
  assert.equal((await workspace.json<Asset>('environment', 'create', '-f', yaml)).version, '2');
  const shown = await workspace.json<Asset>('environment', 'show', '-n', 'sk', '-v', '1');
  assert.deepEqual(shown.conda_file.dependencies, expected);
  assert.match(await workspace.run('environment', 'list', '-o', 'table'), /^sk +2 +python=3\.10 pip +i$/m);
});

test('a bad conda file stops everything, with its places', async () => {
  const conda = file('bad-conda.yml', 'dependencies:\n  - numpy >=1 <2\n  - pip:\n    - pandas=2\n');
  const { code, err } = await workspace.attempt('environment', 'create', '-n', 'bad', '-c', conda);
  assert.equal(code, 2);
  assert.match(err, /bad-conda\.yml:2:14 error .*comma/);
  assert.match(err, /bad-conda\.yml:4:13 error .*pandas==2/);
  assert.deepEqual(await workspace.json<Asset[]>('environment', 'list', '-n', 'bad'), []);
});

test('a deployment gets the registered model in AZUREML_MODEL_DIR, under its own name', async () => {
  file(
    'score.ts',
    `import { readFileSync } from 'node:fs';
export function init() {}
export function run() { return JSON.parse(readFileSync(\`\${process.env.AZUREML_MODEL_DIR}/model/weights.json\`, 'utf8')); }
`,
  );
  const deployment = (model: string) =>
    file(
      'deployment.yml',
      `name: blue\nendpoint_name: assets\nmodel: ${model}\ncode_configuration: {code: ., scoring_script: score.ts}\n`,
    );
  await workspace.run('online-endpoint', 'create', '-n', 'assets');
  const unknown = await workspace.attempt('online-deployment', 'create', '-f', deployment('azureml:question:1'));
  assert.equal(unknown.code, 3);
  assert.match(unknown.err, /error reference_unknown: the model "azureml:question:1" .*registered: answer/);
  await workspace.run('online-deployment', 'create', '-f', deployment('azureml:answer:1'), '--all-traffic');
  file('request.json', '{}');
  const ask = () => workspace.run('online-endpoint', 'invoke', '-n', 'assets', '-r', join(root, 'request.json'));
  assert.deepEqual(JSON.parse(await ask()), { answer: 42 });
  // The workspace has its own copy.
  file('model/weights.json', '{"answer": 0}');
  assert.deepEqual(JSON.parse(await ask()), { answer: 42 });
  await workspace.run('online-deployment', 'update', '-f', deployment('{path: ./model}'));
  assert.deepEqual(JSON.parse(await ask()), { answer: 0 });
});
