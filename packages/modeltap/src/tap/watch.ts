import { randomUUID } from 'node:crypto';
import { Exchange, type ExchangeParts } from './exchange.ts';
import { type BodyFraming, Framer, type StopReason } from './framer.ts';
import { fieldOf, framingOf, type MessageHead, parseHead, parseRequestLine, parseStatusLine } from './head.ts';
import { requestIdOf } from './request-headers.ts';
import { isCollectedPath } from './request-path.ts';
import type { LostReason, TapSettings } from './types.ts';

/** Bytes to put into a direction's stream, at a place in the bytes that pass now. -1: in front of the one byte held back. */
interface Insertion {
  readonly at: number;
  /** ASCII. */
  readonly text: string;
}

/** A request that waits for its answer. Without `exchange` it is passed on and not captured. */
interface Pending {
  readonly method: string;
  readonly exchange: Exchange | undefined;
  /** The client asked to become another protocol. */
  readonly upgrades: boolean;
  /** The client waits for `100 Continue` before it sends the body. */
  readonly expects: boolean;
  bodyBegan: boolean;
}

/** What a watch reports to. */
export interface WatchParts extends Omit<ExchangeParts, 'settings'> {
  /** The settings for an exchange that begins now. */
  readonly settings: () => TapSettings;
  readonly begun: () => void;
  /** An exchange is over. */
  readonly over: (exchange: Exchange) => void;
  /** Something passed that is not captured. */
  readonly uncaptured: (reason: LostReason) => void;
}

const CR = Buffer.from('\r');

/**
 * Watches the bytes of one connection in both directions: which requests and answers they are, and which belong together.
 * `request` and `response` give the bytes to pass on: those that came, but for an added `x-request-id`.
 */
export class ConnectionWatch {
  readonly #parts: WatchParts;
  readonly #requests: Framer;
  readonly #responses: Framer;
  /** Requests whose answers have not ended, oldest first. */
  readonly #pending: Pending[] = [];
  /** The request that is being sent. */
  #sending: Pending | undefined;
  /** The exchange of the answer that is being sent. */
  #answering: Pending | undefined;
  #insertions: Insertion[] = [];
  #heldRequest = false;
  #heldResponse = false;
  #closed = false;
  #counted = false;

  constructor(parts: WatchParts) {
    this.#parts = parts;
    const { maxHeadBytes } = parts.settings().limits;
    this.#requests = new Framer(
      {
        head: (text, blankAt) => this.#requestHead(text, blankAt),
        body: (bytes) => this.#requestBody(bytes),
        end: () => this.#requestEnd(),
        stopped: (reason) => this.#requestsStopped(reason),
      },
      { maxHeadBytes, skipsBreaks: true },
    );
    this.#responses = new Framer(
      {
        head: (text, blankAt) => this.#responseHead(text, blankAt),
        body: (bytes) => this.#answering?.exchange?.push('response', bytes),
        end: () => this.#responseEnd(),
        stopped: (reason) => this.#responsesStopped(reason),
      },
      { maxHeadBytes, skipsBreaks: false },
    );
  }

  /** Something is under way, or it is not known whether it is. */
  get busy(): boolean {
    if (this.#responses.stopped) return true;
    return this.#pending.length > 0 || this.#sending !== undefined || !this.#requests.idle;
  }

  /** A request has begun, whole or not. */
  get hasRequest(): boolean {
    return this.#pending.length > 0 || this.#requests.stopped;
  }

  /** Bytes from the client; gives what to pass on. */
  request(bytes: Buffer): Buffer {
    if (this.#requests.stopped && !this.#heldRequest) return bytes;
    const held = this.#heldRequest;
    this.#heldRequest = false;
    this.#requests.push(bytes);
    // The end of a head without an id is held back by one byte: a field may yet have to go in front of it.
    this.#heldRequest = this.#requests.atBlankLine && this.#adds();
    return this.#pass(bytes, held, this.#heldRequest);
  }

  /** Bytes from the server; gives what to pass on. */
  response(bytes: Buffer): Buffer {
    if (this.#responses.stopped && !this.#heldResponse) return bytes;
    const held = this.#heldResponse;
    this.#heldResponse = false;
    this.#responses.push(bytes);
    this.#heldResponse = this.#responses.atBlankLine && this.#pending[0]?.exchange?.generated === true;
    return this.#pass(bytes, held, this.#heldResponse);
  }

  /** The client has sent its last byte; gives what was held back. */
  requestsEnded(): Buffer | undefined {
    return this.#heldRequest ? CR : undefined;
  }

  /** The server has sent its last byte; gives what was held back. */
  responsesEnded(): Buffer | undefined {
    this.#responses.finish();
    return this.#heldResponse ? CR : undefined;
  }

  /** The connection is gone. `fault`: who ended it early, or how. */
  close(fault: { readonly side: 'client' | 'upstream'; readonly code: string } | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    const open = new Set([...this.#pending, ...(this.#sending === undefined ? [] : [this.#sending])]);
    this.#pending.length = 0;
    this.#sending = undefined;
    for (const { exchange } of open) {
      if (exchange === undefined) continue;
      if (!exchange.response.complete) {
        if (fault?.side === 'client') exchange.clientAborted = true;
        else exchange.upstreamError = fault?.code ?? 'closed';
      }
      exchange.cut();
      this.#over(exchange);
    }
  }

  /** The tap stops: what is under way is lost. */
  abandon(): void {
    for (const { exchange } of this.#pending) exchange?.lose('stopping');
    this.#sending?.exchange?.lose('stopping');
  }

  #adds(): boolean {
    const { requestId, request, response } = this.#parts.settings();
    return requestId === 'add' && (request !== undefined || response !== undefined);
  }

  #requestHead(text: string, blankAt: number): BodyFraming | StopReason {
    const head = parseHead(text);
    const line = head && parseRequestLine(head.first);
    if (head === undefined || line === undefined) return text.startsWith('PRI * HTTP/2.0\r\n') ? 'http2' : 'not_http';
    const settings = this.#parts.settings();
    if (line.method === 'CONNECT' || this.#pending.at(-1)?.upgrades === true) return 'upgrade';
    if (this.#pending.length >= settings.limits.maxPipelined) return 'pipeline_full';
    const framing = framingOf(head, line.minor, { kind: 'none' });
    if (typeof framing === 'string') return framing;
    const collected =
      (settings.request !== undefined || settings.response !== undefined) &&
      isCollectedPath(line.target, settings.paths);
    const pending: Pending = {
      method: line.method,
      exchange: collected ? this.#begin(head, line, blankAt) : undefined,
      upgrades: fieldOf(head, 'upgrade') !== undefined,
      expects: framing.kind !== 'none' && fieldOf(head, 'expect')?.toLowerCase() === '100-continue',
      bodyBegan: false,
    };
    this.#sending = pending;
    this.#pending.push(pending);
    return framing;
  }

  #begin(head: MessageHead, line: { readonly method: string; readonly target: string }, blankAt: number): Exchange {
    const settings = this.#parts.settings();
    const brought = requestIdOf(head);
    const id = brought.id ?? randomUUID();
    const generated = settings.requestId === 'add' && brought.bare;
    if (generated) this.#insertions.push({ at: blankAt, text: `x-request-id: ${id}\r\n` });
    this.#parts.begun();
    const { budget, scanner } = this.#parts;
    return new Exchange({ head, ...line, id, generated }, { settings, budget, scanner });
  }

  #requestBody(bytes: Buffer): void {
    const sending = this.#sending;
    if (sending === undefined) return;
    sending.bodyBegan = true;
    sending.exchange?.push('request', bytes);
  }

  #requestEnd(): void {
    const exchange = this.#sending?.exchange;
    this.#sending = undefined;
    if (exchange === undefined) return;
    exchange.ended('request');
    if (exchange.complete) this.#over(exchange);
  }

  #responseHead(text: string, blankAt: number): BodyFraming | StopReason {
    const head = parseHead(text);
    const line = head && parseStatusLine(head.first);
    const [pending] = this.#pending;
    if (head === undefined || line === undefined) return 'not_http';
    if (pending === undefined) return 'unexpected_answer';
    const { status, minor } = line;
    if (status === 101) return 'upgrade';
    if (status < 200) return { kind: 'interim' };
    const bodyless = pending.method === 'HEAD' || status === 204 || status === 304;
    const framing: BodyFraming | StopReason = bodyless ? { kind: 'none' } : framingOf(head, minor, { kind: 'close' });
    if (typeof framing === 'string') return framing;
    this.#answering = pending;
    const { exchange } = pending;
    exchange?.answered(head, status);
    if (exchange?.generated === true && fieldOf(head, 'x-request-id') === undefined) {
      this.#insertions.push({ at: blankAt, text: `x-request-id: ${exchange.id}\r\n` });
    }
    return framing;
  }

  #responseEnd(): void {
    const pending = this.#answering;
    this.#answering = undefined;
    this.#pending.shift();
    if (pending === undefined) return;
    const { exchange } = pending;
    exchange?.ended('response');
    if (exchange?.complete === true) this.#over(exchange);
    // Refused before the body: the client may leave it out, and then what looks like a body is the next request.
    if (pending === this.#sending && pending.expects && !pending.bodyBegan) this.#requests.stop('body_not_sent');
  }

  #over(exchange: Exchange): void {
    this.#parts.over(exchange);
  }

  /** Requests are not known any more; answers to those before are. */
  #requestsStopped(reason: StopReason): void {
    const sending = this.#sending;
    this.#sending = undefined;
    // Exchanges that are lost by it are counted one by one; else the rest of the connection counts as one.
    if (!this.#counted && (sending?.exchange === undefined || reason === 'body_not_sent'))
      this.#parts.uncaptured(reason);
    if (sending?.exchange === undefined) return;
    const { exchange } = sending;
    if (reason === 'body_not_sent') {
      exchange.cut();
      this.#over(exchange);
      return;
    }
    exchange.lose(reason);
    if (!this.#pending.includes(sending)) this.#over(exchange);
  }

  /** Answers are not known any more, and so neither are the requests behind them. */
  #responsesStopped(reason: StopReason): void {
    const wasKnown = !this.#requests.stopped;
    const open = new Set([...this.#pending, ...(this.#sending === undefined ? [] : [this.#sending])]);
    this.#pending.length = 0;
    this.#sending = undefined;
    this.#answering = undefined;
    for (const { exchange } of open) {
      if (exchange === undefined) continue;
      this.#counted = true;
      exchange.lose(reason);
      this.#over(exchange);
    }
    if (wasKnown) this.#requests.stop(reason);
  }

  #pass(bytes: Buffer, held: boolean, hold: boolean): Buffer {
    const insertions = this.#insertions;
    if (insertions.length === 0 && !held && !hold) return bytes;
    this.#insertions = [];
    const [only] = insertions;
    if (only !== undefined && insertions.length === 1 && !held && !hold && only.at >= 0) return inserted(bytes, only);
    const parts: Buffer[] = [];
    let from = 0;
    const put = (to: number) => {
      if (held && from === 0 && parts.every((part) => part !== CR)) parts.push(CR);
      if (to > from) parts.push(bytes.subarray(from, to));
      from = to;
    };
    for (const insertion of insertions) {
      if (insertion.at >= 0) put(insertion.at);
      parts.push(Buffer.from(insertion.text, 'latin1'));
    }
    put(hold ? bytes.length - 1 : bytes.length);
    return parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
  }
}

/** The bytes with one insertion: nearly all requests and answers come in such a piece. */
function inserted(bytes: Buffer, { at, text }: Insertion): Buffer {
  const out = Buffer.allocUnsafe(bytes.length + text.length);
  bytes.copy(out, 0, 0, at);
  out.write(text, at, 'latin1');
  bytes.copy(out, at + text.length, at);
  return out;
}
