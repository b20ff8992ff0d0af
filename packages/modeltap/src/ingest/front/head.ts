import { maxHeaderSize } from 'node:http';

/*
 * The strict parser of request heads. It takes what senders of records write and nothing else; what it takes, it reads as
 * `node:http` does. Everything else, legal or not, is foreign: `node:http` gets it and decides.
 */

/** Longest head taken, bytes. `node:http` has the same limit but does not count separators. */
export const MAX_HEAD_BYTES = Math.min(16_384, maxHeaderSize);
/** What follows may still make it a head that is taken. */
export const INCOMPLETE = 0;
/** Not a head that is taken, whatever follows. */
export const FOREIGN = -1;
/** Why there is no head. */
export type Unparsed = typeof INCOMPLETE | typeof FOREIGN;

/** Most headers of a request. */
const MAX_FIELDS = 100;
const MAX_LENGTH_DIGITS = 15;

const TAB = 0x09;
const LF = 0x0a;
const CR = 0x0d;
const BLANK = 0x20;
const COLON = 0x3a;
const QUESTION = 0x3f;
const DIGIT_0 = 0x30;

/** 1 for the bytes of `characters`, and of the ranges between each two of them in `ranges`. */
function table(characters: string, ranges: readonly (readonly [number, number])[]): Uint8Array {
  const bytes = new Uint8Array(256);
  for (const character of characters) bytes[character.charCodeAt(0)] = 1;
  for (const [first, last] of ranges) bytes.fill(1, first, last + 1);
  return bytes;
}

const ALPHANUMERIC = [
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x61, 0x7a],
] as const;
/** Bytes of a header name. */
const IS_TOKEN = table("!#$%&'*+-.^_`|~", ALPHANUMERIC);
/** Bytes of a query that nobody could read in two ways. */
const IS_QUERY = table("-._~!$&'()*+,;=:@/?%", ALPHANUMERIC);
/** Bytes of a header value: no control characters but the tab. */
export const IS_VALUE = table('\t', [
  [0x20, 0x7e],
  [0x80, 0xff],
]);

const VERSION = Buffer.from(' HTTP/1.1\r\n');

/** Headers that change how a request is framed or answered: never taken. */
const NEVER: ReadonlySet<string> = new Set([
  'transfer-encoding',
  'expect',
  'upgrade',
  'trailer',
  'te',
  'content-encoding',
  'http2-settings',
]);

/** A head that is taken. */
export interface ParsedHead {
  /** Offset of the first byte behind it. */
  readonly end: number;
  /** Place of its path among the targets. */
  readonly target: number;
  /** Content-Length. */
  readonly length: number;
  /** The sender asks for the connection to be closed. */
  readonly close: boolean;
  /** Names and values in turn, Latin-1, values without blanks around them; as `rawHeaders` of Node. */
  readonly raw: readonly string[];
  /** Where each value begins and ends, in turn. */
  readonly places: readonly number[];
}

/** The line with which a POST to this path begins, without what follows the path. */
export function targetOf(path: string): Buffer {
  return Buffer.from(`POST ${path}`, 'latin1');
}

/** True for a blank or tab. */
export function isBlank(byte: number | undefined): boolean {
  return byte === BLANK || byte === TAB;
}

/** The number that the digits between the offsets make, or -1 when they are not 1 to 15 digits. */
export function digitsAt(bytes: Uint8Array, start: number, end: number): number {
  if (end <= start || end - start > MAX_LENGTH_DIGITS) return -1;
  let number = 0;
  for (let at = start; at < end; at += 1) {
    const digit = (bytes[at] as number) - DIGIT_0;
    if (digit < 0 || digit > 9) return -1;
    number = number * 10 + digit;
  }
  return number;
}

/** Offset behind `literal`, or why it is not there. */
function after(literal: Uint8Array, bytes: Uint8Array, at: number): number {
  for (let index = 0; index < literal.length; index += 1) {
    if (at + index >= bytes.length) return INCOMPLETE;
    if (bytes[at + index] !== literal[index]) return FOREIGN;
  }
  return at + literal.length;
}

/**
 * Reads the head that begins at `from` of a POST to one of the targets (`targetOf`). `INCOMPLETE` only if `node:http`, too,
 * would wait for more.
 */
export function parseHead(bytes: Buffer, from: number, targets: readonly Buffer[]): ParsedHead | Unparsed {
  const head = parseAnyLength(bytes, from, targets);
  const length = (typeof head === 'number' ? bytes.length : head.end) - from;
  return length > MAX_HEAD_BYTES ? FOREIGN : head;
}

function parseAnyLength(bytes: Buffer, from: number, targets: readonly Buffer[]): ParsedHead | Unparsed {
  let waiting = false;
  for (let target = 0; target < targets.length; target += 1) {
    const path = after(targets[target] as Buffer, bytes, from);
    const at = path > 0 ? behindQuery(bytes, path) : path;
    const line = at > 0 ? after(VERSION, bytes, at) : at;
    if (line > 0) return new Fields(bytes).read(line, target);
    waiting ||= line === INCOMPLETE;
  }
  return waiting ? INCOMPLETE : FOREIGN;
}

/** Offset behind the query, if one begins here. */
function behindQuery(bytes: Buffer, start: number): number {
  let at = start;
  if (bytes[at] === QUESTION) while (IS_QUERY[bytes[at] as number] === 1) at += 1;
  return at < bytes.length ? at : INCOMPLETE;
}

/** The header lines of one head. */
class Fields {
  readonly #bytes: Buffer;
  readonly #raw: string[] = [];
  readonly #places: number[] = [];
  #length = -1;
  #host = false;
  #connection = '';

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  read(start: number, target: number): ParsedHead | Unparsed {
    const bytes = this.#bytes;
    let at = start;
    while (at < bytes.length && bytes[at] !== CR) {
      const next = this.#line(at);
      if (next === INCOMPLETE || next === FOREIGN) return next;
      at = next;
    }
    if (at + 1 >= bytes.length) return INCOMPLETE;
    if (bytes[at + 1] !== LF || this.#length < 0 || !this.#host) return FOREIGN;
    const close = this.#connection === 'close';
    return { end: at + 2, target, length: this.#length, close, raw: this.#raw, places: this.#places };
  }

  /** Offset behind the header line that begins here. */
  #line(start: number): number {
    const bytes = this.#bytes;
    let colon = start;
    while (IS_TOKEN[bytes[colon] as number] === 1) colon += 1;
    if (colon >= bytes.length) return INCOMPLETE;
    if (bytes[colon] !== COLON || colon === start || this.#places.length >= 2 * MAX_FIELDS) return FOREIGN;
    const name = bytes.toString('latin1', start, colon);
    let from = colon + 1;
    while (isBlank(bytes[from])) from += 1;
    let stop = from;
    while (IS_VALUE[bytes[stop] as number] === 1) stop += 1;
    const whole = stop < bytes.length;
    if ((whole && bytes[stop] !== CR) || !this.#takes(name.toLowerCase(), from, whole ? stop : -1)) return FOREIGN;
    if (stop + 1 >= bytes.length) return INCOMPLETE;
    if (bytes[stop + 1] !== LF) return FOREIGN;
    let end = stop;
    while (end > from && isBlank(bytes[end - 1])) end -= 1;
    this.#raw.push(name, bytes.toString('latin1', from, end));
    this.#places.push(from, end);
    return stop + 2;
  }

  /** Judges a header whose meaning decides where the request ends; `stop` -1: the end of its value is not there yet. */
  #takes(name: string, from: number, stop: number): boolean {
    if (name === 'content-length') return this.#takesLength(from, stop);
    if (name === 'host') {
      if (this.#host) return false;
      this.#host = true;
      return true;
    }
    if (name === 'connection') return this.#takesConnection(from, stop);
    return !NEVER.has(name) && !name.startsWith('proxy-');
  }

  #takesLength(from: number, stop: number): boolean {
    const bytes = this.#bytes;
    const begins = bytes[from - 1] === COLON || (bytes[from - 1] === BLANK && bytes[from - 2] === COLON);
    // Other blanks around it are legal, and were read in more than one way by somebody before.
    if (this.#length >= 0 || !begins) return false;
    if (stop < 0 && from === bytes.length) return true;
    this.#length = digitsAt(bytes, from, stop < 0 ? bytes.length : stop);
    return this.#length >= 0;
  }

  #takesConnection(from: number, stop: number): boolean {
    if (this.#connection !== '') return false;
    if (stop < 0) return true;
    this.#connection = this.#bytes.toString('latin1', from, stop).toLowerCase();
    return this.#connection === 'close' || this.#connection === 'keep-alive';
  }
}
