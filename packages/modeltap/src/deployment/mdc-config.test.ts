import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CollectionConfig, DataCollectorConfig } from '../config/types.ts';
import { mdcConfigFile } from './mdc-config.ts';

const collection = (enabled: boolean): CollectionConfig => ({ enabled, data: { name: 'n', version: '1', path: 'p' } });
const base: DataCollectorConfig = {
  collections: { model_inputs: collection(true), Model_Outputs: collection(false) },
  samplingRate: 1,
  rollingRate: 'hour',
  captureHeaders: [],
  batch: 'same_id',
  batchWindowMs: 500,
};

test('the file for SDKs has lower-case names, real booleans, a percentage and no runMode', () => {
  assert.deepEqual(JSON.parse(mdcConfigFile(base)), {
    enabled: true,
    sources: { custom: { enabled: true } },
    collections: {
      model_inputs: { enabled: true, sampleRatePercentage: 100 },
      model_outputs: { enabled: false, sampleRatePercentage: 100 },
    },
  });
});

test('captured headers are named, and a sampling rate has no crumbs of binary arithmetic', () => {
  const file = JSON.parse(mdcConfigFile({ ...base, samplingRate: 0.07, captureHeaders: ['x-tenant'] })) as {
    collections: Record<string, { sampleRatePercentage: number }>;
    captureHeaders: string[];
  };
  assert.equal(file.collections.model_inputs?.sampleRatePercentage, 7);
  assert.deepEqual(file.captureHeaders, ['x-tenant']);
});

test('the switches of the first SDK are off when no custom collection is on', () => {
  const off = mdcConfigFile({ ...base, collections: { model_inputs: collection(false), request: collection(true) } });
  const { enabled, sources } = JSON.parse(off) as { enabled: boolean; sources: unknown };
  assert.deepEqual({ enabled, sources }, { enabled: false, sources: { custom: { enabled: false } } });
});
