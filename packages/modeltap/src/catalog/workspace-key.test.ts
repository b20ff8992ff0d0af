import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, test } from 'node:test';
import { parseEndpoint } from '../config/load.ts';
import { openCatalog } from './catalog.ts';
import { loadWorkspaceKey } from './workspace-key.ts';

const directory = mkdtempSync(join(tmpdir(), 'modeltap-key-'));
after(() => rmSync(directory, { recursive: true }));

test('what is sealed can be opened with the same key for the same place, and is not readable', async () => {
  const file = join(directory, 'a.key');
  const first = await loadWorkspaceKey(file);
  assert.equal(first.made, true);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  const sealed = first.key.seal('hünter2', 'here');
  assert.doesNotMatch(sealed, /h.nter2/);
  assert.notEqual(sealed, first.key.seal('hünter2', 'here'), 'no two look alike');
  chmodSync(file, 0o644);
  const again = await loadWorkspaceKey(file);
  assert.equal(again.made, false);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.equal(again.key.open(sealed, 'here'), 'hünter2');
  const refused = { code: 'workspace_key_unusable', message: /a\.key.*holds for there/ };
  assert.throws(() => again.key.open(sealed, 'there'), refused);
  for (const at of [4, 20, sealed.length - 2]) {
    const damaged = `${sealed.slice(0, at)}${sealed[at] === 'A' ? 'B' : 'A'}${sealed.slice(at + 1)}`;
    assert.throws(() => again.key.open(damaged, 'here'), { code: 'workspace_key_unusable' });
  }
  assert.throws(() => again.key.open('', 'here'), { code: 'workspace_key_unusable' });
  const stranger = await loadWorkspaceKey(join(directory, 'b.key'));
  assert.throws(() => stranger.key.open(sealed, 'here'), { code: 'workspace_key_unusable' });
});

test('a file that holds no key is refused and left alone', async () => {
  const file = join(directory, 'c.key');
  for (const text of ['', 'c2hvcnQ', 'x'.repeat(43), readFileSync(join(directory, 'a.key'), 'utf8').repeat(2)]) {
    writeFileSync(file, text);
    await assert.rejects(loadWorkspaceKey(file), { code: 'workspace_key_unusable', message: /c\.key/ }, text);
    assert.equal(readFileSync(file, 'utf8'), text);
  }
  await assert.rejects(loadWorkspaceKey(join(directory, 'no', 'd.key')), { code: 'workspace_key_unusable' });
});

test('keys of an endpoint are kept as given, one can be replaced, and they go with the endpoint', async () => {
  const file = join(directory, 'catalog.db');
  const catalog = await openCatalog(file);
  const { endpoints, endpointKeys } = catalog;
  await assert.rejects(endpointKeys.put('my-endpoint', { primary: 'a', secondary: 'b' }), { code: 'not_found' });
  await endpoints.create(parseEndpoint('name: my-endpoint\n', { file: 'e' }).value);
  assert.equal(await endpointKeys.find('my-endpoint'), undefined);
  await assert.rejects(endpointKeys.replace('my-endpoint', 'primary', 'x'), { code: 'not_found' });
  await endpointKeys.put('my-endpoint', { primary: 'a', secondary: 'b' });
  await Promise.all([
    endpointKeys.replace('my-endpoint', 'primary', 'c'),
    endpointKeys.replace('my-endpoint', 'secondary', 'd'),
  ]);
  assert.deepEqual(await endpointKeys.find('my-endpoint'), { primary: 'c', secondary: 'd' });
  await endpoints.delete('my-endpoint');
  assert.equal(await endpointKeys.find('my-endpoint'), undefined);
  await catalog.close();
  const raw = new DatabaseSync(file);
  assert.deepEqual(raw.prepare('select * from endpoint_keys').all(), []);
  raw.close();
});

test('an endpoint is edited with nothing in between, and only by what its function gives', async () => {
  const catalog = await openCatalog(join(directory, 'edit.db'));
  const { endpoints } = catalog;
  await endpoints.create(parseEndpoint('name: my-endpoint\n', { file: 'e' }).value);
  const add = (index: number) =>
    endpoints.edit('my-endpoint', (config, deployments) => {
      assert.deepEqual(deployments, []);
      return { ...config, tags: { ...config.tags, [`t${index}`]: '1' } };
    });
  await Promise.all(Array.from({ length: 20 }, (_, index) => add(index)));
  const { config, revision } = await endpoints.get('my-endpoint');
  assert.deepEqual([Object.keys(config.tags).length, revision], [20, 21]);
  const fails = endpoints.edit('my-endpoint', () => {
    throw new RangeError('no');
  });
  await assert.rejects(fails, RangeError);
  assert.equal((await endpoints.get('my-endpoint')).revision, 21);
  await assert.rejects(
    endpoints.edit('none', (same) => same),
    { code: 'not_found' },
  );
  await catalog.close();
});
