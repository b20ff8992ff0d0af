import { TAG } from './format.ts';
import type { PlainObject, Writer } from './writer.ts';

/** Writes the values of one row under known keys; returns the position behind them. */
export type RowWriter = (row: PlainObject, writer: Writer, pos: number) => number;

/** Keys a generated function handles; more would be too large for the optimizing compiler. */
const GROUP = 40;
/** Most keys that are worth generating code for. */
const MAX_KEYS = 400;

/**
 * A function that reads the given keys by name. Reading `row.a` in code made for the shape costs a tenth of reading
 * `row[key]` for a variable key, and that reading is most of what `collect()` does. The only text that enters the code
 * is the keys, as JSON string literals. Undefined when the process forbids code from strings
 * (`--disallow-code-generation-from-strings`) or the keys are too many; the caller then reads by variable key.
 *
 * The code relies on `SLACK`: a group of numbers takes at most 9 bytes each, and every string leaves that much room.
 */
export function compileRowWriter(keys: readonly string[]): RowWriter | undefined {
  if (keys.length > MAX_KEYS) return undefined;
  try {
    const groups: RowWriter[] = [];
    for (let from = 0; from < keys.length; from += GROUP) groups.push(compileGroup(keys.slice(from, from + GROUP)));
    const [only] = groups;
    if (only !== undefined && groups.length === 1) return only;
    return (row, writer, at) => {
      let pos = at;
      for (const group of groups) pos = group(row, writer, pos);
      return pos;
    };
  } catch {
    return undefined;
  }
}

function compileGroup(keys: readonly string[]): RowWriter {
  const lines = keys.map(
    (key) => `v = row[${JSON.stringify(key)}];
if (typeof v === 'number') {
  if ((v | 0) === v) { b[p] = ${TAG.INT}; d.setInt32(p + 1, v, true); p += 5; }
  else if (v - v !== 0) { b[p] = ${TAG.NULL}; p += 1; }
  else { b[p] = ${TAG.DOUBLE}; d.setFloat64(p + 1, v, true); p += 9; }
} else {
  p = typeof v === 'string' ? w.string(v, p) : w.value(v, p, 0);
  b = w.bytes; d = w.view;
}`,
  );
  const start = 'let v, p = at > w.soft ? w.room(at, 0) : at, b = w.bytes, d = w.view;';
  const body = `'use strict';\n${start}\n${lines.join('\n')}\nreturn p;`;
  // oxlint-disable-next-line typescript/no-implied-eval -- see above: keys enter as JSON string literals only.
  return new Function('row', 'w', 'at', body) as RowWriter;
}
