import { wordsText } from './context.ts';
import { CollectorError } from './errors.ts';
import { FLAG_HEADERS, FLAG_UUID, RECORD_HEAD, TAG } from './format.ts';
import type { JsonBuffer } from './json-buffer.ts';

const COMMA = 0x2c;
const OPEN_ROW = 0x7b;
const CLOSE_ROW = 0x7d;
const OPEN_LIST = 0x5b;
const CLOSE_LIST = 0x5d;
const COLON = 0x3a;

/** The keys of a shape as JSON text: `{"a":`, `,"b":`, …. */
export type ShapeText = readonly Buffer[];

/** Turns the keys of a shape into the texts between its values. Going through UTF-8 makes keys well formed, as values are. */
export function shapeText(keys: readonly string[]): ShapeText {
  return keys.map((key, index) =>
    Buffer.from(`${index === 0 ? '{' : ','}${JSON.stringify(Buffer.from(key).toString())}:`),
  );
}

/** What a record says about itself before its body. */
export interface RecordHead {
  /** Bytes of the whole record. */
  readonly bytes: number;
  readonly envelope: number;
  readonly dataType: number;
  /** Undefined when the context had none. */
  readonly correlationId: string | undefined;
  /** Unix seconds, or the text the context gave. */
  readonly time: number | string;
  readonly headers: readonly (readonly [string, string])[];
  /** Where the body begins in the chunk. */
  readonly bodyAt: number;
}

/** Reads packed records of one chunk. */
export class ChunkReader {
  readonly #bytes: Buffer;
  readonly #view: DataView;
  readonly #shapes: ReadonlyMap<number, ShapeText>;
  #pos = 0;

  /** `bytes` of the chunk are records. */
  constructor(chunk: ArrayBuffer, bytes: number, shapes: ReadonlyMap<number, ShapeText>) {
    this.#bytes = Buffer.from(chunk, 0, bytes);
    this.#view = new DataView(chunk, 0, bytes);
    this.#shapes = shapes;
  }

  /** Bytes of the records. */
  get size(): number {
    return this.#bytes.length;
  }

  /** The head of the record at `at`. */
  head(at: number): RecordHead {
    const view = this.#view;
    const flags = view.getUint8(at + 7);
    this.#pos = at + RECORD_HEAD;
    const correlationId = (flags & FLAG_UUID) === 0 ? this.#text() : this.#uuid();
    const time = this.#time();
    const headers: [string, string][] = [];
    if ((flags & FLAG_HEADERS) !== 0) {
      const count = this.#u32();
      for (let i = 0; i < count; i++) headers.push([this.#text() ?? '', this.#text() ?? '']);
    }
    return {
      bytes: view.getUint32(at, true),
      envelope: view.getUint16(at + 4, true),
      dataType: view.getUint8(at + 6),
      correlationId,
      time,
      headers,
      bodyAt: this.#pos,
    };
  }

  /** Writes the body that begins at `at` as a JSON array of rows. */
  body(at: number, out: JsonBuffer): void {
    this.#pos = at;
    this.#list(this.#u32(), out);
  }

  #list(count: number, out: JsonBuffer): void {
    out.byte(OPEN_LIST);
    for (let i = 0; i < count; i++) {
      if (i > 0) out.byte(COMMA);
      this.#value(out);
    }
    out.byte(CLOSE_LIST);
  }

  #value(out: JsonBuffer): void {
    const tag = this.#bytes[this.#pos++];
    switch (tag) {
      case TAG.NULL:
        return out.ascii('null');
      case TAG.TRUE:
        return out.ascii('true');
      case TAG.FALSE:
        return out.ascii('false');
      case TAG.INT:
        return out.ascii(String(this.#view.getInt32(this.#skip(4), true)));
      case TAG.DOUBLE:
        return this.#double(out);
      case TAG.BIGINT:
        return out.ascii(String(this.#view.getBigInt64(this.#skip(8), true)));
      case TAG.SHORT:
      case TAG.LONG:
        return this.#string(tag, out);
      case TAG.DIGITS: {
        const length = this.#u32();
        const from = this.#skip(length);
        return out.raw(this.#bytes.subarray(from, from + length));
      }
      case TAG.ARRAY:
        return this.#list(this.#u32(), out);
      case TAG.OBJECT:
        return this.#object(out);
      case TAG.SHAPED:
        return this.#shaped(out);
      default:
        throw new CollectorError('internal', { detail: `unknown tag ${tag} at ${this.#pos - 1}` });
    }
  }

  #double(out: JsonBuffer): void {
    const value = this.#view.getFloat64(this.#skip(8), true);
    out.ascii(value - value === 0 ? String(value) : 'null');
  }

  #shaped(out: JsonBuffer): void {
    const id = this.#u32();
    if (id === 0) return out.ascii('{}');
    const keys = this.#shapes.get(id);
    if (keys === undefined) throw new CollectorError('internal', { detail: `unknown shape ${id}` });
    for (const key of keys) {
      out.raw(key);
      this.#value(out);
    }
    out.byte(CLOSE_ROW);
  }

  #object(out: JsonBuffer): void {
    out.byte(OPEN_ROW);
    let first = true;
    for (;;) {
      const tag = this.#bytes[this.#pos++];
      if (tag === TAG.END) break;
      if (!first) out.byte(COMMA);
      first = false;
      this.#string(tag, out);
      out.byte(COLON);
      this.#value(out);
    }
    out.byte(CLOSE_ROW);
  }

  #string(tag: number | undefined, out: JsonBuffer): void {
    const length = this.#length(tag);
    const from = this.#skip(length);
    out.string(this.#bytes, from, from + length);
  }

  /** A string value, or undefined for `NULL`. */
  #text(): string | undefined {
    const tag = this.#bytes[this.#pos++];
    if (tag === TAG.NULL) return undefined;
    const length = this.#length(tag);
    const from = this.#skip(length);
    return this.#bytes.toString('utf8', from, from + length);
  }

  #length(tag: number | undefined): number {
    if (tag === TAG.LONG) return this.#u32();
    if (tag !== TAG.SHORT)
      throw new CollectorError('internal', { detail: `no string but tag ${tag} at ${this.#pos - 1}` });
    return this.#bytes[this.#pos++] as number;
  }

  #time(): number | string {
    if (this.#bytes[this.#pos] !== TAG.DOUBLE) return this.#text() ?? '';
    this.#pos++;
    return this.#view.getFloat64(this.#skip(8), true);
  }

  #uuid(): string {
    const at = this.#skip(16);
    const view = this.#view;
    return wordsText(view.getInt32(at), view.getInt32(at + 4), view.getInt32(at + 8), view.getInt32(at + 12));
  }

  #u32(): number {
    return this.#view.getUint32(this.#skip(4), true);
  }

  #skip(bytes: number): number {
    const at = this.#pos;
    this.#pos += bytes;
    return at;
  }
}
