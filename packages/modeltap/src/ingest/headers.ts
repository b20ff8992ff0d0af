import { SAMPLED_OUT_HEADER } from './sampled-out.ts';

/*
 * Reading of request headers on the paths of ingest. Node would make an object of all headers for every request, which
 * costs about as much as scanning a small record; senders repeat their headers, so here they are compared with those of
 * the last requests, and only the few that change are taken out.
 */

/** What a header is to ingest. */
export const HEADER = {
  other: 0,
  contentType: 1,
  contentEncoding: 2,
  host: 3,
  type: 4,
  modelVersion: 5,
  collectDataType: 6,
  agent: 7,
  /** Any other `ce-…` header. */
  extension: 8,
  /** From here on: expected to differ from request to request. */
  contentLength: 9,
  time: 10,
  requestId: 11,
  sampledOut: 12,
} as const;

/** One of them. */
export type HeaderCode = (typeof HEADER)[keyof typeof HEADER];

const CODES: ReadonlyMap<string, HeaderCode> = new Map([
  ['content-type', HEADER.contentType],
  ['content-length', HEADER.contentLength],
  ['content-encoding', HEADER.contentEncoding],
  ['host', HEADER.host],
  ['ce-time', HEADER.time],
  ['ce-type', HEADER.type],
  ['ce-x-request-id', HEADER.requestId],
  ['ce-model-version', HEADER.modelVersion],
  ['ce-collect-data-type', HEADER.collectDataType],
  ['ce-agent', HEADER.agent],
  [SAMPLED_OUT_HEADER, HEADER.sampledOut],
]);

/** What the header of this name is, whatever its case. */
export function headerCode(name: string): HeaderCode {
  const lower = name.toLowerCase();
  return CODES.get(lower) ?? (lower.startsWith('ce-') ? HEADER.extension : HEADER.other);
}

/** Shapes kept: a sender has one for each of its collections. */
const MAX_SHAPES = 16;

/** Headers as a sender repeats them: the names, and the values of all that ingest reads but those that differ each time. */
export class HeaderShape {
  readonly #names: readonly string[];
  readonly #values: readonly string[];
  readonly #codes: Uint8Array;
  readonly host: string | undefined;
  readonly contentType: string | undefined;
  readonly encoding: string;
  /** How often headers of this shape were read in a row or nearly so. */
  reads = 0;
  /** For a receiver to keep what it made of these headers. */
  template: unknown;

  /** `raw` as in `rawHeaders`. */
  constructor(raw: readonly string[]) {
    this.#names = raw.filter((_, index) => index % 2 === 0);
    this.#values = raw.filter((_, index) => index % 2 === 1);
    this.#codes = Uint8Array.from(this.#names, headerCode);
    this.host = this.first(HEADER.host);
    this.contentType = this.first(HEADER.contentType);
    this.encoding = this.first(HEADER.contentEncoding) ?? '';
  }

  /** Value of the first header of this kind. */
  first(code: HeaderCode): string | undefined {
    const at = this.#codes.indexOf(code);
    return at < 0 ? undefined : this.#values[at];
  }

  /** Names and values of all headers of this kind. */
  all(code: HeaderCode): readonly (readonly [string, string])[] {
    return this.#names.flatMap((name, at) =>
      this.#codes[at] === code ? [[name, this.#values[at] ?? ''] as const] : [],
    );
  }

  /** The headers read with this shape, or undefined when they have another. */
  read(raw: readonly string[]): ReadHeaders | undefined {
    const names = this.#names;
    if (raw.length !== names.length * 2) return undefined;
    const headers = new ReadHeaders(this);
    for (let index = 0; index < names.length; index += 1) {
      if (raw[2 * index] !== names[index]) return undefined;
      const code = this.#codes[index] as HeaderCode;
      if (code === HEADER.other) continue;
      const value = raw[2 * index + 1] as string;
      if (code < HEADER.contentLength) {
        if (value !== this.#values[index]) return undefined;
      } else headers.take(code, value);
    }
    this.reads += 1;
    return headers;
  }
}

/** The headers of one request. */
export class ReadHeaders {
  readonly shape: HeaderShape;
  /** Content-Length; undefined when there is none. */
  bytes: number | undefined;
  /** `ce-time`, empty when there is none. */
  time = '';
  /** `ce-x-request-id`, empty when there is none. */
  requestId = '';
  /** `modeltap-sampled-out`, several as one list. */
  sampledOut: string | undefined;

  constructor(shape: HeaderShape) {
    this.shape = shape;
  }

  /** Takes the value of a header that differs from request to request. */
  take(code: HeaderCode, value: string): void {
    if (code === HEADER.time) this.time ||= value;
    else if (code === HEADER.requestId) this.requestId ||= value;
    else if (code === HEADER.contentLength) this.bytes = Number(value);
    else this.sampledOut = this.sampledOut === undefined ? value : `${this.sampledOut},${value}`;
  }
}

/** The shapes of the last requests, the latest first. */
const shapes: HeaderShape[] = [];

/** Reads headers as they came. */
export function readHeaders(raw: readonly string[]): ReadHeaders {
  for (let index = 0; index < shapes.length; index += 1) {
    const shape = shapes[index] as HeaderShape;
    const headers = shape.read(raw);
    if (headers === undefined) continue;
    if (index > 0) {
      shapes.splice(index, 1);
      shapes.unshift(shape);
    }
    return headers;
  }
  const shape = new HeaderShape(raw);
  if (shapes.length >= MAX_SHAPES) shapes.pop();
  shapes.unshift(shape);
  return shape.read(raw) as ReadHeaders;
}
