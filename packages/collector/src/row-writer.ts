import { TAG } from './format.ts';
import type { PlainObject, Writer } from './writer.ts';

/**
 * Writes a row of one shape, its tag and number included, and returns the position behind it. Returns `OTHER_ROW`, and
 * has written nothing, when the row is no plain object with exactly the keys of the shape in their order, or has `toJSON()`.
 */
export type RowWriter = (row: PlainObject, writer: Writer, pos: number) => number;

/** The row is not of the shape of the writer. */
export const OTHER_ROW = -1;

/** Keys a generated function handles; more would be too large for the optimizing compiler. */
const GROUP = 40;
/** Most keys that are worth generating code for. */
const MAX_KEYS = 400;

/**
 * A function that checks the keys of a row and reads them by name. Reading `row.a` in code made for the shape costs a
 * tenth of reading `row[key]` for a variable key, comparing with a known key two thirds of comparing with a variable one,
 * and these two are most of what `collect()` does. The only text that enters the code is the keys, as JSON string
 * literals. Undefined when the process forbids code from strings (`--disallow-code-generation-from-strings`) or the keys
 * are too many; the caller then reads by variable key.
 *
 * The code relies on `SLACK`: the head and a group of numbers take at most 5 and 9 bytes each, and every string leaves
 * that much room.
 */
export function compileRowWriter(id: number, keys: readonly string[], sample: PlainObject): RowWriter | undefined {
  if (keys.length > MAX_KEYS) return undefined;
  try {
    const [first, ...rest] = Array.from({ length: Math.ceil(keys.length / GROUP) }, (_, index) => {
      const group = keys.slice(index * GROUP, (index + 1) * GROUP);
      return compile((index === 0 ? checkCode(keys) : '') + START + (index === 0 ? headCode(id) : ''), group, sample);
    });
    if (first === undefined || rest.length === 0) return first;
    return (row, writer, at) => {
      let pos = first(row, writer, at);
      if (pos === OTHER_ROW) return OTHER_ROW;
      for (const group of rest) pos = group(row, writer, pos);
      return pos;
    };
  } catch {
    return undefined;
  }
}

const START = 'let v, n, p = at > w.soft ? w.room(at, 0) : at, b = w.bytes, d = w.view;\n';

/** `toJSON` is read first: the compiler then knows the layout of the row and needs no call for its prototype. */
function checkCode(keys: readonly string[]): string {
  const other = `return ${OTHER_ROW};`;
  const differs = keys.map((key, index) => `k[${index}] !== ${JSON.stringify(key)}`);
  return `if (typeof row.toJSON === 'function') ${other}
const o = Object.getPrototypeOf(row);
if (o !== Object.prototype && o !== null) ${other}
const k = Object.keys(row);
if (k.length !== ${keys.length} || ${differs.join(' || ')}) ${other}
`;
}

function headCode(id: number): string {
  return `b[p] = ${TAG.SHAPED}; d.setUint32(p + 1, ${id}, true); p += 5;\n`;
}

function compile(start: string, keys: readonly string[], sample: PlainObject): RowWriter {
  const lines = keys.map((key) => `v = row[${JSON.stringify(key)}];\n${valueCode(sample[key])}`);
  const body = `'use strict';\n${start}${lines.join('\n')}\nreturn p;`;
  // oxlint-disable-next-line typescript/no-implied-eval -- see above: keys enter as JSON string literals only.
  return new Function('row', 'w', 'at', body) as RowWriter;
}

/**
 * Writes `v` whatever it is, what the column had in the sample without a call. In a column of fractions whole numbers are
 * written as fractions too: looking for them would cost every row, and their text is the same. (`v | 0` is kept in a
 * variable so that `setInt32` is never given anything else: one other value, and V8 calls it instead of inlining it.)
 */
function valueCode(sample: unknown): string {
  const other = `{ p = typeof v === 'string' ? w.string(v, p) : w.value(v, p, 0); b = w.bytes; d = w.view; }`;
  switch (typeof sample) {
    case 'number':
      return Number.isInteger(sample)
        ? `if (typeof v === 'number' && (n = v | 0) === v) { b[p] = ${TAG.INT}; d.setInt32(p + 1, n, true); p += 5; } else ${other}`
        : `if (typeof v === 'number') { b[p] = ${TAG.DOUBLE}; d.setFloat64(p + 1, v, true); p += 9; } else ${other}`;
    case 'boolean':
      return `if (typeof v === 'boolean') { b[p] = v ? ${TAG.TRUE} : ${TAG.FALSE}; p += 1; } else ${other}`;
    default:
      return other;
  }
}
