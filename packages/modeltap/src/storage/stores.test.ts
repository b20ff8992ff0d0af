import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openStore, STORE_TYPES, testStore } from './stores.ts';

test('every type of datastore opens without touching the place', async () => {
  const azure = { accountName: 'acct', containerName: 'c', serviceUrl: 'https://acct.blob.core.windows.net/' };
  const credentials = { kind: 'sas_token', sasToken: 'sv=1&sig=secret' } as const;
  const stores = await Promise.all([
    openStore({ type: 'azure_blob', name: 'cloud', ...azure, credentials }),
    openStore({ type: 'local', name: 'disk', path: '/nowhere/at all' }),
  ]);
  assert.deepEqual(
    stores.map((store) => store.kind),
    STORE_TYPES,
  );
  assert.deepEqual(
    stores.map((store) => store.url('a/b c')),
    ['https://acct.blob.core.windows.net/c/a/b%20c', '/nowhere/at all/a/b c'],
  );
});

test('testing a store finds out that it cannot be written, and says why', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'modeltap-store-'));
  t.after(() => rm(folder, { recursive: true }));
  assert.equal(await testStore(await openStore({ type: 'local', name: 'disk', path: join(folder, 'new') })), undefined);
  assert.deepEqual(await readdir(join(folder, 'new', '.modeltap')), []);
  await writeFile(join(folder, 'file'), '');
  for (const path of [join(folder, 'file'), join(folder, 'file', 'below')]) {
    const error = await testStore(await openStore({ type: 'local', name: 'disk', path }));
    assert.equal(error?.kind, 'no_container');
    assert.match(error.message, /disk/);
    assert.match(error.fix, /path/);
  }
});
