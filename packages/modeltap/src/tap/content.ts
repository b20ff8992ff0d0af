/** What a body is by its media type. `unknown`: the bytes decide. */
export type ContentKind = 'json' | 'text' | 'unknown' | 'binary';

const TEXT_TYPES: ReadonlySet<string> = new Set([
  'application/ecmascript',
  'application/graphql',
  'application/javascript',
  'application/json-seq',
  'application/jsonl',
  'application/jsonlines',
  'application/ndjson',
  'application/sql',
  'application/toml',
  'application/x-jsonlines',
  'application/x-ndjson',
  'application/x-yaml',
  'application/xml',
  'application/yaml',
]);
const UTF8_NAMES: ReadonlySet<string> = new Set(['', 'utf-8', 'utf8', 'us-ascii', 'ascii']);

/** What is read of a `content-type`. */
export interface ContentType {
  readonly kind: ContentKind;
  /** The text may be read as UTF-8. */
  readonly utf8: boolean;
}

/** Types read before: few are in use, and each message has one. */
const known = new Map<string, ContentType>();
const MAX_KNOWN = 256;
const MAX_KNOWN_LENGTH = 100;

/**
 * Reads a media type. Forms count as unknown, because clients such as curl call JSON a form when they are not told better;
 * so does a missing type.
 */
export function contentTypeOf(value: string | undefined): ContentType {
  const text = value ?? '';
  const before = known.get(text);
  if (before !== undefined) return before;
  const type = readContentType(text);
  if (known.size >= MAX_KNOWN) known.clear();
  // A copy: a part of a head would keep the whole head.
  if (text.length <= MAX_KNOWN_LENGTH) known.set(Buffer.from(text, 'latin1').toString('latin1'), type);
  return type;
}

function readContentType(value: string): ContentType {
  const [type = ''] = value.toLowerCase().split(';');
  const charset = /;\s*charset\s*=\s*"?([^";\s]*)/i.exec(value)?.[1] ?? '';
  return { kind: kindOf(type.trim()), utf8: UTF8_NAMES.has(charset.toLowerCase()) };
}

function kindOf(type: string): ContentKind {
  if (type === '' || type === 'application/x-www-form-urlencoded') return 'unknown';
  if (type === 'application/json' || type === 'text/json' || type.endsWith('+json')) return 'json';
  if (type.startsWith('text/') || type.endsWith('+xml') || type.endsWith('+yaml') || TEXT_TYPES.has(type))
    return 'text';
  return 'binary';
}

/** The names in `content-encoding`, outermost last; `identity` is left out. */
export function codingsOf(value: string | undefined): readonly string[] {
  if (value === undefined) return [];
  const names = value.split(',').map((name) => name.trim().toLowerCase());
  return names.filter((name) => name !== '' && name !== 'identity');
}

/** Bytes no text has: control characters other than tab, line feed, form feed, carriage return and escape. */
export function hasControlBytes(bytes: Buffer): boolean {
  // oxlint-disable-next-line no-control-regex
  return /[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]/.test(bytes.toString('latin1', 0, Math.min(bytes.length, 4096)));
}
