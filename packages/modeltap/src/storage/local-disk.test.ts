import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { promisify } from 'node:util';
import { failsAs, storeContract, textOf } from './contract.test-suite.ts';
import { openLocalDisk } from './local-disk.ts';
import { localError } from './local-errors.ts';

storeContract('local disk', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'modeltap-store-'));
  return {
    open: () => openLocalDisk({ type: 'local', name: 'disk', path: join(folder, 'root') }),
    stop: () => rm(folder, { recursive: true }),
  };
});

async function diskStore(t: TestContext) {
  const folder = await mkdtemp(join(tmpdir(), 'modeltap-store-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const root = join(folder, 'data', 'root');
  return { folder, root, store: await openLocalDisk({ type: 'local', name: 'disk', path: root }) };
}

test('a root that is missing is empty until the first write makes it', async (t) => {
  const { root, store } = await diskStore(t);
  assert.equal(await store.head('a'), undefined);
  assert.deepEqual(await store.list(), { objects: [], prefixes: [], next: undefined });
  assert.equal(existsSync(root), false);
  await store.append('2026/01/a.jsonl', Buffer.from('x\n'), 0);
  assert.equal(await readFile(join(root, '2026/01/a.jsonl'), 'utf8'), 'x\n');
  assert.equal(store.url('2026/01/a.jsonl'), join(root, '2026/01/a.jsonl'));
});

test('a tail that an interrupted append left is replaced by the whole chunk', async (t) => {
  const { root, store } = await diskStore(t);
  const chunk = Buffer.from('{"n":1}\n{"n":2}\n');
  const torn = [
    chunk.subarray(0, 3),
    chunk.subarray(0, chunk.length - 1),
    chunk,
    // A power failure can keep the new length and lose the bytes.
    Buffer.alloc(chunk.length),
    Buffer.concat([chunk.subarray(0, 4), Buffer.alloc(5)]),
  ];
  for (const [i, tail] of torn.entries()) {
    const key = `torn/${i}.jsonl`;
    await store.append(key, Buffer.from('head\n'), 0);
    await appendFile(join(root, key), tail);
    await store.append(key, chunk, 5);
    assert.equal(await readFile(join(root, key), 'utf8'), `head\n${chunk.toString()}`);
  }
});

test('a tail that is not of the append is left alone', async (t) => {
  const { root, store } = await diskStore(t);
  for (const tail of ['{"n":2}\n', '{"n":1}\nlonger', '{"n"\0x']) {
    await store.put('foreign.jsonl', Buffer.from(`head\n${tail}`));
    await failsAs('conflict', store.append('foreign.jsonl', Buffer.from('{"n":1}\n'), 5));
    assert.equal(await readFile(join(root, 'foreign.jsonl'), 'utf8'), `head\n${tail}`);
  }
});

test('a large torn tail is compared to its end', async (t) => {
  const { root, store } = await diskStore(t);
  const chunk = Buffer.alloc(3 * 1024 * 1024, 'abcdefg');
  await store.append('big', chunk.subarray(0, 10), 0);
  const tail = Buffer.from(chunk);
  await appendFile(join(root, 'big'), tail);
  await store.append('big', chunk, 10);
  tail[tail.length - 1] = 1;
  await store.put('big2', Buffer.concat([chunk.subarray(0, 10), tail]));
  await failsAs('conflict', store.append('big2', chunk, 10));
});

test('symbolic links neither lead out of the root nor show up in a listing', async (t) => {
  const { folder, root, store } = await diskStore(t);
  await store.put('inside/x', Buffer.from('in'));
  await mkdir(join(folder, 'outside'));
  await writeFile(join(folder, 'outside', 'secret'), 'out');
  await symlink(join(folder, 'outside'), join(root, 'folder'));
  await symlink(join(folder, 'outside', 'secret'), join(root, 'file'));
  await symlink(join(folder, 'outside', 'nothing yet'), join(root, 'dangling'));
  for (const key of ['folder/secret', 'folder/new', 'folder/deep/er', 'file', 'dangling']) {
    await failsAs('refused', store.put(key, Buffer.from('x')));
    await failsAs('refused', store.put(key, Buffer.from('x'), { ifAbsent: true }));
    await failsAs('refused', store.append(key, Buffer.from('x'), 0));
    await failsAs('refused', store.get(key));
    await failsAs('refused', store.head(key));
    await failsAs('refused', store.delete(key));
  }
  await failsAs('refused', store.list({ prefix: 'folder/' }));
  const { objects, prefixes } = await store.list({ delimiter: '/' });
  assert.deepEqual([objects, prefixes], [[], ['inside/']]);
  assert.deepEqual(await readdir(join(folder, 'outside')), ['secret']);
});

test('the root itself may be a symbolic link', async (t) => {
  const { folder } = await diskStore(t);
  await mkdir(join(folder, 'real'));
  await symlink(join(folder, 'real'), join(folder, 'link'));
  const store = await openLocalDisk({ type: 'local', name: 'disk', path: join(folder, 'link') });
  await store.put('a/b', Buffer.from('x'));
  assert.equal(await readFile(join(folder, 'real/a/b'), 'utf8'), 'x');
  assert.equal((await store.list({ prefix: 'a/' })).objects.length, 1);
});

test('half-written objects are out of reach, and those of dead processes are removed', async (t) => {
  const { root, store } = await diskStore(t);
  const temporary = join(root, '.modeltap-tmp');
  await mkdir(temporary, { recursive: true });
  await writeFile(join(temporary, 'dead'), 'x');
  await writeFile(join(temporary, 'living'), 'x');
  await utimes(join(temporary, 'dead'), 0, 0);
  await store.put('a', Buffer.from('x'));
  assert.deepEqual(await readdir(temporary), ['living']);
  await failsAs('invalid', store.get('.modeltap-tmp/living'));
  assert.deepEqual(
    (await store.list()).objects.map((object) => object.key),
    ['a'],
  );
  assert.deepEqual((await store.list({ prefix: '.modeltap-tmp/' })).objects, []);
  assert.deepEqual((await store.list({ delimiter: '/' })).prefixes, []);
});

test('an empty folder is no beginning of a key', async (t) => {
  const { root, store } = await diskStore(t);
  await mkdir(join(root, 'empty/below'), { recursive: true });
  await store.put('full/below/x', Buffer.from('x'));
  assert.deepEqual((await store.list({ delimiter: '/' })).prefixes, ['full/']);
  assert.equal(await store.head('full'), undefined);
  assert.equal(await store.get('full/below'), undefined);
  assert.equal(await store.delete('full'), false);
});

test('a key cannot be a file and a folder at once', async (t) => {
  const { store } = await diskStore(t);
  await store.put('a/b', Buffer.from('x'));
  await failsAs('invalid', store.put('a', Buffer.from('x')));
  await failsAs('invalid', store.append('a', Buffer.from('x'), 0));
  await failsAs('invalid', store.put('a/b/c', Buffer.from('x')));
  await failsAs('invalid', store.put('n'.repeat(300), Buffer.from('x')));
  assert.equal(await store.get('a/b/c'), undefined);
  assert.equal(await textOf(store, 'a/b'), 'x');
});

test('listing cuts at any delimiter, and orders characters beyond U+FFFF by their bytes', async (t) => {
  const { store } = await diskStore(t);
  for (const key of ['x-1', 'x-2', 'x/y-1', 'x😀', 'x\uffee']) await store.put(key, Buffer.from('x'));
  assert.deepEqual(
    (await store.list()).objects.map((object) => object.key),
    ['x-1', 'x-2', 'x/y-1', 'x\uffee', 'x😀'],
  );
  const first = await store.list({ delimiter: '-', limit: 1 });
  assert.deepEqual([first.prefixes, first.next], [['x-'], 'x-']);
  const second = await store.list({ delimiter: '-', after: 'x-' });
  assert.deepEqual([second.prefixes, second.objects.length, second.next], [['x/y-'], 2, undefined]);
});

test('file system errors say what an operator can do', () => {
  const kinds = {
    full: ['ENOSPC', 'EDQUOT'],
    refused: ['EACCES', 'EPERM', 'EROFS'],
    unreachable: ['EIO', 'ESTALE', 'EMFILE'],
    invalid: ['ENAMETOOLONG', 'EISDIR'],
  };
  const cases = Object.entries(kinds).flatMap(([kind, codes]) => codes.map((code) => [code, kind] as const));
  for (const [code, kind] of cases) {
    const error = localError('disk', 'append', 'a/b', Object.assign(new RangeError(`${code}: it failed`), { code }));
    assert.equal(error.kind, kind);
    assert.equal(error.retryable, kind !== 'invalid');
    assert.match(error.message, /disk.*append.*"a\/b"/);
    assert.notEqual(error.fix, '');
  }
});

test('an append that no longer fits leaves no half line, and succeeds when there is room again', async (t) => {
  const { root, store } = await diskStore(t);
  const chunk = Buffer.from(`{"n":"${'x'.repeat(50_000)}"}\n`);
  await store.append('a.jsonl', Buffer.from('head\n'), 0);
  // The file size limit of a process is the one way to a full disk that needs no rights.
  const script = `
    import { openLocalDisk } from ${JSON.stringify(import.meta.resolve('./local-disk.ts'))};
    const store = await openLocalDisk({ type: 'local', name: 'disk', path: ${JSON.stringify(root)} });
    const kind = (work) => work.then(() => 'done', (error) => error.kind);
    const chunk = Buffer.from(${JSON.stringify(chunk.toString())});
    console.log(await kind(store.append('a.jsonl', chunk, 5)), await kind(store.put('b', chunk)));`;
  const { stdout } = await promisify(execFile)('sh', [
    '-c',
    'trap "" XFSZ; ulimit -f 32; exec "$0" --input-type=module --disable-warning=ExperimentalWarning -e "$1"',
    process.execPath,
    script,
  ]);
  assert.equal(stdout, 'full full\n');
  assert.equal(await textOf(store, 'a.jsonl'), 'head\n');
  assert.deepEqual(await readdir(join(root, '.modeltap-tmp')), []);
  await store.append('a.jsonl', chunk, 5);
  assert.equal(await textOf(store, 'a.jsonl'), `head\n${chunk.toString()}`);
});
