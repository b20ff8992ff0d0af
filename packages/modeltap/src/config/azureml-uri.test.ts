import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isModeltapError } from '../kit/errors.ts';
import {
  formatAssetReference,
  formatDatastoreUri,
  parseAssetReference,
  parseDatastoreUri,
  readAssetReference,
  readDatastoreUri,
} from './azureml-uri.ts';

const segment = fc
  .string({ unit: 'binary', minLength: 1, maxLength: 12 })
  .filter((text) => text !== '.' && text !== '..' && !/[/\\\p{Cc}\p{Surrogate}]/u.test(text));
const datastore = fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_-]{0,20}[A-Za-z0-9_]$/);
const path = fc.array(segment, { maxLength: 6 }).map((parts) => parts.join('/'));
const workspace = fc.record(
  { subscriptionId: segment, resourceGroup: segment, name: segment },
  { noNullPrototype: true },
);

test('a datastore URI that was written is read back the same', () => {
  fc.assert(
    fc.property(datastore, path, fc.option(workspace, { nil: undefined }), (name, folder, owner) => {
      const uri = { datastore: name, path: folder, ...(owner === undefined ? {} : { workspace: owner }) };
      const text = formatDatastoreUri(uri);
      assert.deepEqual(parseDatastoreUri(text), uri);
      assert.equal(formatDatastoreUri(parseDatastoreUri(`  ${text} `)), text);
      assert.match(text, /^[!-~]+$/);
    }),
  );
});

test('whatever is read has no way out of its datastore', () => {
  const part = fc.constantFrom(
    'azureml://',
    'datastores/',
    'ws',
    '/paths/',
    '/',
    '..',
    '.',
    '%2e%2e',
    '%2F',
    '%5c',
    '\\',
    '%00',
    'a',
    '%',
    ' ',
    '%C3%A9',
    '?',
    '#',
  );
  fc.assert(
    fc.property(fc.array(part, { maxLength: 10 }), (parts) => {
      const text = `azureml://datastores/ws/paths/${parts.join('')}`;
      const reading = readDatastoreUri(text);
      if (!reading.ok) {
        assert.ok(reading.at >= 0 && reading.at <= text.length);
        return;
      }
      const { path } = reading.value;
      assert.ok(path === '' || path.split('/').every((each) => !['', '.', '..'].includes(each)), path);
      assert.ok(!/[\\\0]/.test(path));
    }),
    { numRuns: 500 },
  );
});

test('the long form is read in both spellings of resource groups', () => {
  for (const word of ['resourcegroups', 'resourceGroups']) {
    const text = `azureml://subscriptions/s1/${word}/rg/workspaces/w/datastores/blob/paths/a/b/`;
    assert.deepEqual(parseDatastoreUri(text), {
      datastore: 'blob',
      path: 'a/b',
      workspace: { subscriptionId: 's1', resourceGroup: 'rg', name: 'w' },
    });
  }
});

test('a wrong URI says where it goes wrong', () => {
  const at = (text: string) => {
    const reading = readDatastoreUri(text);
    assert.equal(reading.ok, false, text);
    return reading.ok ? -1 : reading.at;
  };
  assert.equal(at('https://x/y'), 0);
  assert.equal(at('azureml://datastore/x/paths/y'), 10);
  assert.equal(at('azureml://datastores/x'), 22);
  assert.equal(at('azureml://datastores/x/path/y'), 23);
  assert.equal(at('azureml://datastores/x y/paths/z'), 21);
  assert.equal(at('azureml://datastores/x/paths/a//b'), 31);
  assert.equal(at('azureml://datastores/x/paths/a/%2e%2E/b'), 31);
  assert.equal(at('azureml://datastores/x/paths/a%2Fb'), 29);
  assert.equal(at('azureml://datastores/x/paths/a%zz'), 30);
  assert.equal(at('azureml://datastores/x/paths/a%FF'), 29);
  assert.equal(at('azureml://datastores/x/paths/a?b'), 30);
  assert.equal(at(' azureml://datastores/x/paths/\u0007'), 30);
});

test('asset references have a version, the label latest, or neither', () => {
  assert.deepEqual(parseAssetReference('azureml:my-model-m1:1 '), { name: 'my-model-m1', version: '1' });
  assert.deepEqual(parseAssetReference('azureml:iris@latest'), { name: 'iris', label: 'latest' });
  assert.deepEqual(parseAssetReference('azureml:iris'), { name: 'iris' });
  for (const reference of ['azureml:a:1.10', 'azureml:a@latest', 'azureml:a']) {
    assert.equal(formatAssetReference(parseAssetReference(reference)), reference);
  }
  for (const [text, at] of [
    ['iris:1', 0],
    ['azureml:', 8],
    ['azureml::1', 8],
    ['azureml:a:', 10],
    ['azureml:a@newest', 10],
    ['azureml:a:1:2', 10],
    ['azureml:a/../b:1', 8],
    ['azureml://datastores/x/paths/y', 0],
  ] as const) {
    const reading = readAssetReference(text);
    assert.equal(reading.ok ? -1 : reading.at, at, text);
  }
});

test('the throwing forms raise uri_invalid with the place counted from 1', () => {
  for (const run of [
    () => parseDatastoreUri('azureml://datastores/x'),
    () => parseAssetReference('x'),
    () => formatDatastoreUri({ datastore: 'x', path: 'a/../b' }),
    () => formatDatastoreUri({ datastore: 'x', path: '/a' }),
    () => formatDatastoreUri({ datastore: 'x', path: 'a/' }),
    () => formatDatastoreUri({ datastore: 'x', path: '\uD800' }),
    () => formatAssetReference({ name: 'a', version: '' }),
  ]) {
    assert.throws(
      run,
      (error) => isModeltapError(error) && error.code === 'uri_invalid' && Number(error.params['column']) >= 1,
    );
  }
});
