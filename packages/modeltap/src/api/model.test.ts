import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { type Catalog, openCatalog } from '../catalog/catalog.ts';
import type { PublicObject } from '../catalog/public.ts';
import { isModeltapError } from '../kit/errors.ts';
import { createLogger } from '../kit/logger.ts';
import { openLocalDisk } from '../storage/local-disk.ts';
import { environmentOf } from './environment.ts';
import { modelDirectory, Models } from './model.ts';
import { storedFiles } from './model-files.ts';

const root = mkdtempSync(join(tmpdir(), 'modeltap-models-'));
after(() => rmSync(root, { recursive: true }));
let workspaces = 0;

interface Here {
  readonly workspace: string;
  readonly catalog: Catalog;
  readonly models: Models;
  /** Writes a file into a folder beside the workspace. */
  readonly file: (name: string, content?: string) => string;
  /** Registers and waits for the end. */
  readonly create: (overrides: Record<string, string>) => Promise<PublicObject>;
}

async function withModels(run: (here: Here) => Promise<void>): Promise<void> {
  workspaces += 1;
  const folder = join(root, String(workspaces));
  const workspace = join(folder, 'workspace');
  mkdirSync(workspace, { recursive: true });
  const catalog = await openCatalog(join(workspace, 'catalog.db'));
  await catalog.datastores.create({ name: 'store', type: 'local', path: join(folder, 'store') });
  const models = new Models({ catalog, logger: createLogger({ level: 'silent' }) });
  await models.removeUnfinished();
  const file = (name: string, content = name) => {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), content);
    return join(folder, name);
  };
  const create = async (overrides: Record<string, string>) => {
    const { value } = await models.create({ overrides });
    return settled(models, value);
  };
  try {
    await run({ workspace, catalog, models, file, create });
  } finally {
    await models.close();
    await catalog.close();
  }
}

async function settled(models: Models, started: PublicObject): Promise<PublicObject> {
  for (let now = started; ; now = await models.show(String(started.name), String(started.version))) {
    if (now.provisioning_state !== 'Creating') return now;
    await new Promise((done) => setTimeout(done, 5));
  }
}

const rejects = (promise: Promise<unknown>, code: string, text: RegExp = /./) =>
  assert.rejects(promise, (error) => {
    assert.ok(isModeltapError(error), String(error));
    assert.equal(error.code, code, error.message);
    assert.match(`${error.message} ${error.fix}`, text);
    return true;
  });

const tree = (directory: string) =>
  readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1))
    .toSorted();

test('a folder is copied under its own name, and AZUREML_MODEL_DIR is the folder that holds it', async () => {
  await withModels(async ({ workspace, catalog, file, create }) => {
    file('m/model/MLmodel');
    file('m/model/data/weights.bin', 'w'.repeat(100_000));
    const made = await create({ name: 'iris', path: join(workspace, '../m/model/') });
    assert.deepEqual([made.provisioning_state, made.version], ['Succeeded', '1']);
    assert.equal(made.path, join(workspace, 'models/iris/1/model'));
    file('m/model/MLmodel', 'changed afterwards');
    const directory = await modelDirectory({ reference: 'azureml:iris:1' }, catalog);
    assert.equal(directory, join(workspace, 'models/iris/1'));
    assert.deepEqual(tree(directory ?? ''), ['model/MLmodel', 'model/data/weights.bin']);
    assert.equal(readFileSync(join(directory ?? '', 'model/MLmodel'), 'utf8'), 'm/model/MLmodel');
  });
});

test('a file is copied under its own name; a path in a deployment is used where it lies', async () => {
  await withModels(async ({ workspace, catalog, file, create }) => {
    const path = file('m/iris.onnx');
    await create({ name: 'iris', path });
    const directory = await modelDirectory({ reference: 'azureml:iris@latest' }, catalog);
    assert.equal(readFileSync(join(directory ?? '', 'iris.onnx'), 'utf8'), 'm/iris.onnx');
    assert.equal(await modelDirectory({ path }, catalog), dirname(path));
    assert.equal(await modelDirectory({ path: dirname(path) }, catalog), join(workspace, '..'));
    assert.equal(await modelDirectory(undefined, catalog), undefined);
  });
});

test('a model that is not there is an error that says so', async () => {
  await withModels(async ({ workspace, catalog, file, create }) => {
    await rejects(modelDirectory({ path: '/no/such' }, catalog), 'model_missing', /\/no\/such .*ENOENT/);
    await rejects(modelDirectory({ reference: 'azureml:iris:1' }, catalog), 'reference_unknown', /nothing yet/);
    await create({ name: 'iris', path: file('m') });
    await rejects(modelDirectory({ reference: 'azureml:iris:2' }, catalog), 'reference_unknown', /registered: iris:1/);
    await rejects(
      modelDirectory({ reference: 'azureml://datastores/store/paths/m' }, catalog),
      'model_reference',
      /modeltap model create/,
    );
    rmSync(join(workspace, 'models/iris'), { recursive: true });
    await rejects(modelDirectory({ reference: 'azureml:iris:1' }, catalog), 'model_missing', /models\/iris\/1\/m/);
  });
});

test('a version never gets other files; the same files change nothing', async () => {
  await withModels(async ({ models, file, create }) => {
    const path = dirname(file('m/model/a', 'aaaa'));
    file('m/model/b', 'b'.repeat(300_000));
    const first = await create({ name: 'iris', path });
    assert.deepEqual(await create({ name: 'iris', version: '1', path }), first);
    await models.setArchived('iris', '1', true);
    assert.equal((await create({ name: 'iris', version: '1', path })).archived, false);
    const again = () => create({ name: 'iris', version: '1', path });
    file('m/model/b', `${'b'.repeat(299_999)}c`);
    await rejects(again(), 'version_taken', /model "iris" version 1/);
    file('m/model/b', 'b'.repeat(300_000));
    file('m/model/c');
    await rejects(again(), 'version_taken');
    rmSync(join(path, 'c'));
    await rejects(create({ name: 'iris', version: '1', path: join(path, 'a') }), 'version_taken');
    assert.equal((await again()).version, '1');
    assert.equal((await create({ name: 'iris', path })).version, '2');
    assert.equal((await models.show('iris', 'latest')).version, '2');
    assert.deepEqual(
      (await models.list('iris', false)).map(({ version }) => version),
      ['2', '1'],
    );
  });
});

test('many registrations at once get a version each', async () => {
  await withModels(async ({ models, file, create }) => {
    const path = file('m');
    const made = await Promise.all(Array.from({ length: 8 }, () => create({ name: 'iris', path })));
    assert.deepEqual(
      made.map(({ version }) => Number(version)).toSorted((a, b) => a - b),
      [1, 2, 3, 4, 5, 6, 7, 8],
    );
    const same = { overrides: { name: 'other', version: '1', path } };
    const [one, two] = await Promise.allSettled([models.create(same), models.create(same)]);
    assert.equal(one?.status, 'fulfilled');
    assert.ok(two?.status === 'rejected');
    await rejects(Promise.reject(two.reason), 'model_busy', /other.*version 1/);
  });
});

test('links are followed inside the model only', async () => {
  await withModels(async ({ workspace, file, create }) => {
    const path = dirname(file('m/model/real/a'));
    const link = (target: string) => {
      rmSync(join(path, 'link'), { force: true });
      symlinkSync(target, join(path, 'link'));
      return create({ name: 'iris', path: dirname(path) });
    };
    const secret = file('secret');
    await link('a');
    assert.equal(readFileSync(join(workspace, 'models/iris/1/model/real/link'), 'utf8'), 'm/model/real/a');
    await rejects(link(secret), 'model_link', /link leads to .*secret, outside the model/);
    await rejects(link('../../../secret'), 'model_link', /outside the model/);
    await rejects(link('..'), 'model_link', /a folder above it/);
    await rejects(link('nowhere'), 'model_link', /nowhere, which cannot be read/);
    rmSync(join(path, 'link'));
    // The path itself may be a link; its own name is the one that counts.
    symlinkSync(dirname(path), join(workspace, '../latest'));
    await create({ name: 'by-link', path: join(workspace, '../latest') });
    assert.deepEqual(tree(join(workspace, 'models/by-link/1')), ['latest/real/a']);
  });
});

test('a folder without a file, and what is no file, are refused', async () => {
  await withModels(async ({ workspace, create }) => {
    const empty = join(workspace, '../empty');
    mkdirSync(join(empty, 'deep/er'), { recursive: true });
    await rejects(create({ name: 'iris', path: empty }), 'model_empty', /empty/);
    await rejects(create({ name: 'iris', path: '/dev/null' }), 'model_copy_failed', /neither a file nor a folder/);
    assert.deepEqual(readdirSync(join(workspace, 'models')), []);
  });
});

test('a model is copied out of a datastore, as a folder or as one object', async () => {
  await withModels(async ({ workspace, file, create }) => {
    file('store/runs/7/model/MLmodel');
    file('store/runs/7/model/data/weights', 'w'.repeat(200_000));
    file('store/runs/7/model-card.md');
    const uri = 'azureml://datastores/store/paths/runs/7';
    await create({ name: 'iris', path: `${uri}/model/` });
    assert.deepEqual(tree(join(workspace, 'models/iris/1')), ['model/MLmodel', 'model/data/weights']);
    assert.equal(readFileSync(join(workspace, 'models/iris/1/model/data/weights'), 'utf8'), 'w'.repeat(200_000));
    const single = await create({ name: 'card', path: `${uri}/model-card.md` });
    assert.equal(single.source_path, `${uri}/model-card.md`);
    assert.deepEqual(tree(join(workspace, 'models/card/1')), ['model-card.md']);
    assert.equal((await create({ name: 'iris', version: '1', path: `${uri}/model` })).version, '1');
    await rejects(create({ name: 'none', path: `${uri}/nothing` }), 'model_empty', /paths\/runs\/7\/nothing/);
    await rejects(create({ name: 'none', path: 'azureml://datastores/no/paths/x' }), 'not_found', /datastore "no"/);
  });
});

test('empty objects that stand for folders are no files, and strange names are refused', async () => {
  const store = await openLocalDisk({ type: 'local', name: 's', path: join(root, 'marked') });
  const page = (...keys: [string, number][]) => ({
    ...store,
    head: () => Promise.resolve(undefined),
    list: () =>
      Promise.resolve({
        objects: keys.map(([key, bytes]) => ({ key, bytes, etag: '', modifiedMs: 0 })),
        prefixes: [],
        next: undefined,
      }),
  });
  const found = await storedFiles(page(['a/m/', 0], ['a/m/sub', 0], ['a/m/sub/x', 1], ['a/m/empty', 0]), 'a/m', 'a/m');
  assert.deepEqual(
    found.files.map(({ path }) => path),
    ['m/sub/x', 'm/empty'],
  );
  for (const key of ['a/m/../x', 'a/m//x', 'a/m/b\\c', 'a/m/./x'])
    await rejects(storedFiles(page([key, 1]), 'a/m', 'a/m'), 'model_copy_failed', /a name that cannot be a file/);
});

test('a copy that fails leaves nothing, says why, and can be repeated', async () => {
  await withModels(async ({ workspace, models, file, create }) => {
    const path = dirname(file('m/model/a'));
    file('m/model/b');
    const { value } = await models.create({ overrides: { name: 'iris', path } });
    // The file goes away between the answer and the copy.
    rmSync(join(path, 'b'));
    const failed = await settled(models, value);
    assert.equal(failed.provisioning_state, 'Failed');
    assert.match((failed.provisioning_error as { message: string }).message, /could not be copied: ENOENT/);
    assert.deepEqual(await models.list(undefined, true), []);
    assert.deepEqual(readdirSync(join(workspace, 'models')), []);
    await rejects(models.show('iris', '2'), 'not_found');
    const again = await create({ name: 'iris', path });
    assert.deepEqual([again.provisioning_state, again.version], ['Succeeded', '1']);
  });
});

test('a stop breaks off a copy; what a killed process left is removed at the next start', async () => {
  await withModels(async ({ workspace, models, catalog, file }) => {
    const path = dirname(file('m/model/0'));
    for (let n = 1; n < 200; n += 1) file(`m/model/${n}`);
    await models.create({ overrides: { name: 'iris', path } });
    await models.close();
    assert.deepEqual(readdirSync(join(workspace, 'models')), []);
    assert.equal(await catalog.models.find('iris'), undefined);
    mkdirSync(join(workspace, 'models/.new-left/model'), { recursive: true });
    // Renamed, but killed before the catalog knew.
    mkdirSync(join(workspace, 'models/iris/1/other'), { recursive: true });
    const next = new Models({ catalog, logger: createLogger({ level: 'silent' }) });
    await next.removeUnfinished();
    assert.deepEqual(readdirSync(join(workspace, 'models')), ['iris']);
    const { value } = await next.create({ overrides: { name: 'iris', path: join(path, '0') } });
    assert.equal((await settled(next, value)).provisioning_state, 'Succeeded');
    assert.deepEqual(readdirSync(join(workspace, 'models/iris/1')), ['0']);
  });
});

test('the environment of a deployment is the one written in it, or the registered one', async () => {
  await withModels(async ({ catalog }) => {
    const inline = {
      name: 'sk',
      version: undefined,
      description: '',
      tags: {},
      image: 'i',
      conda: undefined,
      inferenceConfig: undefined,
    };
    assert.equal(await environmentOf(undefined, catalog), undefined);
    assert.equal(await environmentOf(inline, catalog), inline);
    await catalog.environments.register(inline);
    assert.deepEqual(await environmentOf({ reference: 'azureml:sk' }, catalog), { ...inline, version: '1' });
    await rejects(environmentOf({ reference: 'azureml:x' }, catalog), 'reference_unknown', /registered: sk/);
  });
});
