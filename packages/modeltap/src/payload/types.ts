/** One side of an exchange, as the tap captured it. */
export interface CapturedMessage {
  /** `Content-Type` as sent, with its parameters. */
  readonly contentType: string | undefined;
  /** The body, content-encoding undone. Undefined: not captured (too large, binary kept beside, aborted). */
  readonly body: Buffer | undefined;
  /** gRPC: the messages of the body, framing and compression undone. Undefined: `body` holds the frames. */
  readonly grpcMessages?: readonly Buffer[];
  /** `Inference-Header-Content-Length`: bytes of JSON in front of binary tensors. Undefined: the end of the JSON is looked for. */
  readonly inferenceHeaderBytes?: number;
}

/** One captured request and its answer. */
export interface CapturedExchange {
  /** Upper case. */
  readonly method: string;
  /** Path with query, as in the request line. */
  readonly path: string;
  /** HTTP status; undefined: no answer came. */
  readonly status: number | undefined;
  readonly request: CapturedMessage;
  readonly response: CapturedMessage | undefined;
}

/** Rows as JSON text. Numbers have the text they had in the body: int64, `1.0` and `1e400` survive. */
export interface Table {
  /** Names of all columns, in the order in which they first occur. At most `LIMITS.columns`. */
  readonly columns: readonly string[];
  /** One JSON object a row, without white space outside strings. At most `LIMITS.rows`. A row may lack columns. */
  readonly rows: readonly string[];
}

/** What a decoder found. */
export interface DecodedExchange {
  /** The rows of the request; undefined when they could not be read, and an issue says why. */
  readonly inputs: Table | undefined;
  /** The rows of the answer; the same holds. */
  readonly outputs: Table | undefined;
  /** What was wrong or left out, one sentence each, beginning with `request: ` or `response: `. Holds no value of a body. */
  readonly issues: readonly string[];
}

/** Turns exchanges of one protocol into tables. Holds no state. */
export interface PayloadDecoder {
  /** Name for settings and counters, e.g. `oip-v2`. */
  readonly protocol: string;
  /** Whether the exchange looks like one of this protocol. Cheap: looks at method, path and content type only. */
  matches(exchange: CapturedExchange): boolean;
  /** Never throws, whatever the bodies hold. Takes time linear in their length. */
  decode(exchange: CapturedExchange): DecodedExchange;
}

/** What bounds a decoder, beside the length of the bodies it is given. */
export const LIMITS = {
  /** Bytes of a body, decoded; a longer one is not read, with an issue. Reading takes up to 30 times as much memory. */
  bodyBytes: 16 * 1024 * 1024,
  /** Rows of a table; further ones are left out, with an issue. */
  rows: 100_000,
  /** Columns of a table; with more there is no table, with an issue. */
  columns: 4096,
  /** Nesting of JSON; a body that nests deeper is not read, with an issue. The agent's receivers have the same limit. */
  depth: 512,
  /** Characters of all rows of a table, or of a merged or converted message: names repeat in every row. */
  textChars: 64 * 1024 * 1024,
  /** Choices of a stream, and calls of tools in each; further ones are left out. */
  parallel: 1024,
  /** Dimensions of a tensor. */
  rank: 16,
  /** Issues told of each side of an exchange. */
  issues: 20,
} as const;
