import type { FileHandle } from 'node:fs/promises';
import {
  ALIGNMENT,
  FRAME_HEAD_BYTES,
  FRAME_MAGIC,
  type FrameOrigin,
  alignUp,
  checkFrame,
  claimedBytes,
  claimsFrame,
  frameBatchOffset,
  frameEpoch,
  frameName,
  framePayload,
} from './frame.ts';

/** One segment file, opened for reading. */
export interface SegmentFile extends FrameOrigin {
  readonly file: FileHandle;
}

/** A checked frame. `payload` is a view of the window it was read into. */
export interface RawFrame {
  readonly position: number;
  readonly bytes: number;
  readonly batchOffset: number;
  readonly epoch: number;
  /** Name of the side file, or empty. */
  readonly name: string;
  readonly payload: Buffer;
}

/** Memory that frames are read into; grows to the largest frame met (a frame has at most 16 MiB and a head). */
export interface Window {
  buffer: Buffer;
}

/** Frames that lie one behind the other, and why they end. */
export interface FrameRun {
  readonly frames: readonly RawFrame[];
  /** Offset behind the last of them. */
  readonly next: number;
  /** True: no good frame begins at `next`. False: the limit or the wanted amount is reached. */
  readonly hole: boolean;
}

const SEARCH_BYTES = 1024 * 1024;

/** Reads up to `length` bytes at `offset`; fewer only at the end of the file. */
export async function readFully(file: FileHandle, target: Buffer, length: number, offset: number): Promise<number> {
  let at = 0;
  while (at < length) {
    const { bytesRead } = await file.read(target, at, length - at, offset + at);
    if (bytesRead === 0) break;
    at += bytesRead;
  }
  return at;
}

/**
 * Reads the frames from `offset` on that begin below `limit`, about `maxBytes` of them, at least one where there is one.
 * Everything given is valid until the window is used again.
 */
export async function readRun(
  segment: SegmentFile,
  window: Window,
  range: { readonly offset: number; readonly limit: number; readonly maxBytes: number },
): Promise<FrameRun> {
  const { offset } = range;
  const limit = Math.min(range.limit, segment.size);
  if (offset >= limit) return { frames: [], next: offset, hole: false };
  let want = Math.min(Math.max(range.maxBytes, FRAME_HEAD_BYTES), segment.size - offset);
  for (;;) {
    if (window.buffer.length < want) window.buffer = Buffer.allocUnsafeSlow(alignUp(want, 4096));
    const { buffer } = window;
    const available = await readFully(segment.file, buffer, want, offset);
    const frames: RawFrame[] = [];
    const { base, size, epoch } = segment;
    const where = { base, size, epoch, offset };
    let at = 0;
    let found = 0;
    while (offset + at < limit) {
      where.offset = offset + at;
      found = checkFrame(buffer, at, available - at, where);
      if (found <= 0) break;
      frames.push(rawFrame(buffer, at, { position: segment.base + offset + at, bytes: found }));
      at += found;
    }
    if (found >= 0 || available < want) return { frames, next: offset + at, hole: found <= 0 };
    if (frames.length > 0) return { frames, next: offset + at, hole: false };
    want = -found;
    if (offset + want > segment.size) return { frames, next: offset, hole: true };
  }
}

function rawFrame(buffer: Buffer, at: number, place: { position: number; bytes: number }): RawFrame {
  return {
    ...place,
    batchOffset: frameBatchOffset(buffer, at),
    epoch: frameEpoch(buffer, at),
    name: frameName(buffer, at),
    payload: framePayload(buffer, at),
  };
}

/** Offset of the first good frame at or behind `from` and below `limit`, or undefined. */
export async function findFrame(
  segment: SegmentFile,
  window: Window,
  range: { readonly from: number; readonly limit: number },
): Promise<number | undefined> {
  for await (const claim of claims(segment, range)) {
    if (!claim.own) continue;
    const run = await readRun(segment, window, { offset: claim.offset, limit: range.limit, maxBytes: 0 });
    if (run.frames.length > 0) return claim.offset;
  }
  return undefined;
}

/** What lies behind the end of the log in its last segment. */
export interface Remains {
  /** Offset after the last byte that an unfinished batch may have left; `from` when there is no trace of one. */
  readonly end: number;
}

/**
 * Looks for traces of an unfinished batch from `from` to the end of the file: beginnings of frames of this segment or,
 * in a file that holds no older frames, any byte that is not zero.
 */
export async function findRemains(segment: SegmentFile, from: number): Promise<Remains> {
  const { size: fileBytes } = await segment.file.stat();
  let end = from;
  let recycled = false;
  for await (const claim of claims(segment, { from, limit: fileBytes })) {
    if (claim.own) end = Math.max(end, Math.min(claim.offset + claim.bytes, fileBytes));
    // At `from` itself it may be the torn head of the batch that is looked for.
    else if (claim.offset > from) recycled = true;
  }
  if (recycled) return { end };
  return { end: Math.max(end, await lastByte(segment.file, from, fileBytes)) };
}

/** Offset after the last byte in [from, to) that is not zero, or `from`. */
async function lastByte(file: FileHandle, from: number, to: number): Promise<number> {
  const buffer = Buffer.allocUnsafe(64 * 1024);
  const zeros = Buffer.alloc(buffer.length);
  let last = from;
  for (let offset = from; offset < to; offset += buffer.length) {
    const bytes = await readFully(file, buffer, Math.min(buffer.length, to - offset), offset);
    if (buffer.subarray(0, bytes).equals(zeros.subarray(0, bytes))) continue;
    let at = bytes;
    while (buffer[at - 1] === 0) at -= 1;
    last = offset + at;
  }
  return last;
}

/**
 * Every aligned place in [from, limit) where the first bytes of a frame stand, unchecked. `own`: it names this segment
 * and this place; otherwise it is older content of a recycled file, or payload.
 */
async function* claims(
  segment: SegmentFile,
  range: { readonly from: number; readonly limit: number },
): AsyncGenerator<{ readonly offset: number; readonly bytes: number; readonly own: boolean }> {
  const buffer = Buffer.allocUnsafe(SEARCH_BYTES + FRAME_HEAD_BYTES);
  const first = alignUp(range.from, ALIGNMENT);
  for (let offset = first; offset < range.limit; offset += SEARCH_BYTES) {
    const bytes = await readFully(segment.file, buffer, Math.min(buffer.length, segment.size - offset), offset);
    const text = buffer.subarray(0, bytes);
    const stop = Math.min(SEARCH_BYTES, bytes - FRAME_HEAD_BYTES + 1, range.limit - offset);
    for (let at = text.indexOf(FRAME_MAGIC); at >= 0 && at < stop; at = text.indexOf(FRAME_MAGIC, at + 1)) {
      if (at % ALIGNMENT !== 0) continue;
      const own = claimsFrame(text, at, segment, offset + at);
      yield { offset: offset + at, bytes: claimedBytes(text, at), own };
    }
    if (bytes < buffer.length) return;
  }
}
