import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import {
  AppendBlobClient,
  BlockBlobClient,
  ContainerClient,
  ContainerSASPermissions,
  generateBlobSASQueryParameters,
  StorageSharedKeyCredential,
} from '@azure/storage-blob';
import { startAzurite } from '../../../../test/support/azurite.ts';
import { openAzureBlob } from './azure-blob.ts';
import { blockId, cutBlocks, parseBlockId } from './azure-blocks.ts';
import { failsAs, storeContract, textOf } from './contract.test-suite.ts';
import type { DatastoreOptions, ObjectStore } from './store.ts';
import { testStore } from './stores.ts';

type Credentials = Extract<DatastoreOptions, { type: 'azure_blob' }>['credentials'];

const azurite = await startAzurite();
after(() => azurite.stop());
const signer = new StorageSharedKeyCredential(azurite.accountName, azurite.accountKey);
const accountKey: Credentials = { kind: 'account_key', accountKey: azurite.accountKey };

function open(containerName: string, credentials: Credentials = accountKey): Promise<ObjectStore> {
  const { accountName, serviceUrl } = azurite;
  return openAzureBlob({ type: 'azure_blob', name: 'blob', accountName, containerName, serviceUrl, credentials });
}

function sas(containerName: string, permissions: string, expiresOn = new Date(Date.now() + 3_600_000)): string {
  return generateBlobSASQueryParameters(
    { containerName, permissions: ContainerSASPermissions.parse(permissions), expiresOn },
    signer,
  ).toString();
}

storeContract('Azure Blob (Azurite)', async () => {
  await azurite.createContainer('contract');
  return { open: () => open('contract'), stop: () => Promise.resolve() };
});

test('account key, SAS token and connection string all write and read', async () => {
  await azurite.createContainer('credentials');
  const token = sas('credentials', 'racwdl');
  const all: Credentials[] = [
    accountKey,
    { kind: 'sas_token', sasToken: token },
    { kind: 'sas_token', sasToken: `?${token}` },
    { kind: 'connection_string', connectionString: azurite.connectionString() },
    {
      kind: 'connection_string',
      connectionString: `BlobEndpoint=${azurite.serviceUrl};SharedAccessSignature=${token}`,
    },
  ];
  let wanted = '';
  for (const credentials of all) {
    const store = await open('credentials', credentials);
    assert.equal(await testStore(store), undefined);
    await store.append('shared.jsonl', Buffer.from(`${credentials.kind}\n`), wanted.length);
    wanted += `${credentials.kind}\n`;
    assert.equal(await textOf(store, 'shared.jsonl'), wanted);
    assert.equal((await store.list()).objects.length, 1);
    assert.equal(store.url('a b'), `${azurite.serviceUrl}/credentials/a%20b`);
  }
});

test('credentials that are refused are named so, with what to do and without the secret', async () => {
  const wrongKey = Buffer.from('a key that is none of this account').toString('base64');
  const expired = sas('credentials', 'racwdl', new Date(Date.now() - 60_000));
  const readOnly = sas('credentials', 'rl');
  const refused: [credentials: Credentials, secret: string][] = [
    [{ kind: 'account_key', accountKey: wrongKey }, wrongKey],
    [{ kind: 'sas_token', sasToken: expired }, new URLSearchParams(expired).get('sig') ?? ''],
    [{ kind: 'sas_token', sasToken: readOnly }, new URLSearchParams(readOnly).get('sig') ?? ''],
    [
      { kind: 'connection_string', connectionString: azurite.connectionString().replace(azurite.accountKey, wrongKey) },
      wrongKey,
    ],
  ];
  for (const [credentials, secret] of refused) {
    const store = await open('credentials', credentials);
    const error = await testStore(store);
    assert.equal(error?.kind, 'refused', error?.message);
    assert.match(error.fix, /Storage Blob Data Contributor|account key|SAS/);
    await failsAs('refused', store.append('x', Buffer.from('x'), 0));
    const shown = `${error.message} ${error.fix} ${error.stack} ${JSON.stringify(error)}`;
    assert.ok(secret.length > 10 && !shown.includes(secret) && !shown.includes(encodeURIComponent(secret)), shown);
  }
});

test('an address or connection string that is none is refused at once and not repeated', async () => {
  const secret = 'c2VjcmV0IGtleSBvZiB0aGUgYWNjb3VudA==';
  for (const connectionString of ['nonsense', `AccountName=;AccountKey=${secret};DefaultEndpointsProtocol=gopher`]) {
    const error = await failsAs('invalid', open('credentials', { kind: 'connection_string', connectionString }));
    assert.ok(!error.message.includes(secret), error.message);
    assert.ok(!error.message.includes(connectionString), error.message);
  }
});

test('a container that does not exist is named so by every call', async () => {
  const store = await open('nowhere');
  const calls = [
    () => store.put('x', Buffer.from('x')),
    () => store.put('x', Buffer.from('x'), { ifAbsent: true }),
    () => store.put('x', Buffer.alloc(9_000_000)),
    () => store.append('x', Buffer.from('x'), 0),
    () => store.get('x'),
    () => store.head('x'),
    () => store.list(),
    () => store.delete('x'),
  ];
  for (const call of calls) assert.match((await failsAs('no_container', call())).message, /nowhere/);
  assert.equal((await testStore(store))?.kind, 'no_container');
});

test('of two different appends at one place exactly one wins', async () => {
  await azurite.createContainer('races');
  for (let round = 0; round < 5; round += 1) {
    const key = `race-${round}`;
    const views = await Promise.all(Array.from({ length: 4 }, () => open('races')));
    const results = await Promise.allSettled(views.map((view, i) => view.append(key, Buffer.from(`writer ${i}`), 0)));
    const winners = results.flatMap((result, i) => (result.status === 'fulfilled' ? [i] : []));
    assert.equal(winners.length, 1);
    for (const result of results) if (result.status === 'rejected') assert.equal(result.reason.kind, 'conflict');
    assert.equal(await textOf(await open('races'), key), `writer ${winners[0]}`);
  }
});

test('objects of other programs are grown or left alone, never damaged', async () => {
  await azurite.createContainer('foreign');
  const store = await open('foreign');
  const client = new ContainerClient(`${azurite.serviceUrl}/foreign`, signer);
  const blocks: BlockBlobClient = client.getBlockBlobClient('blocks');
  await blocks.uploadData(Buffer.alloc(3000, 'a'), { maxSingleShotSize: 1000, blockSize: 1000 });
  await store.append('blocks', Buffer.from('b'), 3000);
  await store.append('blocks', Buffer.from('b'), 3000);
  assert.equal(await textOf(store, 'blocks'), `${'a'.repeat(3000)}b`);
  const log: AppendBlobClient = client.getAppendBlobClient('log');
  await log.create();
  await log.appendBlock('abc', 3);
  await failsAs('conflict', store.append('log', Buffer.from('d'), 3));
  assert.equal(await textOf(store, 'log'), 'abc');
});

test('an object beyond the limits of growing is refused without a request', async () => {
  const store = await open('foreign');
  assert.deepEqual(store.limits, { appends: 500, appendBytes: 256 * 1024 * 1024 });
  await failsAs('invalid', store.append('big', Buffer.alloc(256 * 1024 * 1024 + 1), 0));
  assert.equal(await store.head('big'), undefined);
});

test('the folder marks of accounts with a hierarchical namespace are not objects', async () => {
  await azurite.createContainer('hierarchical');
  const store = await open('hierarchical');
  const client = new ContainerClient(`${azurite.serviceUrl}/hierarchical`, signer);
  await client.getBlockBlobClient('a/b').upload('', 0, { metadata: { hdi_isfolder: 'true' } });
  await store.put('a/b/c', Buffer.from('x'));
  const flat = await store.list();
  assert.deepEqual([flat.objects.map((object) => object.key), flat.prefixes], [['a/b/c'], []]);
  const cut = await store.list({ prefix: 'a/b', delimiter: '/' });
  assert.deepEqual([cut.objects, cut.prefixes], [[], ['a/b/']]);
});

test('a store that may write but not delete passes the test of a store', async () => {
  const store = await open('hierarchical', { kind: 'sas_token', sasToken: sas('hierarchical', 'rcwl') });
  assert.equal(await testStore(store), undefined);
  assert.equal((await store.list({ prefix: '.modeltap/probe-' })).objects.length, 1);
});

test('the content type is kept', async () => {
  const store = await open('foreign');
  const client = new ContainerClient(`${azurite.serviceUrl}/foreign`, signer);
  await store.put('typed', Buffer.from('x'), { contentType: 'image/png' });
  await store.put('typed-large', Buffer.alloc(9_000_000), { contentType: 'image/png' });
  for (const key of ['typed', 'typed-large']) {
    assert.equal((await client.getBlobClient(key).getProperties()).contentType, 'image/png');
  }
});

test('a block id names place, length and content, and is read back only when it is of ours', () => {
  const name = { offset: 2 ** 40 + 5, bytes: 2 ** 32 - 1, crc: 0xcbf43926 };
  assert.deepEqual(parseBlockId(blockId(name)), name);
  const [block] = cutBlocks(Buffer.from('123456789'), 7);
  // The check value of CRC-32.
  assert.deepEqual(parseBlockId(block?.id ?? ''), { offset: 7, bytes: 9, crc: 0xcbf43926 });
  for (const id of ['', 'AAAA', Buffer.alloc(15, 1).toString('base64'), Buffer.alloc(48).toString('base64')]) {
    assert.equal(parseBlockId(id), undefined);
  }
});
