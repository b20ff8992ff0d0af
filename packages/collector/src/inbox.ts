import { randomUUID } from 'node:crypto';
import { CollectorError } from './errors.ts';
import { type Entry, writeEvent } from './event.ts';
import { JsonBuffer } from './json-buffer.ts';
import type { Envelope } from './protocol.ts';
import type { ShapeDefinition } from './shapes.ts';
import { ChunkReader, type RecordHead, type ShapeText, shapeText } from './unpack.ts';

const COMMA = 0x2c;
const OPEN = 0x5b;
const CLOSE = 0x5d;
const START_BYTES = 65_536;
/** A buffer that one large record made larger than this is not kept. */
const KEEP_BYTES = 4_194_304;

/** Places of finished chunks before the list is cut. */
const COMPACT_CHUNKS = 64;

/** A record before it is written out. */
export interface WaitingRecord {
  readonly head: RecordHead;
  readonly envelope: Envelope;
  readonly collectedMs: number;
}

interface WaitingChunk {
  readonly reader: ChunkReader;
  readonly atMs: number;
  next: number;
}

/** Limits of one batch. */
export interface BatchLimits {
  readonly maxBytes: number;
  readonly maxEvents: number;
}

/** Chunks in the order they came, and the records of the next batch written out as JSON. */
export class Inbox {
  readonly #shapes = new Map<number, ShapeText>();
  readonly #envelopes = new Map<number, Envelope>();
  readonly #names = new Map<number, string>();
  #chunks: (WaitingChunk | undefined)[] = [];
  /** Chunks before this one are done. */
  #first = 0;
  #out = new JsonBuffer(START_BYTES);

  envelope(id: number, envelope: Envelope): void {
    this.#envelopes.set(id, envelope);
    this.#names.set(envelope.slot, envelope.collection);
  }

  /** The collections known so far, by where the ledger counts them. */
  get collections(): ReadonlyMap<number, string> {
    return this.#names;
  }

  shapes(shapes: readonly ShapeDefinition[]): void {
    for (const shape of shapes) this.#shapes.set(shape.id, shapeText(shape.keys));
  }

  chunk(chunk: ArrayBuffer, bytes: number, atMs: number): void {
    this.#chunks.push({ reader: new ChunkReader(chunk, bytes, this.#shapes), atMs, next: 0 });
  }

  get empty(): boolean {
    return this.#first === this.#chunks.length;
  }

  /**
   * Writes out the next records up to the limits, at least one. Records that `skip` takes are left out. The bytes of
   * the entries stay valid until the next call.
   */
  take(limits: BatchLimits, skip: (record: WaitingRecord) => boolean): Entry[] {
    if (this.#out.bytes.length > KEEP_BYTES) this.#out = new JsonBuffer(START_BYTES);
    const out = this.#out;
    out.length = 0;
    const entries: Entry[] = [];
    while (entries.length < limits.maxEvents && (entries.length === 0 || out.length < limits.maxBytes)) {
      const chunk = this.#chunks[this.#first];
      if (chunk === undefined) break;
      const head = chunk.reader.head(chunk.next);
      const envelope = this.#envelopes.get(head.envelope);
      if (envelope === undefined) throw new CollectorError('internal', { detail: `unknown envelope ${head.envelope}` });
      chunk.next += head.bytes;
      if (chunk.next >= chunk.reader.size) this.#finish();
      const record = { head, envelope, collectedMs: chunk.atMs };
      if (skip(record)) continue;
      out.byte(entries.length === 0 ? OPEN : COMMA);
      entries.push(writeEvent(out, chunk.reader, { id: randomUUID(), ...record }));
    }
    out.byte(CLOSE);
    return entries;
  }

  /** Lets go of the first chunk. `shift()` of a long array would move all the others each time. */
  #finish(): void {
    this.#chunks[this.#first++] = undefined;
    if (this.#first < this.#chunks.length && this.#first < COMPACT_CHUNKS) return;
    this.#chunks = this.#chunks.slice(this.#first);
    this.#first = 0;
  }

  /** Entries that follow each other in the buffer, as a JSON array; `done` must be called before the next use. */
  batch(entries: readonly Entry[]): { readonly body: Uint8Array; done(): void } {
    const { bytes } = this.#out;
    const before = (entries[0] as Entry).start - 1;
    const after = (entries.at(-1) as Entry).end;
    const saved = [bytes[before] as number, bytes[after] as number] as const;
    bytes[before] = OPEN;
    bytes[after] = CLOSE;
    return {
      body: bytes.subarray(before, after + 1),
      done: () => {
        bytes[before] = saved[0];
        bytes[after] = saved[1];
      },
    };
  }

  /** One event. */
  event(entry: Entry): Uint8Array {
    return this.#out.bytes.subarray(entry.start, entry.end);
  }

  /** The data of one event. */
  data(entry: Entry): Uint8Array {
    return this.#out.bytes.subarray(entry.dataStart, entry.dataEnd);
  }
}
