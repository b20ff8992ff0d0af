import { ModeltapError } from '../kit/errors.ts';
import { Batch } from './batch.ts';
import { type SpoolEffects, isNoSpace, writeAll } from './files.ts';
import { MAX_PAYLOAD_BYTES, SEGMENT_HEAD_BYTES, alignUp, frameBytes } from './frame.ts';
import { writeMeta } from './meta.ts';
import type { Segment, SegmentFiles } from './segments.ts';
import { SpoolSideFile } from './side-file.ts';
import type { AppendDone, RecoveryReport, SideFile, SpoolRefusal, SpoolWriter } from './types.ts';

/** A side file of a frame that is not released. */
export interface PendingSideFile {
  readonly position: number;
  readonly bytes: number;
  remove(): Promise<void>;
}

/** What an opened spool hands to its writer. */
export interface WriterParts {
  readonly directory: string;
  readonly maxBytes: number;
  readonly batchBytes: number;
  readonly queueBytes: number;
  readonly maxSideFiles: number;
  readonly effects: SpoolEffects;
  readonly segments: SegmentFiles;
  readonly spoolId: string;
  readonly recovery: RecoveryReport;
  readonly released: number;
  /** Smallest position the next new segment may have. */
  readonly nextBase: number;
  readonly sideFiles: PendingSideFile[];
  unlock(): void;
}

/** How long appends are refused at once after the disk failed, before one is tried again. */
const RETRY_AFTER_MS = 250;
const META_EVERY_MS = 1000;
const MAX_FREE_BUFFERS = 3;
/** A batch of this size, or with so many callers waiting for it, is written as soon as the disk is free. */
const EAGER_BYTES = 512 * 1024;
const EAGER_FRAMES = 24;

/** The writing end: fills batches, writes one at a time, keeps `released` and the meta file. */
export class Writer implements SpoolWriter {
  readonly recovery: RecoveryReport;
  readonly spoolId: string;
  readonly maxBytes: number;
  committed: number;
  pendingBytes: number;
  refusal: SpoolRefusal = 'spool_full';
  readonly #parts: WriterParts;
  readonly #segments: SegmentFiles;
  readonly #maxPayload: number;
  readonly #free: Buffer[] = [];
  /** Batches that wait, oldest first. Bounded by `queueBytes`. */
  readonly #queue: Batch[] = [];
  /** The last of the queue, while frames may still be added to it. */
  #open: Batch | undefined;
  /** Frames in batches that are not on disk. */
  #queuedBytes = 0;
  #busy = false;
  #scheduled = false;
  /** Set: appends are refused with it. */
  #blocked: SpoolRefusal | undefined;
  #retryAt = 0;
  /** A failed batch that could not be removed from the disk yet. */
  #uncut: { readonly segment: Segment; readonly end: number } | undefined;
  #repairing: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  #onIdle: (() => void) | undefined;
  /** Side files made by this writer that still exist, and those of earlier ones that are not released. */
  #ownSideFiles = 0;
  #earlierSideFiles: number;
  readonly #listeners: ((committed: number) => void)[] = [];
  readonly #stopped = new AbortController();
  #metaDue: Promise<void> | undefined;
  #metaWrite: Promise<void> = Promise.resolve();

  constructor(parts: WriterParts) {
    this.#parts = parts;
    this.#segments = parts.segments;
    this.recovery = parts.recovery;
    this.spoolId = parts.spoolId;
    this.maxBytes = parts.maxBytes;
    this.committed = parts.recovery.end;
    this.#maxPayload = Math.min(MAX_PAYLOAD_BYTES, Math.floor(parts.maxBytes / 2));
    this.#segments.released = parts.released;
    this.pendingBytes = this.#frameBytesBetween(parts.released, parts.recovery.end);
    this.#earlierSideFiles = parts.sideFiles.length;
    for (const side of parts.sideFiles) this.pendingBytes += side.bytes;
  }

  get released(): number {
    return this.#segments.released;
  }

  get diskBytes(): number {
    return this.#segments.diskBytes;
  }

  append(parts: readonly Uint8Array[], done: AppendDone, sideFile?: SideFile): boolean {
    if (this.#blocked !== undefined && !this.#tryAgain()) return false;
    let bytes = 0;
    for (const part of parts) bytes += part.length;
    const side = sideFile === undefined ? undefined : requireSealed(sideFile);
    const needed = frameBytes(bytes, side === undefined ? 0 : side.name.length);
    const open = this.#open;
    const batch = open !== undefined && open.fits(needed) ? open : this.#openBatch(bytes, needed);
    if (batch === undefined) return false;
    batch.add(parts, bytes, done, side);
    this.#queuedBytes += needed;
    if (!this.#busy && (batch.used >= EAGER_BYTES || batch.frames >= EAGER_FRAMES)) {
      // Enough for the disk to work on while the rest of this turn's input is being taken: without it, many callers
      // fall into step with the disk, and processor and disk wait for each other in turn.
      this.#pump();
    } else if (!this.#busy && !this.#scheduled) {
      this.#scheduled = true;
      // Behind the input of this turn of the event loop, so that what arrived together is written together.
      setImmediate(() => {
        this.#scheduled = false;
        this.#pump();
      });
    }
    return true;
  }

  async openSideFile(): Promise<SideFile> {
    const { directory, effects, maxSideFiles } = this.#parts;
    if (this.#closing) throw new ModeltapError('spool_closed');
    if (this.#ownSideFiles + this.#earlierSideFiles >= maxSideFiles)
      throw new ModeltapError('spool_full', { directory });
    this.#ownSideFiles += 1;
    const onGone = () => {
      this.#ownSideFiles -= 1;
    };
    try {
      return await SpoolSideFile.create({ directory, effects, segments: this.#segments, onGone });
    } catch (error) {
      onGone();
      throw error;
    }
  }

  onCommit(listener: (committed: number) => void): void {
    this.#listeners.push(listener);
  }

  async release(position: number): Promise<void> {
    const to = Math.min(position, this.committed);
    if (to <= this.released) return;
    this.pendingBytes -= this.#frameBytesBetween(this.released, to);
    this.#segments.released = to;
    const { sideFiles } = this.#parts;
    const kept = sideFiles.findIndex((side) => side.position >= to);
    const gone = sideFiles.splice(0, kept < 0 ? sideFiles.length : kept);
    // In order of position, those of earlier writers come first.
    this.#earlierSideFiles = Math.max(0, this.#earlierSideFiles - gone.length);
    for (const side of gone) this.pendingBytes -= side.bytes;
    this.#segments.reclaim();
    this.#metaSoon();
    for (const side of gone) await side.remove();
    await this.#segments.settled();
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#blocked = 'spool_closed';
    this.#stopped.abort();
    try {
      if (this.#busy || this.#queue.length > 0) {
        await new Promise<void>((resolve) => {
          this.#onIdle = resolve;
        });
      }
      await this.#repairing;
      if (this.#uncut) await this.#repair(this.#uncut);
      await this.#metaDue;
      await this.#segments.close();
      await this.#writeMeta(true);
    } finally {
      this.#parts.unlock();
    }
  }

  /** A new batch with room for the frame, or undefined and `refusal`. */
  #openBatch(payloadBytes: number, needed: number): Batch | undefined {
    const { batchBytes, queueBytes } = this.#parts;
    if (payloadBytes > this.#maxPayload) return this.#refuse('spool_too_large');
    const capacity = Math.max(batchBytes, needed + SEGMENT_HEAD_BYTES);
    if (this.#queuedBytes > 0 && this.#queuedBytes + needed > queueBytes) return this.#refuse('spool_busy');
    const segment = this.#segmentFor(needed);
    if (segment === undefined) return this.#refuse('spool_full');
    const recycled = capacity === batchBytes ? this.#free.pop() : undefined;
    const batch = new Batch(recycled ?? Buffer.allocUnsafeSlow(capacity), segment, this.spoolId);
    this.#queue.push(batch);
    this.#open = batch;
    return batch;
  }

  /** The tail, or a new segment behind it. */
  #segmentFor(needed: number): Segment | undefined {
    const { tail } = this.#segments;
    if (tail !== undefined && !tail.sealed && tail.planned + needed <= tail.limit) return tail;
    const base = alignUp(Math.max(this.#parts.nextBase, tail?.limit ?? 0), 4096);
    const epoch = this.#parts.effects.random(4).readUInt32LE(0) || 1;
    const previousEnd = tail?.planned ?? this.committed;
    return this.#segments.plan(base, epoch, { previousEnd, frameBytes: needed });
  }

  #refuse(refusal: SpoolRefusal): undefined {
    this.refusal = refusal;
    return undefined;
  }

  /** Writes the oldest batch, if none is being written. */
  #pump(): void {
    if (this.#busy) return;
    const batch = this.#queue.shift();
    if (batch === undefined) {
      this.#onIdle?.();
      return;
    }
    if (batch === this.#open) this.#open = undefined;
    this.#busy = true;
    if (this.#segments.isReady(batch.segment, batch.end)) this.#write(batch);
    else {
      this.#segments.prepare(batch.segment, batch.end).then(
        () => this.#write(batch),
        // Nothing of the batch has been written, so there is nothing to remove.
        (error: unknown) => this.#fail(batch, error, false),
      );
    }
  }

  #write(batch: Batch): void {
    const { files } = this.#parts.effects;
    const { fd, base } = batch.segment;
    const data = batch.buffer.subarray(0, batch.used);
    if (fd === undefined)
      return void this.#fail(batch, new ModeltapError('internal', { detail: 'segment is not open' }), false);
    const written = (error: unknown) => {
      if (error) void this.#fail(batch, error, true);
      else this.#onDisk(batch);
    };
    const sync = () => {
      if (files.durableWrites) this.#onDisk(batch);
      else files.sync(fd).then(() => this.#onDisk(batch), written);
    };
    files.write(fd, data, batch.start - base, (error, bytes) => {
      if (error) written(error);
      else if (bytes === data.length) sync();
      else writeAll(files, fd, data.subarray(bytes), batch.start - base + bytes).then(sync, written);
    });
  }

  #onDisk(batch: Batch): void {
    const { segment, end } = batch;
    if (segment.dataEnd === segment.base) void this.#segments.finishBefore(segment);
    segment.dataEnd = end;
    this.committed = end;
    this.pendingBytes += batch.bytes;
    for (const { position, file } of batch.sideFiles) {
      this.pendingBytes += file.bytes;
      this.#parts.sideFiles.push({ position, bytes: file.bytes, remove: () => file.remove() });
    }
    this.#busy = false;
    if (this.#queue.length > 0) this.#pump(); // The disk works while those who waited are told.
    batch.finish(undefined);
    this.#recycle(batch);
    for (const listener of this.#listeners) listener(end);
    this.#metaSoon();
    const { tail } = this.#segments;
    if (tail !== undefined) this.#segments.fillAhead(tail);
    this.#pump();
  }

  /** Gives up a batch and all behind it, makes sure that none of it is ever read, and only then says so. */
  async #fail(batch: Batch, error: unknown, written: boolean): Promise<void> {
    const refusal: SpoolRefusal = isNoSpace(error) ? 'spool_full' : 'spool_disk_error';
    const failed = [batch, ...this.#queue.splice(0)];
    this.#open = undefined;
    this.#blocked ??= refusal;
    this.#retryAt = Number.POSITIVE_INFINITY;
    if (written) {
      batch.segment.sealed = true;
      batch.segment.final = true;
    }
    if (written && !(await this.#segments.cut(batch.segment, batch.start))) {
      this.#uncut = { segment: batch.segment, end: batch.start };
      await this.#writeMeta();
    }
    if (this.#uncut === undefined) await this.#segments.unplan();
    for (const each of failed) {
      for (const { file } of each.sideFiles) await file.remove();
    }
    this.#retryAt = this.#parts.effects.clock.monotonic() + RETRY_AFTER_MS;
    this.#busy = false;
    for (const each of failed) {
      each.finish(refusal);
      this.#recycle(each);
    }
    this.#pump();
  }

  /** After a failure: true when it is time to let an append try the disk again. */
  #tryAgain(): boolean {
    this.refusal = this.#blocked ?? this.refusal;
    if (this.#closing || this.#repairing || this.#parts.effects.clock.monotonic() < this.#retryAt) return false;
    if (this.#uncut) {
      this.#repairing = this.#repair(this.#uncut).finally(() => {
        this.#repairing = undefined;
      });
      return false;
    }
    this.#blocked = undefined;
    return true;
  }

  async #repair(uncut: { readonly segment: Segment; readonly end: number }): Promise<void> {
    const cut = await this.#segments.cut(uncut.segment, uncut.end);
    if (cut) {
      this.#uncut = undefined;
      // The note of the failed batch must be gone before its positions are used again.
      if (await this.#writeMeta()) await this.#segments.unplan();
      else this.#uncut = uncut;
    }
    this.#retryAt = this.#parts.effects.clock.monotonic() + RETRY_AFTER_MS;
  }

  #recycle(batch: Batch): void {
    this.#queuedBytes -= batch.bytes;
    if (batch.buffer.length === this.#parts.batchBytes && this.#free.length < MAX_FREE_BUFFERS)
      this.#free.push(batch.buffer);
  }

  #frameBytesBetween(from: number, to: number): number {
    let bytes = 0;
    for (const segment of this.#segments.live) {
      if (segment.base >= to) break;
      const first = Math.max(segment.base + SEGMENT_HEAD_BYTES, from);
      bytes += Math.max(0, Math.min(segment.dataEnd, to) - first);
    }
    return bytes;
  }

  #metaSoon(): void {
    if (this.#metaDue || this.#closing) return;
    const { clock } = this.#parts.effects;
    this.#metaDue = clock.sleep(META_EVERY_MS, { unref: true, signal: this.#stopped.signal }).then(async () => {
      this.#metaDue = undefined;
      if (!this.#closing) await this.#writeMeta();
    });
  }

  /** Writes the meta file, one attempt at a time. False: it could not; a later one will, and an older one does no harm. */
  #writeMeta(closed = false): Promise<boolean> {
    const { directory, effects } = this.#parts;
    const attempt = this.#metaWrite.then(async () => {
      const { spoolId, released, committed } = this;
      const cut = this.#uncut?.end;
      try {
        await writeMeta(effects.files, directory, {
          spoolId,
          released,
          committed,
          cut,
          closed: closed && cut === undefined,
        });
        return true;
      } catch {
        return false;
      }
    });
    this.#metaWrite = attempt.then(() => undefined);
    return attempt;
  }
}

function requireSealed(sideFile: SideFile): SpoolSideFile {
  if (sideFile instanceof SpoolSideFile && sideFile.sealed) return sideFile;
  throw new ModeltapError('internal', { detail: `side file ${sideFile.name} was appended before it was sealed` });
}
