import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { chooseDeployment, type RoutedEndpoint } from './traffic.ts';

const endpoint = (names: readonly string[], traffic: Record<string, number>): RoutedEndpoint => ({
  name: 'iris',
  traffic,
  deployments: Object.fromEntries(names.map((name) => [name, { requestTimeoutMs: 5000 }])),
});

test('requests are shared by weight', () => {
  const two = endpoint(['blue', 'green'], { blue: 90, green: 10 });
  assert.equal(
    chooseDeployment(two, undefined, () => 0),
    'blue',
  );
  assert.equal(
    chooseDeployment(two, undefined, () => 0.8999),
    'blue',
  );
  assert.equal(
    chooseDeployment(two, undefined, () => 0.9),
    'green',
  );
});

test('a forced deployment is taken whatever its weight, and must exist', () => {
  const two = endpoint(['blue', 'green'], { blue: 100 });
  assert.equal(chooseDeployment(two, 'green', Math.random), 'green');
  assert.throws(() => chooseDeployment(two, 'red', Math.random), { code: 'not_found', message: /"red"/ });
  assert.throws(() => chooseDeployment(two, '__proto__', Math.random), { code: 'not_found' });
});

test('a single deployment without traffic gets everything; several without traffic or none at all are errors', () => {
  assert.equal(chooseDeployment(endpoint(['blue'], {}), undefined, Math.random), 'blue');
  assert.throws(() => chooseDeployment(endpoint(['blue', 'green'], { blue: 0 }), undefined, Math.random), {
    code: 'endpoint_no_traffic',
  });
  assert.throws(() => chooseDeployment(endpoint([], { blue: 100 }), undefined, Math.random), {
    code: 'endpoint_empty',
  });
});

test('a deployment without weight never gets a request, and one that exists always does', () => {
  const weights = fc.dictionary(fc.stringMatching(/^[a-d]$/), fc.integer({ min: 0, max: 100 }), { minKeys: 1 });
  fc.assert(
    fc.property(weights, fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (traffic, point) => {
      fc.pre(Object.values(traffic).some((weight) => weight > 0));
      const chosen = chooseDeployment(endpoint(Object.keys(traffic), traffic), undefined, () => point);
      assert.ok((traffic[chosen] ?? 0) > 0);
    }),
  );
});
