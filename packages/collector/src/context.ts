import { randomFillSync } from 'node:crypto';
import { finishHash, HASH_OFFSET, hashText, hashWord, samplePoint } from './sampling.ts';

/** What ties the inputs of a model to its outputs. `collect()` returns one; pass it to the next `collect()`. */
export interface CorrelationContext {
  /** The correlation id. Inputs and outputs with the same id belong together. */
  getId(): string;
  /** Unix time in seconds (fractions allowed), or text that the agent will understand. */
  getTimestamp(): number | string;
  /** Further attributes of the record: `{ key: 'v' }` is stored as extension attribute `key`. */
  getHeaders(): Readonly<Record<string, unknown>>;
}

/** What a `BasicCorrelationContext` is made from; whatever is left out is generated. */
export interface CorrelationContextOptions {
  /** Any text. Left out or empty: a random UUID. */
  readonly id?: string | null | undefined;
  /** Unix time in seconds. Left out or 0: now, in whole seconds. */
  readonly timestamp?: number | string | undefined;
  /** Left out: none. */
  readonly headers?: Record<string, unknown> | undefined;
}

/** The usual context: an id, a time and headers. */
export class BasicCorrelationContext implements CorrelationContext {
  #id: string | undefined;
  // A generated id is kept as its parts and spelled out when someone asks: most are never read as text.
  #block: UuidBlock | undefined;
  #last = 0;
  #timestamp: number | string | undefined;
  #headers: Record<string, unknown> | undefined;

  constructor(options?: CorrelationContextOptions) {
    const id = options?.id;
    if (id === undefined || id === null || id === '') {
      if (block === undefined || used === BLOCK_IDS) nextBlock();
      this.#block = block;
      // An odd factor visits every 16-bit value once, so ids of one block never repeat.
      this.#last = Math.imul(used++, ODD) & 0xffff;
    } else {
      this.#id = String(id as string | number);
    }
    if (options === LATER) return;
    this.#timestamp = options?.timestamp || Math.floor(Date.now() / 1000);
    this.#headers = options?.headers;
  }

  /** The correlation id. */
  get id(): string {
    this.#id ??= uuidText(this.#block as UuidBlock, this.#last);
    return this.#id;
  }

  /** Unix time in seconds. */
  get timestamp(): number | string {
    this.#timestamp ??= Math.floor(Date.now() / 1000);
    return this.#timestamp;
  }

  /** Further attributes of the record. The object given, or an empty one. */
  get headers(): Record<string, unknown> {
    this.#headers ??= {};
    return this.#headers;
  }

  getId(): string {
    return this.id;
  }

  getTimestamp(): number | string {
    return this.timestamp;
  }

  getHeaders(): Record<string, unknown> {
    return this.headers;
  }

  toString(): string {
    return this.id;
  }

  /**
   * What `collect()` makes when it is given none. The clock is read when a record takes the time or someone asks for
   * it: a context of which nothing is recorded costs no look at the clock.
   */
  static generate(): BasicCorrelationContext {
    return new BasicCorrelationContext(LATER);
  }

  /** `samplePoint(context.id)`. */
  static point(context: BasicCorrelationContext): number {
    const of = context.#block;
    return of === undefined ? samplePoint(context.id) : finishHash(hashWord(of.hash, context.#last, 12));
  }

  /** The headers without making an empty object for a context that has none. */
  static headersOf(context: BasicCorrelationContext): Record<string, unknown> | undefined {
    return context.#headers;
  }

  /** Writes the 16 bytes of an id that was generated here; false when the id was given as text. */
  static writeUuid(context: BasicCorrelationContext, view: DataView, at: number): boolean {
    const of = context.#block;
    if (of === undefined) return false;
    view.setInt32(at, of.a);
    view.setInt32(at + 4, of.b);
    view.setInt32(at + 8, of.c);
    view.setInt32(at + 12, of.d | context.#last);
    return true;
  }

  /** True for a context of this class of this copy of the package; fields of a foreign one cannot be read directly. */
  static is(value: object): value is BasicCorrelationContext {
    return #last in value;
  }
}

/**
 * The first 112 bits of UUIDs generated one after the other, and the state of the sampling hash behind their text. All
 * but the six fixed bits of a version 4 UUID are random, drawn anew for every block; the last 16 bits differ within one.
 */
interface UuidBlock {
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly d: number;
  readonly hash: number;
}

const LATER: CorrelationContextOptions = {};
const BLOCK_IDS = 4096;
const ODD = 0x9e37;
let block: UuidBlock | undefined;
let used = 0;

function nextBlock(): void {
  const words = randomFillSync(new Int32Array(4));
  const a = words[0] as number;
  const b = ((words[1] as number) & 0xffff0fff) | 0x4000;
  const c = ((words[2] as number) & 0x3fffffff) | 0x80000000;
  const d = (words[3] as number) & 0xffff0000;
  block = { a, b, c, d, hash: hashText(HASH_OFFSET, wordsText(a, b, c, d).slice(0, 32)) };
  used = 0;
}

function uuidText(of: UuidBlock, last: number): string {
  return wordsText(of.a, of.b, of.c, of.d | last);
}

/** The text of the UUID with these four big-endian words. */
export function wordsText(a: number, b: number, c: number, d: number): string {
  return `${hex8(a)}-${hex4(b >>> 16)}-${hex4(b)}-${hex4(c >>> 16)}-${hex4(c)}${hex8(d)}`;
}

function hex8(word: number): string {
  return (word >>> 0).toString(16).padStart(8, '0');
}

function hex4(word: number): string {
  return (word & 0xffff).toString(16).padStart(4, '0');
}
