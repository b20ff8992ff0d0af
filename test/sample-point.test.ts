import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sampledRate as collectorRate, samplePoint as collectorPoint } from '../packages/collector/src/sampling.ts';
import fc from 'fast-check';
import { sampledRate, samplePoint } from '../packages/modeltap/src/record/sample-point.ts';

test('an id has the place that the collector gives it, so that a sample takes whole requests', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (id) => {
      assert.equal(samplePoint(id), collectorPoint(id));
    }),
  );
  assert.equal(samplePoint('\ud800'), collectorPoint('\ud800'));
  for (const rate of [0, 0.001, 0.1, 0.3, 0.7, 1]) assert.equal(sampledRate(rate), collectorRate(rate));
});
