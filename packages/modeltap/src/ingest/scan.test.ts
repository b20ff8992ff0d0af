import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import fc from 'fast-check';
import { renderScanModule } from '../../../../scripts/build-wasm.ts';
import { ENTRY_FLAG, ENTRY_WORDS, isFault, JsonScan, MAX_DEPTH, scanJson } from './scan.ts';

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function parses(text: Uint8Array): boolean {
  try {
    JSON.parse(decoder.decode(text));
    return true;
  } catch {
    return false;
  }
}

/** The scan of a text cut at these places. */
function inPieces(text: Buffer, cuts: readonly number[]) {
  const scan = new JsonScan();
  let from = 0;
  for (const cut of [...cuts, text.length]) {
    const fault = scan.feed(text.subarray(from, cut));
    if (fault) return fault;
    from = cut;
  }
  return scan.end();
}

/** The verdict must be JSON.parse's, and the same however the text is cut. */
function check(text: Buffer): void {
  const whole = scanJson(text);
  assert.equal(!isFault(whole), parses(text), `${JSON.stringify(text.toString())} ${JSON.stringify(whole)}`);
  const bytewise = inPieces(
    text,
    Array.from(text, (_, index) => index),
  );
  assert.deepEqual(bytewise, whole, text.toString());
}

const TEXTS = [
  ['', '1', '-', '-0', '01', '-01', '1.', '1.5', '1e', '1e5', '1e+', '1E-7', '.5', '+1', '0x1', 'NaN', 'tru', 'truex'],
  ['null', 'nul', 'true1', '"', '"a"', '"\\', '"\\u12', '"\\u12G4"', '"\\u1234"', '"\\ud800"', '"\\x"', '"a', "'a'"],
  ['[', '[]', '[1', '[1,', '[1,]', '[,1]', '[1,2]', '[1 2]', '[1}', '{', '{}', '{"a"', '{"a":', '{"a":1', '{"a":1,'],
  ['{"a":1,}', '{"a":1}', '{a:1}', '{1:1}', '{"a" 1}', '{"a":1]', ' [ 1 , 2 ]\n', '\t{ "a" : [ ] , "b":{ } }\r\n'],
  [
    '[1] x',
    '{} {}',
    '"\u0001"',
    '"\t"',
    '"\u007f"',
    '"\u2028"',
    '\uFEFF1',
    '[[[]]]',
    '1 ',
    '\n',
    '\0',
    '[1,\0]',
    '"\0"',
  ],
  [`"${'x'.repeat(40)}"`, `"${'x'.repeat(40)}`, '9'.repeat(60), `0.${'1'.repeat(60)}e10`, '"ä€😀"', '[1,2,3]]', '""""'],
].flat();

test('the scanner agrees with JSON.parse on every corner of the grammar, whole and byte by byte', () => {
  for (const text of TEXTS) check(Buffer.from(text));
});

test('the scanner agrees with JSON.parse on random documents, on damaged ones and on broken UTF-8', () => {
  const damaged = fc.tuple(fc.json({ maxDepth: 4 }), fc.nat(), fc.nat(255));
  fc.assert(
    fc.property(damaged, ([json, place, byte]) => {
      const text = Buffer.from(json);
      const at = place % (text.length || 1);
      const changed = Buffer.from(text);
      changed[at] = byte;
      for (const one of [text, changed, text.subarray(0, at)]) check(one);
      check(Buffer.concat([text.subarray(0, at), text.subarray(at + 1)]));
    }),
    { numRuns: 1000 },
  );
  const characters = fc.array(fc.constantFrom(...'{}[],:"\\u0123e+-.trufalsn \n\tx'.split(''), 'é', '€', '😀'), {
    maxLength: 12,
  });
  fc.assert(
    fc.property(characters, (list) => check(Buffer.from(list.join('')))),
    { numRuns: 8000 },
  );
});

test('UTF-8 is checked across pieces and the first bad byte is named', () => {
  const good = Buffer.from(`["${'é€😀'.repeat(5)}"]`);
  for (let cut = 0; cut <= good.length; cut += 1) assert.deepEqual(inPieces(good, [cut]), scanJson(good));
  for (const bad of [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xe2, 0x82]]) {
    const text = Buffer.concat([Buffer.from('["ab'), Buffer.from(bad), Buffer.from('"]')]);
    const fault = scanJson(text);
    assert.ok(isFault(fault) && fault.reason.includes('UTF-8'), JSON.stringify(fault));
    assert.ok(fault.offset >= 4 && fault.offset <= 4 + bad.length, String(fault.offset));
  }
});

test('rows, arrays, line breaks outside strings and characters to escape are reported', () => {
  const facts = (text: string) => scanJson(Buffer.from(text));
  const none = { array: false, rows: 1, lineBreaks: false, escapes: false };
  assert.deepEqual(facts('{"a":[1,2]}'), none);
  assert.deepEqual(facts('[]'), { ...none, array: true, rows: 0 });
  assert.deepEqual(facts('[ ]'), { ...none, array: true, rows: 0 });
  assert.deepEqual(facts('[{"a":[1,2],"b":{}},[3,[4]],5]'), { ...none, array: true, rows: 3 });
  assert.deepEqual(facts('[{},\n{}]\r\n'), { ...none, array: true, rows: 2, lineBreaks: true });
  assert.deepEqual(facts('"a\\nb"'), none);
  for (const mark of ['<', '>', '&']) {
    for (const before of [0, 7, 15, 16, 40]) {
      assert.deepEqual(facts(`"${'x'.repeat(before)}${mark}y"`), { ...none, escapes: true });
    }
  }
  assert.deepEqual(facts('"=?;:%\'"'), none);
});

test('nesting is accepted to the limit and refused beyond it', () => {
  const nested = (depth: number) => Buffer.from(`${'['.repeat(depth)}${']'.repeat(depth)}`);
  assert.ok(!isFault(scanJson(nested(MAX_DEPTH))));
  const fault = scanJson(nested(MAX_DEPTH + 1));
  assert.ok(isFault(fault));
  assert.deepEqual(fault, { offset: MAX_DEPTH, reason: 'nesting deeper than 512 levels' });
});

test('a text of several pieces counts offsets and rows over all of them', () => {
  const rows = Array.from({ length: 30_000 }, (_, index) => ({ index, name: `row ${index}` }));
  const text = Buffer.from(JSON.stringify(rows));
  assert.deepEqual(scanJson(text), { array: true, rows: 30_000, lineBreaks: false, escapes: false });
  const broken = Buffer.from(text);
  broken[900_000] = 0;
  const fault = scanJson(broken);
  assert.ok(isFault(fault));
  assert.equal(fault.offset, 900_000);
});

/** Spans of an event scan as text, so that they can be compared however the text was cut. */
function spans(text: Buffer, mode: 'event' | 'batch' | 'lines', cuts: readonly number[]) {
  const scan = new JsonScan(mode);
  let from = 0;
  for (const cut of [...cuts, text.length]) {
    if (scan.feed(text.subarray(from, cut))) break;
    from = cut;
  }
  const flagMask =
    ENTRY_FLAG.array | ENTRY_FLAG.lineBreaks | ENTRY_FLAG.escapes | ENTRY_FLAG.duplicate | ENTRY_FLAG.oddName;
  return scan.tables.flatMap(({ count, words, extras }) =>
    Array.from({ length: count }, (_, index) => {
      const entry = words.subarray(index * ENTRY_WORDS, (index + 1) * ENTRY_WORDS);
      const first = entry[10] ?? 0;
      const own = entry[11] ?? 0;
      return {
        text: text.toString('utf8', entry[0], entry[1]),
        flags: (entry[2] ?? 0) & flagMask,
        rows: entry[3],
        fault: [entry[6], entry[7]],
        members: Array.from({ length: 16 }, (_, m) => text.toString('utf8', entry[14 + 2 * m], entry[15 + 2 * m])),
        extras: Array.from(extras.subarray(first * 4, (first + own) * 4)),
      };
    }),
  );
}

const EVENT =
  '{"specversion":"1.0","id":"a-1","source":"/s","type":"t.x","datacontenttype":"application/json","time":"2024-01-02T03:04:05Z",' +
  '"data":[{"a":1,"b":"<x>"},{"c":[1,2]},\n3],"correlationid":"c","xrequestid":"c","modelversion":"m","collectdatatype":"d",' +
  '"agent":"g","sampledrate":2,"subject":"s","dataschema":"u","custom":true,"longer-than-any-known-attribute-name":"v"}';

test('the members of events are found wherever the text is cut', () => {
  const lines = `${EVENT.replace('\n', '')}\n{"id":1}\r\n\n${EVENT.replace('\n', '')}`;
  for (const [mode, text] of [
    ['event', EVENT],
    ['batch', ` [ ${EVENT} ,\n{"id":1,"x":[{"id":2}]},[{"id":3}],7 ] `],
    ['lines', lines],
  ] as const) {
    const bytes = Buffer.from(text);
    const whole = spans(bytes, mode, []);
    assert.equal(whole.length, { event: 1, batch: 4, lines: 3 }[mode]);
    const first = whole[0];
    assert.deepEqual(JSON.parse(first?.members[6] ?? ''), [{ a: 1, b: '<x>' }, { c: [1, 2] }, 3]);
    assert.deepEqual(first?.members[1], '"a-1"');
    assert.equal(first?.rows, 3);
    assert.equal((first?.flags ?? 0) & ENTRY_FLAG.escapes, ENTRY_FLAG.escapes);
    assert.equal(((first?.flags ?? 0) & ENTRY_FLAG.lineBreaks) !== 0, mode !== 'lines');
    for (let cut = 0; cut <= bytes.length; cut += 1)
      assert.deepEqual(spans(bytes, mode, [cut]), whole, `${mode} cut at ${cut}`);
    assert.deepEqual(
      spans(
        bytes,
        mode,
        Array.from(bytes, (_, index) => index),
      ),
      whole,
    );
  }
});

test('a bad line is one bad event and disturbs no other', () => {
  const bad = ['{"id":', '{"a":tru}', 'x', '[1]', '"s"', '{"a":"\u0001"}', '{"a":1}}', '{"id":"1" "b":2}', '{'];
  for (const line of bad) {
    for (const ending of ['\n', '\r\n']) {
      const text = Buffer.from(['{"id":"1"}', line, '{"id":"2"}', ''].join(ending));
      const found = spans(text, 'lines', []);
      const good = found.filter((event) => event.fault[0] === 0).map((event) => event.text);
      assert.ok(good.includes('{"id":"1"}') && good.includes('{"id":"2"}'), `${line} ${JSON.stringify(found)}`);
      assert.equal(found.filter((event) => event.fault[0] !== 0).length, 1, line);
      for (let cut = 0; cut <= text.length; cut += 1)
        assert.deepEqual(spans(text, 'lines', [cut]), found, `${line} ${cut}`);
    }
  }
});

test('more events than the table holds are all found', () => {
  for (const [mode, text] of [
    ['batch', `[${Array.from({ length: 5000 }, (_, id) => `{"id":"${id}","x":1}`).join(',')}]`],
    ['batch', `[${'1,'.repeat(4999)}1]`],
    ['lines', '{"id":"1"}\n'.repeat(5000)],
    ['lines', '{"id"}\n'.repeat(5000)],
    ['lines', '{\n'.repeat(5000)],
  ] as const) {
    assert.equal(spans(Buffer.from(text), mode, []).length, 5000, text.slice(0, 20));
  }
});

test('the committed module is a fresh build of the assembly source', async () => {
  const committed = await readFile(new URL('scan.wasm.ts', import.meta.url), 'utf8');
  assert.equal(committed, await renderScanModule());
});
