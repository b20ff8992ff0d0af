import type { ReadHeaders } from './headers.ts';

/** Who is given a request's body: its pieces in order, then `ended` or `gone`, once. */
export interface BodySink {
  /** The next bytes. They are the sink's to keep. */
  piece(bytes: Buffer): void;
  /** All bytes were given. */
  ended(): void;
  /** The sender went away before that; nobody can be answered. */
  gone(): void;
}

/** An answer with a JSON body. */
export interface Answer {
  readonly status: number;
  /** Headers beyond those that every such answer has. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

/**
 * One request and its answer: what receivers see of a connection. Made by `front/` for the requests it takes itself, and by
 * `NodeExchange` for those of `node:http`.
 */
export interface Exchange {
  /** Local port of the listener. */
  readonly port: number;
  readonly headers: ReadHeaders;
  /** All headers as they came, names and values in turn; as `rawHeaders` of Node. */
  readonly rawHeaders: readonly string[];
  /** Gives the body to this sink from now on. To be called at once by a receiver that does not answer at once. */
  receive(sink: BodySink): void;
  /** Gives no more pieces than what was read already, until `resume`. */
  pause(): void;
  resume(): void;
  /** Answers 204. `close`: the connection ends with it. */
  accept(close: boolean): void;
  /**
   * Answers. `close`: the connection ends with it. It also does before the sink's `ended`: then the rest of the body is
   * thrown away for up to 2 s, so that the sender can read the answer. Only the first answer to a request is sent.
   */
  reply(answer: Answer, close: boolean): void;
}
