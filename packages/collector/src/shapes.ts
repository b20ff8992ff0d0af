import { compileRowWriter, type RowWriter } from './row-writer.ts';
import type { PlainObject } from './writer.ts';

const MAX_SHAPES = 256;
const MAX_KEYS = 2000;
const MAX_KEY_CHARS = 1_048_576;
const SEPARATOR = '\u0000';
/** Rows of a shape before code is generated for it. */
const WARM_ROWS = 200;

/** A list of keys that rows share, in order. Both threads know it by number, so a row is only its values. */
export class Shape {
  readonly id: number;
  readonly keys: readonly string[];
  /** Generated code for the rows; undefined while the shape is new or when there is none. */
  write: RowWriter | undefined;
  #rows = 0;

  constructor(id: number, keys: readonly string[]) {
    this.id = id;
    this.keys = keys;
  }

  /**
   * True when a row with these own keys is of this shape. (`for…in` instead of `Object.keys` would save a few percent on
   * the objects JSON.parse makes, but costs twice as much on those built by `row[key] = value`.)
   */
  fits(row: PlainObject, keys: readonly string[]): boolean {
    if (!sameKeys(keys, this.keys)) return false;
    if (++this.#rows === WARM_ROWS) this.write = compileRowWriter(this.id, this.keys, row);
    return true;
  }
}

function sameKeys(keys: readonly string[], known: readonly string[]): boolean {
  const count = keys.length;
  if (count !== known.length) return false;
  for (let i = 0; i < count; i++) if (keys[i] !== known[i]) return false;
  return true;
}

/** The shape of a row without keys; both threads know it without being told. */
export const EMPTY_SHAPE = new Shape(0, []);

/**
 * The shapes seen so far. Bounded (256 shapes, 2000 keys each, 1 Mi characters in all): data whose keys never repeat
 * goes without shapes instead of filling the memory of both threads.
 */
export class ShapeTable {
  readonly #byKeys = new Map<string, Shape>();
  #fresh: Shape[] = [];
  #chars = 0;

  /** The shape with exactly these keys, made when it is new; undefined when the table is full. */
  find(keys: readonly string[]): Shape | undefined {
    if (keys.length === 0) return EMPTY_SHAPE;
    if (keys.length > MAX_KEYS) return undefined;
    const joined = keys.join(SEPARATOR);
    const known = this.#byKeys.get(joined);
    // A key may hold the separator, so equal joined text is not yet equal keys.
    if (known) return known.keys.length === keys.length ? known : undefined;
    if (this.#byKeys.size >= MAX_SHAPES || this.#chars + joined.length > MAX_KEY_CHARS) return undefined;
    const shape = new Shape(this.#byKeys.size + 1, [...keys]);
    this.#byKeys.set(joined, shape);
    this.#chars += joined.length;
    this.#fresh.push(shape);
    return shape;
  }

  /** The shapes made since the last call, as the other thread wants them: it does not know them yet. */
  takeFresh(): readonly ShapeDefinition[] {
    if (this.#fresh.length === 0) return NONE;
    const fresh = this.#fresh.map(({ id, keys }) => ({ id, keys }));
    this.#fresh = [];
    return fresh;
  }

  /** All shapes count as unknown to the other thread again (it was replaced). */
  forgetSent(): void {
    this.#fresh = [...this.#byKeys.values()];
  }
}

/** A shape as it is sent to the other thread. */
export interface ShapeDefinition {
  readonly id: number;
  readonly keys: readonly string[];
}

const NONE: readonly ShapeDefinition[] = [];
