import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import fc from 'fast-check';
import { ModeltapError } from '../kit/errors.ts';
import { compareKeys } from './object-key-check.ts';
import { type ListOptions, type ObjectStore, StorageError, type StorageErrorKind } from './store.ts';
import { testStore } from './stores.ts';
import { forEachBounded } from './streams.ts';

/** An empty place to test in. */
export interface ContractPlace {
  /** A new store object on the same place every time, as another process would have it. */
  open(): Promise<ObjectStore>;
  stop(): Promise<void>;
}

interface Subject {
  /** Two independent views of one place. */
  store: ObjectStore;
  other: ObjectStore;
}

/** Every rule of `store.ts`, as tests. Run it for each backend on a real place. */
export function storeContract(name: string, setUp: () => Promise<ContractPlace>): void {
  describe(`the object store contract on ${name}`, () => {
    const subject = {} as Subject;
    let place: ContractPlace;
    before(async () => {
      place = await setUp();
      subject.store = await place.open();
      subject.other = await place.open();
    });
    after(() => place.stop());
    wholeObjects(subject);
    streams(subject);
    keys(subject);
    appends(subject);
    appendConflicts(subject);
    listings(subject);
  });
}

/** Asserts that `work` fails with a `StorageError` of this kind, and gives it. */
export async function failsAs(kind: StorageErrorKind, work: Promise<unknown>): Promise<StorageError> {
  const error = await work.then(
    (value) => assert.fail(`expected ${kind}, but it succeeded: ${JSON.stringify(value)}`),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof StorageError, `not a StorageError: ${String(error)}`);
  assert.equal(error.kind, kind, error.message);
  assert.equal(error.retryable, kind !== 'conflict' && kind !== 'invalid');
  assert.notEqual(error.fix, '');
  return error;
}

/** The bytes of an object as text; undefined when there is none. */
export async function textOf(store: ObjectStore, key: string, range?: { start: number; end?: number }) {
  const stream = await store.get(key, range);
  return stream && (await buffer(stream)).toString();
}

const bytes = (text: string) => Buffer.from(text);

function wholeObjects(subject: Subject): void {
  it('gives a value, not an error, for an object that is not there', async () => {
    const { store } = subject;
    assert.equal(await store.get('missing/object'), undefined);
    assert.equal(await store.get('missing/object', { start: 3, end: 3 }), undefined);
    assert.equal(await store.head('missing/object'), undefined);
    assert.equal(await store.delete('missing/object'), false);
  });

  it('gives back what was put, and a new etag with every write', async () => {
    const { store, other } = subject;
    const before = Date.now();
    assert.deepEqual(await store.put('whole/a.txt', bytes('first'), { contentType: 'text/plain' }), { created: true });
    const first = await other.head('whole/a.txt');
    assert.equal(first?.bytes, 5);
    assert.ok(Math.abs((first?.modifiedMs ?? 0) - before) < 60_000);
    await store.put('whole/a.txt', bytes('second one'));
    const second = await other.head('whole/a.txt');
    assert.equal(second?.bytes, 10);
    assert.notEqual(second?.etag, first?.etag);
    assert.equal(await textOf(other, 'whole/a.txt'), 'second one');
    assert.deepEqual((await store.list({ prefix: 'whole/' })).objects, [second]);
    assert.equal(await store.delete('whole/a.txt'), true);
    assert.equal(await other.head('whole/a.txt'), undefined);
  });

  it('holds an empty object', async () => {
    const { store } = subject;
    await store.put('empty', new Uint8Array(0));
    assert.equal((await store.head('empty'))?.bytes, 0);
    assert.equal(await textOf(store, 'empty'), '');
    assert.equal(await textOf(store, 'empty', { start: 0, end: 10 }), '');
  });

  it('changes nothing when the object exists and only an absent one may be written', async () => {
    const { store, other } = subject;
    assert.deepEqual(await store.put('absent/x', bytes('mine'), { ifAbsent: true }), { created: true });
    const before = await store.head('absent/x');
    assert.deepEqual(await other.put('absent/x', bytes('theirs'), { ifAbsent: true }), { created: false });
    const large = { bytes: 9 * 1024 * 1024, open: () => Readable.from([Buffer.alloc(9 * 1024 * 1024)]) };
    assert.deepEqual(await other.put('absent/x', large, { ifAbsent: true }), { created: false });
    assert.deepEqual(await store.head('absent/x'), before);
    assert.equal(await textOf(store, 'absent/x'), 'mine');
  });

  it('lets exactly one of twenty parallel writers create an object', async () => {
    const { store, other } = subject;
    const results = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        (i % 2 ? store : other).put('race/x', bytes(`writer ${i} `.repeat(1000)), { ifAbsent: true }),
      ),
    );
    const winners = results.flatMap((result, i) => (result.created ? [i] : []));
    assert.equal(winners.length, 1);
    assert.equal(await textOf(store, 'race/x'), `writer ${winners[0]} `.repeat(1000));
  });

  it('reads ranges, also ones that reach beyond the end', async () => {
    const { store } = subject;
    await store.put('range', bytes('0123456789'));
    const cases: [start: number, end: number | undefined, expected: string][] = [
      [0, undefined, '0123456789'],
      [0, 1, '0'],
      [3, 7, '3456'],
      [9, undefined, '9'],
      [4, 400, '456789'],
      [10, undefined, ''],
      [50, 60, ''],
      [5, 5, ''],
      [0, 0, ''],
    ];
    for (const [start, end, expected] of cases) {
      const range = end === undefined ? { start } : { start, end };
      assert.equal(await textOf(store, 'range', range), expected, `${start}–${end}`);
    }
  });

  it('passes the test of a store and leaves nothing behind', async () => {
    const { store } = subject;
    assert.equal(await testStore(store), undefined);
    assert.deepEqual((await store.list({ prefix: '.modeltap/' })).objects, []);
  });
}

function streams(subject: Subject): void {
  it('takes a large stream with flat memory', async () => {
    const { store } = subject;
    const piece = randomBytes(1024 * 1024);
    const pieces = 64;
    const most = { bytes: 0 };
    const base = process.memoryUsage().arrayBuffers;
    const open = () =>
      Readable.from(
        (function* () {
          for (let i = 0; i < pieces; i += 1) {
            most.bytes = Math.max(most.bytes, process.memoryUsage().arrayBuffers - base);
            // Split where no block ends.
            yield piece.subarray(0, 700_001);
            yield piece.subarray(700_001);
          }
        })(),
      );
    await store.put('large/stream', { bytes: pieces * piece.length, open });
    assert.ok(most.bytes < 32 * 1024 * 1024, `held ${most.bytes} bytes of a body of ${pieces * piece.length}`);
    const wanted = createHash('sha256');
    for (let i = 0; i < pieces; i += 1) wanted.update(piece);
    const found = createHash('sha256');
    const stream = await store.get('large/stream');
    for await (const chunk of stream ?? []) found.update(chunk as Buffer);
    assert.equal(found.digest('hex'), wanted.digest('hex'));
    await store.delete('large/stream');
  });

  it('takes a small stream and opens it anew for every call', async () => {
    const { store } = subject;
    const body = { bytes: 6, open: () => Readable.from([bytes('abc'), bytes('def')]) };
    await store.put('small/stream', body);
    await store.put('small/stream', body);
    assert.equal(await textOf(store, 'small/stream'), 'abcdef');
  });

  for (const size of [10, 9 * 1024 * 1024]) {
    it(`leaves the old object when a stream of ${size} bytes ends early, late or with an error`, async () => {
      const { store } = subject;
      const key = `broken/${size}`;
      await store.put(key, bytes('old'));
      const sized = (length: number) => ({ bytes: size, open: () => Readable.from([Buffer.alloc(length)]) });
      await failsAs('invalid', store.put(key, sized(size - 1)));
      await failsAs('invalid', store.put(key, sized(size + 1)));
      const failing = async function* () {
        yield Buffer.alloc(size - 1);
        await Promise.reject(new ModeltapError('internal', { detail: 'the source broke' }));
      };
      const error = await failsAs('unreachable', store.put(key, { bytes: size, open: () => Readable.from(failing()) }));
      assert.match(error.message, /the source broke/);
      assert.equal(await textOf(store, key), 'old');
      assert.deepEqual((await store.list({ prefix: key })).objects.length, 1);
    });
  }

  it('can be left unread', async () => {
    const { store } = subject;
    await store.put('unread', Buffer.alloc(3 * 1024 * 1024));
    const never = await store.get('unread');
    never?.destroy();
    const partly = await store.get('unread');
    for await (const chunk of partly ?? []) {
      assert.ok((chunk as Buffer).length > 0);
      break;
    }
    assert.equal(partly?.destroyed, true);
  });
}

const STRANGE_KEYS = [
  'strange/with space.txt',
  'strange/100%.txt',
  'strange/%2e%2e%2f.txt',
  'strange/a+b=c&d.txt',
  'strange/sharp#question?x=y',
  'strange/ünïcödé/日本語/😀.jsonl',
  'strange/quotes\'"`<>|*:;,@!$()[]{}^~',
  'strange/.hidden',
  'strange/..two dots',
  'strange/ leading and trailing ',
  `strange/${'n'.repeat(200)}`,
];

const BAD_KEYS = [
  ['', '/', '/a', 'a/', 'a//b', '.', '..', 'a/./b', 'a/../b', '../a', 'a/..', './a'],
  ['a\0b', 'a\nb', 'a\u007fb', 'a\ud800b', 'x'.repeat(1025), 'é'.repeat(513)],
].flat();

function keys(subject: Subject): void {
  it('holds objects with any printable name', async () => {
    const { store, other } = subject;
    for (const key of STRANGE_KEYS) {
      await store.put(key, bytes(key));
      assert.equal(await textOf(other, key), key);
      assert.equal((await other.head(key))?.key, key);
      const address = store.url(key);
      if (address.startsWith('/')) assert.ok(address.endsWith(`/${key}`), address);
      else {
        const url = new URL(address);
        assert.ok(decodeURIComponent(url.pathname).endsWith(`/${key}`), address);
        assert.equal(url.search + url.hash, '');
      }
    }
    const page = await other.list({ prefix: 'strange/' });
    assert.deepEqual(
      page.objects.map((object) => object.key),
      STRANGE_KEYS.toSorted(compareKeys),
    );
    for (const key of STRANGE_KEYS) {
      await other.append(key, bytes('!'), Buffer.byteLength(key));
      assert.equal(await textOf(store, key), `${key}!`);
      assert.equal(await store.delete(key), true);
    }
  });

  it('refuses keys that could lead astray, in every call', async () => {
    const { store } = subject;
    for (const key of BAD_KEYS) {
      const calls = [
        () => store.put(key, bytes('x')),
        () => store.append(key, bytes('x'), 0),
        () => store.get(key),
        () => store.head(key),
        () => store.delete(key),
        async () => store.url(key),
      ];
      for (const call of calls) {
        const error = await failsAs('invalid', call());
        assert.equal((error.cause as ModeltapError).code, 'bad_object_key');
      }
    }
  });
}

function appends(subject: Subject): void {
  it('grows an object in order, over twenty rounds', async () => {
    const { store, other } = subject;
    let wanted = '';
    for (let round = 0; round < 20; round += 1) {
      const line = `{"round":${round}}\n`;
      await store.append('grow/a.jsonl', bytes(line), wanted.length);
      wanted += line;
    }
    assert.equal(await textOf(other, 'grow/a.jsonl'), wanted);
    assert.equal((await other.head('grow/a.jsonl'))?.bytes, wanted.length);
  });

  it('leaves the same object when the last append is made again, by whomever, whatever happened between', async () => {
    const chunks = fc.array(
      fc.record({ size: fc.integer({ min: 0, max: 300 }), again: fc.subarray(['me', 'other']) }),
      {
        minLength: 1,
        maxLength: 6,
      },
    );
    let run = 0;
    await fc.assert(
      fc.asyncProperty(chunks, async (rounds) => {
        const { store, other } = subject;
        const key = `again/${(run += 1)}.jsonl`;
        let wanted = Buffer.alloc(0);
        for (const { size, again } of rounds) {
          const chunk = randomBytes(size);
          await store.append(key, chunk, wanted.length);
          for (const who of again) await (who === 'me' ? store : other).append(key, chunk, wanted.length);
          wanted = Buffer.concat([wanted, chunk]);
        }
        const found = await store.get(key);
        assert.ok(found);
        assert.deepEqual(await buffer(found), wanted);
      }),
      { numRuns: 12 },
    );
  });

  it('appends a chunk larger than a block, once', async () => {
    const { store, other } = subject;
    const chunk = randomBytes(9 * 1024 * 1024 + 17);
    await store.append('grow/large', bytes('head\n'), 0);
    await store.append('grow/large', chunk, 5);
    await other.append('grow/large', chunk, 5);
    await store.append('grow/large', bytes('tail\n'), 5 + chunk.length);
    const found = await other.get('grow/large');
    assert.ok(found);
    assert.ok(Buffer.concat([bytes('head\n'), chunk, bytes('tail\n')]).equals(await buffer(found)));
  });

  it('goes on behind an object that was put, empty or not', async () => {
    const { store, other } = subject;
    await store.put('mixed/empty', new Uint8Array(0));
    await store.append('mixed/empty', bytes('a'), 0);
    await store.put('mixed/full', bytes('put '));
    await store.append('mixed/full', bytes('appended '), 4);
    await store.append('mixed/full', bytes('appended '), 4);
    await other.put('mixed/full', bytes('put anew '));
    await store.append('mixed/full', bytes('and appended'), 9);
    assert.equal(await textOf(store, 'mixed/empty'), 'a');
    assert.equal(await textOf(store, 'mixed/full'), 'put anew and appended');
  });

  it('begins again after a deletion', async () => {
    const { store, other } = subject;
    await store.append('mixed/gone', bytes('old'), 0);
    await other.delete('mixed/gone');
    await store.append('mixed/gone', bytes('new'), 0);
    assert.equal(await textOf(store, 'mixed/gone'), 'new');
  });
}

function appendConflicts(subject: Subject): void {
  it('changes nothing when the object is not what the append expects', async () => {
    const { store, other } = subject;
    await failsAs('conflict', store.append('clash/missing', bytes('x'), 3));
    assert.equal(await store.head('clash/missing'), undefined);
    await store.append('clash/a', bytes('one '), 0);
    await store.append('clash/a', bytes('two '), 4);
    const before = await store.head('clash/a');
    for (const view of [store, other]) {
      await failsAs('conflict', view.append('clash/a', bytes('x'), 9));
      await failsAs('conflict', view.append('clash/a', bytes('TWO '), 4));
      await failsAs('conflict', view.append('clash/a', bytes('tw'), 4));
      await failsAs('conflict', view.append('clash/a', bytes('one '), 0));
      await failsAs('conflict', view.append('clash/a', new Uint8Array(0), 4));
    }
    assert.deepEqual(await store.head('clash/a'), before);
    assert.equal(await textOf(store, 'clash/a'), 'one two ');
  });

  it('notices another writer, and goes on when told the right length', async () => {
    const { store, other } = subject;
    await store.append('clash/b', bytes('mine '), 0);
    await other.append('clash/b', bytes('theirs '), 5);
    await failsAs('conflict', store.append('clash/b', bytes('mine2 '), 5));
    await store.append('clash/b', bytes('mine2 '), 12);
    assert.equal(await textOf(other, 'clash/b'), 'mine theirs mine2 ');
  });

  it('makes an object once when the same append runs twice at the same time', async () => {
    const { store, other } = subject;
    await Promise.all([store, other, store].map((view) => view.append('clash/c', bytes('once\n'), 0)));
    assert.equal(await textOf(store, 'clash/c'), 'once\n');
  });
}

const LISTED = ['l/z', 'l/a-b', 'l/a.b/x', 'l/a/c/d', 'l/a/b', 'l/a0', 'l/b/1', 'l/b/2', 'l/\uffee'];

async function pages(store: ObjectStore, options: ListOptions) {
  const found: { keys: string[]; prefixes: string[]; pages: number } = { keys: [], prefixes: [], pages: 0 };
  for (let after: string | undefined = ''; after !== undefined; found.pages += 1) {
    const page = await store.list(after === '' ? options : { ...options, after });
    assert.ok(page.objects.length + page.prefixes.length <= (options.limit ?? 5000));
    found.keys.push(...page.objects.map((object) => object.key));
    found.prefixes.push(...page.prefixes);
    after = page.next;
  }
  return found;
}

function listings(subject: Subject): void {
  it('lists in byte order, whole or in pages of any size', async () => {
    const { store, other } = subject;
    await forEachBounded(LISTED, 8, async (key) => {
      await store.put(key, bytes(key));
    });
    for (const limit of [1, 2, 3, 5000]) {
      const found = await pages(other, { prefix: 'l/', limit });
      assert.deepEqual(found.keys, LISTED.toSorted(compareKeys), `limit ${limit}`);
    }
  });

  it('cuts at the delimiter and gives every beginning once', async () => {
    const { store } = subject;
    for (const limit of [1, 2, 5000]) {
      const top = await pages(store, { prefix: 'l/', delimiter: '/', limit });
      assert.deepEqual(top.prefixes, ['l/a.b/', 'l/a/', 'l/b/'], `limit ${limit}`);
      assert.deepEqual(top.keys, ['l/a-b', 'l/a0', 'l/z', 'l/\uffee']);
      const below = await pages(store, { prefix: 'l/a', delimiter: '/', limit });
      assert.deepEqual(
        [below.prefixes, below.keys],
        [
          ['l/a.b/', 'l/a/'],
          ['l/a-b', 'l/a0'],
        ],
      );
    }
    const folder = await pages(store, { prefix: 'l/a/', delimiter: '/' });
    assert.deepEqual([folder.prefixes, folder.keys], [['l/a/c/'], ['l/a/b']]);
  });

  it('finds nothing, without an error, behind a beginning that no key has', async () => {
    const { store } = subject;
    for (const prefix of ['nothing', 'l/nothing/', 'l/a/b/c', '../', 'l/../', '/', 'l//']) {
      assert.deepEqual(await pages(store, { prefix, delimiter: '/' }), { keys: [], prefixes: [], pages: 1 }, prefix);
    }
  });

  it('lists 5 001 objects in two pages and misses none', async () => {
    const { store } = subject;
    const wanted = Array.from({ length: 5001 }, (_, i) => `many/${String(i % 7)}/${String(i).padStart(5, '0')}`);
    await forEachBounded(wanted, 32, async (key) => {
      await store.put(key, new Uint8Array(0));
    });
    const found = await pages(store, { prefix: 'many/' });
    assert.equal(found.pages, 2);
    assert.deepEqual(found.keys, wanted.toSorted(compareKeys));
  });
}
