import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { resolveSettings, type Settings } from './configuration.ts';
import type { CollectorOptions } from './options.ts';

const folder = mkdtempSync(join(tmpdir(), 'collector-'));
after(() => rmSync(folder, { recursive: true }));
let files = 0;

function fromFile(content: unknown, name = 'model_inputs', more: Record<string, string> = {}): Settings {
  const path = join(folder, `${files++}.json`);
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
  return resolveSettings({ name, env: { AZUREML_MDC_CONFIG_PATH: path, ...more } });
}

const refusal = (settings: Settings) => settings.refusal?.code;
const on = { model_inputs: { enabled: true, sampleRatePercentage: 50 } };

test('the file of the Python SDK turns collections on, with their rate', () => {
  const settings = fromFile({ collections: on }, 'model_inputs', { AZUREML_MDC_HOST: 'h', AZUREML_MDC_PORT: '81' });
  assert.equal(refusal(settings), undefined);
  const { samplingRate, host, port, local, modelVersion } = settings;
  assert.deepEqual([samplingRate, host, port, local, modelVersion], [0.5, 'h', 81, false, 'default']);
  const defaults = fromFile({ collections: { model_inputs: { enabled: true } } });
  assert.deepEqual([defaults.samplingRate, defaults.host, defaults.port], [1, '127.0.0.1', 50_011]);
});

test('names are compared without regard to case', () => {
  assert.equal(refusal(fromFile({ collections: { Model_Inputs: { enabled: true } } }, 'MODEL_INPUTS')), undefined);
});

test('a collection that is missing, off or only payload logging is refused', () => {
  assert.equal(refusal(fromFile({ collections: on }, 'other')), 'collection_unknown');
  assert.equal(refusal(fromFile({ collections: {} })), 'collection_unknown');
  for (const enabled of [false, 'false', 'False', '', null, 0, undefined]) {
    assert.equal(refusal(fromFile({ collections: { model_inputs: { enabled } } })), 'collection_disabled');
  }
  for (const enabled of ['true', 'True', 1]) {
    assert.equal(refusal(fromFile({ collections: { model_inputs: { enabled } } })), undefined);
  }
  const payload = { request: { enabled: true } };
  assert.equal(refusal(fromFile({ collections: payload }, 'request')), 'collection_disabled');
  assert.equal(refusal(fromFile({ collections: { ...payload, ...on } }, 'request')), undefined);
});

test('the rate azure-ai-ml writes is read, and runMode local prints', () => {
  const settings = fromFile({
    runMode: 'local',
    collections: { model_inputs: { enabled: true, sampling_percentage: 10 } },
  });
  assert.deepEqual([settings.samplingRate, settings.local], [0.1, true]);
  assert.equal(fromFile({ runMode: 'cloud', collections: on }).local, false);
});

test('a file that cannot be used is named in the error', () => {
  for (const content of ['{', 'null', '[]', '{}', '{"collections":null}', '{"collections":[]}']) {
    assert.throws(() => fromFile(content), { code: 'configuration_unreadable', message: /\d+\.json/ });
  }
  const env = { AZUREML_MDC_CONFIG_PATH: join(folder, 'none.json') };
  assert.throws(() => resolveSettings({ name: 'a', env }), { code: 'configuration_unreadable', message: /ENOENT/ });
  const rate = { collections: { model_inputs: { enabled: true, sampleRatePercentage: 'many' } } };
  assert.throws(() => fromFile(rate), { code: 'configuration_invalid' });
});

test('the older variables enable every name, and the file wins over them', () => {
  const legacy = { AZUREML_MDC_ENABLED: 'TRUE', AZUREML_MDC_SAMPLE_RATE: '25', AZUREML_MDC_QUEUE_CAPACITY: '7' };
  const settings = resolveSettings({ name: 'Any', env: legacy });
  assert.deepEqual([settings.name, refusal(settings), settings.samplingRate], ['any', undefined, 0.25]);
  assert.equal(settings.limits.maxQueueItems, 7);
  const printing = resolveSettings({ name: 'a', env: { ...legacy, AZUREML_MDC_LOCAL_CAPTURE: 'true' } });
  assert.equal(printing.local, true);
  assert.equal(refusal(resolveSettings({ name: 'a', env: { AZUREML_MDC_ENABLED: 'yes' } })), 'not_configured');
  assert.equal(refusal(fromFile({ collections: on }, 'other', legacy)), 'collection_unknown');
  assert.throws(() => resolveSettings({ name: 'a', env: { ...legacy, AZUREML_MDC_PORT: 'x' } }), {
    code: 'configuration_invalid',
  });
});

test('options win over the environment', () => {
  const env = { AZUREML_MDC_CONFIG_PATH: join(folder, 'none.json'), AZUREML_MDC_HOST: 'h', AZUREML_MDC_PORT: '81' };
  const resolve = (options: Partial<CollectorOptions>) => resolveSettings({ name: 'a', env, ...options });
  const settings = resolve({ enabled: true, host: 'own', port: 5, samplingRate: 0.5 });
  assert.deepEqual(
    [refusal(settings), settings.host, settings.port, settings.samplingRate],
    [undefined, 'own', 5, 0.5],
  );
  assert.equal(refusal(resolve({ enabled: false, collections: { a: true } })), 'collection_disabled');
  assert.equal(resolve({ collections: { A: { samplingRate: 0.1 } } }).samplingRate, 0.1);
  assert.equal(refusal(resolve({ collections: { a: { enabled: false } } })), 'collection_disabled');
  assert.equal(refusal(resolve({ collections: { b: true } })), 'collection_unknown');
  assert.throws(() => resolve({ collections: { a: { samplingRate: -1 } } }), { code: 'configuration_invalid' });
});
