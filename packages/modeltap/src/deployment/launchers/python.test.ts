import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { test } from 'node:test';
import { isModeltapError } from '../../kit/errors.ts';
import { instanceEnvironment } from '../environment.ts';
import { needsPython } from '../launcher.ts';
import { deploymentConfig } from '../process.test-suite.ts';
import { pythonCause, pythonLauncher } from './python.ts';

const PYTHON = { directory: '/envs/abc', python: '/envs/abc/bin/python' };

test('a .py script is planned for the interpreter of its environment', () => {
  const config = deploymentConfig('/code', 'sub/score.py');
  assert.ok(pythonLauncher.matches(config) && needsPython(config));
  assert.ok(!needsPython(deploymentConfig('/code', 'score.ts')));
  const plan = pythonLauncher.plan(config, { python: PYTHON, modelDirectory: '/models', stopDeadlineMs: 10_000 });
  assert.equal(plan.command, '/envs/abc/bin/python');
  assert.equal(plan.args[0], '-u');
  assert.ok(existsSync(plan.args[1] ?? ''), `${plan.args[1]} is missing`);
  assert.deepEqual([plan.cwd, plan.limits], ['/code', 'front']);
  assert.deepEqual(plan.environment, {
    AML_APP_ROOT: '/code',
    AZUREML_ENTRY_SCRIPT: 'sub/score.py',
    AZUREML_MODEL_DIR: '/models',
    VIRTUAL_ENV: '/envs/abc',
    MODELTAP_STOP_DEADLINE_MS: '9000',
  });
});

test('without a built environment it is refused', () => {
  assert.throws(
    () => pythonLauncher.plan(deploymentConfig('/code', 'score.py'), { stopDeadlineMs: 1 }),
    (error) => isModeltapError(error) && error.code === 'launcher_missing',
  );
});

test('the environment comes first on the PATH, and the user sets workers and timeouts but not what Modeltap sets', () => {
  const environmentVariables = {
    PATH: '/mine',
    WORKER_COUNT: '4',
    WORKER_TIMEOUT: '20',
    SCORING_TIMEOUT_MS: '900',
    PYTHONPATH: '/lib',
    VIRTUAL_ENV: '/other',
    LISTEN_FDS: '3',
    NODE_CHANNEL_FD: '9',
  };
  const config = deploymentConfig('/code', 'score.py', { environmentVariables });
  const plan = pythonLauncher.plan(config, { python: PYTHON, stopDeadlineMs: 1000 });
  const { variables, refused } = instanceEnvironment(config, plan, {}, { PATH: '/bin', PIP_INDEX_URL: 'x' });
  assert.deepEqual(variables, {
    PATH: [join('/envs/abc', 'bin'), '/mine'].join(delimiter),
    WORKER_COUNT: '4',
    WORKER_TIMEOUT: '20',
    SCORING_TIMEOUT_MS: '900',
    PYTHONPATH: '/lib',
    SERVICE_NAME: 'iris',
    SERVICE_VERSION: 'blue',
    ...plan.environment,
  });
  assert.deepEqual(refused, ['LISTEN_FDS', 'NODE_CHANNEL_FD', 'VIRTUAL_ENV']);
});

const SERVER_TAIL = `
The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/envs/abc/aml_blueprint.py", line 91, in setup
    self.user_script.load_script(config.app_root)
azureml_inference_server_http.server.user_script.UserScriptImportException: Failed to import user script

2026-11-23 06:30:35,167 I [3518] gunicorn.error - Worker exiting (pid: 3518)
2026-11-23 06:30:35,326 E [3461] gunicorn.error - Reason: Worker failed to boot.
`;

const causes: Record<string, [output: string, cause: string | undefined]> = {
  'an import that fails': [
    `2026-11-23 E [3518] azmlinfsrv - Traceback (most recent call last):
  File "/code/score.py", line 1, in <module>
    import nope
    ^^^^^^^^^^^
ModuleNotFoundError: No module named 'nope'
${SERVER_TAIL}`,
    "ModuleNotFoundError: No module named 'nope'",
  ],
  'a syntax error': [
    `azmlinfsrv - Traceback (most recent call last):
  File "/envs/abc/user_script.py", line 77, in load_script
  File "/code/score.py", line 2
    def (
        ^
SyntaxError: invalid syntax
${SERVER_TAIL}`,
    'SyntaxError: invalid syntax',
  ],
  'an error of the script that has a cause itself': [
    `Traceback (most recent call last):
  File "/code/score.py", line 3, in init
KeyError: 'weights'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/code/score.py", line 5, in init
mine.badModel
${SERVER_TAIL}`,
    'mine.badModel',
  ],
  'no init': [
    `azmlinfsrv - Traceback (most recent call last):
  File "/envs/abc/user_script.py", line 88, in load_script
    raise UserScriptError(...)
azureml_inference_server_http.server.user_script.UserScriptError: User script at /code/score.py does not have a init() function defined.

2026-11-23 I [3582] gunicorn.error - Worker exiting (pid: 3582)`,
    'User script at /code/score.py does not have a init() function defined.',
  ],
  'no server': [
    'modeltap: this environment has no azureml-inference-server-http',
    'this environment has no azureml-inference-server-http',
  ],
  'nothing that tells': ['Killed\n', undefined],
};

for (const [what, [output, cause]] of Object.entries(causes)) {
  test(`the cause is found in the output: ${what}`, () => {
    assert.equal(pythonCause(output.split('\n')), cause);
  });
}
