import assert from 'node:assert/strict';
import { after, afterEach, test } from 'node:test';
import { buffer } from 'node:stream/consumers';
import { startAzurite } from '../../../../test/support/azurite.ts';
import { startFaultyProxy } from '../../../../test/support/faulty-proxy.ts';
import { openAzureBlob } from './azure-blob.ts';
import { failsAs, textOf } from './contract.test-suite.ts';
import type { StorageErrorKind } from './store.ts';

const azurite = await startAzurite();
const proxy = await startFaultyProxy(azurite.serviceUrl);
after(async () => {
  await proxy.stop();
  await azurite.stop();
});
afterEach(() => proxy.setFault(undefined));
await azurite.createContainer('faults');

function openFaulty(timeoutMs = 30_000) {
  const { accountName, accountKey } = azurite;
  const place = { accountName, containerName: 'faults', serviceUrl: proxy.url };
  return openAzureBlob(
    { type: 'azure_blob', name: 'blob', ...place, credentials: { kind: 'account_key', accountKey } },
    { timeoutMs },
  );
}

const isCommit = (method: string, url: string) => method === 'PUT' && url.includes('comp=blocklist');
const isStage = (method: string, url: string) => method === 'PUT' && url.includes('comp=block&');
const isPut = (method: string) => method === 'PUT';
const isGet = (method: string) => method === 'GET';

test('each answer of the service becomes the kind of error that says who can mend it', async () => {
  const store = await openFaulty();
  const answers: [status: number, code: string | undefined, kind: StorageErrorKind, fix: RegExp][] = [
    [401, 'NoAuthenticationInformation', 'refused', /account key/],
    [403, 'AuthenticationFailed', 'refused', /expiry.*clock/],
    [403, 'AuthorizationPermissionMismatch', 'refused', /Storage Blob Data Contributor/],
    [403, 'AuthorizationFailure', 'refused', /firewall/],
    [403, undefined, 'refused', /Storage Blob Data Contributor/],
    [404, 'ContainerNotFound', 'no_container', /container/],
    [404, undefined, 'no_container', /endpoint/],
    [409, 'ContainerBeingDeleted', 'no_container', /deleted/],
    [409, 'BlobImmutableDueToPolicy', 'refused', /immutability/],
    [412, 'LeaseIdMissing', 'refused', /lease/],
    [409, 'InvalidBlobType', 'conflict', /Another program/],
    [429, undefined, 'throttled', /tries again/],
    [503, 'ServerBusy', 'throttled', /tries again/],
    [500, 'InternalError', 'unreachable', /tries again/],
    [500, 'OperationTimedOut', 'unreachable', /tries again/],
    [502, undefined, 'unreachable', /tries again/],
    [507, 'InsufficientStorage', 'full', /full/],
    [409, 'AccountQuotaExceeded', 'full', /full/],
    [400, 'InvalidAuthenticationInfo', 'refused', /SAS/],
    [400, 'AccountRequiresHttps', 'refused', /https/],
    [400, 'InvalidUri', 'invalid', /defect/],
    [413, 'RequestBodyTooLarge', 'invalid', /defect/],
    [418, undefined, 'refused', /portal/],
  ];
  for (const [status, code, kind, fix] of answers) {
    proxy.setFault({ kind: 'status', status, ...(code ? { code } : {}) });
    const bytes = Buffer.from('x');
    for (const work of [() => store.put('x', bytes), () => store.append('x', bytes, 0), () => store.head('x')]) {
      const error = await failsAs(kind, work());
      assert.match(error.fix, fix);
      assert.match(error.message, new RegExp(`blob.*faults.*"x".*${status}.*${code ?? ''}`));
    }
  }
});

test('what the service asks to wait is passed on, in both forms of the header', async () => {
  const store = await openFaulty();
  proxy.setFault({ kind: 'status', status: 429, retryAfter: '7' });
  assert.equal((await failsAs('throttled', store.head('x'))).retryAfterMs, 7000);
  const at = new Date(Date.now() + 90_000);
  proxy.setFault({ kind: 'status', status: 503, code: 'ServerBusy', retryAfter: at.toUTCString() });
  const { retryAfterMs = 0 } = await failsAs('throttled', store.put('x', Buffer.from('x')));
  assert.ok(retryAfterMs > 60_000 && retryAfterMs <= 90_000, String(retryAfterMs));
  proxy.setFault({ kind: 'status', status: 503, retryAfter: 'Mon, 01 Jan 2001 00:00:00 GMT' });
  assert.equal((await failsAs('throttled', store.head('x'))).retryAfterMs, 0);
  proxy.setFault({ kind: 'status', status: 503, retryAfter: 'soon' });
  assert.equal((await failsAs('throttled', store.head('x'))).retryAfterMs, undefined);
});

test('one call makes one attempt: waiting belongs to the caller', async () => {
  const store = await openFaulty();
  proxy.setFault({ kind: 'status', status: 503, code: 'ServerBusy', retryAfter: '60' });
  const { faulted } = proxy.counts;
  await failsAs('throttled', store.put('x', Buffer.from('x')));
  assert.equal(proxy.counts.faulted, faulted + 1);
});

test('a broken connection is unreachable, and so is a service that is gone', async () => {
  const store = await openFaulty();
  proxy.setFault({ kind: 'reset_request' });
  await failsAs('unreachable', store.put('x', Buffer.from('x')));
  await failsAs('unreachable', store.append('x', Buffer.from('x'), 0));
  await failsAs('unreachable', store.get('x'));
  await failsAs('unreachable', store.list());
  const gone = await startFaultyProxy(azurite.serviceUrl);
  await gone.stop();
  const place = { accountName: azurite.accountName, containerName: 'faults', serviceUrl: gone.url };
  const credentials = { kind: 'account_key', accountKey: azurite.accountKey } as const;
  const nowhere = await openAzureBlob({ type: 'azure_blob', name: 'gone', ...place, credentials });
  assert.match((await failsAs('unreachable', nowhere.head('x'))).message, /ECONNREFUSED/);
});

test('a service that does not answer is given up after the time limit', async () => {
  const store = await openFaulty(200);
  proxy.setFault({ kind: 'hang' });
  const bytes = Buffer.from('x');
  for (const work of [() => store.put('x', bytes), () => store.append('x', bytes, 0), () => store.list()]) {
    assert.match((await failsAs('unreachable', work())).message, /no answer within/);
  }
});

test('a slow service is waited for', async () => {
  const store = await openFaulty();
  proxy.setFault({ kind: 'slow', delayMs: 150 });
  await store.append('slow', Buffer.from('x'), 0);
  assert.equal(await textOf(store, 'slow'), 'x');
});

test('an append whose answer was lost is done once when it is made again', async () => {
  const store = await openFaulty();
  let wanted = '';
  for (let round = 0; round < 4; round += 1) {
    const line = Buffer.from(`{"round":${round}}\n`);
    for (const matches of [isCommit, isStage]) {
      proxy.setFault({ kind: 'reset_answer' }, { matches, times: 1 });
      await failsAs('unreachable', store.append('lost.jsonl', line, wanted.length));
      if (matches === isCommit) assert.equal((await store.head('lost.jsonl'))?.bytes, wanted.length + line.length);
      await store.append('lost.jsonl', line, wanted.length);
      wanted += line.toString();
    }
  }
  assert.equal(await textOf(store, 'lost.jsonl'), wanted);
});

test('a put whose answer was lost is found to exist when it is made again', async () => {
  const store = await openFaulty();
  proxy.setFault({ kind: 'reset_answer' }, { matches: isPut, times: 1 });
  await failsAs('unreachable', store.put('once', Buffer.from('x'), { ifAbsent: true }));
  assert.deepEqual(await store.put('once', Buffer.from('x'), { ifAbsent: true }), { created: false });
  assert.equal(await textOf(store, 'once'), 'x');
});

test('an upload in blocks that breaks off shows nothing', async () => {
  const store = await openFaulty();
  let staged = 0;
  const third = (method: string, url: string) => isStage(method, url) && (staged += 1) === 3;
  proxy.setFault({ kind: 'status', status: 500, code: 'InternalError' }, { matches: third });
  await failsAs('unreachable', store.put('parts', Buffer.alloc(20 * 1024 * 1024)));
  assert.equal(await store.head('parts'), undefined);
});

test('reading goes on where the connection broke, and fails in the open when it cannot', async () => {
  const store = await openFaulty(1000);
  const content = Buffer.alloc(3 * 1024 * 1024, 'abcdefgh');
  await store.put('read', content);
  proxy.setFault({ kind: 'reset_answer', afterBytes: 1_000_000 }, { matches: isGet, times: 2 });
  const resumed = await store.get('read');
  assert.ok(resumed && (await buffer(resumed)).equals(content));
  proxy.setFault({ kind: 'reset_answer', afterBytes: 100_000 }, { matches: isGet });
  const broken = await store.get('read');
  assert.ok(broken);
  await failsAs('unreachable', buffer(broken));
});

test('an object that changes while its reading breaks off is not read as a mixture', async () => {
  const store = await openFaulty();
  await store.put('changing', Buffer.alloc(3 * 1024 * 1024, 'a'));
  proxy.setFault({ kind: 'reset_answer', afterBytes: 1_000_000 }, { matches: isGet, times: 1 });
  const stream = await store.get('changing');
  await store.put('changing', Buffer.alloc(3 * 1024 * 1024, 'b'));
  assert.ok(stream);
  await failsAs('conflict', buffer(stream));
});

test('where overwriting is forbidden, an object that exists still counts as existing', async () => {
  const store = await openFaulty();
  await store.put('kept', Buffer.from('x'));
  for (const [status, code] of [
    [403, 'UnauthorizedBlobOverwrite'],
    [409, 'BlobImmutableDueToPolicy'],
  ] as const) {
    proxy.setFault({ kind: 'status', status, code }, { matches: isPut });
    assert.deepEqual(await store.put('kept', Buffer.from('y'), { ifAbsent: true }), { created: false });
    assert.match((await failsAs('refused', store.put('kept', Buffer.from('y')))).fix, /SAS|immutability/);
    await failsAs('refused', store.put('not there', Buffer.from('y'), { ifAbsent: true }));
  }
});

test('everything works again after the service was down', async () => {
  const store = await openFaulty();
  await store.append('down.jsonl', Buffer.from('one\n'), 0);
  await azurite.kill();
  await failsAs('unreachable', store.append('down.jsonl', Buffer.from('two\n'), 4));
  await azurite.restart();
  await store.append('down.jsonl', Buffer.from('two\n'), 4);
  assert.equal(await textOf(store, 'down.jsonl'), 'one\ntwo\n');
});
