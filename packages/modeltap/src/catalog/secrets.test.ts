import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DatastoreConfig } from '../config/types.ts';
import { isModeltapError } from '../kit/errors.ts';
import { blobServiceUrl, resolveSecrets } from './secrets.ts';

const blob = {
  name: 'store',
  type: 'azure_blob',
  accountName: 'acct',
  containerName: 'data',
  endpoint: 'core.windows.net',
  protocol: 'https',
  credentials: {},
} as const satisfies DatastoreConfig;

const effects = {
  env: (name: string) => ({ KEY: 'k3y', EMPTY: '', ACCT: 'other' })[name],
  readFile: (path: string) => {
    if (path === '/run/secret') return 'from-file\n';
    if (path === '/run/long') return 'x'.repeat(70_000);
    throw Object.assign(new Error(`no ${path}`), { code: 'ENOENT' });
  },
};
const resolve = (change: object) => resolveSecrets({ ...blob, ...change } as DatastoreConfig, effects);

test('references are replaced by what they name', () => {
  assert.deepEqual(resolve({ accountName: '${env:ACCT}', credentials: { accountKey: '${env:KEY}' } }), {
    type: 'azure_blob',
    name: 'store',
    accountName: 'other',
    containerName: 'data',
    serviceUrl: 'https://other.blob.core.windows.net',
    credentials: { kind: 'account_key', accountKey: 'k3y' },
  });
  const sas = resolve({ credentials: { sasToken: '?sv=1&sig=${file:/run/secret}' } });
  assert.deepEqual('credentials' in sas && sas.credentials, { kind: 'sas_token', sasToken: 'sv=1&sig=from-file' });
  assert.deepEqual(resolveSecrets({ name: 'd', type: 'local', path: '/data' }), {
    name: 'd',
    type: 'local',
    path: '/data',
  });
});

test('a connection string brings account and address', () => {
  const connectionString =
    'DefaultEndpointsProtocol=http;AccountName=dev;AccountKey=${env:KEY};BlobEndpoint=http://127.0.0.1:10000/dev;';
  const options = resolve({ accountName: '', credentials: { connectionString } });
  assert.ok(options.type === 'azure_blob');
  assert.equal(options.accountName, 'dev');
  assert.equal(options.serviceUrl, 'http://127.0.0.1:10000/dev');
  assert.deepEqual(options.credentials, {
    kind: 'connection_string',
    connectionString: connectionString.replace('${env:KEY}', 'k3y'),
  });
});

test('what is missing is named, and no value is', () => {
  for (const [accountKey, problem] of [
    ['k3y-${env:NOPE}', 'the environment variable NOPE named by credentials.account_key is not set'],
    ['k3y-${env:EMPTY}', 'the environment variable EMPTY named by credentials.account_key is empty'],
    ['k3y-${file:/run/none}', 'the file /run/none named by credentials.account_key does not exist'],
    ['k3y-${file:/run/long}', 'the file /run/long named by credentials.account_key is too long for a secret'],
  ] as const) {
    assert.throws(
      () => resolve({ credentials: { accountKey } }),
      (error) => {
        assert.ok(isModeltapError(error));
        assert.equal(error.code, 'secret_unresolved');
        assert.equal(error.message, `datastore "store": ${problem}`);
        assert.doesNotMatch(JSON.stringify(error), /k3y/);
        return true;
      },
    );
  }
  assert.throws(() => resolve({}), { message: 'datastore "store": it has no credentials' });
});

test('the service address follows the endpoint', () => {
  for (const [protocol, endpoint, url] of [
    ['https', 'core.windows.net', 'https://acct.blob.core.windows.net'],
    ['https', 'core.chinacloudapi.cn/', 'https://acct.blob.core.chinacloudapi.cn'],
    ['http', '127.0.0.1:10000', 'http://127.0.0.1:10000/acct'],
    ['http', 'localhost', 'http://localhost/acct'],
    ['http', '127.0.0.1:10000/devstoreaccount1', 'http://127.0.0.1:10000/devstoreaccount1'],
    ['https', 'http://127.0.0.1:1/x/', 'http://127.0.0.1:1/x'],
  ] as const) {
    assert.equal(blobServiceUrl(protocol, 'acct', endpoint), url);
  }
});
