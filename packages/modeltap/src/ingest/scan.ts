import { isUtf8 } from 'node:buffer';
import { SCAN_WASM } from './scan.wasm.ts';

/*
 * The JSON scanner: a resumable RFC 8259 validator in WebAssembly (assembly/scan.ts holds the machine and the memory
 * map repeated here) and the UTF-8 check of Node beside it. Nothing is parsed into values.
 */
const STATE = 1024;
const STATE_BYTES = 2048;
const EXTRAS = 81_920;
const TABLE = 147_456;
const INPUT = 344_064;
/** Bytes looked at in one call: about 0.2 ms of work. */
const PIECE_BYTES = 262_144;

// Indexes into the memory as 32-bit words.
const ROWS = (STATE + 20) / 4;
const BREAKS = (STATE + 24) / 4;
const ESCAPES = (STATE + 28) / 4;
const BASE = (STATE + 44) / 4;
const ROOT = (STATE + 64) / 4;
const REASON = (STATE + 88) / 4;
const OFFSET = (STATE + 92) / 4;
const HIGH = (STATE + 96) / 4;
const COUNT = 512 / 4;
const EXTRA_COUNT = 516 / 4;

/** Deepest nesting accepted. */
export const MAX_DEPTH = 512;

/** Words of one entry of an `EventTable`. */
export const ENTRY_WORDS = 48;

const REASONS: Readonly<Record<number, string>> = {
  1: 'a value was expected',
  2: 'a member name in quotes was expected',
  3: 'a colon was expected',
  4: 'a comma or the end of the array or object was expected',
  5: 'a control character inside a string must be escaped',
  6: 'a backslash may only be followed by one of "\\/bfnrtu',
  7: 'four hexadecimal digits were expected',
  8: 'this is not a number as JSON writes them',
  9: 'only true, false and null may stand without quotes',
  10: `nesting deeper than ${MAX_DEPTH} levels`,
  11: 'there is more text behind the value',
  12: 'the text ends too early',
  13: 'this is not valid UTF-8',
  14: 'an event must be a JSON object',
  15: 'a batch must be a JSON array of events',
  17: 'a line break inside an event: each line must hold one whole event',
};

/** Why a text is not what it should be, and at which byte of it. */
export interface JsonFault {
  readonly offset: number;
  readonly reason: string;
}

/** What is known of a valid JSON text without having parsed it. */
export interface JsonFacts {
  /** The value is an array. */
  readonly array: boolean;
  /** Elements of the array; 1 for any other value. */
  readonly rows: number;
  /** There are line breaks outside strings. */
  readonly lineBreaks: boolean;
  /** There are `<`, `>` or `&`. */
  readonly escapes: boolean;
}

interface Machine {
  readonly memory: { readonly buffer: ArrayBuffer };
  begin(mode: number): void;
  whole(length: number): number;
  run(from: number, length: number): number;
  finish(): number;
}

/** The part of WebAssembly's interface used here: the types of Node do not declare it, those of browsers are not wanted. */
interface WasmGlobal {
  readonly WebAssembly: {
    readonly Module: new (bytes: Uint8Array) => object;
    readonly Instance: new (module: object) => { readonly exports: unknown };
  };
}

const { WebAssembly } = globalThis as unknown as WasmGlobal;
const compiled = new WebAssembly.Module(Buffer.from(SCAN_WASM, 'base64'));
const machine = new WebAssembly.Instance(compiled).exports as Machine;
const memory = new Uint8Array(machine.memory.buffer);
const words = new Uint32Array(machine.memory.buffer);

function faultOf(reason: number, offset: number): JsonFault {
  return { reason: REASONS[reason] ?? `reason ${reason}`, offset };
}

/** The fault of an event entry (`reason` and `offset` words), or undefined when it has none. */
export function entryFault(reason: number, offset: number): JsonFault | undefined {
  return reason === 0 ? undefined : faultOf(reason, offset);
}

function factsNow(): JsonFacts {
  const array = words[ROOT] === 91;
  return {
    array,
    rows: array ? (words[ROWS] ?? 0) : 1,
    lineBreaks: words[BREAKS] !== 0,
    escapes: words[ESCAPES] !== 0,
  };
}

/** Scans a text that is whole in memory. Above 256 KiB prefer `JsonScan`, which can be fed in turns of the event loop. */
export function scanJson(text: Uint8Array): JsonFacts | JsonFault {
  if (text.length > PIECE_BYTES) {
    const scan = new JsonScan();
    return scan.feed(text) ?? scan.end();
  }
  memory.set(text, INPUT);
  const reason = machine.whole(text.length);
  const offset = reason === 0 || reason === 12 ? text.length : (words[OFFSET] ?? 0);
  if (words[HIGH] !== 0) {
    const sound = text.subarray(0, offset);
    const cut = reason === 0 ? 0 : cutCharacter(sound);
    if (!isUtf8(cut === 0 ? sound : sound.subarray(0, offset - cut))) return faultOf(13, firstBadByte(sound));
    // A text that ends inside a character ends too early in both senses; say the more exact one.
    if (reason === 12 && cut > 0) return faultOf(13, text.length);
  }
  if (reason !== 0) return faultOf(reason, offset);
  return factsNow();
}

/** Kinds of texts that hold events: one, an array, or one a line. */
export type EventMode = 'event' | 'batch' | 'lines';

const MODES = { event: 1, batch: 2, lines: 3 } as const;

/** Events found by `scanEventsInPlace`. Bytes and table are the scanner's own memory: valid until anything is scanned. */
export interface EventsInPlace {
  readonly bytes: Buffer;
  readonly table: EventTable;
  /** What is wrong with the whole text; on lines only a torn last one. */
  readonly fault: JsonFault | undefined;
}

const inputView = Buffer.from(machine.memory.buffer, INPUT, PIECE_BYTES);
const tableView = words.subarray(TABLE / 4, INPUT / 4);
const extrasView = words.subarray(EXTRAS / 4, TABLE / 4);

/**
 * Scans events that are whole in memory without copying anything but the text itself. Undefined when they are more than
 * fit the scanner's memory (256 KiB, 1 024 events): `JsonScan` takes those.
 */
export function scanEventsInPlace(parts: readonly Uint8Array[], mode: EventMode): EventsInPlace | undefined {
  let length = 0;
  for (const part of parts) length += part.length;
  if (length > PIECE_BYTES) return undefined;
  let at = INPUT;
  for (const part of parts) {
    memory.set(part, at);
    at += part.length;
  }
  machine.begin(MODES[mode]);
  const reached = machine.run(0, length);
  if (reached >= 0 && reached < length) return undefined;
  const reason = reached < 0 ? (words[REASON] ?? 0) : machine.finish();
  const bytes = inputView.subarray(0, length);
  let fault = reason === 0 ? undefined : faultOf(reason, reached < 0 ? (words[OFFSET] ?? 0) : length);
  if (words[HIGH] !== 0 && !isUtf8(bytes)) {
    const bad = firstBadByte(bytes);
    if (fault === undefined || bad < fault.offset) fault = faultOf(13, bad);
  }
  return { bytes, table: { count: words[COUNT] ?? 0, words: tableView, extras: extrasView }, fault };
}

/** True for the answer that means "not valid". */
export function isFault(result: object): result is JsonFault {
  return 'reason' in result;
}

/** Scan of one text that arrives in pieces of any size. Several may be under way at the same time. */
export class JsonScan {
  readonly #state = new Uint8Array(STATE_BYTES);
  readonly #utf8 = new Utf8Scan();
  readonly #tables: EventTable[] | undefined;
  #bytes = 0;
  #events = 0;
  #fault: JsonFault | undefined;

  /** With a mode, the text is one event, an array of events, or events on lines, and `tables` fills. */
  constructor(mode?: EventMode) {
    machine.begin(mode === undefined ? 0 : MODES[mode]);
    this.#state.set(memory.subarray(STATE, STATE + STATE_BYTES));
    this.#tables = mode === undefined ? undefined : [];
  }

  /** Where the members of the events lie that were complete so far. Offsets count from the beginning of the text. */
  get tables(): readonly EventTable[] {
    return this.#tables ?? [];
  }

  /** Events found so far, bad ones included. */
  get events(): number {
    return this.#events;
  }

  /** Takes the next bytes. Gives the fault as soon as there is one; after that the scan is over. */
  feed(chunk: Uint8Array): JsonFault | undefined {
    for (let at = 0; at < chunk.length && this.#fault === undefined; at += PIECE_BYTES) {
      this.#piece(chunk.length <= PIECE_BYTES ? chunk : chunk.subarray(at, at + PIECE_BYTES));
    }
    return this.#fault;
  }

  #piece(piece: Uint8Array): void {
    memory.set(this.#state, STATE);
    memory.set(piece, INPUT);
    words[BASE] = this.#bytes;
    words[HIGH] = 0;
    let reached = 0;
    while (reached >= 0 && reached < piece.length) {
      reached = machine.run(reached, piece.length);
      this.#drain();
    }
    const high = words[HIGH] !== 0;
    if (reached < 0) this.#fault = faultOf(words[REASON] ?? 0, words[OFFSET] ?? 0);
    this.#state.set(memory.subarray(STATE, STATE + STATE_BYTES));
    if (high || this.#utf8.pending) {
      const bad = this.#utf8.feed(piece);
      if (bad !== undefined && (this.#fault === undefined || bad < this.#fault.offset)) this.#fault = faultOf(13, bad);
    } else {
      this.#utf8.skip(piece.length);
    }
    this.#bytes += piece.length;
  }

  #drain(): void {
    const count = words[COUNT] ?? 0;
    if (count === 0 || this.#tables === undefined) return;
    const extras = words[EXTRA_COUNT] ?? 0;
    this.#events += count;
    this.#tables.push({
      count,
      words: words.slice(TABLE / 4, TABLE / 4 + count * ENTRY_WORDS),
      extras: words.slice(EXTRAS / 4, EXTRAS / 4 + extras * 4),
    });
  }

  /** Says that there are no more bytes. In `lines` mode a torn last line is a fault too. */
  end(): JsonFacts | JsonFault {
    if (this.#fault !== undefined) return this.#fault;
    if (this.#utf8.pending) return faultOf(13, this.#bytes);
    memory.set(this.#state, STATE);
    const reason = machine.finish();
    return reason === 0 ? factsNow() : faultOf(reason, this.#bytes);
  }
}

/**
 * Where the members of some events lie: `count` entries of `ENTRY_WORDS` words. Word 0 start, 1 end, 2 flags, 3 rows of
 * `data`, 6 reason and 7 offset of a fault, 8 serial and 9 slot of the template (serial 0: none), 10 first and 11 number
 * of unknown members in `extras` (4 words each: name start and end, value start and end), 12 the member given twice,
 * from 14 on start and end of each member of `MEMBERS` (end 0: not there).
 */
export interface EventTable {
  readonly count: number;
  readonly words: Uint32Array;
  readonly extras: Uint32Array;
}

/** Bits of an entry's flags. */
export const ENTRY_FLAG = {
  array: 2,
  lineBreaks: 4,
  escapes: 8,
  duplicate: 16,
  oddName: 32,
  oddValue: 64,
  sameRequest: 128,
  tooMany: 256,
} as const;

/** The members an entry has a place for, in the order of their places. */
export const MEMBERS = [
  'specversion',
  'id',
  'source',
  'type',
  'datacontenttype',
  'time',
  'data',
  'data_base64',
  'correlationid',
  'xrequestid',
  'modelversion',
  'collectdatatype',
  'agent',
  'sampledrate',
  'subject',
  'dataschema',
] as const;

/** UTF-8 validity over pieces: keeps the up to three bytes of a character that a piece has cut. */
class Utf8Scan {
  #carry = Buffer.alloc(0);
  #bytes = 0;

  get pending(): boolean {
    return this.#carry.length > 0;
  }

  skip(bytes: number): void {
    this.#bytes += bytes;
  }

  /** Offset of the first bad byte, if any. */
  feed(piece: Uint8Array): number | undefined {
    const start = this.#bytes - this.#carry.length;
    const text = this.#carry.length === 0 ? piece : Buffer.concat([this.#carry, piece]);
    const cut = cutCharacter(text);
    const sound = cut === 0 ? text : text.subarray(0, text.length - cut);
    this.#carry = cut === 0 ? Buffer.alloc(0) : Buffer.from(text.subarray(text.length - cut));
    this.#bytes += piece.length;
    return isUtf8(sound) ? undefined : start + firstBadByte(sound);
  }
}

/** How many bytes at the end are the beginning of a character that needs more. */
function cutCharacter(text: Uint8Array): number {
  for (let back = 1; back <= 3 && back <= text.length; back += 1) {
    const byte = text[text.length - back] ?? 0;
    if (byte < 0x80 || byte > 0xf4) return 0;
    if (byte > 0xc1) {
      const need = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
      return need > back ? back : 0;
    }
  }
  return 0;
}

/** Halves the text until the place is found; only for texts that are known to be bad. */
function firstBadByte(text: Uint8Array): number {
  let good = 0;
  let bad = text.length;
  while (bad - good > 1) {
    const middle = (good + bad) >> 1;
    const head = text.subarray(0, middle);
    const cut = cutCharacter(head);
    if (isUtf8(cut === 0 ? head : head.subarray(0, middle - cut))) good = middle;
    else bad = middle;
  }
  return good;
}
