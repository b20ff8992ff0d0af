import { join } from 'node:path';
import { ModeltapError } from '../kit/errors.ts';
import { SEGMENT_HEAD_BYTES, alignUp } from './frame.ts';
import { type SpoolFiles, isNoSpace, writeAll } from './files.ts';
import { segmentName } from './layout.ts';
import type { FoundSegment } from './survey.ts';

/** One segment as its writer knows it. Sizes in bytes, ends as positions. */
export interface Segment {
  readonly base: number;
  /** Position after its last byte. */
  readonly limit: number;
  readonly epoch: number;
  /** What its head says: the position after the last frame before it. */
  readonly previousEnd: number;
  /** Position after the last frame that was appended, on disk or not yet. */
  planned: number;
  /** Position after the last frame that is on disk. */
  dataEnd: number;
  /** No more frames come, unless what was planned behind it is taken back. */
  sealed: boolean;
  /** No more frames come, for ever. */
  final: boolean;
  path: string;
  /** The file has its name, for certain. */
  named: boolean;
  /** Bytes from its beginning that are filled and need no more room on the disk. */
  allocated: number;
  /** Part of the limit it takes up. */
  reserved: number;
  fd: number | undefined;
  filling: Promise<void> | undefined;
}

/** A file to be used again. */
interface Spare {
  readonly path: string;
  readonly bytes: number;
}

/** Where segments lie and how much room they may take, bytes. */
export interface SegmentOptions {
  readonly directory: string;
  readonly maxBytes: number;
  readonly segmentBytes: number;
}

const BLOCK = 4096;
/** Room for lock, meta file and its successor, one block each. Counted in every spool. */
export const FIXED_BYTES = 3 * BLOCK;
const MAX_SPARES = 2;
/** How much is filled when a batch has to wait for it, and how far ahead of the batches in the background. */
const WAITING_SLICE_BYTES = 1024 * 1024;
const AHEAD_BYTES = 4 * 1024 * 1024;
const FILL_BYTES = 1024 * 1024;
/** Never filled: this much of the file system, or this part of a small one. */
const KEPT_FREE_BYTES = 16 * 1024 * 1024;
const KEPT_FREE_SHARE = 8;

/** The files of a spool and the room they take: makes, fills, recycles and deletes segments within the limit. */
export class SegmentFiles {
  readonly #files: SpoolFiles;
  readonly #options: SegmentOptions;
  /** In order of position; the last one takes the next frames. */
  readonly #live: Segment[] = [];
  readonly #spares: Spare[] = [];
  #zeros: Buffer | undefined;
  #reserved = FIXED_BYTES;
  #diskBytes = FIXED_BYTES;
  #removals: Promise<void> = Promise.resolve();
  #aheadOff = false;
  /** Everything below was released. */
  released = 0;

  constructor(files: SpoolFiles, options: SegmentOptions) {
    this.#files = files;
    this.#options = options;
  }

  get diskBytes(): number {
    return this.#diskBytes;
  }

  get tail(): Segment | undefined {
    return this.#live.at(-1);
  }

  get live(): readonly Segment[] {
    return this.#live;
  }

  /** Takes over a segment found at start. */
  adopt(found: FoundSegment, final: boolean): Segment {
    const segment: Segment = {
      base: found.base,
      limit: found.base + found.size,
      epoch: found.epoch,
      previousEnd: found.base,
      planned: found.end,
      dataEnd: found.end,
      sealed: final,
      final,
      path: found.path,
      named: true,
      allocated: found.fileBytes,
      reserved: final ? found.fileBytes : Math.max(found.size, found.fileBytes),
      fd: undefined,
      filling: undefined,
    };
    this.#live.push(segment);
    this.#reserved += segment.reserved;
    this.#diskBytes += found.fileBytes;
    return segment;
  }

  /** Takes over a file without content that matters, as one to use again or to delete. */
  adoptUnused(path: string, bytes: number, reusable: boolean): void {
    this.#reserved += bytes;
    this.#diskBytes += bytes;
    this.#retire({ path, bytes }, reusable);
  }

  /** Counts `bytes` of a side file against the limit. False: they do not fit. */
  reserveSide(bytes: number): boolean {
    if (!this.#makeRoom(bytes)) return false;
    this.#reserved += bytes;
    this.#diskBytes += bytes;
    return true;
  }

  /** Side files found at start count even where they are beyond the limit. */
  adoptSide(bytes: number): void {
    this.#reserved += bytes;
    this.#diskBytes += bytes;
  }

  releaseSide(bytes: number): void {
    this.#reserved -= bytes;
    this.#diskBytes -= bytes;
  }

  /**
   * Plans the segment behind the tail, for at least `frameBytes` and the head. Nothing is touched yet; the room is taken.
   * Undefined: there is none.
   */
  plan(base: number, epoch: number, about: { previousEnd: number; frameBytes: number }): Segment | undefined {
    const size = Math.max(this.#options.segmentBytes, alignUp(SEGMENT_HEAD_BYTES + about.frameBytes, BLOCK));
    const tail = this.tail;
    if (tail) tail.sealed = true;
    this.reclaim();
    const spare = size === this.#options.segmentBytes ? this.#spares.pop() : undefined;
    if (spare === undefined) {
      if (!this.#makeRoom(size)) {
        if (tail) tail.sealed = tail.final;
        return undefined;
      }
      this.#reserved += size;
    }
    const segment: Segment = {
      base,
      limit: base + size,
      epoch,
      previousEnd: about.previousEnd,
      planned: base + SEGMENT_HEAD_BYTES,
      dataEnd: base,
      sealed: false,
      final: false,
      path: spare?.path ?? this.#pathOf(base),
      named: false,
      allocated: spare?.bytes ?? 0,
      reserved: size,
      fd: undefined,
      filling: undefined,
    };
    this.#live.push(segment);
    return segment;
  }

  /** Takes back what was planned and is not on disk: frames, and the segments that hold nothing else. */
  async unplan(): Promise<void> {
    for (let tail = this.tail; tail && tail.dataEnd === tail.base; tail = this.tail) {
      this.#live.pop();
      await settle(tail.filling);
      await this.#close(tail);
      const touched = tail.path === this.#pathOf(tail.base);
      if (!touched) this.#spares.push({ path: tail.path, bytes: tail.allocated });
      else this.#discard({ path: tail.path, bytes: tail.allocated }, tail.reserved);
    }
    if (!this.tail) return;
    this.tail.planned = this.tail.dataEnd;
    this.tail.sealed = this.tail.final;
  }

  /** True when bytes up to `end` can be written to the segment at once. */
  isReady(segment: Segment, end: number): boolean {
    return segment.fd !== undefined && segment.named && segment.allocated >= end - segment.base;
  }

  /** Gives the segment its file and fills it at least up to `end`. Rejects with the system error. */
  async prepare(segment: Segment, end: number): Promise<void> {
    await this.#removals;
    if (!segment.named) {
      const path = this.#pathOf(segment.base);
      if (segment.path !== path) {
        await this.#files.rename(segment.path, path);
        segment.path = path;
      }
    }
    if (segment.allocated < end - segment.base) await this.#fillWaiting(segment, end - segment.base);
    if (!segment.named) {
      await this.#files.syncDirectory(this.#options.directory);
      segment.named = true;
    }
    segment.fd ??= await this.#files.open(segment.path, 'durable');
  }

  /** Fills the next part of the tail while batches are written before it. Best effort: who needs the room asks again. */
  fillAhead(segment: Segment): void {
    const size = segment.limit - segment.base;
    const used = segment.planned - segment.base;
    if (segment.filling || segment.sealed || !segment.named || this.#aheadOff) return;
    if (segment.allocated >= size || segment.allocated - used >= AHEAD_BYTES) return;
    this.#startFill(segment, Math.min(size, alignUp(used + 2 * AHEAD_BYTES, BLOCK))).catch(() => {
      this.#aheadOff = true; // The batch that needs the room reports it; until one got it nothing is tried ahead.
    });
  }

  /** Ends the segments before `segment`, the first batch of which is on disk. */
  async finishBefore(segment: Segment): Promise<void> {
    for (const earlier of this.#live) {
      if (earlier.base >= segment.base || (earlier.final && earlier.fd === undefined)) continue;
      earlier.sealed = true;
      earlier.final = true;
      await this.#close(earlier);
    }
  }

  /**
   * Removes everything from `end` on, durably, by any of two ways: cutting the file, or zeros over the first frame there
   * (which makes its whole batch void). False: the disk refuses both.
   */
  async cut(segment: Segment, end: number): Promise<boolean> {
    await settle(segment.filling);
    const offset = end - segment.base;
    try {
      const fd = await this.#files.open(segment.path, 'plain');
      try {
        await this.#files.truncate(fd, offset);
        await this.#files.sync(fd);
      } finally {
        await this.#files.close(fd);
      }
      this.#shrink(segment, offset);
      return true;
    } catch {
      return this.#blank(segment, offset);
    }
  }

  /** Drops the segments that are wholly released, but keeps the newest of them until the one behind it is full. */
  reclaim(): void {
    const { released } = this;
    for (;;) {
      const [oldest, next] = this.#live;
      if (oldest === undefined || next === undefined || !next.sealed || !oldest.sealed) return;
      if (oldest.dataEnd > released || oldest.planned !== oldest.dataEnd) return;
      this.#live.shift();
      void this.#close(oldest);
      this.#shrinkReserve(oldest);
      const whole = oldest.allocated === this.#options.segmentBytes;
      this.#retire({ path: oldest.path, bytes: oldest.allocated }, whole);
    }
  }

  /** Resolves when what was to be deleted is deleted. */
  settled(): Promise<void> {
    return this.#removals;
  }

  async close(): Promise<void> {
    for (const segment of this.#live) {
      await settle(segment.filling);
      await this.#close(segment);
    }
    await this.#removals;
  }

  async #blank(segment: Segment, offset: number): Promise<boolean> {
    try {
      const fd = await this.#files.open(segment.path, 'plain');
      try {
        await writeAll(this.#files, fd, Buffer.alloc(BLOCK), offset);
        await this.#files.sync(fd);
      } finally {
        await this.#files.close(fd);
      }
      return true;
    } catch {
      return false; // The caller has one more way, and keeps asking.
    }
  }

  async #fillWaiting(segment: Segment, bytes: number): Promise<void> {
    await settle(segment.filling);
    if (segment.allocated >= bytes) return;
    const size = segment.limit - segment.base;
    try {
      await this.#startFill(segment, Math.min(size, Math.max(bytes, segment.allocated + WAITING_SLICE_BYTES)));
    } catch (error) {
      if (!isNoSpace(error) || segment.allocated >= bytes) throw error;
      await this.#startFill(segment, bytes);
    }
    this.#aheadOff = false;
  }

  /** One filling at a time: `allocated` is where the next one goes on. */
  #startFill(segment: Segment, to: number): Promise<void> {
    const filling = this.#fill(segment, to).finally(() => {
      segment.filling = undefined;
    });
    segment.filling = filling;
    return filling;
  }

  /** Writes zeros, so that blocks really exist: a batch then neither waits for the allocator nor finds the disk full. */
  async #fill(segment: Segment, to: number): Promise<void> {
    this.#zeros ??= Buffer.alloc(FILL_BYTES);
    await this.#leaveRoom(to - segment.allocated);
    const fd = await this.#files.open(segment.path, 'plain');
    try {
      if (segment.allocated === 0) await this.#files.truncate(fd, 0);
      while (segment.allocated < to) {
        const bytes = Math.min(FILL_BYTES - (segment.allocated % FILL_BYTES), to - segment.allocated);
        await writeAll(this.#files, fd, this.#zeros.subarray(0, bytes), segment.allocated);
        await this.#files.sync(fd);
        segment.allocated += bytes;
        this.#diskBytes += bytes;
      }
    } finally {
      await this.#files.close(fd);
    }
  }

  /**
   * The last bytes of the file system are not for records waiting: delivery keeps its journal beside them, and without
   * room for that a full disk could never be emptied again.
   */
  async #leaveRoom(bytes: number): Promise<void> {
    const { free, total } = await this.#files.space(this.#options.directory);
    if (free - bytes < Math.min(KEPT_FREE_BYTES, total / KEPT_FREE_SHARE)) {
      throw new ModeltapError('spool_full', { directory: this.#options.directory });
    }
  }

  #shrink(segment: Segment, bytes: number): void {
    this.#diskBytes -= Math.max(0, segment.allocated - bytes);
    segment.allocated = Math.min(segment.allocated, bytes);
    if (segment.sealed) this.#shrinkReserve(segment);
  }

  /** A sealed segment takes no more than it has. */
  #shrinkReserve(segment: Segment): void {
    this.#reserved -= segment.reserved - segment.allocated;
    segment.reserved = segment.allocated;
  }

  #makeRoom(bytes: number): boolean {
    const { maxBytes } = this.#options;
    while (this.#reserved + bytes > maxBytes) {
      const spare = this.#spares.pop();
      if (spare === undefined) return false;
      this.#discard(spare, spare.bytes);
    }
    return true;
  }

  #retire(spare: Spare, reusable: boolean): void {
    const fits = spare.bytes === this.#options.segmentBytes && this.#reserved <= this.#options.maxBytes;
    if (reusable && fits && this.#spares.length < MAX_SPARES) this.#spares.push(spare);
    else this.#discard(spare, spare.bytes);
  }

  /** Deletes a file. Its room is free for planning at once: what is planned waits in `prepare` until it is gone. */
  #discard(spare: Spare, reserved: number): void {
    this.#reserved -= reserved;
    this.#removals = this.#removals.then(async () => {
      try {
        await this.#files.remove(spare.path);
        this.#diskBytes -= spare.bytes;
      } catch {
        this.#reserved += spare.bytes; // Still there, so it still counts; the next start tries again.
      }
    });
  }

  #pathOf(base: number): string {
    return join(this.#options.directory, segmentName(base));
  }

  /** What was written is on disk already, so a failure to close loses nothing. */
  async #close(segment: Segment): Promise<void> {
    const { fd } = segment;
    segment.fd = undefined;
    if (fd !== undefined) await settle(this.#files.close(fd));
  }
}

/** Waits for an attempt whose failure is reported to, or repeated by, somebody else. */
async function settle(attempt: Promise<void> | undefined): Promise<void> {
  await attempt?.catch(() => undefined);
}
