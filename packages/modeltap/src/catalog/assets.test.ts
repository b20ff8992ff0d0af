import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, test } from 'node:test';
import { parseDeployment, parseEndpoint, parseEnvironment } from '../config/load.ts';
import type { EnvironmentConfig, ModelConfig } from '../config/types.ts';
import { isModeltapError } from '../kit/errors.ts';
import { type Catalog, openCatalog } from './catalog.ts';
import { publicDeployment, publicEnvironment, publicModel } from './public.ts';

const directory = mkdtempSync(join(tmpdir(), 'modeltap-assets-'));
after(() => rmSync(directory, { recursive: true }));
let files = 0;
const newFile = () => {
  files += 1;
  return join(directory, `${files}.db`);
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

const rejects = (promise: Promise<unknown>, code: string, text: RegExp) =>
  assert.rejects(promise, (error) => {
    assert.ok(isModeltapError(error), String(error));
    assert.equal(error.code, code);
    assert.match(error.message, text);
    return true;
  });

function environment(
  conda: string,
  head = 'name: sk\n',
  folder = directory,
): EnvironmentConfig & { readonly name: string } {
  const { value } = parseEnvironment(`${head}conda_file: ${conda}\n`, { file: 'env.yml', directory: folder });
  return { ...value, name: value.name ?? '' };
}

const model = (
  version: string,
  over: Partial<Omit<ModelConfig, 'version'>> = {},
): ModelConfig & { version: string } => ({
  name: 'iris',
  version,
  type: 'custom_model',
  path: '/from/here/model',
  description: 'd',
  tags: { a: 'b' },
  properties: {},
  ...over,
});

test('environments get the next whole number, also behind numbers a user chose', async () => {
  await withCatalog(async (catalog) => {
    const versions: string[] = [];
    for (const head of [
      'name: sk\n',
      'name: sk\nversion: 7\n',
      'name: sk\nversion: 1.10\n',
      'name: sk\n',
      'name: other\n',
    ]) {
      const { entry, created } = await catalog.environments.register(
        environment(`{dependencies: [p${versions.length}]}`, head),
      );
      assert.equal(created, true);
      versions.push(`${entry.name}:${entry.version}`);
    }
    assert.deepEqual(versions, ['sk:1', 'sk:7', 'sk:1.10', 'sk:8', 'other:1']);
    assert.equal((await catalog.environments.get('sk')).version, '8');
    const names = (await catalog.environments.list()).map(({ name, version }) => `${name}:${version}`);
    assert.deepEqual(names, ['other:1', 'sk:8']);
    const all = (await catalog.environments.list({ name: 'sk' })).map(({ version }) => version);
    assert.deepEqual(all, ['8', '1.10', '7', '1']);
  });
});

test('an environment is kept whole, whatever becomes of its files, also over a restart', async () => {
  await withCatalog(async (catalog, file) => {
    writeFileSync(join(directory, 'req.txt'), 'pandas==2.2.3\n-c limits.txt\n');
    writeFileSync(join(directory, 'limits.txt'), 'numpy<2\n');
    writeFileSync(
      join(directory, 'conda.yml'),
      'name: x\nchannels: [c]\ndependencies: [python=3.10, numpy=1.26=b, {pip: [-r req.txt]}]\n',
    );
    const head =
      'name: sk\ndescription: d\ntags: {a: b}\nimage: i\ninference_config: {scoring_route: {path: /s, port: 1}}\n';
    const config = environment('conda.yml', head);
    const { entry } = await catalog.environments.register(config);
    for (const name of ['req.txt', 'limits.txt', 'conda.yml']) rmSync(join(directory, name));
    assert.deepEqual(entry.config, { ...config, version: '1' });
    await catalog.close();
    const again = await openCatalog(file);
    assert.deepEqual(await again.environments.get('sk', '1'), entry);
    await again.close();
  });
});

test('a version of an environment never asks for something else', async () => {
  await withCatalog(async (catalog) => {
    const head = 'name: sk\nversion: 1\n';
    const conda = '{channels: [c], dependencies: [python=3.10, numpy=1.26, {pip: [pandas, "-f wheels"]}]}';
    const made = await catalog.environments.register(environment(conda, head));
    // Other words about it, other places in the file: the same environment.
    const again = await catalog.environments.register(environment(conda, `# moved\n${head}description: new\n`));
    assert.deepEqual(again, { entry: made.entry, created: false });
    for (const other of [
      conda.replace('1.26', '1.25'),
      conda.replace('3.10', '3.11'),
      conda.replace('numpy=1.26,', ''),
      conda.replace('pandas', 'polars'),
      conda.replace('channels: [c]', 'channels: [d]'),
    ]) {
      const said = /environment "sk" version 1 exists already and holds something else/;
      await rejects(catalog.environments.register(environment(other, head)), 'version_taken', said);
    }
    await rejects(catalog.environments.register(environment(conda, head, '/elsewhere')), 'version_taken', /sk/);
    await rejects(catalog.environments.register(environment(conda, `${head}image: i\n`)), 'version_taken', /sk/);
    assert.deepEqual(await catalog.environments.get('sk', '1'), made.entry);
    const named = '{dependencies: [{pip: [zope.interface==5.0, "a @ https://h.example/a.whl"]}]}';
    const one = await catalog.environments.register(environment(named, 'name: n\nversion: 1\n'));
    const two = await catalog.environments.register(environment(named, 'name: n\nversion: 1\n', '/elsewhere'));
    assert.deepEqual([one.created, two.created], [true, false]);
  });
});

test('an archived version is out of list and latest, is found by its number, and comes back', async () => {
  await withCatalog(async (catalog) => {
    await catalog.environments.register(environment('{dependencies: [a]}'));
    await catalog.environments.register(environment('{dependencies: [b]}'));
    const gone = await catalog.environments.setArchived('sk', '2', true);
    assert.deepEqual([gone.archived, gone.revision], [true, 2]);
    assert.deepEqual(await catalog.environments.setArchived('sk', '2', true), gone);
    assert.equal((await catalog.environments.resolve('azureml:sk@latest')).version, '1');
    assert.equal((await catalog.environments.resolve('azureml:sk:2')).archived, true);
    assert.deepEqual(
      (await catalog.environments.list()).map(({ version }) => version),
      ['1'],
    );
    const all = await catalog.environments.list({ archived: true, name: 'sk' });
    assert.deepEqual(
      all.map(({ version }) => version),
      ['2', '1'],
    );
    assert.equal((await catalog.environments.setArchived('sk', '2', false)).archived, false);
    await catalog.environments.setArchived('sk', '2', true);
    const head = 'name: sk\nversion: 2\n';
    const { entry, created } = await catalog.environments.register(environment('{dependencies: [b]}', head));
    assert.deepEqual([entry.archived, created], [false, false]);
    await rejects(catalog.environments.setArchived('sk', '3', true), 'not_found', /environment "sk:3" does not exist/);
  });
});

test('a reference that leads nowhere says what there is', async () => {
  await withCatalog(async (catalog) => {
    const resolve = (reference: string) => catalog.environments.resolve(reference);
    await rejects(
      resolve('azureml:sk:1'),
      'reference_unknown',
      /"azureml:sk:1" is not registered .*registered: nothing yet$/,
    );
    for (const name of ['a', 'b'])
      await catalog.environments.register(environment('{dependencies: []}', `name: ${name}\n`));
    await rejects(resolve('azureml:sk'), 'reference_unknown', /registered: a, b$/);
    await rejects(resolve('azureml:a:9'), 'reference_unknown', /registered: a:1$/);
    for (let n = 0; n < 12; n += 1)
      await catalog.environments.register(environment(`{dependencies: [p${n}]}`, 'name: a\n'));
    await rejects(resolve('azureml:a:99'), 'reference_unknown', /registered: a:13, a:12, .*, a:4 and 3 more$/);
    await rejects(catalog.models.resolve('azureml:a:1'), 'reference_unknown', /the model .*registered: nothing yet$/);
  });
});

test("Azure's own environments are told apart, unless one of that name is registered here", async () => {
  await withCatalog(async (catalog) => {
    for (const reference of [
      'azureml://registries/azureml/environments/sklearn-1.5/versions/3',
      'azureml://registries/azureml/environments/sklearn-1.5/labels/latest',
      'azureml:/subscriptions/s/resourceGroups/g/providers/p/workspaces/w/environments/e/versions/1',
      'azureml:AzureML-sklearn-1.0-ubuntu20.04-py38-cpu@latest',
    ]) {
      await assert.rejects(catalog.environments.resolve(reference), (error) => {
        assert.ok(isModeltapError(error) && error.code === 'environment_elsewhere', String(error));
        assert.match(error.fix, /conda_file.*modeltap environment create/);
        return error.message.includes(reference);
      });
    }
    await catalog.environments.register(environment('{dependencies: []}', 'name: AzureML-mine\n'));
    assert.equal((await catalog.environments.resolve('azureml:AzureML-mine')).version, '1');
    await rejects(catalog.environments.resolve('azureml:a:b:c'), 'uri_invalid', /a version has/);
  });
});

test('models are kept with the folder their files lie in, beside the catalog', async () => {
  await withCatalog(async (catalog, file) => {
    assert.equal(await catalog.models.nextVersion('iris'), '1');
    const { entry, created } = await catalog.models.register(model('1'), 'model');
    assert.equal(created, true);
    const { createdAt, updatedAt, revision, ...rest } = entry;
    assert.equal(revision, 1);
    assert.equal(createdAt, updatedAt);
    assert.deepEqual(rest, {
      name: 'iris',
      version: '1',
      type: 'custom_model',
      file: 'model',
      sourcePath: '/from/here/model',
      directory: join(directory, 'models/iris/1'),
      description: 'd',
      tags: { a: 'b' },
      properties: {},
      archived: false,
    });
    assert.deepEqual(await catalog.models.register(model('1', { description: 'other' }), 'model'), {
      entry,
      created: false,
    });
    await catalog.models.register(model('2'), 'model.pkl');
    assert.equal((await catalog.models.resolve('azureml:iris')).file, 'model.pkl');
    assert.equal((await catalog.models.resolve('azureml:iris:1')).file, 'model');
    await rejects(
      catalog.models.resolve('azureml://registries/r/models/m/versions/1'),
      'model_reference',
      /neither a path/,
    );
    assert.equal(publicModel(entry).path, join(directory, 'models/iris/1/model'));
    assert.equal(file.startsWith(directory), true);
    // The same name may stand for an environment too.
    await catalog.environments.register(environment('{dependencies: []}', 'name: iris\n'));
    assert.equal(await catalog.models.nextVersion('iris'), '3');
  });
});

test('what is shown of an environment has the keys of az ml and no password', async () => {
  await withCatalog(async (catalog) => {
    const conda = `{channels: ["https://h.example/t/hunter2/c"], dependencies: [python>=3.9, "conda-forge::numpy 1.26.* py310*", scipy, {pip: [
      "--extra-index-url https://user:hunter2@h.example/simple", "-i https://hunter2@h.example/s", "a @ https://h.example/a.whl?sig=hunter2&x=hunter2", b==1]}]}`;
    const { entry } = await catalog.environments.register(environment(conda));
    const { conda_file: shown, ...rest } = publicEnvironment(entry);
    assert.deepEqual(shown, {
      name: undefined,
      channels: ['https://h.example/t/***/c'],
      dependencies: [
        'python>=3.9',
        'conda-forge::numpy 1.26.* py310*',
        'scipy',
        'pip',
        {
          pip: [
            '--extra-index-url https://***@h.example/simple',
            '-i https://***@h.example/s',
            'a @ https://h.example/a.whl?sig=***&x=***',
            'b==1',
          ],
        },
      ],
    });
    assert.deepEqual([rest.name, rest.version, rest.archived], ['sk', '1', false]);
    await catalog.endpoints.create(parseEndpoint('name: my-endpoint\n', { file: 'e' }).value);
    const text = `name: blue\nendpoint_name: my-endpoint\nenvironment: {conda_file: ${conda}}\n`;
    const made = await catalog.deployments.create(parseDeployment(text, { file: 'd.yml', directory }).value);
    assert.deepEqual(await catalog.deployments.get('my-endpoint', 'blue'), made);
    const view = JSON.stringify(publicDeployment(made));
    assert.match(view, /conda-forge::numpy/);
    assert.doesNotMatch(view, /hunter2/);
  });
});

test('deployments of a catalog from before environments keep their references', async () => {
  const file = newFile();
  const old = await openCatalog(file);
  await old.endpoints.create(parseEndpoint('name: my-endpoint\n', { file: 'e' }).value);
  for (const name of ['one', 'two', 'three']) {
    const text = `name: ${name}\nendpoint_name: my-endpoint\n`;
    await old.deployments.create(parseDeployment(text, { file: 'd.yml', directory }).value);
  }
  await old.close();
  const raw = new DatabaseSync(file);
  raw.exec(`drop table assets; drop table endpoint_keys; delete from schema_migrations where version >= 2;
    update deployments set config_json = json_set(config_json, '$.environment', 'azureml:sk:1') where name = 'one';
    update deployments set config_json = json_set(config_json, '$.environment', json('{"image":"i","conda_file":"c.yml"}'))
      where name = 'two';`);
  raw.close();
  const catalog = await openCatalog(file);
  const of = async (name: string) => (await catalog.deployments.get('my-endpoint', name)).config.environment;
  assert.deepEqual(await of('one'), { reference: 'azureml:sk:1' });
  assert.equal(await of('two'), undefined);
  assert.equal(await of('three'), undefined);
  await catalog.close();
});
