import { crc32 } from 'node:zlib';
import { ModeltapError } from '../kit/errors.ts';
import type { SideFile, SpoolWriter } from '../spool/types.ts';
import type { BodySink, Exchange } from './exchange.ts';
import { ReadGate } from './read-gate.ts';
import { isFault, type JsonFacts, type JsonFault, JsonScan, scanJson } from './scan.ts';
import { SideStream } from './side-stream.ts';

/** Bodies longer than this are scanned while they arrive; events later, because their scan keeps a table. */
const SCAN_AT_BYTES = 65_536;
const SCAN_EVENTS_AT_BYTES = 262_144;
/** Bodies longer than this are read in turns with the other connections. */
const PACE_AT_BYTES = 262_144;
/** What a piece kept in memory costs besides its bytes: tiny pieces must not pass the limit by their number. */
const PIECE_OVERHEAD_BYTES = 512;

/** A body, received whole. */
export interface ReceivedBody {
  readonly bytes: number;
  /** The pieces; empty when the body is in a side file. */
  readonly parts: readonly Buffer[];
  readonly sideFile: SideFile | undefined;
  /** What is known of it as JSON; undefined for an opaque body. */
  readonly facts: JsonFacts | undefined;
  /** crc32 of the bytes when it was asked for, else 0. */
  readonly crc: number;
  /** The scan of events, when they were scanned while they arrived; not yet ended. */
  readonly scan: JsonScan | undefined;
}

/** What the body of a request is expected to be. */
export interface BodyOptions {
  /** `json` any JSON value, `opaque` bytes, the others see `JsonScan`. */
  readonly kind: 'json' | 'opaque' | 'event' | 'batch' | 'lines';
  readonly maxBytes: number;
  /** Above `sideFileBytes` the body goes into a side file of this spool. Undefined: it stays in memory. */
  readonly spool?: SpoolWriter;
  readonly sideFileBytes?: number;
  readonly crc?: boolean;
  readonly maxEvents?: number;
}

/** The bodies under way: bytes in memory and the sweep that ends those that stand still. */
export class BodyFlow {
  readonly #maxBytes: number;
  readonly #timer: NodeJS.Timeout;
  readonly #open: BodyIntake[] = [];
  bytes = 0;
  tick = 0;

  constructor(maxBytes: number, idleMs: number) {
    this.#maxBytes = maxBytes;
    this.#timer = setInterval(() => this.#sweep(), Math.max(10, idleMs / 4));
    this.#timer.unref();
  }

  get full(): boolean {
    return this.bytes > this.#maxBytes;
  }

  add(body: BodyIntake): void {
    body.place = this.#open.push(body) - 1;
  }

  remove(body: BodyIntake): void {
    if (body.place < 0) return;
    const last = this.#open.pop();
    if (last !== undefined && last !== body) {
      this.#open[body.place] = last;
      last.place = body.place;
    }
    body.place = -1;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #sweep(): void {
    this.tick += 1;
    // A copy: what stands still leaves.
    for (const body of this.#open.slice()) body.sweep();
  }
}

/** How the receiver is told about a body: exactly one of the two, once. */
export interface BodyListener {
  received(body: ReceivedBody): void;
  /** Undefined: the sender went away and nobody can be answered. */
  failed(error: ModeltapError | undefined): void;
}

/** Receives one request's body. Calls instead of async iteration: this runs for every record. */
export class BodyIntake implements BodySink {
  readonly #exchange: Exchange;
  readonly #options: BodyOptions;
  readonly #flow: BodyFlow;
  readonly #listener: BodyListener;
  #parts: Buffer[] = [];
  #bytes = 0;
  #held = 0;
  #crc = 0;
  #scan: JsonScan | undefined;
  #side: SideStream | undefined;
  #gate: ReadGate | undefined;
  #done = false;
  #tick: number;
  #length: number | undefined;
  /** Place among the open bodies; kept by the flow. */
  place = -1;

  constructor(exchange: Exchange, options: BodyOptions, flow: BodyFlow, listener: BodyListener) {
    this.#exchange = exchange;
    this.#options = options;
    this.#flow = flow;
    this.#listener = listener;
    this.#tick = flow.tick;
    this.#length = exchange.headers.bytes;
  }

  /** Begins to listen. */
  start(): void {
    const { maxBytes } = this.#options;
    if (this.#length !== undefined && this.#length > maxBytes) {
      this.#fail(tooLarge(maxBytes));
      return;
    }
    this.#flow.add(this);
    this.#exchange.receive(this);
  }

  /** Called by the flow from time to time. */
  sweep(): void {
    if (this.#side?.paused === true) this.#tick = this.#flow.tick;
    else if (this.#flow.tick - this.#tick > 4) this.#fail(new ModeltapError('body_timeout'));
  }

  piece(chunk: Buffer): void {
    if (this.#done) return;
    this.#tick = this.#flow.tick;
    this.#bytes += chunk.length;
    const options = this.#options;
    const bytes = this.#bytes;
    if (bytes > options.maxBytes) {
      this.#fail(tooLarge(options.maxBytes));
      return;
    }
    if (bytes > PACE_AT_BYTES && bytes !== this.#length) this.#pace().count(chunk.length);
    if (options.crc === true) this.#crc = crc32(chunk, this.#crc);
    const fault = this.#scanPiece(chunk);
    if (fault) {
      this.#fail(badJson(fault));
      return;
    }
    if (this.#side) {
      this.#side.push(chunk);
      return;
    }
    this.#parts.push(chunk);
    this.#held += chunk.length + PIECE_OVERHEAD_BYTES;
    this.#flow.bytes += chunk.length + PIECE_OVERHEAD_BYTES;
    const most = options.sideFileBytes ?? Number.POSITIVE_INFINITY;
    if (options.spool !== undefined && (bytes > most || (this.#length ?? 0) > most)) this.#openSide(options.spool);
    else if (this.#flow.full) this.#fail(new ModeltapError('ingest_busy'));
  }

  #pace(): ReadGate {
    return (this.#gate ??= new ReadGate(this.#exchange));
  }

  #scanPiece(chunk: Buffer): JsonFault | undefined {
    const { kind, maxEvents = Number.POSITIVE_INFINITY } = this.#options;
    if (kind === 'opaque') return undefined;
    if (this.#scan === undefined) {
      if (this.#bytes <= (kind === 'json' ? SCAN_AT_BYTES : SCAN_EVENTS_AT_BYTES)) return undefined;
      const fault = this.#beginScan(kind);
      if (fault) return fault;
    }
    const fault = this.#scan?.feed(chunk);
    if (fault === undefined && (this.#scan?.events ?? 0) > maxEvents) this.#fail(tooMany(maxEvents));
    return fault;
  }

  /** Starts to scan while the body arrives, with what is there already. */
  #beginScan(kind: Exclude<BodyOptions['kind'], 'opaque'>): JsonFault | undefined {
    this.#scan = new JsonScan(kind === 'json' ? undefined : kind);
    for (const part of this.#parts) {
      const fault = this.#scan.feed(part);
      if (fault) return fault;
    }
    return undefined;
  }

  #openSide(spool: SpoolWriter): void {
    const { kind } = this.#options;
    // The parts are about to leave the memory.
    const fault = kind === 'opaque' || this.#scan !== undefined ? undefined : this.#beginScan(kind);
    if (fault) {
      this.#fail(badJson(fault));
      return;
    }
    this.#side = new SideStream(spool, this.#pace(), (error) => this.#fail(error));
    for (const part of this.#parts) this.#side.push(part);
    this.#parts = [];
    this.#release();
  }

  ended(): void {
    if (this.#done) return;
    const { kind } = this.#options;
    let facts: JsonFacts | undefined;
    if (kind === 'json') {
      const [first] = this.#parts;
      const text = this.#parts.length === 1 && first ? first : Buffer.concat(this.#parts);
      const result = this.#scan?.end() ?? scanJson(text);
      if (isFault(result)) {
        this.#fail(badJson(result));
        return;
      }
      facts = result;
    }
    if (this.#side === undefined) {
      this.#deliver(facts, undefined);
      return;
    }
    this.#side.finish().then(
      (file) => this.#deliver(facts, file),
      // The stream has reported it.
      () => undefined,
    );
  }

  #deliver(facts: JsonFacts | undefined, sideFile: SideFile | undefined): void {
    if (this.#done) {
      void sideFile?.abort();
      return;
    }
    this.#done = true;
    this.#flow.remove(this);
    const parts = this.#parts;
    this.#parts = [];
    this.#listener.received({ bytes: this.#bytes, parts, sideFile, facts, crc: this.#crc, scan: this.#scan });
    // After the receiver: what it appended is copied by now. Batches hold on to theirs by themselves.
    this.#release();
  }

  #release(): void {
    this.#flow.bytes -= this.#held;
    this.#held = 0;
  }

  gone(): void {
    this.#fail(undefined);
  }

  #fail(error: ModeltapError | undefined): void {
    if (this.#done) return;
    this.#done = true;
    this.#flow.remove(this);
    this.#parts = [];
    this.#release();
    this.#side?.abort();
    this.#listener.failed(error);
  }
}

function tooLarge(maxBytes: number): ModeltapError {
  return new ModeltapError('record_too_large', { maxBytes });
}

/** The error for a request of more events than are allowed. */
export function tooMany(maxEvents: number): ModeltapError {
  return new ModeltapError('batch_too_many', { maxEvents });
}

/** The error for a text that is not valid. */
export function badJson(fault: JsonFault): ModeltapError {
  return new ModeltapError('bad_json', { offset: fault.offset, reason: fault.reason });
}
