import { samplePoint } from '../record/sample-point.ts';
import { BodyCapture, type CaptureRoom } from './body-capture.ts';
import type { MessageHead } from './head.ts';
import { Spill } from './spill.ts';
import type { BodyScanner, LostReason, MemoryBudget, TapSettings } from './types.ts';

/** Memory that an exchange is counted with besides its bodies. */
const BASE_BYTES = 1024;

/** Which message of an exchange. */
export type Side = 'request' | 'response';

/** How an exchange begins. */
export interface ExchangeStart {
  readonly head: MessageHead;
  readonly method: string;
  readonly target: string;
  readonly id: string;
  /** The id was made here and is added to the answer. */
  readonly generated: boolean;
}

/** What exchanges share. */
export interface ExchangeParts {
  readonly settings: TapSettings;
  readonly budget: MemoryBudget;
  readonly scanner: BodyScanner;
}

/** One message of an exchange: its head and what is kept of its body. */
export interface CapturedMessage {
  head: MessageHead | undefined;
  readonly body: BodyCapture;
  /** The whole message has passed. */
  complete: boolean;
}

/** Statuses that count as failures beside those of 500 and above. */
const FAILED_STATUS: ReadonlySet<number> = new Set([408, 429]);

/** One request with its answer, as it passes. */
export class Exchange implements CaptureRoom {
  readonly settings: TapSettings;
  readonly method: string;
  readonly target: string;
  readonly id: string;
  readonly generated: boolean;
  readonly timeMs = Date.now();
  readonly request: CapturedMessage;
  readonly response: CapturedMessage;
  status: number | undefined;
  /** Milliseconds from the head of the request to that of the answer, and to the end of the exchange. */
  ttfbMs: number | undefined;
  durationMs = 0;
  clientAborted = false;
  upstreamError: string | undefined;
  /** Set: nothing is kept, and why. */
  lost: LostReason | undefined;
  memory = 0;
  readonly #parts: ExchangeParts;
  readonly #startedMs = performance.now();
  readonly #keepsAll: boolean;
  readonly #keepsFailed: boolean;
  #charged = 0;

  constructor(start: ExchangeStart, parts: ExchangeParts) {
    const { settings } = parts;
    this.#parts = parts;
    this.settings = settings;
    this.method = start.method;
    this.target = start.target;
    this.id = start.id;
    this.generated = start.generated;
    this.request = { head: start.head, body: new BodyCapture(this, 'request'), complete: false };
    this.response = { head: undefined, body: new BodyCapture(this, 'response'), complete: false };
    const point = settings.samplingRate >= 1 && settings.errorRate >= 1 ? 0 : samplePoint(start.id);
    this.#keepsAll = point < settings.samplingRate;
    this.#keepsFailed = point < settings.errorRate;
    if (this.#keepsAll || this.#keepsFailed) this.take(BASE_BYTES);
  }

  get memoryBytes(): number {
    return this.settings.limits.memoryBytes;
  }

  get maxBodyBytes(): number {
    return this.settings.limits.maxBodyBytes;
  }

  /** Whether it failed, as far as is known. */
  get failed(): boolean {
    const { status = 0 } = this;
    return status >= 500 || FAILED_STATUS.has(status) || this.clientAborted || this.upstreamError !== undefined;
  }

  /** Whether the sample takes it, as far as is known. */
  get sampled(): boolean {
    return this.failed ? this.#keepsFailed : this.#keepsAll;
  }

  /** Whether it is over for both messages. */
  get complete(): boolean {
    return this.request.complete && this.response.complete;
  }

  /** Bytes of a body pass. */
  push(side: Side, bytes: Buffer): void {
    if (this.lost !== undefined || this.settings[side] === undefined) this[side].body.seen += bytes.length;
    else if (this.#keepsAll || this.#keepsFailed) this[side].body.push(bytes);
  }

  /** The head of the answer has passed. */
  answered(head: MessageHead, status: number): void {
    this.response.head = head;
    this.status = status;
    this.ttfbMs = performance.now() - this.#startedMs;
  }

  /** A message has ended. */
  ended(side: Side): void {
    this[side].complete = true;
    if (side === 'response') this.durationMs = performance.now() - this.#startedMs;
  }

  /** It will not go on: its connection is gone, whatever of it has passed. */
  cut(): void {
    if (!this.response.complete) this.durationMs = performance.now() - this.#startedMs;
  }

  /** Gives it up: nothing of it is stored. */
  lose(reason: LostReason): void {
    if (this.lost !== undefined) return;
    this.lost = reason;
    this.release();
  }

  /** Gives back all memory, and what was written and is not taken. */
  release(): void {
    this.request.body.drop();
    this.response.body.drop();
    this.#parts.budget.give(this.#charged);
    this.#charged = 0;
    this.memory = 0;
  }

  take(bytes: number): boolean {
    if (this.lost !== undefined) return false;
    if (!this.#parts.budget.take(bytes)) {
      this.lose('memory');
      return false;
    }
    this.#charged += bytes;
    this.memory += bytes;
    return true;
  }

  moved(bytes: number): void {
    this.#charged -= bytes;
    this.memory -= bytes;
  }

  /** Disk is used only for what the sample takes: what may yet fail is kept as far as memory goes. */
  spill(side: Side): Spill | undefined {
    const spool = this.settings[side]?.spool;
    if (this.lost !== undefined || !this.sampled || spool === undefined) return undefined;
    const { budget, scanner } = this.#parts;
    return new Spill({ spool, budget, scanner, onLost: (reason) => this.lose(reason) });
  }
}
