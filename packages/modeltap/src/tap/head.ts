import type { BodyFraming, StopReason } from './framer.ts';

/** The first line and the fields of a message; names in lower case, values without blanks around them, in their order. */
export interface MessageHead {
  readonly first: string;
  readonly names: readonly string[];
  readonly values: readonly string[];
}

/** What the first line of a request says. */
export interface RequestLine {
  readonly method: string;
  /** As sent. */
  readonly target: string;
  readonly minor: number;
}

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const REQUEST_LINE = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^ \t]+) HTTP\/1\.([01])$/;
const STATUS_LINE = /^HTTP\/1\.([01]) ([1-9]\d\d)(?: .*)?$/;

/** Names of fields in lower case, by how they were written: few are in use, and each head has several. */
const lowerNames = new Map<string, string>();
const MAX_NAMES = 512;
const MAX_NAME_LENGTH = 64;

/** Reads a head as the framer gives it. Undefined for one that is not written as it must be. */
export function parseHead(text: string): MessageHead | undefined {
  if (text.includes('\0')) return undefined;
  let end = lineEnd(text, 0);
  if (end < 0) return undefined;
  const first = text.slice(0, end);
  const names: string[] = [];
  const values: string[] = [];
  for (let from = end + 2; from < text.length; from = end + 2) {
    end = lineEnd(text, from);
    const colon = text.indexOf(':', from);
    if (end < 0 || colon < 0 || colon > end) return undefined;
    const name = lowerName(text.slice(from, colon));
    if (name === undefined) return undefined;
    names.push(name);
    values.push(text.slice(colon + 1, end).trim());
  }
  return { first, names, values };
}

/** Where the line ends. -1: at a line break that is not CR LF, and of such no two programs agree on what follows. */
function lineEnd(text: string, from: number): number {
  const end = text.indexOf('\r', from);
  return end >= 0 && text.indexOf('\n', from) === end + 1 ? end : -1;
}

function lowerName(name: string): string | undefined {
  const known = lowerNames.get(name);
  if (known !== undefined) return known;
  if (!TOKEN.test(name)) return undefined;
  // Copies: a part of a head would keep the whole head.
  const copy = Buffer.from(name, 'latin1').toString('latin1');
  const lower = copy.toLowerCase();
  if (lowerNames.size >= MAX_NAMES) lowerNames.clear();
  if (copy.length <= MAX_NAME_LENGTH) lowerNames.set(copy, lower);
  return lower;
}

/** Reads the first line of a request. */
export function parseRequestLine(first: string): RequestLine | undefined {
  const match = REQUEST_LINE.exec(first);
  if (!match) return undefined;
  const [, method = '', target = '', minor = '1'] = match;
  return { method, target, minor: Number(minor) };
}

/** Reads the status line of an answer. */
export function parseStatusLine(first: string): { readonly status: number; readonly minor: number } | undefined {
  const match = STATUS_LINE.exec(first);
  return match ? { minor: Number(match[1]), status: Number(match[2]) } : undefined;
}

/** The first field of this name, or undefined. */
export function fieldOf(head: MessageHead, name: string): string | undefined {
  const at = head.names.indexOf(name);
  return at < 0 ? undefined : head.values[at];
}

/** How the body of a message with these fields is framed; `otherwise` is what holds when no field says it. */
export function framingOf(head: MessageHead, minor: number, otherwise: BodyFraming): BodyFraming | StopReason {
  const length = head.names.indexOf('content-length');
  const coding = head.names.indexOf('transfer-encoding');
  if (length < 0 && coding < 0) return otherwise;
  if (coding >= 0) {
    const repeated = head.names.includes('transfer-encoding', coding + 1);
    if (length >= 0 || repeated || minor === 0) return 'length_unclear';
    return head.values[coding]?.toLowerCase() === 'chunked' ? { kind: 'chunked' } : 'length_unclear';
  }
  const text = head.values[length] ?? '';
  const bytes = Number(text);
  if (head.names.includes('content-length', length + 1) || !/^\d+$/.test(text) || !Number.isSafeInteger(bytes))
    return 'length_unclear';
  return { kind: 'length', bytes };
}
