import { crc32 } from 'node:zlib';
import { ByteWriter } from '../record/byte-writer.ts';
import {
  createEnvelope,
  type Envelope,
  type EventFields,
  writeBlobEvent,
  writeEvent,
  writeMergedEvent,
  writeReferenceEvent,
} from '../record/envelope.ts';
import { eventIdOf } from '../record/event-id.ts';
import { quoted } from '../record/json-bytes.ts';
import { fileKeyOf, folderOf, rawKeyOf } from '../record/object-key.ts';
import { hourOf } from '../record/time.ts';
import type { Destination, StoredRecord } from '../record/types.ts';
import { keyProblem } from '../storage/object-key-check.ts';
import type { DropReason } from './ledger-table.ts';
import { Tallies } from './tallies.ts';

/** A frame of the spool after decoding, before anything is decided about it. */
export interface BatchItem {
  readonly position: number;
  /** Undefined when the frame could not be decoded. */
  readonly record: StoredRecord | undefined;
  /** Path of the body when it lies in a file of its own. JSON that goes into a line has been read: `record` has it. */
  readonly sideFile: string | undefined;
  /** Set when it is known already that the record cannot be stored. */
  readonly fault: DropReason | undefined;
}

/** An object that must exist before the lines that name it. */
export interface RawPut {
  readonly position: number;
  readonly key: string;
  readonly contentType: string;
  readonly bytes: number;
  readonly source: { readonly path: string } | { readonly body: Buffer };
}

/** Where one event lies in a target's bytes, for those who follow a collection. */
export interface LineMark {
  readonly destination: Destination;
  readonly start: number;
  readonly end: number;
}

/** The lines of one folder. */
export interface Target {
  readonly folder: string;
  /** Whole lines. A view: valid until the next plan of the same batcher. */
  readonly lines: Buffer;
  /** CRC-32 of `lines`. */
  readonly crc: number;
  readonly tallies: Tallies;
  readonly marks: LineMark[];
}

/** What one stretch of the spool becomes. The same stretch and options always give the same bytes. */
export interface Batch {
  readonly targets: readonly Target[];
  readonly raws: readonly RawPut[];
  /** Records dropped for a reason known before any store was asked. */
  readonly drops: Tallies;
}

/** What lines are made with. Changing any of it between a crash and the next start makes other bytes. */
export interface BatchOptions {
  readonly spoolId: string;
  /** Bodies above it, bytes, go beside the events; a merged array never grows above it. */
  readonly inlineBytes: number;
  /** Address of an object, as events name it. */
  readonly url: (key: string) => string;
  readonly destination: (id: number) => Destination | undefined;
}

/** An event that may still take records. */
interface OpenEvent {
  readonly destination: Destination;
  readonly first: InlineRecord;
  readonly fields: EventFields;
  readonly records: InlineRecord[];
  /** No less than the length of the merged array. */
  bytes: number;
  timeMs: number;
  mixed: boolean;
}

interface Folder {
  readonly folder: string;
  readonly out: ByteWriter;
  readonly tallies: Tallies;
  readonly marks: LineMark[];
  /** Bad when no store takes the keys of this folder. */
  readonly usable: boolean;
  open: OpenEvent | undefined;
}

type InlineRecord = StoredRecord & { readonly body: Buffer };

type EnvelopeOf = (destination: Destination, attributes: string) => Envelope | undefined;

/** Most envelopes kept; attributes repeat, so this is only a bound. */
const MAX_ENVELOPES = 4096;
/** Most memory kept for the next plan. */
const MAX_POOL_BYTES = 16 * 1024 * 1024;

/** Turns decoded frames, in spool order, into the bytes to append per folder. Pure: reads nothing, keeps no clock. */
export function createBatcher(options: BatchOptions): { plan(items: Iterable<BatchItem>): Batch } {
  const envelopes = new Map<string, Envelope | undefined>();
  const envelopeOf: EnvelopeOf = (destination, attributes) => {
    const key = `${destination.id} ${attributes}`;
    const found = envelopes.get(key);
    if (found) return found;
    if (envelopes.size >= MAX_ENVELOPES) envelopes.clear();
    const made = createEnvelope(destination.source, attributes);
    envelopes.set(key, made);
    return made;
  };
  const writers = new WriterPool();
  return {
    plan(items) {
      writers.reclaim();
      return new Planner(options, envelopeOf, writers).plan(items);
    },
  };
}

/** Buffers of the plan before, used again: allocating megabytes for every cycle costs more than filling them. */
class WriterPool {
  #free: ByteWriter[] = [];
  #used: ByteWriter[] = [];

  /** Takes back everything given out, as far as memory allows. */
  reclaim(): void {
    let bytes = 0;
    this.#free = [...this.#free, ...this.#used].filter((writer) => {
      bytes += writer.capacity;
      writer.clear();
      return bytes <= MAX_POOL_BYTES;
    });
    this.#used = [];
  }

  take(): ByteWriter {
    const writer = this.#free.pop() ?? new ByteWriter();
    this.#used.push(writer);
    return writer;
  }
}

/** One planning run. */
class Planner {
  readonly #options: BatchOptions;
  readonly #envelopeOf: EnvelopeOf;
  readonly #folders = new Map<string, Folder>();
  /** Folder by destination and minute: spares a date per record. */
  readonly #recent = new Map<Destination, Map<number, Folder>>();
  readonly #raws: RawPut[] = [];
  readonly #drops = new Tallies();
  readonly #writers: WriterPool;

  constructor(options: BatchOptions, envelopeOf: EnvelopeOf, writers: WriterPool) {
    this.#options = options;
    this.#writers = writers;
    this.#envelopeOf = envelopeOf;
  }

  plan(items: Iterable<BatchItem>): Batch {
    for (const item of items) this.#take(item);
    const targets: Target[] = [];
    for (const open of this.#folders.values()) {
      this.#close(open);
      const { folder, out, tallies, marks } = open;
      const lines = out.bytes;
      if (lines.length > 0) targets.push({ folder, lines, crc: crc32(lines), tallies, marks });
    }
    return { targets, raws: this.#raws, drops: this.#drops };
  }

  #take(item: BatchItem): void {
    const { record } = item;
    const destination = record && this.#options.destination(record.destinationId);
    const drop = (reason: DropReason) => this.#drops.drop(reason, destination, record ? hourOf(record.timeMs) : 0, 1);
    if (item.fault !== undefined || !record || !destination) {
      drop(item.fault ?? (record ? 'destination_unknown' : 'corrupt'));
      return;
    }
    const envelope = this.#envelopeOf(destination, record.attributes);
    if (!envelope) {
      drop('corrupt');
      return;
    }
    const folder = this.#folder(destination, record.timeMs);
    if (!folder.usable) {
      drop('store_invalid');
      return;
    }
    folder.tallies.store(destination, hourOf(record.timeMs), record.rows, record.bodyBytes);
    const fields = {
      envelope,
      id: record.id === '' ? eventIdOf(this.#options.spoolId, item.position) : record.id,
      timeMs: record.timeMs,
      correlationId: record.correlationId,
    };
    if (isInline(record, this.#options.inlineBytes)) this.#inline(folder, destination, record, fields);
    else this.#beside(folder, destination, { ...item, record }, fields);
  }

  #folder(destination: Destination, timeMs: number): Folder {
    let minutes = this.#recent.get(destination);
    if (!minutes) {
      minutes = new Map();
      this.#recent.set(destination, minutes);
    }
    const minute = Math.floor(timeMs / 60_000);
    const recent = minutes.get(minute);
    if (recent) return recent;
    const name = folderOf(destination.path, destination.rollingRate, timeMs);
    const folder = this.#folders.get(name) ?? {
      folder: name,
      usable: keyProblem(fileKeyOf(name, this.#options.spoolId, 0)) === undefined,
      out: this.#writers.take(),
      tallies: new Tallies(),
      marks: [],
      open: undefined,
    };
    this.#folders.set(name, folder);
    minutes.set(minute, folder);
    return folder;
  }

  #inline(folder: Folder, destination: Destination, record: InlineRecord, fields: EventFields): void {
    const bytes = mergedBytes(record, destination);
    const open = folder.open;
    if (open && mayJoin(open, record, destination) && open.bytes + bytes <= this.#options.inlineBytes) {
      open.records.push(record);
      open.bytes += bytes;
      open.timeMs = Math.min(open.timeMs, record.timeMs);
      open.mixed ||= record.correlationId !== open.first.correlationId;
      return;
    }
    this.#close(folder);
    folder.open = { destination, first: record, fields, records: [record], bytes, timeMs: record.timeMs, mixed: false };
  }

  /** Writes the line of the event that is open. */
  #close(folder: Folder): void {
    const { open, out } = folder;
    if (!open) return;
    folder.open = undefined;
    const start = out.length;
    if (open.records.length === 1) writeEvent(out, open.fields, open.first);
    else writeMergedEvent(out, { ...open.fields, timeMs: open.timeMs }, open.records, open.mixed);
    folder.marks.push({ destination: open.destination, start, end: out.length });
  }

  /** Rows too large for a line, and bytes that are not rows: an object of their own, and an event that names it. */
  #beside(
    folder: Folder,
    destination: Destination,
    item: BatchItem & { readonly record: StoredRecord },
    fields: EventFields,
  ): void {
    const { record, position, sideFile } = item;
    this.#close(folder);
    const rows = record.json && record.array;
    // Not the id a sender gave: two records with one id must not share an object.
    const name = eventIdOf(this.#options.spoolId, position);
    const key = rawKeyOf(folder.folder, name, rows ? 'json' : 'binary');
    const contentType = record.json ? 'application/json' : 'application/octet-stream';
    const source = record.body ? { body: record.body } : { path: sideFile ?? '' };
    this.#raws.push({ position, key, contentType, bytes: record.bodyBytes, source });
    const start = folder.out.length;
    const write = rows ? writeReferenceEvent : writeBlobEvent;
    write(folder.out, fields, this.#options.url(key), record.bodyBytes);
    folder.marks.push({ destination, start, end: folder.out.length });
  }
}

function isInline(record: StoredRecord, inlineBytes: number): record is InlineRecord {
  return record.json && record.body !== undefined && record.bodyBytes <= inlineBytes;
}

/** Most bytes a record adds to a merged array: its own brackets cover the comma, and an id may join every row. */
function mergedBytes(record: StoredRecord, destination: Destination): number {
  if (destination.batch !== 'across_ids') return record.bodyBytes;
  return (
    record.bodyBytes + record.rows * (Buffer.byteLength(quoted(record.correlationId)) + ',"correlationid":'.length)
  );
}

/** Whether a record may share the open event: same destination, attributes and id (or any id, across ids), arrays both, arrived inside the window. */
function mayJoin(open: OpenEvent, record: StoredRecord, destination: Destination): boolean {
  const { first } = open;
  if (open.destination !== destination || destination.batch === 'off') return false;
  if (!record.array || !first.array || record.attributes !== first.attributes) return false;
  if (record.correlationId === '' || first.correlationId === '') return false;
  if (destination.batch === 'same_id' && record.correlationId !== first.correlationId) return false;
  return Math.abs(record.receivedMs - first.receivedMs) <= destination.batchWindowMs;
}
