import { types } from 'node:util';
import { BasicCorrelationContext, type CorrelationContext } from './context.ts';
import { CollectorError } from './errors.ts';
import { FLAG_HEADERS, FLAG_UUID, RECORD_HEAD, TAG } from './format.ts';
import { OTHER_ROW } from './row-writer.ts';
import { EMPTY_SHAPE, type Shape, type ShapeTable } from './shapes.ts';
import { CHUNK_BYTES, isPlain, jsonForm, type PlainObject, Writer } from './writer.ts';

/** A chunk of this size is handed over at once, so that a usual record always finds room behind it. */
const FULL_BYTES = 196_608;

/** Columns of equal length, each an array or a typed array. */
export interface Columns {
  readonly names: readonly string[];
  readonly columns: readonly ArrayLike<unknown>[];
  readonly rows: number;
}

/** Takes a packed chunk: `bytes` of the buffer, which belongs to the receiver. */
export type ChunkSink = (chunk: ArrayBuffer, bytes: number, records: number) => void;

/**
 * Packs records into chunks (see `format.ts`). One record at a time: `begin`, then `rows` or `columns`, then `commit`,
 * or `abort` after an error, which leaves no trace. Everything is copied, so later changes of the data do not matter.
 */
export class Packer {
  readonly #shapes: ShapeTable;
  readonly #sink: ChunkSink;
  readonly #writer: Writer;
  #pos = 0;
  #records = 0;
  #envelope = 0;
  /** The shape of the row before, by envelope: inputs and outputs come in turn and differ in their keys. */
  readonly #last: Shape[] = [];
  #shape: Shape = EMPTY_SHAPE;

  constructor(shapes: ShapeTable, sink: ChunkSink) {
    this.#shapes = shapes;
    this.#sink = sink;
    this.#writer = new Writer((committed) => {
      const records = this.#records;
      this.#records = 0;
      this.#sink(committed, committed.byteLength, records);
    });
  }

  /** Committed records that are not handed over yet. */
  get waiting(): number {
    return this.#records;
  }

  /** Opens a record that may take at most `budget` bytes. */
  begin(envelope: number, dataType: number, context: CorrelationContext, budget: number): void {
    const writer = this.#writer;
    this.#envelope = envelope;
    this.#shape = this.#last[envelope] ?? EMPTY_SHAPE;
    writer.budget = budget;
    writer.row = 0;
    let pos = writer.start;
    if (pos > writer.soft) pos = writer.room(pos, 0);
    // Envelope, data type and no flags.
    writer.view.setUint32(pos + 4, envelope | (dataType << 16), true);
    this.#pos = BasicCorrelationContext.is(context) ? this.#basic(context, pos) : this.#foreign(context, pos);
  }

  /** The body: an array of row objects. Throws `unsupported_type` when an element is not an object. */
  rows(data: readonly unknown[]): void {
    const writer = this.#writer;
    const count = data.length;
    let pos = this.#count(count);
    for (let row = 0; row < count; row++) {
      writer.row = row;
      if (pos > writer.soft) pos = writer.room(pos, 0);
      pos = this.#row(data[row], pos);
    }
    this.#pos = pos;
  }

  /** The body: columns, written row by row. */
  columns(data: Columns): void {
    const { names, columns, rows } = data;
    const writer = this.#writer;
    const shape = this.#shapes.find(names);
    let pos = this.#count(rows);
    for (let row = 0; row < rows; row++) {
      writer.row = row;
      if (pos > writer.soft) pos = writer.room(pos, 0);
      pos = shape === undefined ? writer.tag(TAG.OBJECT, pos) : writer.counted(TAG.SHAPED, shape.id, pos);
      for (let i = 0; i < columns.length; i++) {
        if (shape === undefined) pos = writer.string(names[i] as string, pos);
        pos = writer.value((columns[i] as ArrayLike<unknown>)[row], pos, 0);
      }
      if (shape === undefined) pos = writer.tag(TAG.END, pos);
    }
    this.#pos = pos;
  }

  /** Closes the record; returns its bytes. Throws `queue_full` when it is larger than the budget. */
  commit(): number {
    const writer = this.#writer;
    const length = this.#pos - writer.start;
    if (length > writer.budget) writer.overBudget();
    writer.view.setUint32(writer.start, length, true);
    writer.start = this.#pos;
    this.#records++;
    return length;
  }

  /** Time to `flush`. */
  get full(): boolean {
    return this.#writer.start >= FULL_BYTES;
  }

  /** Forgets the open record. */
  abort(): void {
    const writer = this.#writer;
    this.#pos = writer.start;
    writer.clear();
    if (writer.bytes.length > CHUNK_BYTES && writer.start === 0) writer.renew();
  }

  /** Hands over what is committed. */
  flush(): void {
    const records = this.#records;
    if (records === 0) return;
    const writer = this.#writer;
    const end = writer.start;
    const buffer = writer.bytes.buffer as ArrayBuffer;
    this.#records = 0;
    writer.start = 0;
    this.#pos = 0;
    if (buffer.byteLength > CHUNK_BYTES) writer.renew();
    // Usually a copy of the right size: the buffer itself stays warm, and waiting chunks hold no unused memory.
    const whole = buffer.byteLength > CHUNK_BYTES && end * 2 > buffer.byteLength;
    this.#sink(whole ? buffer : copyOf(buffer, end), end, records);
  }

  #basic(context: BasicCorrelationContext, at: number): number {
    const writer = this.#writer;
    let pos = at + RECORD_HEAD;
    if (BasicCorrelationContext.writeUuid(context, writer.view, pos)) {
      writer.bytes[at + 7] = FLAG_UUID;
      pos += 16;
    } else {
      pos = writer.string(context.id, pos);
    }
    pos = this.#time(context.timestamp, pos);
    const headers = BasicCorrelationContext.headersOf(context);
    return headers === undefined ? pos : this.#headers(headers, pos);
  }

  #foreign(context: CorrelationContext, at: number): number {
    const pos = this.#time(context.getTimestamp(), this.#writer.value(idText(context), at + RECORD_HEAD, 0));
    const headers: unknown = context.getHeaders();
    return typeof headers === 'object' && headers !== null ? this.#headers(headers, pos) : pos;
  }

  #time(time: unknown, at: number): number {
    const writer = this.#writer;
    if (typeof time !== 'number') {
      return writer.string(types.isDate(time) ? String(time.getTime() / 1000) : String(time), at);
    }
    const pos = at > writer.soft ? writer.room(at, 0) : at;
    writer.bytes[pos] = TAG.DOUBLE;
    writer.view.setFloat64(pos + 1, time, true);
    return pos + 9;
  }

  #headers(headers: object, at: number): number {
    const entries = Object.entries(headers);
    if (entries.length === 0) return at;
    const writer = this.#writer;
    let pos = at > writer.soft ? writer.room(at, 0) : at;
    const flags = writer.start + 7;
    writer.bytes[flags] = (writer.bytes[flags] as number) | FLAG_HEADERS;
    writer.view.setUint32(pos, entries.length, true);
    pos += 4;
    for (const [key, value] of entries) {
      pos = writer.string(key, pos);
      pos = writer.string(String(value), pos);
    }
    return pos;
  }

  #count(rows: number): number {
    const writer = this.#writer;
    const pos = this.#pos > writer.soft ? writer.room(this.#pos, 0) : this.#pos;
    writer.view.setUint32(pos, rows, true);
    return pos + 4;
  }

  /** By generated code when it is a plain object with the keys of the row before, in the same order. */
  #row(row: unknown, pos: number): number {
    if (typeof row !== 'object' || row === null) return this.#otherRow(row, pos);
    const { write } = this.#shape;
    const end = write === undefined ? OTHER_ROW : write(row as PlainObject, this.#writer, pos);
    if (end !== OTHER_ROW) return end;
    return isPlain(row) ? this.#plainRow(row as PlainObject, pos) : this.#otherRow(row, pos);
  }

  #plainRow(row: PlainObject, pos: number): number {
    const shape = this.#shape;
    if (typeof row['toJSON'] === 'function') return this.#otherRow(row, pos);
    const keys = Object.keys(row);
    if (!shape.fits(row, keys)) return this.#newShape(row, keys, pos);
    return this.#values(row, shape.keys, this.#writer.counted(TAG.SHAPED, shape.id, pos));
  }

  #newShape(row: PlainObject, keys: readonly string[], pos: number): number {
    const shape = this.#shapes.find(keys);
    if (shape === undefined) return this.#writer.entries(row, keys, pos, 0);
    this.#shape = shape;
    this.#last[this.#envelope] = shape;
    return this.#values(row, keys, this.#writer.counted(TAG.SHAPED, shape.id, pos));
  }

  #values(row: PlainObject, keys: readonly string[], at: number): number {
    const writer = this.#writer;
    let pos = at;
    for (const key of keys) pos = writer.value(row[key], pos, 0);
    return pos;
  }

  /** A Map, an object of a class, or one with `toJSON`. */
  #otherRow(row: unknown, pos: number): number {
    const plain = asRow(row);
    if (plain === undefined) {
      throw new CollectorError('unsupported_type', {
        type: `array with ${describe(row)} at index ${this.#writer.row}`,
      });
    }
    const keys = Object.keys(plain);
    const shape = this.#shapes.find(keys);
    if (shape === undefined) return this.#writer.entries(plain, keys, pos, 0);
    return this.#values(plain, keys, this.#writer.counted(TAG.SHAPED, shape.id, pos));
  }
}

/** The first bytes of a buffer. `slice` would fill the copy with zeros before it fills it with the bytes. */
function copyOf(buffer: ArrayBuffer, end: number): ArrayBuffer {
  const copy = Buffer.allocUnsafeSlow(end);
  copy.set(new Uint8Array(buffer, 0, end));
  return copy.buffer as ArrayBuffer;
}

/** The id of a context that may not keep to the types; null when it has none. */
export function idText(context: CorrelationContext): string | null {
  const id = context.getId() as string | number | bigint | null | undefined;
  return id === undefined || id === null ? null : String(id);
}

/** What a value is called in an error: its class, or its type. */
export function describe(value: unknown): string {
  if (value === null) return 'null';
  if (typeof value !== 'object') return typeof value;
  const prototype = Object.getPrototypeOf(value) as { constructor?: { name?: unknown } } | null;
  const name = prototype?.constructor?.name;
  return typeof name === 'string' && name !== '' ? name : 'object';
}

/** The row as an object whose own keys are the columns; undefined when it is none. */
function asRow(row: unknown): PlainObject | undefined {
  if (typeof row !== 'object' || row === null) return undefined;
  if (types.isMap(row)) return Object.fromEntries(row) as PlainObject;
  if (Array.isArray(row) || ArrayBuffer.isView(row) || types.isDate(row) || types.isSet(row)) return undefined;
  const made = jsonForm(row as PlainObject);
  if (made === row) return row as PlainObject;
  return typeof made === 'object' && made !== null && !Array.isArray(made) ? (made as PlainObject) : undefined;
}
