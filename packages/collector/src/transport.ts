import type { GivenLimits } from './configuration.ts';
import type { CorrelationContext } from './context.ts';
import { CollectorError, type CollectorErrorCode, type CollectorErrorParams } from './errors.ts';
import { ROWS_TYPE, toFrame } from './frames.ts';
import { Ledger, OUTCOMES, type Outcome, SLOTS } from './ledger.ts';
import type { FailureLog } from './log.ts';
import type { FlushResult } from './options.ts';
import { Packer } from './pack.ts';
import type { Envelope, Report, Target } from './protocol.ts';
import { ShapeTable } from './shapes.ts';
import type { WorkerHost } from './worker-host.ts';

/** A queue waits this long for more records before it is handed over, so that the sending thread seldom wakes. */
const HAND_OVER_MS = 100;
/** The agent is told of records left out by sampling this often when no records are sent. */
const REPORT_MS = 5000;
/** A flush with nothing but such counts waits this long: they are not worth delaying the end of a process. */
const REPORT_WAIT_MS = 1000;
const MAX_ENVELOPES = 65_535;
/** Error listeners kept for a collection: a program that makes a collector a request must not grow without end. */
const MAX_LISTENERS = 16;

/** One collection in the queue of a transport. */
export interface Stream {
  readonly slot: number;
  readonly collection: string;
  accepted: number;
  sampled: number;
  queueFull: number;
  /** Accepted and handed over to the sending thread. */
  handed: number;
  lost: number;
  readonly listeners: Set<(error: CollectorError) => void>;
}

/** What a transport is made from. */
export interface TransportParts {
  readonly id: number;
  readonly host: WorkerHost;
  readonly log: FailureLog;
}

/** The queue to one agent: packs records, counts them, and hands them to the sending thread. */
export class Transport {
  readonly target: Target;
  readonly #parts: TransportParts;
  readonly #ledger = new Ledger();
  readonly #shapes = new ShapeTable();
  readonly #packer: Packer;
  readonly #streams = new Map<string, Stream>();
  readonly #envelopes = new Map<string, { readonly id: number; readonly envelope: Envelope }>();
  #limits = { maxQueueBytes: 67_108_864, maxQueueItems: 100_000, deliveryDeadlineMs: 60_000 };
  #flushTimeoutMs: number | undefined;
  /** Accepted and not released: here and in the sending thread. */
  #queuedItems = 0;
  #queuedBytes = 0;
  /** The part of it that is in the sending thread. */
  #handedItems = 0;
  #handedBytes = 0;
  #seenItems = 0;
  #seenBytes = 0;
  #busy = false;
  #timer: NodeJS.Timeout | undefined;
  #reportTimer: NodeJS.Timeout | undefined;
  /** Records left out by sampling when a flush last tried to tell the agent. */
  #sampledAtFlush = 0;
  #token = 0;
  readonly #waiters = new Map<number, () => void>();

  constructor(target: Target, parts: TransportParts) {
    this.target = target;
    this.#parts = parts;
    this.#packer = new Packer(this.#shapes, (chunk, bytes, records) => this.#handOver(chunk, bytes, records));
    parts.host.add(parts.id, {
      started: () => this.#introduce(),
      failed: (detail) => this.#failed(detail),
      report: (report) => this.#reported(report),
      flushed: (token) => this.#settle(token),
    });
    parts.host.start();
  }

  /** Applies limits that were given; the others stay. */
  configure(limits: GivenLimits): void {
    const { flushTimeoutMs, ...rest } = limits;
    this.#limits = { ...this.#limits, ...rest };
    if (flushTimeoutMs !== undefined) this.#flushTimeoutMs = flushTimeoutMs;
    if (limits.deliveryDeadlineMs !== undefined) this.#sendDeadline();
  }

  /** The wait at the end of the process that was asked for. */
  get flushTimeoutMs(): number | undefined {
    return this.#flushTimeoutMs;
  }

  /** The counters of a collection, made when it is new. */
  stream(collection: string): Stream {
    const known = this.#streams.get(collection);
    if (known !== undefined) return known;
    const slot = this.#streams.size;
    if (slot >= SLOTS)
      throw new CollectorError('too_many_collections', { name: collection, count: slot, limit: SLOTS });
    const stream = {
      slot,
      collection,
      accepted: 0,
      sampled: 0,
      queueFull: 0,
      handed: 0,
      lost: 0,
      listeners: new Set<(error: CollectorError) => void>(),
    };
    this.#streams.set(collection, stream);
    return stream;
  }

  /** Delivery failures of the collection go to this function too. */
  listen(stream: Stream, listener: (error: CollectorError) => void): void {
    stream.listeners.add(listener);
    const [oldest] = stream.listeners;
    if (stream.listeners.size > MAX_LISTENERS && oldest !== undefined) stream.listeners.delete(oldest);
  }

  /** The number of an envelope, which the sending thread is told. */
  envelope(envelope: Envelope): number {
    const key = JSON.stringify(envelope);
    const known = this.#envelopes.get(key);
    if (known !== undefined) return known.id;
    const id = this.#envelopes.size;
    if (id >= MAX_ENVELOPES) {
      const detail = `more than ${MAX_ENVELOPES} different values in one process`;
      throw new CollectorError('configuration_invalid', { setting: 'modelVersion, source or samplingRate', detail });
    }
    this.#envelopes.set(key, { id, envelope });
    this.#parts.host.send({ kind: 'envelope', transport: this.#parts.id, id, envelope });
    return id;
  }

  /** Takes a record into the queue. Throws `queue_full`, `nested_collect`, and what is wrong with the data. */
  record(stream: Stream, envelope: number, data: unknown, context: CorrelationContext): void {
    const frame = Array.isArray(data) ? undefined : toFrame(data);
    if (this.#busy) throw new CollectorError('nested_collect');
    const free = this.#free();
    const packer = this.#packer;
    this.#busy = true;
    try {
      if (frame === undefined) {
        packer.begin(envelope, ROWS_TYPE, context, free);
        packer.rows(data as readonly unknown[]);
      } else {
        packer.begin(envelope, frame.type, context, free);
        packer.columns(frame.columns);
      }
      this.#queuedBytes += packer.commit();
    } catch (error) {
      packer.abort();
      throw error;
    } finally {
      this.#busy = false;
    }
    this.#queuedItems++;
    stream.accepted++;
    if (packer.full) packer.flush();
    else if (this.#timer === undefined) this.#schedule();
  }

  /** Counts a record that sampling left out. */
  leaveOut(stream: Stream): void {
    stream.sampled++;
    this.#ledger.leaveOut(stream.slot);
    if (this.#reportTimer === undefined) this.#scheduleReport();
  }

  /** Records in the queue, here and in the sending thread. */
  get pending(): number {
    this.#refresh();
    return this.#queuedItems;
  }

  /** True when a flush would have nothing to do. */
  get settled(): boolean {
    return this.pending === 0 && !this.#unreported(this.#sampledAtFlush);
  }

  /**
   * Hands over everything and waits until it is sent or dropped; false when that takes longer than `timeoutMs`. Also tells
   * the agent of records left out by sampling, and waits for that, but not long. Keeps the process alive meanwhile.
   */
  async flush(timeoutMs: number, hurry = false): Promise<boolean> {
    this.#packer.flush();
    if (this.settled) return true;
    const noRecords = this.pending === 0;
    const limitMs = this.#limitMs(timeoutMs);
    const { host } = this.#parts;
    const token = this.#ask(hurry);
    if (token === undefined) return this.pending === 0;
    host.hold();
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise<boolean>((resolve) => {
        this.#waiters.set(token, () => resolve(true));
        timer = setTimeout(() => resolve(noRecords), limitMs);
      });
    } finally {
      clearTimeout(timer);
      this.#waiters.delete(token);
      host.letGo();
    }
  }

  /** The same, blocking this thread: for the end of the process. */
  flushBlocking(timeoutMs: number): void {
    this.#packer.flush();
    if (this.settled) return;
    const limitMs = this.#limitMs(timeoutMs);
    const token = this.#ask(true);
    if (token !== undefined) this.#ledger.waitFlushed(token, limitMs);
  }

  /** What became of the records of one collection, or of all. */
  result(only?: Stream): FlushResult {
    const streams = only === undefined ? [...this.#streams.values()] : [only];
    const sum = (count: (stream: Stream) => number) => streams.reduce((total, stream) => total + count(stream), 0);
    const outcome = (name: Outcome) => sum((stream) => this.#ledger.count(stream.slot, name));
    const done = OUTCOMES.reduce((total, name) => total + outcome(name), 0);
    const accepted = sum((stream) => stream.accepted);
    const lost = sum((stream) => stream.lost);
    return {
      accepted,
      sent: outcome('sent'),
      pending: accepted - done - lost,
      sampled: sum((stream) => stream.sampled),
      dropped: {
        queue_full: sum((stream) => stream.queueFull),
        rejected: outcome('rejected'),
        deadline: outcome('deadline'),
        too_large: outcome('too_large'),
        worker_failed: lost,
      },
    };
  }

  #schedule(): void {
    this.#timer = setTimeout(() => this.#packer.flush(), HAND_OVER_MS);
    this.#timer.unref();
  }

  #scheduleReport(): void {
    this.#reportTimer = setTimeout(() => this.#report(), REPORT_MS);
    this.#reportTimer.unref();
  }

  /** Waiting records take the counts with them; without any the sending thread is asked, until the agent has the counts. */
  #report(): void {
    this.#reportTimer = undefined;
    if (!this.#unreported(0)) return;
    const { host, id } = this.#parts;
    if (this.#packer.waiting === 0) host.send({ kind: 'sampled', transport: id });
    this.#scheduleReport();
  }

  /** True when the agent does not know of all records that sampling left out, and these are not just `tried` as before. */
  #unreported(tried: number): boolean {
    if (this.target.local) return false;
    const streams = [...this.#streams.values()];
    if (streams.reduce((total, { sampled }) => total + sampled, 0) === tried) return false;
    return streams.some(({ slot }) => this.#ledger.unreported(slot) > 0);
  }

  #limitMs(timeoutMs: number): number {
    return this.pending > 0 ? timeoutMs : Math.min(timeoutMs, REPORT_WAIT_MS);
  }

  /** Bytes a record may take now. Throws `queue_full` when no record may. */
  #free(): number {
    if (this.#ledger.mayHaveReleased(this.#seenItems)) this.#refresh();
    const { maxQueueBytes, maxQueueItems } = this.#limits;
    const isFull = () => this.#queuedItems >= maxQueueItems || this.#queuedBytes >= maxQueueBytes;
    if (isFull()) {
      this.#refresh();
      if (isFull()) {
        throw new CollectorError('queue_full', { limit: `${maxQueueItems} records, ${maxQueueBytes} bytes` });
      }
    }
    return maxQueueBytes - this.#queuedBytes;
  }

  /** Takes what the sending thread has released off the queue. */
  #refresh(): void {
    const items = this.#ledger.releasedItems();
    if (items === this.#seenItems) return;
    const bytes = this.#ledger.releasedBytes();
    const lessItems = (items - this.#seenItems) | 0;
    const lessBytes = (bytes - this.#seenBytes) | 0;
    this.#seenItems = items;
    this.#seenBytes = bytes;
    this.#queuedItems -= lessItems;
    this.#queuedBytes -= lessBytes;
    this.#handedItems -= lessItems;
    this.#handedBytes -= lessBytes;
  }

  #handOver(chunk: ArrayBuffer, bytes: number, records: number): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const { host, id } = this.#parts;
    this.#handedItems += records;
    this.#handedBytes += bytes;
    for (const stream of this.#streams.values()) stream.handed = stream.accepted;
    // A thread that starts now is told all shapes by the first chunk, so it must run before they are taken.
    if (!host.start()) {
      this.#failed('it is not started again yet');
      return;
    }
    const shapes = this.#shapes.takeFresh();
    host.send({ kind: 'chunk', transport: id, chunk, bytes, records, shapes, atMs: Date.now() }, [chunk]);
  }

  #introduce(): void {
    const { host, id } = this.#parts;
    host.send({ kind: 'open', transport: id, target: this.target, memory: this.#ledger.memory });
    this.#sendDeadline();
    for (const { id: number, envelope } of this.#envelopes.values()) {
      host.send({ kind: 'envelope', transport: id, id: number, envelope });
    }
    this.#shapes.forgetSent();
  }

  #sendDeadline(): void {
    const { host, id } = this.#parts;
    host.send({ kind: 'deadline', transport: id, deadlineMs: this.#limits.deliveryDeadlineMs });
  }

  /** The number of a flush that was asked for; undefined when no thread runs that could do it. */
  #ask(hurry: boolean): number | undefined {
    const token = ++this.#token;
    this.#sampledAtFlush = this.result().sampled;
    return this.#parts.host.send({ kind: 'flush', transport: this.#parts.id, token, hurry }) ? token : undefined;
  }

  #settle(token: number): void {
    this.#waiters.get(token)?.();
  }

  /** What the sending thread had is gone with it. */
  #failed(detail: string): void {
    this.#refresh();
    const count = this.#handedItems;
    this.#queuedItems -= this.#handedItems;
    this.#queuedBytes -= this.#handedBytes;
    this.#handedItems = 0;
    this.#handedBytes = 0;
    for (const stream of this.#streams.values()) {
      const done = OUTCOMES.reduce((total, name) => total + this.#ledger.count(stream.slot, name), 0);
      stream.lost = stream.handed - done;
    }
    if (count > 0) this.#tell('worker_failed', undefined, { detail, count });
    for (const resolve of this.#waiters.values()) resolve();
  }

  #reported({ code, slot, count, detail }: Report): void {
    const stream = [...this.#streams.values()].find((candidate) => candidate.slot === slot);
    const { deliveryDeadlineMs } = this.#limits;
    const name = stream?.collection ?? '';
    const address = `${this.target.host}:${this.target.port}`;
    this.#tell(code, stream, { name, count, detail, address, deadlineMs: deliveryDeadlineMs });
  }

  #tell(code: CollectorErrorCode, stream: Stream | undefined, params: CollectorErrorParams): void {
    const error = new CollectorError(code, params);
    this.#parts.log.failure(`${code} ${this.#parts.id} ${stream?.slot ?? ''}`, error);
    const listeners = new Set(
      (stream === undefined ? [...this.#streams.values()] : [stream]).flatMap((each) => [...each.listeners]),
    );
    for (const listener of listeners) listener(error);
  }
}
