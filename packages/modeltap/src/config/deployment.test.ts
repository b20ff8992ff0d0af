import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ConfigError } from './issues.ts';
import { DEPLOYMENT_KEYS } from './keys.ts';
import { loadDeployment, parseDeployment } from './load.ts';

const directory = mkdtempSync(join(tmpdir(), 'modeltap-config-'));
mkdirSync(join(directory, 'scripts'));
writeFileSync(join(directory, 'scripts/score.py'), '');
writeFileSync(join(directory, 'secret.py'), '');
mkdirSync(join(directory, 'model'));
writeFileSync(
  join(directory, 'model/conda.yaml'),
  'channels:\n  - conda-forge\ndependencies:\n  - python=3.10\n  - pip:\n      - azureml-ai-monitoring\n',
);
symlinkSync(join(directory, 'secret.py'), join(directory, 'scripts/link.py'));
after(() => rmSync(directory, { recursive: true }));

const parse = (text: string, rules = {}) => parseDeployment(text, { file: 'deployment.yml', directory }, rules);

/** The issues of a text that must be refused, one line each. */
function refusal(text: string, rules = {}): readonly string[] {
  try {
    parse(text, rules);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    assert.equal(error.code, 'config_invalid');
    assert.equal(error.exitCode, 2);
    assert.equal(error.httpStatus, 400);
    return error.issues.map(
      ({ place, severity, key, message }) => `${place.line}:${place.column} ${severity} ${key}: ${message}`,
    );
  }
  return assert.fail('the text was not refused');
}

const errors = (text: string, rules = {}) => refusal(text, rules).filter((line) => / error /.test(line));
const HEAD = 'name: blue\nendpoint_name: my-endpoint\n';

// The three examples of the product document, as printed there.
const COMPREHENSIVE = `$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineDeployment.schema.json
name: blue
endpoint_name: my_endpoint
model: azureml:iris_mlflow_model@latest
environment:
  image: mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04
  conda_file: model/conda.yaml
code_configuration:
  code: scripts
  scoring_script: score.py
instance_type: Standard_F2s_v2
instance_count: 1
data_collector:
  collections:
    model_inputs:
      enabled: 'True'
    model_outputs:
      enabled: 'True'
`;
const CUSTOM_PATHS = `data_collector:
  collections:
    model_inputs:
      enabled: 'True'
      data: 
        name: my_model_inputs_data_asset
        path: azureml://datastores/workspaceblobstore/paths/modelDataCollector/my_endpoint/blue/model_inputs
        version: 1
    model_outputs:
      enabled: 'True'
      data: 
        name: my_model_outputs_data_asset
        path: azureml://datastores/workspaceblobstore/paths/modelDataCollector/my_endpoint/blue/model_outputs 
        version: 1
`;
const PAYLOAD = `$schema: http://azureml/sdk-2-0/OnlineDeployment.json

endpoint_name: my_endpoint 
name: blue 
model: azureml:my-model-m1:1 
environment: azureml:env-m1:1 
data_collector:
   collections:
       request:
           enabled: 'True'
       response:
           enabled: 'True'
`;

test("the product document's deployment loads, with every default filled in and one warning a key", async () => {
  const file = join(directory, 'deployment.yml');
  writeFileSync(file, COMPREHENSIVE);
  const { value, warnings, text } = await loadDeployment(file);
  const collection = (name: string) => ({
    enabled: true,
    data: {
      name: `my_endpoint-blue-${name}`,
      version: '1',
      path: `azureml://datastores/workspaceblobstore/paths/modelDataCollector/my_endpoint/blue/${name}`,
    },
  });
  const probe = { initialDelay: 10, period: 10, timeout: 2, successThreshold: 1, failureThreshold: 30 };
  assert.deepEqual(value, {
    name: 'blue',
    endpointName: 'my_endpoint',
    type: 'managed',
    description: '',
    tags: {},
    properties: {},
    model: { reference: 'azureml:iris_mlflow_model@latest' },
    code: { directory: join(directory, 'scripts'), scoringScript: 'score.py' },
    environment: {
      name: undefined,
      version: undefined,
      description: '',
      tags: {},
      image: 'mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04',
      conda: {
        name: undefined,
        channels: ['conda-forge'],
        python: '=3.10',
        packages: [],
        pip: [
          { text: 'azureml-ai-monitoring', place: { file: join(directory, 'model/conda.yaml'), line: 6, column: 9 } },
        ],
        directory: join(directory, 'model'),
      },
      inferenceConfig: undefined,
    },
    environmentVariables: {},
    instanceCount: 1,
    requestSettings: { requestTimeoutMs: 5000, maxConcurrentRequestsPerInstance: 1, maxQueueWaitMs: 500 },
    livenessProbe: probe,
    readinessProbe: probe,
    dataCollector: {
      collections: { model_inputs: collection('model_inputs'), model_outputs: collection('model_outputs') },
      samplingRate: 1,
      rollingRate: 'hour',
      captureHeaders: [],
      batch: 'same_id',
      batchWindowMs: 500,
    },
  });
  assert.deepEqual(
    warnings.map(({ place, key }) => `${place.line}:${place.column} ${key}`),
    ['3:1 endpoint_name', '6:3 environment.image', '11:1 instance_type'],
  );
  assert.equal(text, COMPREHENSIVE);
});

test("the product document's custom paths keep name, version and path, without the blank at the end", () => {
  const { value } = parse(HEAD + CUSTOM_PATHS);
  assert.deepEqual(value.dataCollector?.collections['model_outputs']?.data, {
    name: 'my_model_outputs_data_asset',
    version: '1',
    path: 'azureml://datastores/workspaceblobstore/paths/modelDataCollector/my_endpoint/blue/model_outputs',
  });
});

test("the product document's payload example loads without a word about its collections", () => {
  const { value, warnings } = parse(PAYLOAD);
  assert.equal(value.endpointName, 'my_endpoint');
  assert.deepEqual(value.model, { reference: 'azureml:my-model-m1:1' });
  assert.deepEqual(
    warnings.map(({ key }) => key),
    ['endpoint_name'],
  );
});

test('every error of a file comes at once, in its order, with line, column and what is allowed', () => {
  const text = `name: 1blue
endpoint_name: my-endpoint
instance_cuont: 3
instance_count: 0
environment_variables: [a]
request_settings:
  request_timeout_ms: soon
liveness_probe:
  success_threshold: 2
data_collector:
  rolling_rate: hourly
  sampling_rate: 2
  collections:
    model_inputs:
      enabled: maybe
      data:
        path: azureml://datastores/ws/paths/a/../b
`;
  assert.deepEqual(errors(text), [
    '1:7 error name: "1blue" is not a name: it begins with a letter, has letters, digits and hyphens, and ends with a letter or digit',
    '3:1 error instance_cuont: is not a key that can stand here; did you mean "instance_count"?',
    '4:17 error instance_count: must be a whole number from 1 to 50, not "0"',
    '5:24 error environment_variables: must be a mapping (key: value lines), not a list',
    '7:23 error request_settings.request_timeout_ms: must be a whole number from 1 to 300000 ms, not "soon"',
    '9:22 error liveness_probe.success_threshold: must be a whole number from 1 to 1, not "2"',
    '11:17 error data_collector.rolling_rate: must be one of minute, hour, day, month, year, not "hourly"; did you mean "hour"?',
    '12:18 error data_collector.sampling_rate: must be a number from 0 to 1, not "2"',
    '15:16 error data_collector.collections.model_inputs.enabled: must be true or false, not "maybe"',
    '17:47 error data_collector.collections.model_inputs.data.path: "." and ".." are not allowed in a path',
  ]);
});

test('a missing key is reported at what should hold it', () => {
  assert.deepEqual(errors('# a comment\nname: blue\ncode_configuration:\n  code: scripts\n'), [
    '2:1 error endpoint_name: is required',
    '3:1 error code_configuration.scoring_script: is required',
  ]);
});

test('an empty value is not the same as a missing one', () => {
  assert.deepEqual(errors(`${HEAD}tags:\n`), [
    '3:1 error tags: is empty; it must be a mapping (key: value lines), or be left out',
  ]);
});

test('names have 3 to 32 characters', () => {
  const [short] = errors('name: ab\nendpoint_name: my-endpoint\n');
  assert.equal(short, '1:7 error name: "ab" has 2 characters; a name has 3 to 32');
  const [long] = errors(`name: ${'a'.repeat(33)}\nendpoint_name: my-endpoint\n`);
  assert.match(long ?? '', /has 33 characters/);
});

test('collection names that could leave their folder are refused', () => {
  for (const name of [
    '../x',
    '..',
    '.',
    'a/b',
    'a\\b',
    'a..b',
    'a b',
    '',
    'x'.repeat(300),
    'é',
    '"a\\0b"',
    '"a\\nb"',
  ]) {
    const key = name.startsWith('"') ? name : `'${name}'`;
    const [line] = errors(`${HEAD}data_collector:\n  collections:\n    ${key}:\n      enabled: 'True'\n`);
    assert.match(line ?? '', /^5:5 error .* is not a collection name/, name);
  }
});

test('collection names become lower case with a warning, and case does not make a second one', () => {
  const text = `${HEAD}data_collector:\n  collections:\n    Model_Inputs: {enabled: TRUE}\n`;
  const { value, warnings } = parse(text);
  assert.deepEqual(Object.keys(value.dataCollector?.collections ?? {}), ['model_inputs']);
  assert.deepEqual(
    warnings.map(({ message }) => message),
    ['is recorded as "model_inputs": collection names are lower case'],
  );
  assert.deepEqual(errors(`${text}    MODEL_INPUTS: {enabled: false}\n`), [
    '6:5 error data_collector.collections.MODEL_INPUTS: is the same collection as "Model_Inputs": case does not matter',
  ]);
});

test('at most five custom collections can be enabled; disabled ones, request and response do not count', () => {
  const names = ['a', 'b', 'c', 'd', 'e', 'request', 'response'];
  const lines = (list: readonly string[]) => list.map((name) => `    ${name}: {enabled: 'True'}\n`).join('');
  const base = `${HEAD}data_collector:\n  collections:\n    off: {enabled: 'False'}\n`;
  assert.equal(Object.keys(parse(base + lines(names)).value.dataCollector?.collections ?? {}).length, 8);
  assert.deepEqual(errors(base + lines(['f', ...names])), [
    '11:5 error data_collector.collections.e: is one too many: 5 custom collections can be enabled in a deployment',
  ]);
  assert.equal(errors(base + lines(names), { maxCollections: 2 }).length, 3);
});

test('true and false are read in every spelling', () => {
  for (const [written, expected] of [
    ["'True'", true],
    ['"true"', true],
    ['true', true],
    ['TRUE', true],
    ["'FALSE'", false],
    ['False', false],
  ] as const) {
    const { value } = parse(`${HEAD}data_collector: {collections: {x: {enabled: ${written}}}}\n`);
    assert.equal(value.dataCollector?.collections['x']?.enabled, expected, written);
  }
  assert.match(
    errors(`${HEAD}data_collector: {collections: {x: {enabled: yes}}}\n`)[0] ?? '',
    /true or false, not "yes"/,
  );
});

test('a sampling rate of one collection is refused and the root key named', () => {
  assert.deepEqual(
    errors(`${HEAD}data_collector:\n  collections:\n    x:\n      enabled: 'True'\n      sampling_rate: 0.5\n`),
    [
      '7:7 error data_collector.collections.x.sampling_rate: cannot be set for one collection; set data_collector.sampling_rate, which counts for all of them',
    ],
  );
});

test("the first data collector's shape is refused with the new one explained", () => {
  const found = errors(
    `${HEAD}data_collector:\n  enabled: true\n  sampling_strategy: {random_sample_percentage: 10}\n`,
  );
  assert.match(found[0] ?? '', /^3:1 error data_collector.collections: is required$/);
  assert.match(found[1] ?? '', /^4:3 error data_collector.enabled: .*Write collections: with one key/);
  assert.match(found[2] ?? '', /^5:3 error data_collector.sampling_strategy: /);
});

test("Modeltap's own keys, rolling rates of any case and the data reference are read", () => {
  const { value, warnings } = parse(`${HEAD}data_collector:
  sampling_rate: '0.25'
  rolling_rate: Minute
  batch: off
  batch_window_ms: 0
  request_logging: {capture_headers: [X-Tenant]}
  collections:
    x: {enabled: 'True', data: azureml:my_asset:2, client_id: abc}
    y: {enabled: 'True', data: {version: 1.10, data_id: z}, client_id: abc}
`);
  const { collections, ...rest } = value.dataCollector ?? assert.fail('no data collector');
  assert.deepEqual(rest, {
    samplingRate: 0.25,
    rollingRate: 'minute',
    batch: 'off',
    batchWindowMs: 0,
    captureHeaders: ['X-Tenant'],
  });
  assert.equal(collections['x']?.data.name, 'my_asset');
  assert.equal(collections['x']?.data.version, '2');
  assert.equal(collections['x']?.clientId, 'abc');
  assert.equal(collections['y']?.data.version, '1.10');
  assert.deepEqual(
    warnings.map(({ key }) => key),
    [
      'data_collector.rolling_rate',
      'data_collector.collections.x.client_id',
      'data_collector.collections.y.data.data_id',
    ],
  );
});

test('environment variables and tags keep numbers and booleans as they were written', () => {
  const { value } = parse(`${HEAD}environment_variables: {A: 007, B: 1e3, C: True, D: '', E: 12345678901234567890}\n`);
  assert.deepEqual(value.environmentVariables, { A: '007', B: '1e3', C: 'True', D: '', E: '12345678901234567890' });
});

test('the scoring script must exist inside its folder, also behind links', () => {
  const script = (name: string) => errors(`${HEAD}code_configuration:\n  code: scripts\n  scoring_script: ${name}\n`);
  const key = 'code_configuration.scoring_script';
  assert.deepEqual(script('../secret.py'), [`5:19 error ${key}: must lie inside the folder code_configuration.code`]);
  assert.deepEqual(script(join(directory, 'secret.py')), [
    `5:19 error ${key}: must lie inside the folder code_configuration.code`,
  ]);
  assert.deepEqual(script('link.py'), [
    `5:19 error ${key}: is a link to a file outside the folder code_configuration.code`,
  ]);
  assert.deepEqual(script('nope.py'), [`5:19 error ${key}: there is no file nope.py in ${join(directory, 'scripts')}`]);
  assert.deepEqual(errors(`${HEAD}code_configuration: {code: nowhere, scoring_script: a.py}\n`), [
    `3:28 error code_configuration.code: there is no folder ${join(directory, 'nowhere')}`,
  ]);
});

test('a model is a path, a reference, or a mapping', () => {
  const model = (text: string) => parse(`${HEAD}model: ${text}\n`).value.model;
  assert.deepEqual(model('./scripts'), { path: join(directory, 'scripts') });
  assert.deepEqual(model('{path: secret.py, type: custom_model}'), { path: join(directory, 'secret.py') });
  assert.deepEqual(model('{name: iris, version: 1.10}'), { reference: 'azureml:iris:1.10' });
  assert.deepEqual(model('azureml://registries/r/models/m/versions/1'), {
    reference: 'azureml://registries/r/models/m/versions/1',
  });
  assert.match(
    errors(`${HEAD}model: iris\n`)[0] ?? '',
    /^3:8 error model: there is no file or folder .*iris; a model is/,
  );
  assert.match(errors(`${HEAD}model: azureml:iris@newest\n`)[0] ?? '', /^3:21 error model: the only label is "latest"/);
});

test('an environment is a reference, or a mapping that is read like an environment file', () => {
  const environment = (text: string) => parse(`${HEAD}environment: ${text}\n`).value.environment;
  for (const reference of [
    'azureml:sklearn:1',
    'azureml:sklearn@latest',
    'azureml:sklearn',
    'azureml:AzureML-sklearn-1.5:3',
    'azureml://registries/azureml/environments/sklearn-1.5/versions/3',
  ]) {
    assert.deepEqual(environment(reference), { reference });
  }
  const inline = environment('{conda_file: {dependencies: [numpy=1.26]}}');
  assert.ok(inline !== undefined && 'conda' in inline);
  assert.deepEqual(
    inline.conda?.packages.map(({ name, version }) => `${name}${version}`),
    ['numpy=1.26'],
  );
  assert.deepEqual(errors(`${HEAD}environment: azureml:sklearn:1:2\n`), [
    '3:30 error environment: a version has letters, digits, hyphens, underscores and dots',
  ]);
  assert.deepEqual(errors(`${HEAD}environment: sklearn\n`), [
    '3:14 error environment: must be azureml:<name>:<version> or azureml:<name>@latest, or a mapping with conda_file',
  ]);
  assert.deepEqual(errors(`${HEAD}environment:\n  conda_file:\n    dependencies: [numpy==]\n  os_type: beos\n`), [
    '5:25 error environment.conda_file.dependencies[0]: a version is expected here, such as =1.26 or >=1.20,<2',
    '6:12 error environment.os_type: must be one of linux, windows, not "beos"',
  ]);
});

test('limits differ between managed and kubernetes', () => {
  const text = `${HEAD}request_settings: {request_timeout_ms: 200000}\nscale_settings: {type: target_utilization}\n`;
  assert.equal(errors(text).length, 2);
  assert.equal(parse(`${text}type: Kubernetes\n`).value.requestSettings.requestTimeoutMs, 200_000);
});

test('every key of the table is known, and every key without effect gives one warning', () => {
  const text = `${HEAD}$schema: x
type: kubernetes
description: d
tags: {a: b}
properties: {a: b}
model: {name: m, version: 1, type: t, description: d, tags: {}, properties: {}, flavors: {}, stage: s}
model_mount_path: /m
code_configuration: {code: scripts, scoring_script: score.py}
environment: {$schema: s, name: n, version: 1, description: d, tags: {a: b}, properties: {}, image: x, conda_file: {dependencies: []}, inference_config: {liveness_route: {path: /, port: 1}, readiness_route: {path: /, port: 1}, scoring_route: {path: /, port: 1}}, os_type: Linux, datastore: d, stage: s, id: i, creation_context: {}}
environment_variables: {A: b}
instance_type: x
instance_count: 1
app_insights_enabled: false
scale_settings: {type: default, min_instances: 1, max_instances: 1, target_utilization_percentage: 70, polling_interval: 1}
request_settings: {request_timeout_ms: 1, max_concurrent_requests_per_instance: 1, max_queue_wait_ms: 0}
liveness_probe: {initial_delay: 1, period: 1, timeout: 1, success_threshold: 1, failure_threshold: 1}
readiness_probe: {initial_delay: 1, period: 1, timeout: 1, success_threshold: 3, failure_threshold: 1}
egress_public_network_access: enabled
resources: {requests: {cpu: '1'}, limits: {nvidia.com/gpu: 1}}
private_network_connection: false
provisioning_state: Succeeded
id: x
creation_context: {a: b}
data_collector:
  collections:
    a: {enabled: 'True', client_id: x, data: {name: n, path: azureml://datastores/d/paths/p, version: 1, data_id: i}}
    b: {enabled: 'True', client_id: x}
  sampling_rate: 1
  rolling_rate: hour
  request_logging: {capture_headers: []}
  batch: same_id
  batch_window_ms: 1
`;
  // An image and a build do not go together.
  const built = parse(`${HEAD}environment: {build: {path: ., dockerfile_path: Dockerfile}}\n`);
  const warnings = [...parse(text).warnings, ...built.warnings];
  const warned = DEPLOYMENT_KEYS.filter((row) => row.effect === 'warning').map((row) => row.key.replace('<name>', 'a'));
  assert.deepEqual(warnings.map(({ key }) => key).toSorted(), warned.toSorted());
  // The other direction: what the schema lists as known at each level is in the table.
  const known = refusal(`${text}zzzzzzzzzzzz: 1\n`)
    .find((line) => line.includes('zzzz'))
    ?.split('known keys: ')[1];
  const rows = new Set(DEPLOYMENT_KEYS.map((row) => row.key.replace(/\..*/, '')));
  assert.deepEqual(known?.split(', ').toSorted(), [...rows].toSorted());
});

test('values given beside the file win over it', () => {
  const { value } = parseDeployment('name: blue\n', {
    file: 'deployment.yml',
    directory,
    overrides: { name: 'green', endpoint_name: 'my-endpoint', description: undefined },
  });
  assert.deepEqual([value.name, value.endpointName, value.description], ['green', 'my-endpoint', '']);
});
