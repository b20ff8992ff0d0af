import { IncomingMessage } from 'node:http';
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
  expect: 4,
  type: 5,
  modelVersion: 6,
  collectDataType: 7,
  agent: 8,
  /** Any other `ce-…` header. */
  extension: 9,
  /** From here on: expected to differ from request to request. */
  contentLength: 10,
  time: 11,
  requestId: 12,
  sampledOut: 13,
} as const;

type HeaderCode = (typeof HEADER)[keyof typeof HEADER];

const CODES: ReadonlyMap<string, HeaderCode> = new Map([
  ['content-type', HEADER.contentType],
  ['content-length', HEADER.contentLength],
  ['content-encoding', HEADER.contentEncoding],
  ['host', HEADER.host],
  ['expect', HEADER.expect],
  ['ce-time', HEADER.time],
  ['ce-type', HEADER.type],
  ['ce-x-request-id', HEADER.requestId],
  ['ce-model-version', HEADER.modelVersion],
  ['ce-collect-data-type', HEADER.collectDataType],
  ['ce-agent', HEADER.agent],
  [SAMPLED_OUT_HEADER, HEADER.sampledOut],
]);

/** What the header of this name is, whatever its case. */
function headerCode(name: string): HeaderCode {
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
  readonly expect: string | undefined;
  readonly contentType: string | undefined;
  readonly encoding: string;
  /** For a receiver to keep what it made of these headers. */
  template: unknown;

  /** `raw` as in `rawHeaders`. */
  constructor(raw: readonly string[]) {
    this.#names = raw.filter((_, index) => index % 2 === 0);
    this.#values = raw.filter((_, index) => index % 2 === 1);
    this.#codes = Uint8Array.from(this.#names, headerCode);
    this.host = this.first(HEADER.host);
    this.expect = this.first(HEADER.expect);
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
      const code = this.#codes[index] as number;
      if (code === HEADER.other) continue;
      const value = raw[2 * index + 1] as string;
      if (code < HEADER.contentLength) {
        if (value !== this.#values[index]) return undefined;
      } else if (code === HEADER.contentLength) headers.length = value;
      else if (code === HEADER.time) headers.time ||= value;
      else if (code === HEADER.requestId) headers.requestId ||= value;
      else headers.sampledOut = headers.sampledOut === undefined ? value : `${headers.sampledOut},${value}`;
    }
    return headers;
  }
}

/** The headers of one request. */
export class ReadHeaders {
  readonly shape: HeaderShape;
  /** Content-Length, empty when there is none. */
  length = '';
  /** `ce-time`, empty when there is none. */
  time = '';
  /** `ce-x-request-id`, empty when there is none. */
  requestId = '';
  /** `modeltap-sampled-out`, several as one list. */
  sampledOut: string | undefined;

  constructor(shape: HeaderShape) {
    this.shape = shape;
  }

  // Node itself asks every request for these two.
  get host(): string | undefined {
    return this.shape.host;
  }

  get expect(): string | undefined {
    return this.shape.expect;
  }

  /** Content-Length as a number. */
  get bytes(): number | undefined {
    return this.length === '' ? undefined : Number(this.length);
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

/** Set on a request whose headers were read. */
const READ = Symbol('read headers');

/** The paths whose requests are read this way. */
const PATHS: ReadonlySet<string> = new Set(['/modeldata/log', '/v1/events']);

/**
 * A request whose `headers` hold only what Node asks for (`host`, `expect`) when it is a POST to ingest. All other
 * requests are as usual. To be given to `createServer`.
 */
export class IngestRequest extends IncomingMessage {
  declare [READ]: ReadHeaders | undefined;

  /** The headers of a POST to ingest. */
  get ingestHeaders(): ReadHeaders {
    return (this[READ] ??= readHeaders(this.rawHeaders));
  }
}

const usual = Object.getOwnPropertyDescriptor(IncomingMessage.prototype, 'headers');

// An accessor of the base class that TypeScript knows as a property, so it can only be replaced this way.
Object.defineProperty(IngestRequest.prototype, 'headers', {
  configurable: true,
  get(this: IngestRequest): unknown {
    return this.method === 'POST' && PATHS.has(this.url ?? '') ? this.ingestHeaders : usual?.get?.call(this);
  },
  set(this: IngestRequest, value: unknown) {
    usual?.set?.call(this, value);
  },
});

/** The headers of a request, however it was made: `handle` also takes requests of other servers. */
export function headersOf(request: IncomingMessage): ReadHeaders {
  return request instanceof IngestRequest ? request.ingestHeaders : readHeaders(request.rawHeaders);
}
