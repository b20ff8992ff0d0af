import { types } from 'node:util';
import { CollectorError } from './errors.ts';
import { MAX_DEPTH, TAG } from './format.ts';

/** Size of the buffer records are packed into. Larger records get a larger one for themselves. */
export const CHUNK_BYTES = 524_288;
/** Room that every write leaves behind it, so that values of a fixed size need no check of their own. */
export const SLACK = 1024;
/** Strings up to this length are copied by a loop; a call into native code costs more than it saves. */
const SHORT_CHARS = 40;

/**
 * Strings up to this length are remembered with their bytes, because categories and labels repeat and comparing is
 * cheaper than copying unit by unit. V8 makes slices and concatenations this short as strings of their own, so the memo
 * never keeps a larger text alive.
 */
const MEMO_CHARS = 12;
const MEMO_WORDS = MEMO_CHARS / 4;
/** A power of two. */
const MEMO_SLOTS = 128;

/** An object whose keys are read by name. */
export type PlainObject = Record<string, unknown>;

/**
 * Writes values in the form of `format.ts` into a growing buffer. Every method takes the position to write at and
 * returns the position behind what it wrote: positions live in local variables because that is what makes this fast.
 * A position may move when the buffer is renewed, so nothing but the returned one is valid afterwards.
 */
export class Writer {
  bytes: Buffer = Buffer.alloc(0);
  view: DataView = new DataView(new ArrayBuffer(0));
  /** Positions behind this one need `room` first. */
  soft = 0;
  /** Where the open record begins; what lies before it is committed. */
  start = 0;
  /** Most bytes the open record may take. */
  budget = 0;
  /** The row being written, for errors. */
  row = 0;
  readonly #release: (committed: ArrayBuffer) => void;
  readonly #stack: object[] = [];
  readonly #memoTexts: string[] = Array.from({ length: MEMO_SLOTS }, () => '');
  readonly #memoWords = new Int32Array(MEMO_SLOTS * MEMO_WORDS);

  /** `release` is given a copy of the committed bytes when their place is needed. */
  constructor(release: (committed: ArrayBuffer) => void) {
    this.#release = release;
    this.renew();
  }

  /** Takes a fresh buffer of the usual size. */
  renew(): void {
    this.#use(new ArrayBuffer(CHUNK_BYTES));
  }

  /** Forgets objects kept for the search of cycles. */
  clear(): void {
    this.#stack.length = 0;
  }

  /** Makes room for `need` bytes and the slack behind `pos`; returns where `pos` is now. Throws `queue_full`. */
  room(pos: number, need: number): number {
    const used = pos - this.start;
    if (used + need > this.budget + SLACK) this.overBudget();
    if (this.start > 0) {
      this.#release((this.bytes.buffer as ArrayBuffer).slice(0, this.start));
      this.bytes.copyWithin(0, this.start, pos);
      this.start = 0;
    }
    const wanted = used + need + SLACK;
    if (wanted > this.bytes.length) {
      const old = this.bytes;
      this.#use(new ArrayBuffer(Math.max(old.length * 2, wanted)));
      old.copy(this.bytes, 0, 0, used);
    }
    return used;
  }

  overBudget(): never {
    throw new CollectorError('queue_full', { limit: `${this.budget} bytes are free` });
  }

  /** One byte. */
  tag(tag: number, pos: number): number {
    this.bytes[pos] = tag;
    return pos + 1;
  }

  /** A tag and a u32. Needs the slack. */
  counted(tag: number, count: number, pos: number): number {
    this.bytes[pos] = tag;
    this.view.setUint32(pos + 1, count, true);
    return pos + 5;
  }

  /** A number; NaN and the infinities become null. Needs the slack. */
  number(value: number, pos: number): number {
    const whole = value | 0;
    if (whole === value) {
      this.bytes[pos] = TAG.INT;
      this.view.setInt32(pos + 1, whole, true);
      return pos + 5;
    }
    if (value - value !== 0) return this.tag(TAG.NULL, pos);
    this.bytes[pos] = TAG.DOUBLE;
    this.view.setFloat64(pos + 1, value, true);
    return pos + 9;
  }

  /** A string, well formed: lone surrogates become U+FFFD. */
  string(text: string, at: number): number {
    const length = text.length;
    if (length > SHORT_CHARS) return this.#long(text, at);
    const pos = at > this.soft ? this.room(at, 0) : at;
    const slot = length > MEMO_CHARS || length === 0 ? -1 : memoSlot(text);
    if (slot >= 0 && this.#memoTexts[slot] === text) return this.#repeated(slot, length, pos);
    const end = this.#ascii(text, pos);
    if (end < 0) return this.#long(text, pos);
    if (slot >= 0) this.#remember(slot, text, pos + 2);
    return end;
  }

  /** Any value; `depth` is 0 for a cell of a row. */
  value(value: unknown, at: number, depth: number): number {
    const pos = at > this.soft ? this.room(at, 0) : at;
    switch (typeof value) {
      case 'number':
        return this.number(value, pos);
      case 'string':
        return this.string(value, pos);
      case 'boolean':
        return this.tag(value ? TAG.TRUE : TAG.FALSE, pos);
      case 'bigint':
        return this.#bigint(value, pos);
      case 'object':
        return value === null ? this.tag(TAG.NULL, pos) : this.#object(value, pos, depth + 1);
      default:
        return this.tag(TAG.NULL, pos);
    }
  }

  /** An object whose keys are written with it. */
  entries(value: PlainObject, keys: readonly string[], at: number, depth: number): number {
    let pos = this.tag(TAG.OBJECT, at);
    for (const key of keys) {
      pos = this.string(key, pos);
      pos = this.value(value[key], pos, depth);
    }
    if (pos > this.soft) pos = this.room(pos, 0);
    return this.tag(TAG.END, pos);
  }

  #use(buffer: ArrayBuffer): void {
    this.bytes = Buffer.from(buffer);
    this.view = new DataView(buffer);
    this.soft = buffer.byteLength - SLACK;
  }

  /** A short ASCII string; -1 when it is not ASCII. */
  #ascii(text: string, at: number): number {
    const length = text.length;
    const bytes = this.bytes;
    bytes[at] = TAG.SHORT;
    bytes[at + 1] = length;
    let pos = at + 2;
    for (let i = 0; i < length; i++) {
      const unit = text.charCodeAt(i);
      if (unit > 0x7f) return -1;
      bytes[pos++] = unit;
    }
    return pos;
  }

  /** A string of the memo: three words in place of a loop. What they hold behind the end is written over. */
  #repeated(slot: number, length: number, pos: number): number {
    const view = this.view;
    const words = this.#memoWords;
    const from = slot * MEMO_WORDS;
    view.setUint16(pos, TAG.SHORT | (length << 8), true);
    view.setInt32(pos + 2, words[from] as number, true);
    view.setInt32(pos + 6, words[from + 1] as number, true);
    view.setInt32(pos + 10, words[from + 2] as number, true);
    return pos + 2 + length;
  }

  /** Puts a text whose bytes begin at `from` into the memo. */
  #remember(slot: number, text: string, from: number): void {
    this.#memoTexts[slot] = text;
    for (let i = 0; i < MEMO_WORDS; i++) {
      this.#memoWords[slot * MEMO_WORDS + i] = this.view.getInt32(from + 4 * i, true);
    }
  }

  #long(text: string, at: number): number {
    let pos = at;
    if (pos + 5 + text.length * 3 > this.soft) pos = this.room(pos, 5 + Buffer.byteLength(text));
    // Writing as UTF-8 replaces lone surrogates by U+FFFD, so what is stored is always well formed.
    const length = this.bytes.write(text, pos + 5, 'utf8');
    return this.counted(TAG.LONG, length, pos) + length;
  }

  #bigint(value: bigint, pos: number): number {
    if (BigInt.asIntN(64, value) !== value) return this.#digits(value.toString(), pos);
    this.bytes[pos] = TAG.BIGINT;
    this.view.setBigInt64(pos + 1, value, true);
    return pos + 9;
  }

  #digits(text: string, at: number): number {
    const pos = at + 5 + text.length > this.soft ? this.room(at, 5 + text.length) : at;
    this.bytes.write(text, pos + 5, 'latin1');
    return this.counted(TAG.DIGITS, text.length, pos) + text.length;
  }

  #object(value: object, pos: number, depth: number): number {
    if (depth > MAX_DEPTH) this.#tooDeep(value);
    this.#stack[depth] = value;
    if (Array.isArray(value)) return this.#array(value, pos, depth);
    if (!isPlain(value)) {
      if (types.isDate(value)) return this.number(value.getTime(), pos);
      if (value instanceof Digits) return this.#digits(value.text, pos);
      if (ArrayBuffer.isView(value)) return this.#array(elements(value), pos, depth);
      if (types.isAnyArrayBuffer(value)) return this.#array(new Uint8Array(value), pos, depth);
      if (types.isSet(value)) return this.#array([...value], pos, depth);
      if (types.isMap(value)) return this.value(Object.fromEntries(value), pos, depth);
      if (types.isBoxedPrimitive(value)) return this.value(value.valueOf(), pos, depth);
    }
    const given = value as PlainObject;
    const made = jsonForm(given);
    return made === given ? this.entries(given, Object.keys(given), pos, depth) : this.value(made, pos, depth);
  }

  #array(values: ArrayLike<unknown>, at: number, depth: number): number {
    const count = values.length;
    let pos = this.counted(TAG.ARRAY, count, at);
    for (let i = 0; i < count; i++) pos = this.value(values[i], pos, depth);
    return pos;
  }

  #tooDeep(value: object): never {
    const code = this.#stack.indexOf(value) > 0 ? 'cyclic_value' : 'nested_too_deep';
    throw new CollectorError(code, { row: this.row, limit: MAX_DEPTH });
  }
}

/** Where the memo would hold a text: categories of a column differ at their ends, columns in length and beginning. */
function memoSlot(text: string): number {
  const last = text.length - 1;
  return (text.charCodeAt(0) * 5 + text.charCodeAt(last) + last) & (MEMO_SLOTS - 1);
}

/** A value that is the text of a JSON number, for numbers a JavaScript number cannot hold. */
export class Digits {
  readonly text: string;

  /** `text` must be a JSON number; it is written as it is. */
  constructor(text: string) {
    this.text = text;
  }
}

/** True for `{…}` and `Object.create(null)` of this realm. */
export function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** What `toJSON()` of a value gives, or the value itself when it has none. */
export function jsonForm(value: PlainObject): unknown {
  const toJson = value['toJSON'];
  return typeof toJson === 'function' ? (toJson as (key: string) => unknown).call(value, '') : value;
}

function elements(view: ArrayBufferView): ArrayLike<unknown> {
  if (view instanceof DataView) return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  return view as unknown as ArrayLike<unknown>;
}
