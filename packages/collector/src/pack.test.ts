import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BasicCorrelationContext } from './context.ts';
import { JsonBuffer } from './json-buffer.ts';
import { Packer } from './pack.ts';
import { type Shape, ShapeTable } from './shapes.ts';
import { ChunkReader, type ShapeText, shapeText } from './unpack.ts';

interface Chunk {
  readonly chunk: ArrayBuffer;
  readonly bytes: number;
  readonly records: number;
}

/** Packs and unpacks as the two threads do. */
class Loop {
  readonly chunks: Chunk[] = [];
  readonly envelopes = new Set<number>();
  readonly #shapes = new ShapeTable();
  readonly #known = new Map<number, ShapeText>();
  readonly packer = new Packer(this.#shapes, (chunk, bytes, records) => this.chunks.push({ chunk, bytes, records }));

  add(rows: readonly unknown[], context = new BasicCorrelationContext(), budget = 1e9, envelope = 7): void {
    this.packer.begin(envelope, 0, context, budget);
    try {
      this.packer.rows(rows);
      this.packer.commit();
    } catch (error) {
      this.packer.abort();
      throw error;
    }
    if (this.packer.full) this.packer.flush();
  }

  texts(): string[] {
    this.packer.flush();
    for (const { id, keys } of this.#shapes.takeFresh() as readonly Shape[]) this.#known.set(id, shapeText(keys));
    const texts: string[] = [];
    for (const { chunk, bytes } of this.chunks.splice(0)) {
      const reader = new ChunkReader(chunk, bytes, this.#known);
      for (let at = 0; at < bytes; ) {
        const head = reader.head(at);
        this.envelopes.add(head.envelope);
        const out = new JsonBuffer(16);
        reader.body(head.bodyAt, out);
        texts.push(out.bytes.toString('utf8', 0, out.length));
        at += head.bytes;
      }
    }
    return texts;
  }
}

/** What JSON.stringify would give after the documented replacements: undefined cells are null, text is well formed. */
function expected(rows: readonly object[]): string {
  return JSON.stringify(rows, (_, value: unknown) => (value === undefined ? null : value)).replace(
    /\\ud[89a-f][0-9a-f]{2}/g,
    '\ufffd',
  );
}

const cell = fc.oneof(
  fc.jsonValue({ maxDepth: 4 }),
  fc.double(),
  fc.integer(),
  fc.constant(undefined),
  fc.string({ unit: 'binary', maxLength: 60 }),
);
const row = fc.oneof(
  fc.record({ a: cell, b: fc.double(), c: fc.string() }),
  fc.dictionary(fc.string({ unit: 'binary', maxLength: 8 }), cell, { noNullPrototype: true }),
);

test('what is packed and unpacked is what JSON.stringify gives, for arbitrary rows', () => {
  fc.assert(
    fc.property(fc.array(fc.array(row, { maxLength: 6 }), { maxLength: 4 }), (records) => {
      const loop = new Loop();
      for (const rows of records) loop.add(rows);
      assert.deepEqual(loop.texts(), records.map(expected));
    }),
    { numRuns: 400 },
  );
});

test('rows that generated code wrote before may have any other value, key or order', () => {
  // Generated code is made for the kinds of value it saw first, and for one or for several groups of keys.
  for (const more of [0, 90]) {
    const extra = Object.fromEntries(Array.from({ length: more }, (_, index) => [`x${index}`, index / 7]));
    const usual = { real: 0.5, whole: 1, flag: true, text: 'a', none: null, list: [1], ...extra };
    const change = fc.oneof(
      fc.dictionary(fc.constantFrom(...Object.keys(usual)), cell).map((cells) => ({ ...usual, ...cells })),
      fc.shuffledSubarray(Object.entries(usual)).map((entries) => Object.fromEntries(entries) as object),
      fc.constant({ ...usual, further: 1 }),
      fc.constant({ ...usual, toJSON: () => ({ made: 1 }) }),
      fc.constant(Object.assign(Object.create({ toJSON: () => ({ made: 2 }) }) as object, usual)),
      fc.constant(Object.assign(Object.create(null) as object, usual)),
    );
    const loop = new Loop();
    for (let i = 0; i < 300; i++) loop.add([usual]);
    loop.texts();
    fc.assert(
      fc.property(fc.array(change, { maxLength: 4 }), (rows) => {
        loop.add([usual, ...rows, usual]);
        assert.deepEqual(loop.texts(), [expected([usual, ...rows, usual])]);
      }),
    );
    // Own properties of these are not what they stand for.
    const map = Object.assign(new Map([['in', 1]]), usual);
    loop.add([map]);
    assert.deepEqual(loop.texts(), ['[{"in":1}]']);
    assert.throws(() => loop.add([Object.assign([], usual)]), { code: 'unsupported_type' });
  }
});

test('short texts that come again and again are those that were given', () => {
  const texts = fc.string({
    unit: fc.constantFrom('a', 'b', '0', '\u0000', '\u0005', 'é', '€', '\ud800'),
    maxLength: 14,
  });
  const loop = new Loop();
  fc.assert(
    fc.property(fc.array(texts, { minLength: 1, maxLength: 40 }), (list) => {
      loop.add([{ list: [...list, ...list] }]);
      assert.deepEqual(loop.texts(), [expected([{ list: [...list, ...list] }])]);
    }),
  );
});

test('lone surrogates become U+FFFD wherever they stand', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'binary', maxLength: 80 }),
      fc.integer({ min: 0xd800, max: 0xdfff }),
      (text, unit) => {
        const broken = `${text}${String.fromCharCode(unit)}x`;
        const loop = new Loop();
        loop.add([{ [broken]: broken }]);
        const well = Buffer.from(broken).toString();
        assert.deepEqual(loop.texts(), [JSON.stringify([{ [well]: well }])]);
      },
    ),
  );
});

test('an error in a record leaves the records around it untouched, also when the chunk moved meanwhile', () => {
  const loop = new Loop();
  const large = { text: 'z'.repeat(300_000) };
  loop.add([{ before: 1 }]);
  assert.throws(() => loop.add([large, large, { bad: 1 }, 5]), { code: 'unsupported_type' });
  loop.add([{ after: 2 }]);
  assert.throws(() => loop.add([large], undefined, 1000), { code: 'queue_full' });
  loop.add([{ last: 3 }]);
  assert.deepEqual(loop.texts(), ['[{"before":1}]', '[{"after":2}]', '[{"last":3}]']);
});

test('collections in turn, each with its own keys in its own order, do not mix', () => {
  const loop = new Loop();
  const rows = (i: number): [object, object] => [
    { a: i, b: `${i}` },
    i % 3 === 0 ? { b: i, a: null } : { b: i, a: null, c: true },
  ];
  for (let i = 0; i < 700; i++) for (const [at, row] of rows(i).entries()) loop.add([row], undefined, undefined, at);
  assert.deepEqual(
    loop.texts(),
    Array.from({ length: 700 }, (_, i) => rows(i).map((row) => JSON.stringify([row]))).flat(),
  );
  assert.deepEqual(loop.envelopes, new Set([0, 1]));
});

test('ids, times and headers of a context survive', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'grapheme' }),
      fc.oneof(fc.double({ noNaN: true, noDefaultInfinity: true }), fc.string({ minLength: 1 })),
      fc.dictionary(fc.string(), fc.string()),
      (id, timestamp, headers) => {
        const context = new BasicCorrelationContext({ id, timestamp, headers });
        const loop = new Loop();
        loop.add([], context);
        loop.packer.flush();
        const [chunk] = loop.chunks;
        assert.ok(chunk);
        const head = new ChunkReader(chunk.chunk, chunk.bytes, new Map()).head(0);
        assert.equal(head.correlationId, Buffer.from(context.id).toString());
        assert.equal(head.time, context.timestamp);
        assert.deepEqual(Object.fromEntries(head.headers), { ...headers });
      },
    ),
  );
});
