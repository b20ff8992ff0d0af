/** Why a connection, or an exchange on it, is not captured any further. The bytes pass on all the same. */
export type StopReason =
  /** Not HTTP/1: another protocol, or a head that is not written as RFC 9112 has it. */
  | 'not_http'
  | 'http2'
  /** A head or trailers longer than the limit. */
  | 'head_too_large'
  /** Content-Length and Transfer-Encoding that do not say for certain where the body ends. */
  | 'length_unclear'
  | 'bad_chunk'
  /** The connection became another protocol: 101, or CONNECT. */
  | 'upgrade'
  /** More requests were sent ahead than are remembered. */
  | 'pipeline_full'
  /** An answer that no request was sent for. */
  | 'unexpected_answer'
  /** A request with `Expect: 100-continue` was refused before its body: whether the body still comes is not known. */
  | 'body_not_sent';

/** Where a message's body ends. */
export type BodyFraming =
  | { readonly kind: 'none' }
  | { readonly kind: 'length'; readonly bytes: number }
  | { readonly kind: 'chunked' }
  /** With the connection. */
  | { readonly kind: 'close' }
  /** An answer of the 1xx class: the message goes on with another head. */
  | { readonly kind: 'interim' };

/** Told what passes. Nothing given here may be kept: the buffers are views of the bytes that passed. */
export interface FrameListener {
  /**
   * A head has passed, as Latin-1 text with the line break of its last line. `blankAt` is where its blank line begins in
   * the bytes pushed last: -1 when the CR came with the bytes before. Gives how the body is framed, or why it is not known.
   */
  head(text: string, blankAt: number): BodyFraming | StopReason;
  /** Bytes of the body, without chunk framing. */
  body(bytes: Buffer): void;
  /** The message has ended. */
  end(): void;
  /** Nothing more is told. */
  stopped(reason: StopReason): void;
}

const CR = 13;
const LF = 10;
const SEMICOLON = 59;
const HEAD_END = Buffer.from('\r\n\r\n');

const HEAD = 0;
const LENGTH = 1;
const CLOSE = 2;
const SIZE_FIRST = 3;
const SIZE = 4;
const EXTENSION = 5;
const SIZE_LF = 6;
const DATA = 7;
const DATA_CR = 8;
const DATA_LF = 9;
const TRAILER_START = 10;
const TRAILER = 11;
const TRAILER_LF = 12;
const LAST_LF = 13;
const STOPPED = 14;

/**
 * Finds the messages in one direction of an HTTP/1.1 connection by watching its bytes. It changes nothing, never throws,
 * and says the same whatever pieces the bytes come in. What it does not know for certain ends the watching.
 */
export class Framer {
  readonly #listener: FrameListener;
  readonly #maxHeadBytes: number;
  /** Line breaks before a head are skipped, as servers do with those of requests. */
  readonly #skipsBreaks: boolean;
  #state = HEAD;
  /** A head that came in pieces, so far. */
  #head = Buffer.alloc(0);
  #headBytes = 0;
  /** Bytes of the body or the chunk still to come. */
  #left = 0;
  /** Bytes of a chunk's extension or of trailers so far. */
  #spare = 0;

  /** `maxHeadBytes` also limits trailers and the extensions of one chunk. */
  constructor(listener: FrameListener, options: { readonly maxHeadBytes: number; readonly skipsBreaks: boolean }) {
    this.#listener = listener;
    this.#maxHeadBytes = options.maxHeadBytes;
    this.#skipsBreaks = options.skipsBreaks;
  }

  /** Nothing is watched any more. */
  get stopped(): boolean {
    return this.#state === STOPPED;
  }

  /** Between two messages. */
  get idle(): boolean {
    return this.#state === HEAD && this.#headBytes === 0;
  }

  /** The last byte pushed is the CR of a head's blank line. */
  get atBlankLine(): boolean {
    const at = this.#headBytes;
    return (
      this.#state === HEAD &&
      at > 3 &&
      this.#head[at - 1] === CR &&
      this.#head[at - 2] === LF &&
      this.#head[at - 3] === CR
    );
  }

  /** The next bytes of this direction. */
  push(bytes: Buffer): void {
    for (let at = 0; at < bytes.length && this.#state !== STOPPED; ) at = this.#step(bytes, at);
  }

  /** There are no more bytes: a body that ends with the connection has ended. */
  finish(): void {
    if (this.#state === CLOSE) this.#ended();
  }

  /** Ends the watching. */
  stop(reason: StopReason): void {
    if (this.#state === STOPPED) return;
    this.#state = STOPPED;
    this.#head = Buffer.alloc(0);
    this.#headBytes = 0;
    this.#listener.stopped(reason);
  }

  #step(bytes: Buffer, at: number): number {
    switch (this.#state) {
      case HEAD:
        return this.#readHead(bytes, at);
      case LENGTH:
      case DATA:
        return this.#readKnown(bytes, at);
      case CLOSE:
        this.#listener.body(at === 0 ? bytes : bytes.subarray(at));
        return bytes.length;
      case TRAILER_START:
      case TRAILER:
      case TRAILER_LF:
      case LAST_LF:
        return this.#readTrailer(bytes[at] ?? 0, at);
      default:
        return this.#readSize(bytes[at] ?? 0, at);
    }
  }

  #readHead(bytes: Buffer, from: number): number {
    let at = from;
    if (this.#headBytes === 0) {
      while (this.#skipsBreaks && (bytes[at] === CR || bytes[at] === LF)) at += 1;
      if (at === bytes.length) return at;
      // Other protocols are left alone at their first byte, so that nothing of them is kept.
      if (!isLetter(bytes[at] ?? 0)) {
        this.stop('not_http');
        return at;
      }
      const end = bytes.indexOf(HEAD_END, at);
      if (end >= 0 && end + 4 - at <= this.#maxHeadBytes) {
        this.#begin(bytes.toString('latin1', at, end + 2), end + 2);
        return end + 4;
      }
    }
    return this.#gatherHead(bytes, at);
  }

  /** Keeps the piece of a head until the rest is there. */
  #gatherHead(bytes: Buffer, at: number): number {
    const before = this.#headBytes;
    const take = Math.min(bytes.length - at, this.#maxHeadBytes - before);
    if (before + take > this.#head.length) {
      const wider = Buffer.allocUnsafeSlow(Math.min(this.#maxHeadBytes, Math.max(1024, 2 * (before + take))));
      this.#head.copy(wider, 0, 0, before);
      this.#head = wider;
    }
    bytes.copy(this.#head, before, at, at + take);
    this.#headBytes += take;
    const found = this.#head.subarray(0, this.#headBytes).indexOf(HEAD_END, Math.max(0, before - 3));
    if (found < 0) {
      if (this.#headBytes === this.#maxHeadBytes) this.stop('head_too_large');
      return bytes.length;
    }
    const text = this.#head.toString('latin1', 0, found + 2);
    const next = at + found + 4 - before;
    this.#head = Buffer.alloc(0);
    this.#headBytes = 0;
    this.#begin(text, next - 2);
    return next;
  }

  #begin(text: string, blankAt: number): void {
    const framing = this.#listener.head(text, blankAt);
    if (this.#state === STOPPED) return;
    if (typeof framing === 'string') this.stop(framing);
    else if (framing.kind === 'interim') return;
    else if (framing.kind === 'none' || (framing.kind === 'length' && framing.bytes === 0)) this.#ended();
    else if (framing.kind === 'length') {
      this.#left = framing.bytes;
      this.#state = LENGTH;
    } else this.#state = framing.kind === 'chunked' ? SIZE_FIRST : CLOSE;
  }

  #ended(): void {
    this.#state = HEAD;
    this.#listener.end();
  }

  #readKnown(bytes: Buffer, at: number): number {
    const take = Math.min(this.#left, bytes.length - at);
    this.#left -= take;
    this.#listener.body(take === bytes.length ? bytes : bytes.subarray(at, at + take));
    // The listener may have ended the watching.
    if (this.#left === 0 && this.#state === LENGTH) this.#ended();
    else if (this.#left === 0 && this.#state === DATA) this.#state = DATA_CR;
    return at + take;
  }

  #readSize(byte: number, at: number): number {
    const state = this.#state;
    if (state === SIZE_FIRST || state === SIZE) this.#sizeByte(byte);
    else if (state === EXTENSION) {
      this.#spare += 1;
      if (byte === CR) this.#state = SIZE_LF;
      else if (byte === LF || byte === 0 || this.#spare > this.#maxHeadBytes) this.stop('bad_chunk');
    } else if (state === SIZE_LF) {
      this.#spare = 0;
      if (byte !== LF) this.stop('bad_chunk');
      else this.#state = this.#left === 0 ? TRAILER_START : DATA;
    } else if (state === DATA_CR) {
      if (byte === CR) this.#state = DATA_LF;
      else this.stop('bad_chunk');
    } else if (byte === LF) this.#state = SIZE_FIRST;
    else this.stop('bad_chunk');
    return at + 1;
  }

  #sizeByte(byte: number): void {
    const digit = hexValue(byte);
    if (digit >= 0) {
      const size = (this.#state === SIZE_FIRST ? 0 : this.#left * 16) + digit;
      this.#left = size;
      this.#state = SIZE;
      if (size > Number.MAX_SAFE_INTEGER) this.stop('bad_chunk');
    } else if (this.#state === SIZE_FIRST) this.stop('bad_chunk');
    else if (byte === CR) this.#state = SIZE_LF;
    else if (byte === SEMICOLON || byte === 32 || byte === 9) this.#state = EXTENSION;
    else this.stop('bad_chunk');
  }

  #readTrailer(byte: number, at: number): number {
    const state = this.#state;
    this.#spare += 1;
    if (state === LAST_LF) {
      this.#spare = 0;
      if (byte === LF) this.#ended();
      else this.stop('bad_chunk');
    } else if (state === TRAILER_LF) {
      if (byte === LF) this.#state = TRAILER_START;
      else this.stop('bad_chunk');
    } else if (byte === CR) this.#state = state === TRAILER_START ? LAST_LF : TRAILER_LF;
    else if (byte === LF || byte === 0 || this.#spare > this.#maxHeadBytes) this.stop('bad_chunk');
    else this.#state = TRAILER;
    return at + 1;
  }
}

function isLetter(byte: number): boolean {
  const letter = byte | 32;
  return letter >= 97 && letter <= 122;
}

function hexValue(byte: number): number {
  if (byte >= 48 && byte <= 57) return byte - 48;
  const letter = byte | 32;
  return letter >= 97 && letter <= 102 ? letter - 87 : -1;
}
