import { HEADER, type HeaderCode, headerCode, HeaderShape, ReadHeaders, readHeaders } from '../headers.ts';
import { digitsAt, isBlank, IS_VALUE, MAX_HEAD_BYTES, type ParsedHead, parseHead } from './head.ts';

/** Shapes kept: a sender has one for each of its collections. */
const MAX_SHAPES = 16;
/** From so many bytes on the comparison of Node is faster than a loop. */
const NATIVE_FROM_BYTES = 96;

/** Heads that are alike: the same bytes but for the values that differ from request to request. */
class HeadShape {
  readonly headers: HeaderShape;
  readonly target: number;
  readonly close: boolean;
  /** What is the same, cut where a value may differ. */
  readonly #fixed: readonly Buffer[] = [];
  /** What the values between them are. */
  readonly #codes: readonly HeaderCode[];
  /** Where they were found last, begin and end in turn. */
  readonly #places: Int32Array;

  constructor(bytes: Buffer, from: number, head: ParsedHead, headers: HeaderShape) {
    this.headers = headers;
    this.target = head.target;
    this.close = head.close;
    const fixed: Buffer[] = [];
    const codes: HeaderCode[] = [];
    let at = from;
    for (let index = 0; index < head.raw.length; index += 2) {
      const name = (head.raw[index] ?? '').toLowerCase();
      const code = headerCode(name);
      if (name === 'connection' || (code !== HEADER.other && code < HEADER.contentLength)) continue;
      fixed.push(Buffer.from(bytes.subarray(at, head.places[index])));
      codes.push(code);
      at = head.places[index + 1] as number;
    }
    fixed.push(Buffer.from(bytes.subarray(at, head.end)));
    this.#fixed = fixed;
    this.#codes = codes;
    this.#places = new Int32Array(2 * codes.length);
  }

  /** Offset behind the head that begins at `from`, or 0 when it has another shape. */
  match(bytes: Buffer, from: number): number {
    const fixed = this.#fixed;
    const places = this.#places;
    let at = from;
    for (let index = 0; ; index += 1) {
      const same = fixed[index] as Buffer;
      if (!isAt(same, bytes, at)) return 0;
      at += same.length;
      if (index === fixed.length - 1) return at;
      places[2 * index] = at;
      while (at < bytes.length && IS_VALUE[bytes[at] as number] === 1) at += 1;
      places[2 * index + 1] = at;
    }
  }

  /** The headers of the head that matched last; undefined when a value has blanks around it or no sense. */
  read(bytes: Buffer): ReadHeaders | undefined {
    const codes = this.#codes;
    const headers = new ReadHeaders(this.headers);
    for (let index = 0; index < codes.length; index += 1) {
      const code = codes[index] as HeaderCode;
      if (code === HEADER.other) continue;
      const start = this.#places[2 * index] as number;
      const end = this.#places[2 * index + 1] as number;
      if (code === HEADER.contentLength) {
        headers.bytes = digitsAt(bytes, start, end);
        if (headers.bytes < 0) return undefined;
      } else if (end > start && (isBlank(bytes[start]) || isBlank(bytes[end - 1]))) return undefined;
      else headers.take(code, bytes.toString('latin1', start, end));
    }
    return headers;
  }
}

function isAt(same: Buffer, bytes: Buffer, at: number): boolean {
  const { length } = same;
  if (at + length > bytes.length) return false;
  if (length >= NATIVE_FROM_BYTES) return bytes.compare(same, 0, length, at, at + length) === 0;
  for (let index = 0; index < length; index += 1) if (bytes[at + index] !== same[index]) return false;
  return true;
}

/**
 * Reads request heads. Senders repeat theirs, so a head is first compared with the last ones, byte by byte, and parsed only
 * when it is like none of them. One for all connections: what it holds is of the last head read.
 */
export class HeadReader {
  readonly #targets: readonly Buffer[];
  /** The latest first. */
  readonly #shapes: HeadShape[] = [];
  /** The headers that ingest reads. */
  headers = new ReadHeaders(new HeaderShape([]));
  /** Place of the path among the targets. */
  target = 0;
  /** The sender asks for the connection to be closed. */
  close = false;

  constructor(targets: readonly Buffer[]) {
    this.#targets = targets;
  }

  /** Offset behind the head that begins at `from`, `INCOMPLETE` or `FOREIGN`. */
  read(bytes: Buffer, from: number): number {
    const shapes = this.#shapes;
    for (let index = 0; index < shapes.length; index += 1) {
      const shape = shapes[index] as HeadShape;
      const end = shape.match(bytes, from);
      if (end === 0 || end - from > MAX_HEAD_BYTES) continue;
      const headers = shape.read(bytes);
      if (headers === undefined) continue;
      if (index > 0) {
        shapes.splice(index, 1);
        shapes.unshift(shape);
      }
      this.headers = headers;
      this.target = shape.target;
      this.close = shape.close;
      return end;
    }
    return this.#parse(bytes, from);
  }

  #parse(bytes: Buffer, from: number): number {
    const head = parseHead(bytes, from, this.#targets);
    if (typeof head === 'number') return head;
    const headers = readHeaders(head.raw);
    this.headers = headers;
    this.target = head.target;
    this.close = head.close;
    // Headers that never come again would push out those that do.
    if (headers.shape.reads > 1) this.#remember(new HeadShape(bytes, from, head, headers.shape));
    return head.end;
  }

  #remember(shape: HeadShape): void {
    if (this.#shapes.length >= MAX_SHAPES) this.#shapes.pop();
    this.#shapes.unshift(shape);
  }

  /** All headers of a head that was read, as `rawHeaders` of Node. */
  raw(bytes: Buffer, from: number): readonly string[] {
    const head = parseHead(bytes, from, this.#targets);
    return typeof head === 'number' ? [] : head.raw;
  }
}
