import { open } from 'node:fs/promises';
import { ModeltapError } from '../kit/errors.ts';
import { ALIGNMENT, FRAME_HEAD_BYTES, SEGMENT_HEAD_BYTES, alignUp } from './frame.ts';
import { type SegmentEntry, listSegments, readHead } from './layout.ts';
import { type SpoolMeta, readMeta } from './meta.ts';
import { type RawFrame, type SegmentFile, type Window, findFrame, findRemains, readRun } from './scan.ts';
import type { RecoveryReport } from './types.ts';

/** A segment file that holds frames, as found on disk. Sizes in bytes. */
export interface FoundSegment extends SegmentEntry {
  /** As the head says; the length of the file when the head is lost. */
  readonly size: number;
  /** 0 when the head is lost. */
  readonly epoch: number;
  /** Length of the file. */
  readonly fileBytes: number;
  /** Position after its last frame. */
  readonly end: number;
}

/** A frame that has a side file. */
export interface SideFileUse {
  readonly position: number;
  readonly name: string;
}

/** Everything that can be known of a spool from its files. */
export interface Survey {
  readonly meta: SpoolMeta | undefined;
  /** From the meta file or, when that is lost, from a segment. Undefined for a new spool. */
  readonly spoolId: string | undefined;
  /** Begin of what is not released. */
  readonly released: number;
  /** In order; the last one is where appending goes on. */
  readonly segments: readonly FoundSegment[];
  /** Files without a frame that may still come: released, or never written. */
  readonly unused: readonly (SegmentEntry & { readonly released: boolean; readonly fileBytes: number })[];
  readonly end: number;
  readonly frames: number;
  readonly tornBytes: number;
  /** An unfinished batch, or more than the log, lies behind `end` in the last segment. */
  readonly dirty: boolean;
  readonly damaged: RecoveryReport['damaged'];
  readonly sideFiles: readonly SideFileUse[];
}

/** Most damaged stretches listed one by one; the last one then covers the rest of its segment. */
const MAX_DAMAGED = 1000;
const WINDOW_BYTES = 1024 * 1024;

interface Candidate extends SegmentEntry {
  readonly size: number;
  readonly epoch: number;
  readonly fileBytes: number;
  readonly previousEnd: number | undefined;
}

/** Reads a whole spool as recovery does, changing nothing. Only sound while no writer has it open. */
export async function surveySpool(directory: string): Promise<Survey> {
  const meta = await readMeta(directory);
  const { used, empty, spoolId } = await sortSegments(directory, meta);
  const walk = new Walk(meta);
  const segments: FoundSegment[] = [];
  const unused = empty.map((found) => ({ ...found, released: false }));
  let newestReleased: FoundSegment | undefined;
  for (const [at, found] of used.entries()) {
    const next = used[at + 1];
    const known = next?.previousEnd;
    const dataEnd = Math.max(found.base, Math.min(known ?? Number.MAX_SAFE_INTEGER, found.base + found.size));
    if (next !== undefined && dataEnd <= walk.released) {
      if (newestReleased) unused.push({ ...newestReleased, released: true });
      newestReleased = { ...found, end: dataEnd };
      continue;
    }
    segments.push(await walk.segment(found, { dataEnd, known: known !== undefined, last: next === undefined }));
  }
  // As while running: the newest one that is released stays until the one behind it is full.
  if (newestReleased) segments.unshift(newestReleased);
  const end = Math.max(walk.end, meta?.committed ?? 0, walk.released);
  const { released, frames, tornBytes, dirty, damaged, sideFiles } = walk;
  return { meta, spoolId, released, segments, unused, end, frames, tornBytes, dirty, damaged, sideFiles };
}

/** Tells segments that were written to from files that were not (or hold what was released before a recycling). */
async function sortSegments(directory: string, meta: SpoolMeta | undefined) {
  const used: Candidate[] = [];
  const empty: (SegmentEntry & { fileBytes: number })[] = [];
  let spoolId = meta?.spoolId;
  for (const entry of await listSegments(directory)) {
    const found = await readHead(entry);
    if (found === undefined) continue;
    const { head, fileBytes } = found;
    if (head !== undefined) {
      spoolId ??= head.spoolId;
      if (head.spoolId !== spoolId) {
        throw new ModeltapError('spool_foreign', { segment: entry.path, found: head.spoolId, expected: spoolId });
      }
      used.push({ ...entry, size: head.size, epoch: head.epoch, fileBytes, previousEnd: head.previousEnd });
    } else if (await holdsFrames(entry, fileBytes)) {
      used.push({ ...entry, size: fileBytes, epoch: 0, fileBytes, previousEnd: undefined });
    } else {
      empty.push({ ...entry, fileBytes });
    }
  }
  return { used, empty, spoolId };
}

/** True when a file whose head is lost still has frames of the segment it is named after. */
async function holdsFrames(entry: SegmentEntry, fileBytes: number): Promise<boolean> {
  const file = await open(entry.path, 'r');
  try {
    const segment: SegmentFile = { file, base: entry.base, size: fileBytes, epoch: 0 };
    const window: Window = { buffer: Buffer.alloc(0) };
    return (await findFrame(segment, window, { from: SEGMENT_HEAD_BYTES, limit: fileBytes })) !== undefined;
  } finally {
    await file.close();
  }
}

/** Goes through the frames of segment after segment and tells damage from an unfinished batch. */
class Walk {
  released: number;
  end = 0;
  frames = 0;
  tornBytes = 0;
  dirty = false;
  readonly damaged: { segment: string; from: number; to: number }[] = [];
  readonly sideFiles: SideFileUse[] = [];
  readonly #meta: SpoolMeta | undefined;
  readonly #window: Window = { buffer: Buffer.allocUnsafe(WINDOW_BYTES) };
  // What lies behind a hole that a later batch has not yet proved to be damage and not a torn batch.
  #suspect: { frames: number; from: number; holes: [number, number][]; sides: SideFileUse[] } | undefined;

  constructor(meta: SpoolMeta | undefined) {
    this.#meta = meta;
    this.released = meta?.released ?? 0;
  }

  async segment(found: Candidate, to: { dataEnd: number; known: boolean; last: boolean }): Promise<FoundSegment> {
    const { path, name, base, size, epoch, fileBytes } = found;
    const first = base + SEGMENT_HEAD_BYTES;
    // After a clean close the rest of the file need not even be looked at.
    const closed = this.#meta?.closed === true;
    const cut = this.#meta?.cut ?? (closed ? this.#meta?.committed : undefined) ?? to.dataEnd;
    const limit = to.last ? Math.min(to.dataEnd, Math.max(cut, base)) : to.dataEnd;
    const from = Math.min(Math.max(first, this.released), limit);
    this.end = Math.max(from, this.end);
    let end = from;
    const file = await open(path, 'r');
    try {
      const segment: SegmentFile = { file, base, size, epoch };
      end = await this.#frames(segment, { name, from, limit, last: to.last });
      if (to.last) await this.#tail(segment, { name, end, limit, closed });
      else if (to.known && end < to.dataEnd) this.#damage(name, end, to.dataEnd);
    } finally {
      await file.close();
    }
    this.end = Math.max(this.end, end);
    return { path, name, base, size, epoch, fileBytes, end };
  }

  /** Returns the position after the last frame that counts. */
  async #frames(
    segment: SegmentFile,
    to: { name: string; from: number; limit: number; last: boolean },
  ): Promise<number> {
    let end = to.from;
    let offset = to.from - segment.base;
    const limit = to.limit - segment.base;
    this.#suspect = undefined;
    for (;;) {
      const run = await readRun(segment, this.#window, { offset, limit, maxBytes: WINDOW_BYTES });
      for (const frame of run.frames) end = this.#take(frame, end, segment.base + frame.batchOffset, to.name);
      if (!run.hole && run.next >= limit) break;
      offset = run.next;
      if (!run.hole) continue;
      const found = await findFrame(segment, this.#window, { from: offset + ALIGNMENT, limit });
      if (found === undefined) break;
      this.#hole(to, segment.base + offset, segment.base + found);
      offset = found;
    }
    return end;
  }

  #hole(to: { name: string; last: boolean }, from: number, until: number): void {
    const acknowledged = !to.last || from < (this.#meta?.committed ?? 0);
    if (acknowledged && this.#suspect === undefined) this.#damage(to.name, from, until);
    else {
      this.#suspect ??= { frames: 0, from, holes: [], sides: [] };
      this.#suspect.holes.push([from, until]);
      if (this.#suspect.holes.length > MAX_DAMAGED)
        this.#suspect.holes.splice(-2, 2, [this.#suspect.holes.at(-2)?.[0] ?? from, until]);
    }
  }

  /** Counts a frame, or holds it back; returns the position after the last frame that counts. */
  #take(frame: RawFrame, end: number, batch: number, segment: string): number {
    const next = frame.position + frame.bytes;
    const suspect = this.#suspect;
    if (suspect !== undefined && batch <= suspect.from) {
      suspect.frames += 1;
      if (frame.name !== '') suspect.sides.push({ position: frame.position, name: frame.name });
      return end;
    }
    if (suspect !== undefined) {
      // A later batch was begun, so the one with the hole had been acknowledged: it is damaged, not torn.
      this.frames += suspect.frames;
      for (const [from, to] of suspect.holes) this.#damage(segment, from, to);
      for (const side of suspect.sides) this.sideFiles.push(side);
      this.#suspect = undefined;
    }
    this.frames += 1;
    if (frame.name !== '') this.sideFiles.push({ position: frame.position, name: frame.name });
    return next;
  }

  /** Looks behind the end of the log. */
  async #tail(segment: SegmentFile, to: { name: string; end: number; limit: number; closed: boolean }): Promise<void> {
    const committed = this.#meta?.committed ?? 0;
    if (committed > to.end && committed <= to.limit) this.#damage(to.name, to.end, committed);
    if (to.closed) return;
    const remains = await findRemains(segment, to.end - segment.base);
    this.tornBytes = Math.max(0, remains.end - (to.end - segment.base));
    this.dirty = this.tornBytes > 0 || to.limit < segment.base + segment.size;
  }

  #damage(segment: string, from: number, to: number): void {
    const last = this.damaged.at(-1);
    if (this.damaged.length >= MAX_DAMAGED && last !== undefined)
      this.damaged[this.damaged.length - 1] = { ...last, to };
    else this.damaged.push({ segment, from, to });
  }
}

/** Smallest position a new segment may have behind everything that was ever reserved. */
export function baseAfter(survey: Pick<Survey, 'segments' | 'end'>): number {
  const last = survey.segments.at(-1);
  return alignUp(
    Math.max(survey.end, last === undefined ? 0 : last.base + Math.max(last.size, FRAME_HEAD_BYTES)),
    4096,
  );
}
