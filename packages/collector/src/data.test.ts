import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';
import vm from 'node:vm';
import { TestAgent } from './agent.test.support.ts';
import { Collector, CollectorError } from './index.ts';

let agent: TestAgent;
let collector: Collector;
before(async () => {
  agent = await TestAgent.start();
  collector = new Collector({ name: 'model_inputs', enabled: true, port: agent.port });
});
after(() => agent.close());

/** Collects and gives the bytes of `data` as the agent received them. */
async function wire(data: unknown): Promise<string> {
  collector.collect(data);
  const { pending } = await collector.flush();
  assert.equal(pending, 0);
  return agent.lastData();
}

function refused(data: unknown, code: string, text: RegExp): void {
  assert.throws(
    () => collector.collect(data),
    (error) => error instanceof CollectorError && error.code === code && text.test(error.message),
  );
}

test('values are written as JSON.stringify writes them, with the documented replacements', async () => {
  const row = { i: 1, z: -0, f: 0.1 + 0.2, e: 1e21, s: 'x', t: true, o: { a: [1, { b: null }] } };
  assert.equal(await wire([row]), JSON.stringify([row]));
  assert.equal(
    await wire([{ a: Number.NaN, b: Number.POSITIVE_INFINITY, c: undefined, d: null, f: () => 1, g: Symbol('x') }]),
    '[{"a":null,"b":null,"c":null,"d":null,"f":null,"g":null}]',
  );
});

test('strings are escaped like JSON.stringify and are well formed', async () => {
  const texts = ['"\\/\b\f\n\r\t\u0001\u001f\u007f', 'é€😀', '</script>&', '\u2028', 'x'.repeat(300), 'ü'.repeat(40)];
  assert.equal(await wire(texts.map((a) => ({ a }))), JSON.stringify(texts.map((a) => ({ a }))));
  assert.equal(await wire([{ a: 'a\ud800b', '\udc00k': 1 }]), '[{"a":"a\ufffdb","\ufffdk":1}]');
});

test('integers keep all their digits', async () => {
  const row = { a: 2n ** 63n - 1n, b: -(2n ** 63n), c: 2n ** 64n - 1n, d: 10n ** 30n, e: 0n };
  assert.equal(
    await wire([row]),
    '[{"a":9223372036854775807,"b":-9223372036854775808,"c":18446744073709551615,"d":1000000000000000000000000000000,"e":0}]',
  );
});

test('dates are epoch milliseconds and an invalid date is null', async () => {
  assert.equal(
    await wire([{ a: new Date(1_700_000_000_123), b: new Date('x'), c: new Date(-1) }]),
    '[{"a":1700000000123,"b":null,"c":-1}]',
  );
});

test('maps, sets, typed arrays, boxed values, classes and toJSON become plain JSON', async () => {
  class Point {
    x = 1;
    #y = 2;
    get y(): number {
      return this.#y;
    }
  }
  const row = {
    map: new Map<unknown, unknown>([
      ['k', 1],
      [2, new Date(3)],
    ]),
    set: new Set([1, 'a']),
    floats: new Float32Array([0.5, 0.1]),
    longs: new BigInt64Array([9007199254740993n]),
    bytes: Buffer.from([1, 255]),
    view: new DataView(new ArrayBuffer(2)),
    buffer: new Uint8Array([7]).buffer,
    boxed: [Object(1), Object('s'), Object(true), Object(5n)],
    point: new Point(),
    url: new URL('http://a/'),
    holes: Object.assign([1], { 2: 3 }),
  };
  assert.equal(
    await wire([row]),
    '[{"map":{"2":3,"k":1},"set":[1,"a"],"floats":[0.5,0.10000000149011612],"longs":[9007199254740993],' +
      '"bytes":[1,255],"view":[0,0],"buffer":[7],"boxed":[1,"s",true,5],"point":{"x":1},"url":"http://a/",' +
      '"holes":[1,null,3]}]',
  );
});

test('rows may be maps, objects of a class, objects with toJSON, and differ in their keys', async () => {
  class Row {
    a = 1;
  }
  const rows = [
    new Row(),
    new Map([['b', 2]]),
    { toJSON: () => ({ c: 3 }) },
    {},
    { d: 4 },
    Object.create(null) as object,
  ];
  assert.equal(await wire(rows), '[{"a":1},{"b":2},{"c":3},{},{"d":4},{}]');
});

test('columns become rows, arrays and typed arrays alike', async () => {
  const columns = {
    a: [1, 2],
    b: new Float64Array([0.5, Number.NaN]),
    c: ['x', null],
    d: new BigUint64Array([2n ** 64n - 1n, 0n]),
  };
  assert.equal(
    await wire(columns),
    '[{"a":1,"b":0.5,"c":"x","d":18446744073709551615},{"a":2,"b":null,"c":null,"d":0}]',
  );
});

test('empty data is an empty array', async () => {
  for (const empty of [[], {}, { a: [], b: new Int8Array(0) }]) assert.equal(await wire(empty), '[]');
});

test('objects of another realm are taken like our own', async () => {
  assert.equal(await wire(vm.runInNewContext('[{ a: new Date(5), m: new Map([["k", 1]]) }]')), '[{"a":5,"m":{"k":1}}]');
  assert.equal(await wire(vm.runInNewContext('({ a: [1, 2] })')), '[{"a":1},{"a":2}]');
});

test('keys named like parts of objects are only keys', async () => {
  const row = JSON.parse('{"__proto__":1,"constructor":2,"toString":3,"1":4,"a\\u0000b":5,"\\"q":6}') as object;
  for (let i = 0; i < 300; i++) collector.collect([row]);
  assert.equal(await wire([row]), JSON.stringify([row]));
});

test('rows of the same shape are written the same before and after code is generated for them', async () => {
  const rows = Array.from({ length: 500 }, (_, i) => ({
    n: i % 3 === 0 ? null : i / 7,
    s: `é${i}`,
    b: i % 2 === 0,
    l: [i],
    w: i,
  }));
  const wide = Object.fromEntries(Array.from({ length: 150 }, (_, i) => [`k${i}`, i % 2 === 0 ? i / 3 : `v${i}`]));
  const many = Array.from({ length: 300 }, () => wide);
  assert.equal(await wire(rows), JSON.stringify(rows));
  assert.equal(await wire(many), JSON.stringify(many));
});

test('mutating the data after collect changes nothing', async () => {
  const rows = [{ a: 1, nested: { list: [1, 2], text: 'before' } }];
  collector.collect(rows);
  const [row] = rows;
  if (row !== undefined) {
    row.a = 2;
    row.nested.list.push(3);
    row.nested.text = 'after';
  }
  rows.push({ a: 9, nested: { list: [], text: '' } });
  await collector.flush();
  assert.equal(agent.lastData(), '[{"a":1,"nested":{"list":[1,2],"text":"before"}}]');
});

test('a record larger than a chunk arrives whole, also behind smaller ones', async () => {
  const rows = Array.from({ length: 9000 }, (_, i) => ({ i, text: 'y'.repeat(100) }));
  collector.collect([{ first: true }]);
  assert.equal(await wire(rows), JSON.stringify(rows));
  assert.equal(await wire([{ text: 'ß'.repeat(1_000_000) }]), JSON.stringify([{ text: 'ß'.repeat(1_000_000) }]));
});

test('data whose keys never repeat does not fill the table of shapes and is still written', async () => {
  const rows = Array.from({ length: 600 }, (_, i) => ({ [`key${i}`]: i, both: 'x' }));
  assert.equal(await wire(rows), JSON.stringify(rows));
});

test('anything else is refused with the type named', () => {
  for (const [data, name] of [
    [1, 'number'],
    ['text', 'string'],
    [null, 'null'],
    [undefined, 'undefined'],
    [new Date(), 'Date'],
    [new Map(), 'Map'],
    [new Float64Array(2), 'Float64Array'],
    [[1, 2], 'array with number at index 0'],
    [[{ a: 1 }, [1]], 'array with Array at index 1'],
    [[{ a: 1 }, null], 'array with null at index 1'],
    [{ a: 1 }, 'object whose "a" is number, no column'],
    [{ a: [1], b: 'xy' }, 'object whose "b" is string, no column'],
  ] as const) {
    refused(data, 'unsupported_type', new RegExp(name.replaceAll('(', '\\(')));
  }
});

test('columns of different lengths are refused with the lengths named', () => {
  refused({ a: [1, 2], b: [1] }, 'uneven_columns', /a 2, b 1/);
});

test('a value that contains itself and one nested too deeply are refused and leave nothing behind', async () => {
  const cyclic: Record<string, unknown> = { a: 1 };
  cyclic['self'] = { list: [cyclic] };
  refused([{ ok: 1 }, cyclic], 'cyclic_value', /row 1/);
  const map = new Map<string, unknown>();
  map.set('m', map);
  refused([{ map }], 'cyclic_value', /row 0/);
  let deep: unknown = 1;
  for (let i = 0; i < 200; i++) deep = [deep];
  refused([{ deep }], 'nested_too_deep', /100 levels/);
  const shared = { x: 1 };
  assert.equal(await wire([{ a: shared, b: [shared, shared] }]), '[{"a":{"x":1},"b":[{"x":1},{"x":1}]}]');
});

test('a getter or toJSON that throws is reported with its cause, and collect inside collect is refused', async () => {
  const boom = new Error('boom');
  const throwing = {
    get a(): number {
      throw boom;
    },
  };
  assert.throws(
    () => collector.collect([throwing]),
    (error) => error instanceof CollectorError && error.code === 'data_unreadable' && error.cause === boom,
  );
  refused([{ toJSON: () => collector.collect([{ inner: 1 }]) }], 'nested_collect', /another collect/);
  assert.equal(await wire([{ fine: 1 }]), '[{"fine":1}]');
});

test('an apache-arrow table keeps digits, nulls and nested values and gives times in milliseconds', async () => {
  const a = await import('apache-arrow');
  const table = new a.Table({
    i: a.vectorFromArray([1, null], new a.Int32()),
    l: a.vectorFromArray([9007199254740993n, -1n], new a.Int64()),
    us: a.vectorFromArray([1.5, 2], new a.TimestampMicrosecond()),
    s: a.vectorFromArray([1000, null], new a.TimestampSecond()),
    d: a.vectorFromArray([new Date(0), new Date(86_400_000)], new a.DateDay()),
    c: a.vectorFromArray(['x', 'y'], new a.Dictionary(new a.Utf8(), new a.Int32())),
    h: a.vectorFromArray([0.5, 1], new a.Float16()),
    n: a.vectorFromArray([0.25, Number.NaN], new a.Float64()),
    st: a.vectorFromArray(
      [{ at: 7.5, y: 'q' }, null],
      new a.Struct<{ at: InstanceType<typeof a.TimestampMicrosecond>; y: InstanceType<typeof a.Utf8> }>([
        new a.Field('at', new a.TimestampMicrosecond()),
        new a.Field('y', new a.Utf8()),
      ]),
    ),
    li: a.vectorFromArray([[1, 2], []], new a.List(new a.Field('item', new a.Float64()))),
  });
  const first =
    '{"i":1,"l":9007199254740993,"us":1,"s":1000,"d":0,"c":"x","h":0.5,"n":0.25,"st":{"at":7,"y":"q"},"li":[1,2]}';
  const second = '{"i":null,"l":-1,"us":2,"s":null,"d":86400000,"c":"y","h":1,"n":null,"st":null,"li":[]}';
  assert.equal(await wire(table), `[${first},${second}]`);
  assert.equal(agent.events.at(-1)?.['collectdatatype'], 'apache-arrow.Table');
  assert.equal(await wire(table.slice(1, 2)), `[${second}]`);
  assert.equal(await wire(table.slice(0, 0)), '[]');
});

test('decimals and durations of an apache-arrow table keep all their digits', async () => {
  const a = await import('apache-arrow');
  const words = (value: bigint) =>
    Array.from({ length: 4 }, (_, i) => Number(BigInt.asUintN(32, value >> BigInt(32 * i))));
  const vector = a.makeVector(
    a.makeData({
      type: new a.Decimal(2, 20, 128),
      data: Uint32Array.from([...words(110n), ...words(-5n), ...words(12345678901234567890n)]),
    }),
  );
  const waits = a.makeVector(a.makeData({ type: new a.DurationSecond(), data: BigInt64Array.from([2n, -1n, 0n]) }));
  assert.equal(
    await wire(new a.Table({ d: vector, w: waits })),
    '[{"d":1.10,"w":2000},{"d":-0.05,"w":-1000},{"d":123456789012345678.90,"w":0}]',
  );
});

test('an arquero table is read through its filter and in its order', async () => {
  const { table, desc } = await import('arquero');
  const all = table({ a: [1, 2, 3], b: ['x', null, 'z'], d: [new Date(0), 1n, Number.NaN] });
  assert.equal(
    await wire(all.filter((row: { a: number }) => row.a > 1).orderby(desc('a'))),
    '[{"a":3,"b":"z","d":null},{"a":2,"b":null,"d":1}]',
  );
  assert.equal(agent.events.at(-1)?.['collectdatatype'], 'arquero.Table');
  assert.equal(await wire(all.slice(0, 0)), '[]');
});

/** npm on Node 20 leaves the binary of nodejs-polars out, because it asks for Node 22; `npm run test:polars` fetches it. */
function loadPolars(): typeof import('nodejs-polars').default | undefined {
  try {
    return createRequire(import.meta.url)('nodejs-polars') as typeof import('nodejs-polars').default;
  } catch {
    return undefined;
  }
}

const polars = loadPolars();
const withoutPolars = polars === undefined && 'nodejs-polars cannot be loaded here; npm run test:polars has it';

test('a nodejs-polars frame keeps int64 digits and dates', { skip: withoutPolars }, async () => {
  assert.ok(polars);
  const pl = polars;
  const frame = pl
    .DataFrame({
      u: pl.Series('u', [9007199254740993n, 2n], pl.UInt64),
      f: [1.5, Number.NaN],
      s: ['x', null],
      t: [new Date(1000), null],
      l: [[1, 2], [3]],
    })
    .withColumns(pl.col('u').cast(pl.Int64).alias('i'));
  assert.equal(
    await wire(frame),
    '[{"u":9007199254740993,"f":1.5,"s":"x","t":1000,"l":[1,2],"i":9007199254740993},' +
      '{"u":2,"f":null,"s":null,"t":null,"l":[3],"i":2}]',
  );
  assert.equal(agent.events.at(-1)?.['collectdatatype'], 'nodejs-polars.DataFrame');
  assert.equal(await wire(pl.DataFrame({ a: [] })), '[]');
});

test('a danfojs frame is recognised by its documented shape', async () => {
  class DataFrame {
    readonly #rows: unknown[][];
    readonly columns = ['a', 'b'];
    constructor(rows: unknown[][]) {
      this.#rows = rows;
    }
    get values(): unknown[][] {
      return this.#rows;
    }
    get shape(): number[] {
      return [this.#rows.length, 2];
    }
  }
  assert.equal(
    await wire(
      new DataFrame([
        [1, 'x'],
        [Number.NaN, null],
      ]),
    ),
    '[{"a":1,"b":"x"},{"a":null,"b":null}]',
  );
  assert.equal(agent.events.at(-1)?.['collectdatatype'], 'danfojs.DataFrame');
  assert.equal(
    await wire({ columns: ['p', 'q'], values: [1, 2] }),
    '[{"columns":"p","values":1},{"columns":"q","values":2}]',
  );
});
