import { LIMITS } from './types.ts';

/*
 * JSON as stretches of its own text. A value is never converted, so a number keeps every digit it was sent with; what is
 * needed of the structure is found by walking over the text one level at a time.
 */
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const MINUS = 0x2d;
const DOT = 0x2e;
const ZERO = 0x30;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

/** What a JSON value is. */
export type JsonKind = 'object' | 'array' | 'string' | 'number' | 'boolean' | 'null';

const KINDS: Readonly<Record<string, JsonKind>> = {
  '{': 'object',
  '[': 'array',
  '"': 'string',
  t: 'boolean',
  f: 'boolean',
  n: 'null',
};

/** Index behind the string whose opening quote is at `at`. */
function stringEnd(text: string, at: number): number {
  let end = text.indexOf('"', at + 1);
  for (;;) {
    let slashes = 0;
    while (text.charCodeAt(end - 1 - slashes) === BACKSLASH) slashes += 1;
    // Only a quote with an odd run of backslashes before it is escaped. Runs are not counted twice: a quote is behind each.
    if (slashes % 2 === 0) return end + 1;
    end = text.indexOf('"', end + 1);
  }
}

/** Index behind the value that begins at `at`. */
function valueEnd(text: string, at: number): number {
  const first = text.charCodeAt(at);
  if (first === QUOTE) return stringEnd(text, at);
  const nested = first === OPEN_BRACE || first === OPEN_BRACKET;
  let depth = 0;
  for (let end = at; end < text.length; end += 1) {
    const code = text.charCodeAt(end);
    if (code === QUOTE) end = stringEnd(text, end) - 1;
    else if (code === OPEN_BRACE || code === OPEN_BRACKET) depth += 1;
    else if (code === CLOSE_BRACE || code === CLOSE_BRACKET) {
      if (depth === 0) return end;
      depth -= 1;
      if (depth === 0 && nested) return end + 1;
    } else if (code === COMMA && depth === 0) return end;
  }
  return text.length;
}

/** A value inside a valid JSON text that has no white space outside strings. Made by `readJson` only. */
export class JsonValue {
  readonly #source: string;
  readonly #start: number;
  readonly #end: number;

  constructor(source: string, start: number, end: number) {
    this.#source = source;
    this.#start = start;
    this.#end = end;
  }

  get kind(): JsonKind {
    return KINDS[this.#source.charAt(this.#start)] ?? 'number';
  }

  /** Neither object nor array. */
  get isScalar(): boolean {
    const code = this.#source.charCodeAt(this.#start);
    return code !== OPEN_BRACE && code !== OPEN_BRACKET;
  }

  /** JSON text of the value, as it was sent but for white space. */
  get text(): string {
    return this.#source.slice(this.#start, this.#end);
  }

  /** Of a string or array: what is between the quotes or brackets, escapes as they are. */
  get inner(): string {
    return this.#source.slice(this.#start + 1, this.#end - 1);
  }

  /** Of a string: its characters. Anything else: its JSON text. */
  get string(): string {
    if (this.kind !== 'string') return this.text;
    return this.inner.includes('\\') ? (JSON.parse(this.text) as string) : this.inner;
  }

  /** The elements of an array; nothing for anything else. */
  *items(): Generator<JsonValue, undefined> {
    if (this.kind !== 'array') return;
    for (let at = this.#start + 1; at < this.#end - 1; ) {
      const end = valueEnd(this.#source, at);
      yield new JsonValue(this.#source, at, end);
      at = end + 1;
    }
  }

  /** The members of an object, with names repeated if they are; nothing for anything else. */
  *members(): Generator<readonly [string, JsonValue], undefined> {
    if (this.kind !== 'object') return;
    for (let at = this.#start + 1; at < this.#end - 1; ) {
      const colon = stringEnd(this.#source, at);
      const end = valueEnd(this.#source, colon + 1);
      const name = new JsonValue(this.#source, at, colon);
      yield [name.string, new JsonValue(this.#source, colon + 1, end)];
      at = end + 1;
    }
  }

  /**
   * The members by name; of repeated names the last value, as JSON readers do. Empty for anything but an object. With
   * more names than a table has columns it ends with the first one too many.
   */
  fields(): Map<string, JsonValue> {
    const fields = new Map<string, JsonValue>();
    for (const [name, value] of this.members()) {
      fields.set(name, value);
      if (fields.size > LIMITS.columns) break;
    }
    return fields;
  }
}

/** Why a text is not JSON. */
export interface JsonProblem {
  readonly reason: string;
  /** Where, in UTF-16 units from the beginning of the text. */
  readonly at: number;
}

/** What `readJson` found. */
export interface ReadJson {
  readonly value: JsonValue;
  /** How many `NaN`, `Infinity` and `-Infinity` there were. */
  readonly nonFinite: number;
}

const WORDS: readonly (readonly [string, string])[] = [
  ['true', 'true'],
  ['false', 'false'],
  ['null', 'null'],
  ['NaN', 'null'],
  ['Infinity', 'null'],
  ['-Infinity', 'null'],
];

/** So many pieces are made one: a text may have white space behind every character. */
const JOINED_PIECES = 4096;

/** One pass over a text: checks it and leaves white space out. */
class Reader {
  readonly #text: string;
  readonly #stack: number[] = [];
  readonly #joined: string[] = [];
  readonly #pieces: string[] = [];
  #at = 0;
  #copied = 0;
  nonFinite = 0;
  problem: JsonProblem | undefined;

  constructor(text: string) {
    this.#text = text;
  }

  /** The text without white space; undefined when there is a problem. */
  read(): string | undefined {
    do {
      if (!this.#value()) return undefined;
    } while (this.#next());
    if (this.problem !== undefined) return undefined;
    if (this.#copied === 0) return this.#text;
    return [...this.#joined, ...this.#pieces, this.#text.slice(this.#copied)].join('');
  }

  #fail(reason: string, at = this.#at): false {
    this.problem ??= at >= this.#text.length ? { reason: 'the text ends early', at } : { reason, at };
    return false;
  }

  #replace(from: number, to: number, replacement: string): void {
    if (from > this.#copied) this.#pieces.push(this.#text.slice(this.#copied, from));
    if (replacement !== '') this.#pieces.push(replacement);
    this.#copied = to;
    if (this.#pieces.length >= JOINED_PIECES) this.#joined.push(this.#pieces.splice(0).join(''));
  }

  /** Skips white space and gives the code behind it; NaN at the end. */
  #token(): number {
    const from = this.#at;
    let code = this.#text.charCodeAt(this.#at);
    while (code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09) {
      this.#at += 1;
      code = this.#text.charCodeAt(this.#at);
    }
    if (this.#at > from) this.#replace(from, this.#at, '');
    return code;
  }

  /** Reads a scalar, an empty container, or opens containers up to the first scalar in them. */
  #value(): boolean {
    for (;;) {
      const code = this.#token();
      if (code === QUOTE) return this.#string();
      if (code !== OPEN_BRACE && code !== OPEN_BRACKET) return this.#number(code) || this.#word();
      if (this.#stack.length >= LIMITS.depth) return this.#fail(`nested deeper than ${LIMITS.depth}`);
      this.#at += 1;
      const closing = code === OPEN_BRACE ? CLOSE_BRACE : CLOSE_BRACKET;
      if (this.#token() === closing) {
        this.#at += 1;
        return true;
      }
      this.#stack.push(closing);
      if (code === OPEN_BRACE && !this.#name()) return false;
    }
  }

  /** Reads what is behind a value; true when another value is due. */
  #next(): boolean {
    for (;;) {
      const code = this.#token();
      const closing = this.#stack.at(-1);
      if (closing === undefined) {
        if (!Number.isNaN(code)) this.#fail('something follows the value');
        return false;
      }
      if (code === COMMA) {
        this.#at += 1;
        return closing === CLOSE_BRACKET || this.#name();
      }
      if (code !== closing) return this.#fail(`expected , or ${String.fromCharCode(closing)}`);
      this.#at += 1;
      this.#stack.pop();
    }
  }

  #name(): boolean {
    if (this.#token() !== QUOTE) return this.#fail('expected a name in double quotes');
    if (!this.#string()) return false;
    if (this.#token() !== COLON) return this.#fail('expected :');
    this.#at += 1;
    return true;
  }

  #string(): boolean {
    for (let at = this.#at + 1; at < this.#text.length; at += 1) {
      const code = this.#text.charCodeAt(at);
      if (code === QUOTE) {
        this.#at = at + 1;
        return true;
      }
      if (code < 0x20) return this.#fail('a control character in a string', at);
      if (code === BACKSLASH) {
        at += 1;
        const escape = this.#text.charAt(at);
        if (escape === 'u' && /^[0-9a-fA-F]{4}$/.test(this.#text.slice(at + 1, at + 5))) at += 4;
        else if (escape === '' || !'"\\/bfnrt'.includes(escape)) return this.#fail('an unknown escape', at);
      }
    }
    return this.#fail('', this.#text.length);
  }

  #digits(from: number): number {
    let at = from;
    while (this.#text.charCodeAt(at) - ZERO >= 0 && this.#text.charCodeAt(at) - ZERO <= 9) at += 1;
    return at;
  }

  /** Reads a number; false, and no problem, when there is none. */
  #number(first: number): boolean {
    const start = first === MINUS ? this.#at + 1 : this.#at;
    let end = this.#text.charCodeAt(start) === ZERO ? start + 1 : this.#digits(start);
    if (end === start) return false;
    if (this.#text.charCodeAt(end) === DOT) {
      const fraction = this.#digits(end + 1);
      if (fraction === end + 1) return this.#fail('expected a digit', fraction);
      end = fraction;
    }
    if ((this.#text.charCodeAt(end) | 0x20) === 0x65) {
      const sign = this.#text.charAt(end + 1);
      const digits = end + (sign === '+' || sign === '-' ? 2 : 1);
      end = this.#digits(digits);
      if (end === digits) return this.#fail('expected a digit', end);
    }
    this.#at = end;
    return true;
  }

  #word(): boolean {
    if (this.problem !== undefined) return false;
    for (const [word, meaning] of WORDS) {
      if (!this.#text.startsWith(word, this.#at)) continue;
      if (word !== meaning) {
        this.#replace(this.#at, this.#at + word.length, meaning);
        this.nonFinite += 1;
      }
      this.#at += word.length;
      return true;
    }
    return this.#fail('expected a value');
  }
}

/**
 * Reads a text that must hold one JSON value. `NaN`, `Infinity` and `-Infinity`, which Python and TensorFlow write, are
 * taken as `null` and counted. Nesting is limited to `LIMITS.depth`.
 */
export function readJson(text: string): ReadJson | JsonProblem {
  const reader = new Reader(text);
  const compact = reader.read();
  if (compact === undefined) return reader.problem ?? { reason: 'expected a value', at: 0 };
  return { value: new JsonValue(compact, 0, compact.length), nonFinite: reader.nonFinite };
}

/** Index behind the JSON object that begins at the first `{` of some bytes, whatever follows it; undefined when it does not end. */
export function objectEnd(bytes: Buffer): number | undefined {
  let depth = 0;
  let inString = false;
  for (let at = 0; at < bytes.length; at += 1) {
    const byte = bytes[at];
    if (inString) {
      if (byte === BACKSLASH) at += 1;
      else if (byte === QUOTE) inString = false;
    } else if (byte === QUOTE) inString = true;
    else if (byte === OPEN_BRACE) depth += 1;
    else if (byte === CLOSE_BRACE) {
      depth -= 1;
      if (depth <= 0) return at + 1;
    }
  }
  return undefined;
}
