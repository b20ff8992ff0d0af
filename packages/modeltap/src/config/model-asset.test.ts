import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ConfigError } from './issues.ts';
import { MODEL_KEYS } from './keys.ts';
import { parseModel } from './load.ts';

const directory = mkdtempSync(join(tmpdir(), 'modeltap-model-'));
mkdirSync(join(directory, 'mlflow-model'));
writeFileSync(join(directory, 'mlflow-model/model.pkl'), '');
after(() => rmSync(directory, { recursive: true }));

const parse = (text: string) => parseModel(text, { file: 'model.yml', directory });

function refusal(text: string): readonly string[] {
  try {
    parse(text);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.issues.map(({ place, key, message }) => `${place.line}:${place.column} ${key}: ${message}`);
  }
  return assert.fail('the text was not refused');
}

test('a model file of Azure ML loads', () => {
  const { value, warnings } = parse(`$schema: https://azuremlschemas.azureedge.net/latest/model.schema.json
name: local-file-example
version: 1.10
path: mlflow-model/model.pkl
description: Model created from local file.
tags: {a: 1}
properties: {b: true}
`);
  assert.deepEqual(value, {
    name: 'local-file-example',
    version: '1.10',
    type: 'custom_model',
    path: join(directory, 'mlflow-model/model.pkl'),
    description: 'Model created from local file.',
    tags: { a: '1' },
    properties: { b: 'true' },
  });
  assert.deepEqual(warnings, []);
  const stored = parse('name: m\ntype: MLflow_model\npath: azureml://datastores/ws/paths/a/model/\n').value;
  assert.deepEqual(
    [stored.version, stored.type, stored.path],
    [undefined, 'mlflow_model', 'azureml://datastores/ws/paths/a/model/'],
  );
});

test('what a model cannot be is refused at its place', () => {
  const rule = 'must be a file or folder on this machine, or azureml://datastores/<datastore>/paths/<path>';
  const path = (value: string) => refusal(`name: m\npath: ${value}\n`);
  assert.deepEqual(path('nope'), [`2:7 path: there is no file or folder ${join(directory, 'nope')}`]);
  assert.deepEqual(path('""'), [`2:7 path: ${rule}, not empty`]);
  for (const other of ['runs:/1/model', 'azureml://jobs/j/outputs/o/paths/p', 'azureml:m:1', 'https://h.example/m'])
    assert.deepEqual(path(other), [`2:7 path: ${rule}`]);
  assert.deepEqual(path('azureml://datastores/ws/paths/../x'), ['2:37 path: "." and ".." are not allowed in a path']);
  assert.deepEqual(path('azureml://datastores/ws/paths/'), [
    '2:7 path: must name a file or folder in the datastore, not the whole datastore',
  ]);
  assert.deepEqual(refusal('name: ../m\nversion: ..\ntype: onnx\n'), [
    '1:1 path: is required',
    '1:7 name: "../m" is not allowed: a model name has letters, digits, hyphens, underscores and dots, at most 255',
    '2:10 version: ".." is not allowed: a version has letters, digits, hyphens, underscores and dots, at most 64',
    '3:7 type: must be one of custom_model, mlflow_model, triton_model, not "onnx"',
  ]);
});

test('every key of the table is known, and every key without effect gives one warning', () => {
  const text = `$schema: s
name: m
version: 1
type: triton_model
path: mlflow-model
description: d
tags: {}
properties: {}
flavors: {python_function: {}}
stage: Production
datastore: d
job_name: j
latest_version: 1
utc_time_created: t
id: i
creation_context: {a: b}
`;
  const warned = MODEL_KEYS.filter((row) => row.effect === 'warning').map((row) => row.key);
  assert.deepEqual(
    parse(text).warnings.map(({ key }) => key),
    warned,
  );
  const known = refusal(`${text}zzzzzzzzzzzz: 1\n`)
    .find((line) => line.includes('zzzz'))
    ?.split('known keys: ')[1];
  assert.deepEqual(known?.split(', ').toSorted(), MODEL_KEYS.map((row) => row.key).toSorted());
});
