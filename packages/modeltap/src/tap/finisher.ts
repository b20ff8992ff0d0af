import { encodeHead, maxHeadBytes, type RecordHead } from '../record/codec.ts';
import { eventAttributes, mergedAttributes } from './event-attributes.ts';
import type { Exchange, Side } from './exchange.ts';
import { mergedAnswer } from './merged-stream.ts';
import { isPlain, type PreparedBody, prepareSlow, preparePlain, type PrepareParts } from './prepare.ts';
import { lossOf } from './spill.ts';
import type { StoredBody } from './stored-body.ts';
import type { LostReason, TapMetrics, TapSink } from './types.ts';

/** Longest time that finishing takes in one turn of the event loop, so that bytes do not wait for it. */
const TURN_MS = 1;
/** Exchanges whose side files are made durable at a time: enough for the disk, and no queue in front of the spool's own writes. */
const SEALING_AT_A_TIME = 4;
/** Exchanges that are read back from disk or decoded at a time. */
const SLOW_AT_A_TIME = 2;

/** Turns exchanges that are over into records of the spool, behind the forwarding of bytes. */
export class Finisher {
  readonly #parts: PrepareParts;
  readonly #metrics: TapMetrics;
  #queue: Exchange[] = [];
  #next = 0;
  #scheduled = false;
  /** Exchanges with bodies on disk that are not durable yet, and those that are. */
  readonly #unsealed = new Lane(SEALING_AT_A_TIME, {
    work: (exchange) => this.#seal(exchange),
    over: (exchange) => this.#slow.add(exchange),
  });
  readonly #slow = new Lane(SLOW_AT_A_TIME, {
    work: (exchange) => this.#finishSlow(exchange),
    over: () => this.#settle(),
  });
  /** Records handed to a spool and not yet on disk. */
  #appending = 0;
  readonly #waiting: (() => void)[] = [];
  #scratch = Buffer.allocUnsafeSlow(4096);

  constructor(parts: PrepareParts, metrics: TapMetrics) {
    this.#parts = parts;
    this.#metrics = metrics;
  }

  /** Takes an exchange that is over. */
  add(exchange: Exchange): void {
    this.#queue.push(exchange);
    this.#schedule();
  }

  /** Resolves when all that was added is on disk or lost. */
  idle(): Promise<void> {
    return new Promise((done) => {
      this.#waiting.push(done);
      this.#settle();
    });
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#turn();
    });
  }

  #turn(): void {
    const until = performance.now() + TURN_MS;
    while (this.#next < this.#queue.length) {
      const exchange = this.#queue[this.#next] as Exchange;
      this.#next += 1;
      this.#finish(exchange);
      if (this.#next < this.#queue.length && performance.now() > until) {
        this.#schedule();
        return;
      }
    }
    this.#queue = [];
    this.#next = 0;
    this.#settle();
  }

  #finish(exchange: Exchange): void {
    const { settings } = exchange;
    if (!exchange.sampled) this.#leaveOut(exchange);
    else if (exchange.lost !== undefined) this.#lose(exchange, exchange.lost);
    else if (
      (settings.request === undefined || isPlain(exchange, 'request')) &&
      (settings.response === undefined || isPlain(exchange, 'response'))
    ) {
      for (const [side, sink] of sidesOf(exchange)) {
        this.#store(exchange, side, sink, preparePlain(exchange, side, this.#parts.scanner));
      }
      exchange.release();
    } else if (exchange.request.body.spill ?? exchange.response.body.spill) this.#unsealed.add(exchange);
    else this.#slow.add(exchange);
  }

  #leaveOut(exchange: Exchange): void {
    for (const [, { counts, destination }] of sidesOf(exchange)) counts.sampledOut(destination.id, exchange.timeMs, 1);
    exchange.release();
  }

  #lose(exchange: Exchange, reason: LostReason): void {
    this.#metrics.lost(reason);
    for (const [, sink] of sidesOf(exchange)) this.#reject(exchange, sink, reason);
    exchange.release();
  }

  #reject({ timeMs }: Exchange, { counts, destination }: TapSink, reason: LostReason): void {
    counts.rejected(reason.startsWith('spool_') ? reason : `tap_${reason}`, destination.id, timeMs);
  }

  async #seal(exchange: Exchange): Promise<void> {
    await Promise.all([exchange.request.body.spill?.finish(), exchange.response.body.spill?.finish()]);
  }

  async #finishSlow(exchange: Exchange): Promise<void> {
    if (exchange.lost !== undefined) {
      this.#lose(exchange, exchange.lost);
      return;
    }
    for (const [side, sink] of sidesOf(exchange)) {
      try {
        const prepared = await prepareSlow(exchange, side, sink, this.#parts);
        if (prepared !== undefined) this.#store(exchange, side, sink, prepared);
        else this.#lost(exchange, sink, exchange.lost ?? 'spool_disk_error');
      } catch (error) {
        this.#lost(exchange, sink, lossOf(error));
      }
    }
    exchange.release();
  }

  #lost(exchange: Exchange, sink: TapSink, reason: LostReason): void {
    this.#metrics.lost(reason);
    this.#reject(exchange, sink, reason);
  }

  #store(exchange: Exchange, side: Side, sink: TapSink, prepared: PreparedBody): void {
    this.#append(exchange, sink, prepared.body, eventAttributes(exchange, side, prepared));
    const merged = side === 'response' ? mergedAnswer(exchange, prepared.body, this.#parts.scanner) : undefined;
    if (merged !== undefined) this.#append(exchange, sink, merged, mergedAttributes(exchange));
  }

  #append(exchange: Exchange, sink: TapSink, body: StoredBody, attributes: Buffer): void {
    const { spool, destination, counts } = sink;
    const head: RecordHead = {
      destinationId: destination.id,
      timeMs: exchange.timeMs,
      receivedMs: Date.now(),
      attributes,
      id: '',
      correlationId: exchange.id,
      flags: body.flags,
      rows: body.rows,
      bodyBytes: body.bodyBytes,
    };
    const need = maxHeadBytes(head);
    if (need > this.#scratch.length) this.#scratch = Buffer.allocUnsafeSlow(need);
    const first = this.#scratch.subarray(0, encodeHead(this.#scratch, 0, head));
    this.#appending += 1;
    const taken = spool.append(
      body.bytes === undefined ? [first] : [first, body.bytes],
      (refusal) => {
        this.#appending -= 1;
        if (refusal === undefined) counts.accepted(destination.id, head.timeMs, head.rows, head.bodyBytes);
        else this.#lost(exchange, sink, refusal);
        this.#settle();
      },
      body.sideFile,
    );
    if (taken) return;
    this.#appending -= 1;
    // What cannot be removed is an orphan that the next start removes.
    body.sideFile?.abort().catch(() => undefined);
    this.#lost(exchange, sink, spool.refusal);
  }

  #settle(): void {
    if (this.#waiting.length === 0 || this.#scheduled || this.#queue.length > 0) return;
    if (this.#unsealed.size + this.#slow.size + this.#appending > 0) return;
    for (const done of this.#waiting.splice(0)) done();
  }
}

function sidesOf({ settings }: Exchange): (readonly [Side, TapSink])[] {
  const sides: (readonly [Side, TapSink])[] = [];
  if (settings.request !== undefined) sides.push(['request', settings.request]);
  if (settings.response !== undefined) sides.push(['response', settings.response]);
  return sides;
}

/** What is done with an exchange that takes its time: `work`, which must not reject, and `over` when it has ended. */
interface LaneSteps {
  readonly work: (exchange: Exchange) => Promise<void>;
  readonly over: (exchange: Exchange) => void;
}

/** Exchanges that take their time: begun in order, so many at once. */
class Lane {
  readonly #atATime: number;
  readonly #steps: LaneSteps;
  readonly #waiting: Exchange[] = [];
  #working = 0;

  constructor(atATime: number, steps: LaneSteps) {
    this.#atATime = atATime;
    this.#steps = steps;
  }

  /** Those that wait and those that are worked on. */
  get size(): number {
    return this.#waiting.length + this.#working;
  }

  add(exchange: Exchange): void {
    this.#waiting.push(exchange);
    this.#start();
  }

  #start(): void {
    while (this.#working < this.#atATime) {
      const exchange = this.#waiting.shift();
      if (exchange === undefined) return;
      this.#working += 1;
      void this.#steps.work(exchange).finally(() => {
        this.#working -= 1;
        this.#start();
        this.#steps.over(exchange);
      });
    }
  }
}
