import type { Answer, BodySink, Exchange } from '../exchange.ts';
import type { ReadHeaders } from '../headers.ts';

/** The connection that a request came on; each call is about the request given. */
export interface ExchangeOwner {
  hold(exchange: FrontExchange, held: boolean): void;
  accept(exchange: FrontExchange, close: boolean): void;
  reply(exchange: FrontExchange, answer: Answer, close: boolean): void;
  /** The headers of the head that begins at `from`. */
  rawHeaders(bytes: Buffer, from: number): readonly string[];
}

interface ExchangeParts {
  readonly port: number;
  readonly headers: ReadHeaders;
  /** The sender asks for the connection to be closed. */
  readonly close: boolean;
  /** Where the head lies. */
  readonly bytes: Buffer;
  readonly from: number;
}

/** A request on a connection of the front. */
export class FrontExchange implements Exchange {
  readonly #owner: ExchangeOwner;
  readonly #bytes: Buffer;
  readonly #from: number;
  readonly port: number;
  readonly headers: ReadHeaders;
  /** The sender asks for the connection to be closed. */
  readonly close: boolean;
  /** The whole body was given to the sink. */
  complete = false;
  /** Where the body goes; undefined when nobody wants it (any more). */
  sink: BodySink | undefined;

  constructor(owner: ExchangeOwner, parts: ExchangeParts) {
    this.#owner = owner;
    this.#bytes = parts.bytes;
    this.#from = parts.from;
    this.port = parts.port;
    this.headers = parts.headers;
    this.close = parts.close;
  }

  get rawHeaders(): readonly string[] {
    return this.#owner.rawHeaders(this.#bytes, this.#from);
  }

  receive(sink: BodySink): void {
    this.sink = sink;
  }

  pause(): void {
    this.#owner.hold(this, true);
  }

  resume(): void {
    this.#owner.hold(this, false);
  }

  accept(close: boolean): void {
    this.#owner.accept(this, close);
  }

  reply(answer: Answer, close: boolean): void {
    this.#owner.reply(this, answer, close);
  }
}
