import type { ByteWriter } from './byte-writer.ts';

/*
 * Work on JSON text as bytes. Everything here takes text that is known to be valid JSON and never reads a number, so
 * int64 digits and `\/` survive (docs/object-layout.md, "Byte rules").
 */
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const LF = 0x0a;
const CR = 0x0d;
const SPACE = 0x20;

/** `<`, `>` and `&`, which Azure's agent writes as `\u003c`, `\u003e`, `\u0026`. In valid JSON they occur in strings only. */
const ESCAPES: readonly (Buffer | undefined)[] = Array.from({ length: 256 }, (_, byte) =>
  byte === 0x3c || byte === 0x3e || byte === 0x26 ? Buffer.from(`\\u${byte.toString(16).padStart(4, '0')}`) : undefined,
);
/** What an escape adds to the length. */
const ESCAPE_GROWTH = 5;

function isSpace(byte: number | undefined): boolean {
  return byte === SPACE || byte === LF || byte === CR || byte === 0x09;
}

/**
 * Appends JSON text in the form it has in a line: with `escapes`, `<`, `>` and `&` become `\u003c`, `\u003e`, `\u0026`;
 * with `lineBreaks`, CR and LF become spaces (valid JSON has them between tokens only). Neither: a plain copy.
 */
export function writeJson(out: ByteWriter, json: Buffer, escapes: boolean, lineBreaks: boolean): void {
  if (escapes) writeEscaped(out, json, lineBreaks);
  else if (lineBreaks) {
    const target = out.reserve(json.length);
    const from = out.length;
    json.copy(target, from);
    for (let at = from; at < from + json.length; at += 1) {
      if (target[at] === LF || target[at] === CR) target[at] = SPACE;
    }
    out.advance(json.length);
  } else out.copy(json);
}

function writeEscaped(out: ByteWriter, json: Buffer, lineBreaks: boolean): void {
  let found = 0;
  for (const byte of json) if (ESCAPES[byte]) found += 1;
  const target = out.reserve(json.length + found * ESCAPE_GROWTH);
  let to = out.length;
  for (const byte of json) {
    const escape = ESCAPES[byte];
    if (escape) to += escape.copy(target, to);
    else {
      target[to] = lineBreaks && (byte === LF || byte === CR) ? SPACE : byte;
      to += 1;
    }
  }
  out.advance(to - out.length);
}

/** JSON text of a string, unicode as it is. */
export function quoted(text: string): string {
  return /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/.test(text) ? `"${text}"` : JSON.stringify(text);
}

/** What lies between the brackets of an array, without white space at its ends: a view, empty for an empty array. */
export function insideArray(array: Buffer): Buffer {
  let start = array.indexOf(OPEN_BRACKET) + 1;
  let end = array.lastIndexOf(CLOSE_BRACKET);
  while (start < end && isSpace(array[start])) start += 1;
  while (end > start && isSpace(array[end - 1])) end -= 1;
  return array.subarray(start, end);
}

/** Index behind the string whose opening quote is at `at`. */
function stringEnd(json: Buffer, at: number): number {
  let end = at + 1;
  while (end < json.length && json[end] !== QUOTE) end += json[end] === BACKSLASH ? 2 : 1;
  return end + 1;
}

/** Whether the string `json[from, to)`, quotes included, is `name`, escapes undone. */
function isName(json: Buffer, from: number, to: number, name: string): boolean {
  const text = json.toString('utf8', from, to);
  return text === `"${name}"` || (text.includes('\\') && JSON.parse(text) === name);
}

/** Where the elements of an array lie, given what is inside its brackets, and whether each may take one more member. */
interface Element {
  /** Behind the last byte of the element (before the comma). */
  readonly end: number;
  /** Index of the closing brace, when the element is an object without a member of the name asked for. */
  readonly closing: number | undefined;
  /** The object has no member at all. */
  readonly empty: boolean;
}

/** Reads one element that begins at or behind `from`; strings and nesting are respected. */
function readElement(json: Buffer, from: number, name: string): Element {
  let at = from;
  while (at < json.length && isSpace(json[at])) at += 1;
  const isObject = json[at] === OPEN_BRACE;
  let depth = 0;
  let closing: number | undefined;
  let named = false;
  let keyNext = false;
  let empty = true;
  for (; at < json.length; at += 1) {
    const byte = json[at];
    if (byte === QUOTE) {
      const end = stringEnd(json, at);
      if (depth === 1 && keyNext && isObject) {
        named ||= isName(json, at, end, name);
        keyNext = false;
      }
      empty = false;
      at = end - 1;
    } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
      depth += 1;
      keyNext = depth === 1;
    } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
      depth -= 1;
      if (depth === 0) closing = at;
    } else if (byte === COMMA) {
      if (depth === 0) break;
      keyNext = depth === 1;
    }
  }
  return { end: at, closing: isObject && !named ? closing : undefined, empty };
}

/**
 * The inside of an array of rows with one more member in every object of it: `"<name>":<valueJson>`, behind the members
 * it has. Objects that have a member of this name at their first level, and elements that are not objects, stay as they
 * are. `inside` is what `insideArray` gives.
 */
export function withMember(inside: Buffer, name: string, valueJson: string): Buffer {
  const member = `"${name}":${valueJson}`;
  const first = Buffer.from(member);
  const further = Buffer.from(`,${member}`);
  const parts: Buffer[] = [];
  let copied = 0;
  for (let at = 0; at < inside.length; ) {
    const element = readElement(inside, at, name);
    if (element.closing !== undefined) {
      parts.push(inside.subarray(copied, element.closing), element.empty ? first : further);
      copied = element.closing;
    }
    at = element.end + 1;
  }
  parts.push(inside.subarray(copied));
  return Buffer.concat(parts);
}
