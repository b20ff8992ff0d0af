import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, test } from 'node:test';
import { promisify } from 'node:util';
import { parseDeployment, parseEndpoint } from '../config/load.ts';
import type { DatastoreConfig } from '../config/types.ts';
import { systemClock } from '../kit/clock.ts';
import type { ErrorCode } from '../kit/error-codes.ts';
import { isModeltapError } from '../kit/errors.ts';
import { type Catalog, openCatalog } from './catalog.ts';
import { SCHEMA_VERSION } from './schema.ts';
import { publicDataAsset, publicDatastore, publicDeployment, publicEndpoint } from './public.ts';

const directory = mkdtempSync(join(tmpdir(), 'modeltap-catalog-'));
after(() => rmSync(directory, { recursive: true }));
let files = 0;
const newFile = () => {
  files += 1;
  return join(directory, `${files}.db`);
};

const source = { file: 'a.yml', directory };
const endpoint = (name = 'my-endpoint') => parseEndpoint(`name: ${name}\ntraffic: {blue: 100}\n`, source).value;
const DEPLOYMENT = `name: blue
endpoint_name: my-endpoint
environment_variables: {WORKER_COUNT: 2, API_KEY: hunter2}
data_collector: {collections: {model_inputs: {enabled: 'True'}}}
`;
const deployment = (name = 'blue') => parseDeployment(DEPLOYMENT.replace('blue', name), source).value;
const blob: DatastoreConfig = {
  name: 'store',
  type: 'azure_blob',
  accountName: 'acct',
  containerName: 'data',
  endpoint: 'core.windows.net',
  protocol: 'https',
  credentials: { accountKey: 'hunter2' },
};

async function withCatalog(run: (catalog: Catalog, file: string) => Promise<void>): Promise<void> {
  const file = newFile();
  const catalog = await openCatalog(file);
  try {
    await run(catalog, file);
  } finally {
    await catalog.close();
  }
}

const rejects = (promise: Promise<unknown>, code: ErrorCode, exitCode: number) =>
  assert.rejects(promise, (error) => {
    assert.ok(isModeltapError(error), String(error));
    assert.equal(error.code, code);
    assert.equal(error.exitCode, exitCode);
    return true;
  });

test('endpoints are kept with their times and revision, also over a restart', async () => {
  await withCatalog(async (catalog, file) => {
    const made = await catalog.endpoints.create(endpoint(), { sourceYaml: 'name: my-endpoint' });
    assert.deepEqual(made.config, endpoint());
    assert.equal(made.revision, 1);
    assert.equal(new Date(made.createdAt).toISOString(), made.createdAt);
    const changed = await catalog.endpoints.update('my-endpoint', {
      config: { ...endpoint(), description: 'new', traffic: {} },
    });
    assert.equal(changed.revision, 2);
    assert.equal(changed.createdAt, made.createdAt);
    assert.equal(changed.sourceYaml, 'name: my-endpoint');
    await catalog.endpoints.create(endpoint('another'));
    await catalog.close();
    const again = await openCatalog(file);
    assert.deepEqual(await again.endpoints.get('my-endpoint'), changed);
    assert.deepEqual(
      (await again.endpoints.list()).map((each) => each.config.name),
      ['another', 'my-endpoint'],
    );
    await again.endpoints.delete('another');
    assert.equal(await again.endpoints.find('another'), undefined);
    await again.close();
  });
});

test('deployments are kept whole, with state, port and source', async () => {
  await withCatalog(async (catalog) => {
    await rejects(catalog.deployments.create(deployment()), 'not_found', 3);
    await catalog.endpoints.create(endpoint());
    const made = await catalog.deployments.create(deployment(), { sourceYaml: DEPLOYMENT, collectorPort: 50_012 });
    assert.deepEqual(made, await catalog.deployments.get('my-endpoint', 'blue'));
    assert.deepEqual(made.config, deployment());
    assert.deepEqual([made.provisioningState, made.collectorPort, made.sourceYaml], ['Creating', 50_012, DEPLOYMENT]);
    const id = { endpointName: 'my-endpoint', name: 'blue' };
    const ready = await catalog.deployments.update(id, { provisioningState: 'Succeeded', collectorPort: null });
    assert.deepEqual([ready.provisioningState, ready.collectorPort, ready.revision], ['Succeeded', undefined, 2]);
    assert.deepEqual(ready.config, made.config);
    const scaled = await catalog.deployments.update(id, {
      config: { ...made.config, instanceCount: 3, name: 'renamed' },
    });
    assert.deepEqual([scaled.config.instanceCount, scaled.config.name], [3, 'blue']);
    await catalog.deployments.create(deployment('green'));
    assert.deepEqual(
      (await catalog.deployments.list('my-endpoint')).map((each) => each.config.name),
      ['blue', 'green'],
    );
    assert.deepEqual(await catalog.deployments.list('other'), []);
    await rejects(catalog.endpoints.delete('my-endpoint'), 'endpoint_has_deployments', 4);
    for (const name of ['blue', 'green']) await catalog.deployments.delete('my-endpoint', name);
    await catalog.endpoints.delete('my-endpoint');
    assert.deepEqual(await catalog.deployments.list(), []);
  });
});

test('names are taken once and what is not there is not found', async () => {
  await withCatalog(async (catalog) => {
    await catalog.endpoints.create(endpoint());
    await catalog.deployments.create(deployment());
    await catalog.datastores.create(blob);
    await rejects(catalog.endpoints.create(endpoint()), 'already_exists', 4);
    await rejects(catalog.deployments.create(deployment()), 'already_exists', 4);
    await rejects(catalog.datastores.create(blob), 'already_exists', 4);
    const id = { endpointName: 'my-endpoint', name: 'none' };
    for (const call of [
      catalog.endpoints.get('none'),
      catalog.endpoints.update('none', { config: endpoint() }),
      catalog.endpoints.delete('none'),
      catalog.deployments.get('my-endpoint', 'none'),
      catalog.deployments.update(id, {}),
      catalog.deployments.delete('my-endpoint', 'none'),
      catalog.datastores.get('none'),
      catalog.datastores.update({ ...blob, name: 'none' }),
      catalog.datastores.delete('none'),
      catalog.dataAssets.get('none'),
      catalog.dataAssets.archive('none', '1'),
      catalog.dataAssets.resolve('azureml:none:1'),
    ]) {
      await rejects(call, 'not_found', 3);
    }
  });
});

test('a change made in between is noticed, and nothing is changed then', async () => {
  await withCatalog(async (catalog, file) => {
    const other = await openCatalog(file);
    await catalog.endpoints.create(endpoint());
    await catalog.deployments.create(deployment());
    await catalog.datastores.create(blob);
    const seen = { revision: 1 };
    const id = { endpointName: 'my-endpoint', name: 'blue' };
    await other.endpoints.update('my-endpoint', { config: { ...endpoint(), description: 'theirs' } }, seen);
    await other.deployments.update(id, { provisioningState: 'Failed' }, seen);
    await other.datastores.update({ ...blob, containerName: 'theirs' }, seen);
    for (const call of [
      catalog.endpoints.update('my-endpoint', { config: endpoint() }, seen),
      catalog.endpoints.delete('my-endpoint', seen),
      catalog.deployments.update(id, { provisioningState: 'Succeeded' }, seen),
      catalog.deployments.delete('my-endpoint', 'blue', seen),
      catalog.datastores.update(blob, seen),
      catalog.datastores.delete('store', seen),
    ]) {
      await rejects(call, 'revision_conflict', 4);
    }
    assert.equal((await catalog.endpoints.get('my-endpoint')).config.description, 'theirs');
    assert.equal((await catalog.deployments.get('my-endpoint', 'blue')).provisioningState, 'Failed');
    await other.close();
  });
});

test('a version of a data asset never changes its path', async () => {
  await withCatalog(async ({ dataAssets }) => {
    const first = await dataAssets.register({ name: 'a', path: 'azureml://datastores/ws/paths/x ' });
    assert.deepEqual([first.created, first.entry.version, first.entry.type], [true, '1', 'uri_folder']);
    assert.equal(first.entry.path, 'azureml://datastores/ws/paths/x');
    const again = await dataAssets.register({ name: 'a', version: '1', path: 'azureml://datastores/ws/paths/x' });
    assert.deepEqual(again, { entry: first.entry, created: false });
    await assert.rejects(dataAssets.register({ name: 'a', version: '1', path: 'elsewhere' }), {
      code: 'asset_version_taken',
      message: 'data asset "a" version 1 already points to azureml://datastores/ws/paths/x',
      fix: /Leave the version out to get the next one/,
    });
  });
});

test('versions count on from the highest number; the latest is the one registered last', async () => {
  await withCatalog(async ({ dataAssets }) => {
    const register = async (version?: string) =>
      (await dataAssets.register({ name: 'a', path: `p${version}`, ...(version === undefined ? {} : { version }) }))
        .entry.version;
    assert.equal(await register('9'), '9');
    assert.equal(await register('beta'), 'beta');
    assert.equal(await register(), '10');
    assert.equal(await register('3'), '3');
    assert.equal((await dataAssets.resolve('azureml:a@latest')).version, '3');
    assert.equal((await dataAssets.resolve('azureml:a:beta')).path, 'pbeta');
    await dataAssets.archive('a', '3');
    await dataAssets.archive('a', '3');
    assert.equal((await dataAssets.get('a')).version, '10');
    assert.equal((await dataAssets.get('a', '3')).archived, true);
    await dataAssets.register({ name: 'b', path: 'q', tags: { k: 'v' } });
    const listed = async (options?: Parameters<typeof dataAssets.list>[0]) =>
      (await dataAssets.list(options)).map((each) => `${each.name}:${each.version}`);
    assert.deepEqual(await listed(), ['a:10', 'b:1']);
    assert.deepEqual(await listed({ archived: true }), ['a:3', 'b:1']);
    assert.deepEqual(await listed({ name: 'a' }), ['a:10', 'a:beta', 'a:9']);
    assert.deepEqual(await listed({ name: 'a', archived: true, limit: 2 }), ['a:3', 'a:10']);
    assert.deepEqual(await listed({ name: 'a', archived: true, after: { name: 'a', version: '10' } }), [
      'a:beta',
      'a:9',
    ]);
    assert.deepEqual(await listed({ after: { name: 'a', version: '10' } }), ['b:1']);
    const back = await dataAssets.register({ name: 'a', version: '3', path: 'p3' });
    assert.deepEqual([back.created, back.entry.archived], [false, false]);
  });
});

test('limits of a workspace are held', async () => {
  await withCatalog(async (catalog) => {
    for (let count = 0; count < 100; count += 1) await catalog.endpoints.create(endpoint(`endpoint-${count}`));
    await rejects(catalog.endpoints.create(endpoint()), 'limit_reached', 4);
    const on = (name: string) => ({ ...deployment(name), endpointName: 'endpoint-1' });
    for (let count = 0; count < 20; count += 1) await catalog.deployments.create(on(`green-${count}`));
    await rejects(catalog.deployments.create(on('blue')), 'limit_reached', 4);
  });
});

test('settings are kept and replaced', async () => {
  await withCatalog(async (catalog) => {
    assert.equal(await catalog.getSetting('subscription_id'), undefined);
    await catalog.setSetting('subscription_id', 'a');
    await catalog.setSetting('subscription_id', 'b');
    assert.equal(await catalog.getSetting('subscription_id'), 'b');
  });
});

test('no secret is in a public form, an error or an entry shown as JSON', async () => {
  await withCatalog(async (catalog) => {
    await catalog.endpoints.create(endpoint());
    const shown: unknown[] = [
      publicEndpoint(await catalog.endpoints.get('my-endpoint')),
      publicDeployment(await catalog.deployments.create(deployment(), { sourceYaml: DEPLOYMENT })),
      publicDatastore(await catalog.datastores.create(blob)),
      await catalog.datastores.list(),
      await catalog.datastores.create(blob).catch((error: unknown) => error),
      await catalog.datastores.update(blob, { revision: 9 }).catch((error: unknown) => error),
    ];
    assert.doesNotMatch(JSON.stringify(shown), /hunter2/);
    assert.deepEqual((await catalog.datastores.get('store')).config, blob);
  });
});

test('public forms have the keys that az ml shows', async () => {
  await withCatalog(async (catalog) => {
    const made = await catalog.endpoints.create(endpoint());
    const times = { created_at: made.createdAt, last_modified_at: made.updatedAt };
    assert.deepEqual(publicEndpoint(made), {
      name: 'my-endpoint',
      description: '',
      tags: {},
      properties: {},
      auth_mode: 'key',
      traffic: { blue: 100 },
      mirror_traffic: {},
      provisioning_state: 'Succeeded',
      creation_context: times,
    });
    const shown = JSON.parse(JSON.stringify(publicDeployment(await catalog.deployments.create(deployment()))));
    assert.deepEqual(shown.environment_variables, { WORKER_COUNT: '2', API_KEY: '***' });
    assert.deepEqual(shown.data_collector.collections.model_inputs, {
      enabled: 'true',
      data: {
        name: 'my-endpoint-blue-model_inputs',
        version: '1',
        path: 'azureml://datastores/workspaceblobstore/paths/modelDataCollector/my-endpoint/blue/model_inputs',
      },
    });
    assert.equal(shown.request_settings.request_timeout_ms, 5000);
    assert.equal(shown.provisioning_state, 'Creating');
    const { creation_context: _, ...asset } = publicDataAsset(
      (await catalog.dataAssets.register({ name: 'a', path: 'p' })).entry,
    );
    assert.deepEqual(asset, {
      name: 'a',
      version: '1',
      type: 'uri_folder',
      path: 'p',
      description: '',
      tags: {},
      archived: false,
    });
    const { creation_context: __, ...store } = publicDatastore(await catalog.datastores.create(blob));
    assert.deepEqual(store, {
      name: 'store',
      type: 'azure_blob',
      account_name: 'acct',
      container_name: 'data',
      endpoint: 'core.windows.net',
      protocol: 'https',
      credentials: { type: 'account_key' },
    });
  });
});

test('only the owner can read the files of a catalog', async () => {
  await withCatalog(async (catalog, file) => {
    await catalog.setSetting('a', 'b');
    for (const each of [file, `${file}-wal`, `${file}-shm`]) assert.equal(statSync(each).mode & 0o777, 0o600, each);
  });
});

test('a catalog that a newer version wrote is refused and left alone', async () => {
  const file = newFile();
  await (await openCatalog(file)).close();
  const raw = new DatabaseSync(file);
  raw.exec("insert into schema_migrations values (99, 'from the future', '2030-01-01')");
  raw.close();
  const before = readFileSync(file);
  await assert.rejects(openCatalog(file), {
    code: 'catalog_too_new',
    message: `the catalog ${file} has schema version 99; this version of Modeltap knows up to ${SCHEMA_VERSION}`,
  });
  assert.ok(readFileSync(file).equals(before));
});

test('a file that is no catalog, or cannot be opened, is refused by name', async () => {
  const file = newFile();
  writeFileSync(file, 'This is a text file that somebody put here by mistake.\n'.repeat(100));
  await rejects(openCatalog(file), 'catalog_unreadable', 1);
  await rejects(openCatalog(join(directory, 'no', 'such', 'folder.db')), 'catalog_unreadable', 1);
});

test('a lock that another process does not give up is an error that says so', async () => {
  await withCatalog(async (catalog, file) => {
    const raw = new DatabaseSync(file);
    raw.exec('begin immediate');
    await rejects(catalog.setSetting('a', 'b'), 'catalog_busy', 5);
    await rejects(openCatalog(file), 'catalog_busy', 5);
    raw.exec('rollback');
    raw.close();
    await catalog.setSetting('a', 'b');
  });
});

test('many calls at once on one connection do not mix their transactions', async () => {
  await withCatalog(async (catalog) => {
    const made = await Promise.allSettled(Array.from({ length: 10 }, () => catalog.endpoints.create(endpoint())));
    assert.equal(made.filter((each) => each.status === 'fulfilled').length, 1);
    const versions = await Promise.all(
      Array.from({ length: 10 }, (_, index) => catalog.dataAssets.register({ name: 'a', path: `p${index}` })),
    );
    assert.equal(new Set(versions.map((each) => each.entry.version)).size, 10);
  });
});

test('processes that open a new catalog at once and write to it all succeed', async () => {
  const file = newFile();
  const program = `
    const { openCatalog } = await import(${JSON.stringify(import.meta.resolve('./catalog.ts'))});
    const catalog = await openCatalog(process.argv[1]);
    for (let index = 0; index < 20; index += 1) await catalog.dataAssets.register({ name: 'a', path: process.pid + '/' + index });
    await catalog.close();`;
  const run = () =>
    promisify(execFile)(process.execPath, [
      '--disable-warning=ExperimentalWarning',
      '--input-type=module',
      '-e',
      program,
      file,
    ]);
  await Promise.all([run(), run(), run()]);
  const catalog = await openCatalog(file);
  const versions = (await catalog.dataAssets.list({ name: 'a' })).map((each) => Number(each.version));
  assert.deepEqual(
    versions,
    Array.from({ length: 60 }, (_, index) => 60 - index),
  );
  await catalog.close();
});

test('times come from the clock given', async () => {
  const catalog = await openCatalog(newFile(), { clock: { ...systemClock, now: () => 0 } });
  assert.equal((await catalog.endpoints.create(endpoint())).createdAt, '1970-01-01T00:00:00.000Z');
  await catalog.close();
});
