import type { Socket } from 'node:net';
import type { Answer, BodySink } from '../exchange.ts';
import { BAD_REQUEST, TIMED_OUT } from './answers.ts';
import type { FrontCore, SweptConnection } from './core.ts';
import { type ExchangeOwner, FrontExchange } from './front-exchange.ts';
import { INCOMPLETE } from './head.ts';

/** Most pieces that a head may come in; one in more is for `node:http`, which reads a head bit by bit. */
const MAX_HEAD_PIECES = 64;

/** What a connection waits for. */
const STATE = {
  /** The head of a request, or more of it. */
  head: 0,
  /** The rest of a body. */
  body: 1,
  /** The answer: the request is whole, and nothing behind it is looked at. */
  answer: 2,
  /** Nothing: it ends, has ended, or is `node:http`'s. */
  over: 3,
} as const;

/** One connection of the front, with one request at a time. */
export class FrontConnection implements ExchangeOwner, SweptConnection {
  readonly #socket: Socket;
  readonly #core: FrontCore;
  #state: (typeof STATE)[keyof typeof STATE] = STATE.head;
  #exchange: FrontExchange | undefined;
  /** Bytes of the body that have not come. */
  #left = 0;
  /** The beginning of a head. */
  #partial: Buffer | undefined;
  #pieces = 0;
  /** Requests answered. */
  #answered = 0;
  /** Tick at which the wait, or the request, began. */
  #since: number;
  /** Tick at which the last answer was written: the rest of the body is thrown away, or what was written is on its way. */
  #lingers = -1;
  /** The socket is paused until the answer before the bytes that wait in it is out. */
  #parked = false;
  /** The sender has closed its side. */
  #ended = false;

  constructor(socket: Socket, core: FrontCore) {
    this.#socket = socket;
    this.#core = core;
    this.#since = core.tick;
    core.connections.add(this);
    socket.on('data', this.#onData);
    socket.on('end', this.#onEnd);
    socket.on('close', this.#onClose);
    socket.on('drain', this.#onDrain);
    socket.on('error', this.#onError);
  }

  readonly #onData = (chunk: Buffer): void => {
    let bytes = chunk;
    if (this.#partial !== undefined) {
      bytes = Buffer.concat([this.#partial, chunk]);
      this.#partial = undefined;
    }
    for (let at = 0; at < bytes.length && this.#state !== STATE.over; ) {
      if (this.#parked || this.#state === STATE.answer) {
        this.#park(bytes.subarray(at));
        return;
      }
      at = this.#state === STATE.head ? this.#head(bytes, at) : this.#body(bytes, at);
    }
  };

  /** Reads a head, and gives the offset behind what was used. */
  #head(bytes: Buffer, from: number): number {
    const core = this.#core;
    if (this.#pieces === 0) this.#since = core.tick;
    const end = core.reader.read(bytes, from);
    if (end > 0) {
      this.#begin(bytes, from);
      return end;
    }
    this.#pieces += 1;
    if (end === INCOMPLETE && this.#pieces <= MAX_HEAD_PIECES) {
      // A copy: the piece it lies in may be much longer.
      this.#partial = Buffer.from(bytes.subarray(from));
    } else this.#handOver(bytes.subarray(from));
    return bytes.length;
  }

  #begin(bytes: Buffer, from: number): void {
    const { reader, port } = this.#core;
    const { headers, close, target } = reader;
    const exchange = new FrontExchange(this, { port, headers, close, bytes, from });
    this.#exchange = exchange;
    this.#left = headers.bytes ?? 0;
    this.#pieces = 0;
    this.#state = STATE.body;
    this.#core.receive(target, exchange);
    if (this.#left === 0 && this.#exchange === exchange) this.#whole(exchange);
  }

  /** Takes bytes of the body, and gives the offset behind them. */
  #body(bytes: Buffer, from: number): number {
    const end = Math.min(bytes.length, from + this.#left);
    this.#left -= end - from;
    const exchange = this.#exchange;
    if (exchange === undefined) return end;
    exchange.sink?.piece(bytes.subarray(from, end));
    if (this.#left === 0 && this.#exchange === exchange) this.#whole(exchange);
    return end;
  }

  /** The request is there to its last byte. */
  #whole(exchange: FrontExchange): void {
    exchange.complete = true;
    if (this.#lingers >= 0) {
      this.#finish();
      return;
    }
    this.#state = STATE.answer;
    // Who held the body back may not be asked again to let go.
    if (this.#socket.isPaused()) this.#parked = true;
    exchange.sink?.ended();
  }

  /** Stops reading; what was read already goes back where it came from. So a half-closed connection does not end before it. */
  #park(rest: Buffer): void {
    this.#parked = true;
    this.#socket.pause();
    if (rest.length > 0) this.#socket.unshift(rest);
  }

  hold(exchange: FrontExchange, held: boolean): void {
    if (exchange !== this.#exchange || this.#state !== STATE.body || this.#lingers >= 0) return;
    if (held) this.#socket.pause();
    else this.#socket.resume();
  }

  rawHeaders(bytes: Buffer, from: number): readonly string[] {
    return this.#core.reader.raw(bytes, from);
  }

  accept(exchange: FrontExchange, close: boolean): void {
    if (exchange !== this.#exchange || this.#lingers >= 0) return;
    const last = this.#isLast(exchange, close);
    this.#socket.write(this.#core.answers.accepted(last));
    this.#next(last);
  }

  reply(exchange: FrontExchange, answer: Answer, close: boolean): void {
    if (exchange !== this.#exchange || this.#lingers >= 0) return;
    const cut = !exchange.complete;
    const last = this.#isLast(exchange, close);
    this.#socket.write(this.#core.answers.json(answer, last, cut));
    if (!cut) {
      this.#next(last);
      return;
    }
    exchange.sink = undefined;
    this.#lingers = this.#core.tick;
    this.#socket.resume();
  }

  #isLast(exchange: FrontExchange, close: boolean): boolean {
    return close || exchange.close || this.#ended || this.#core.closing;
  }

  /** After an answer to a whole request. */
  #next(last: boolean): void {
    this.#exchange = undefined;
    this.#answered += 1;
    if (last) {
      this.#finish();
      return;
    }
    this.#state = STATE.head;
    this.#since = this.#core.tick;
    if (this.#socket.writableNeedDrain) {
      // A sender that reads no answers gets no more of them.
      this.#parked = true;
      this.#socket.pause();
    } else if (this.#parked) this.#unpark();
  }

  #unpark(): void {
    this.#parked = false;
    this.#socket.resume();
  }

  readonly #onDrain = (): void => {
    if (this.#parked && this.#state === STATE.head) this.#unpark();
  };

  readonly #onEnd = (): void => {
    this.#ended = true;
    if (this.#state === STATE.head) {
      if (this.#partial === undefined) this.#finish();
      else this.#cut(BAD_REQUEST);
    } else if (this.#state === STATE.body) this.#cut(this.#lingers >= 0 ? undefined : BAD_REQUEST);
  };

  readonly #onClose = (): void => {
    this.#state = STATE.over;
    this.#core.connections.delete(this);
    const sink: BodySink | undefined = this.#exchange?.complete === false ? this.#exchange.sink : undefined;
    this.#exchange = undefined;
    sink?.gone();
  };

  /** The socket closes by itself; what is told there is told again by `close`. */
  readonly #onError = (): void => undefined;

  /** Ends the connection when all that was written is sent. */
  #finish(): void {
    this.#state = STATE.over;
    if (this.#lingers < 0) this.#lingers = this.#core.tick;
    this.#socket.destroySoon();
  }

  /** Ends the connection at once, with a last word. */
  #cut(text: Buffer | undefined): void {
    this.#state = STATE.over;
    if (text !== undefined) this.#socket.write(text);
    this.#socket.destroy();
  }

  /** Gives the connection to `node:http`, with what of it was not used. Only between two requests. */
  #handOver(rest: Buffer): void {
    const socket = this.#socket;
    this.#state = STATE.over;
    this.#core.connections.delete(this);
    socket.off('data', this.#onData);
    socket.off('end', this.#onEnd);
    socket.off('close', this.#onClose);
    socket.off('drain', this.#onDrain);
    socket.off('error', this.#onError);
    socket.pause();
    socket.unshift(rest);
    this.#core.handOver(socket);
    socket.resume();
  }

  sweep(): void {
    const { tick, ticks } = this.#core;
    const waited = tick - this.#since;
    if (this.#lingers >= 0) {
      if (tick - this.#lingers > ticks.linger) this.#socket.destroy();
    } else if (this.#state === STATE.head) {
      const waits = this.#partial === undefined && this.#answered > 0;
      if (waits && waited > ticks.keepAlive) this.#cut(undefined);
      else if (!waits && waited > ticks.headers) this.#cut(TIMED_OUT);
    } else if (this.#state === STATE.body && waited > ticks.request) this.#cut(TIMED_OUT);
  }

  retire(): void {
    const idle = this.#state === STATE.head && this.#partial === undefined && this.#socket.readableLength === 0;
    if (idle) this.#finish();
  }

  destroy(): void {
    this.#socket.destroy();
  }
}
