import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { systemCode } from '../kit/errors.ts';
import { SEGMENT_HEAD_BYTES } from './frame.ts';
import { type SegmentEntry, listSegments, readHead } from './layout.ts';
import { type RawFrame, type SegmentFile, type Window, findFrame, readRun } from './scan.ts';
import type { SpoolFrame, SpoolReader } from './types.ts';

/** The segment being read. */
interface OpenSegment extends SegmentFile {
  readonly file: FileHandle;
  /** Base of the segment behind it, when there is one. */
  readonly nextBase: number | undefined;
  /** Position at which the frames of this segment end for certain, when that is known. */
  readonly end: number;
}

/**
 * Opens a spool for reading. Knows nothing but files, takes no lock and changes nothing, so it may live in another thread
 * than the writer. Never ask it for positions below what was released.
 */
export async function openSpoolReader(directory: string): Promise<SpoolReader> {
  await listSegments(directory); // A directory that is not there should fail here and not at the first read.
  return new SegmentReader(directory);
}

class SegmentReader implements SpoolReader {
  readonly #directory: string;
  readonly #window: Window = { buffer: Buffer.alloc(0) };
  #current: OpenSegment | undefined;

  constructor(directory: string) {
    this.#directory = directory;
  }

  async read(from: number, until: number, maxBytes: number) {
    let position = from;
    while (position < until) {
      const segment = await this.#segmentAt(position, until);
      if (segment === undefined) return { frames: [], next: position };
      const offset = Math.max(position - segment.base, SEGMENT_HEAD_BYTES);
      const limit = Math.min(until, segment.end) - segment.base;
      const run = await readRun(segment, this.#window, { offset, limit, maxBytes });
      if (run.frames.length > 0) return { frames: this.#frames(run.frames), next: segment.base + run.next };
      const found = run.hole ? await findFrame(segment, this.#window, { from: run.next + 1, limit }) : undefined;
      if (found !== undefined) position = segment.base + found;
      else if (segment.nextBase !== undefined && segment.nextBase < until) position = segment.nextBase;
      else position = until;
    }
    return { frames: [], next: position };
  }

  async close(): Promise<void> {
    const file = this.#current?.file;
    this.#current = undefined;
    await file?.close();
  }

  #frames(frames: readonly RawFrame[]): SpoolFrame[] {
    return frames.map((frame) => ({
      position: frame.position,
      next: frame.position + frame.bytes,
      payload: frame.payload,
      sideFile: frame.name === '' ? undefined : join(this.#directory, frame.name),
    }));
  }

  /** The segment that holds `position`, or the first one behind it; undefined when there is none below `until`. */
  async #segmentAt(position: number, until: number): Promise<OpenSegment | undefined> {
    const current = this.#current;
    // While `until` lies inside the segment nothing can have changed about where it ends; else its successor must be known.
    const ended = current?.nextBase !== undefined;
    if (
      current &&
      position >= current.base &&
      (ended ? position < current.nextBase : until <= current.base + current.size)
    ) {
      return current;
    }
    await this.close();
    const entries = await listSegments(this.#directory);
    const inside = entries.findLastIndex((entry) => entry.base <= position);
    for (const [at, entry] of entries.entries()) {
      if (at < inside || entry.base >= until) continue;
      const opened = await this.#open(entry, entries[at + 1], until);
      if (opened === undefined) continue;
      const last = opened.nextBase === undefined || position < opened.nextBase;
      if (last && position < opened.base + opened.size) {
        this.#current = opened;
        return opened;
      }
      await opened.file.close();
    }
    return undefined;
  }

  async #open(entry: SegmentEntry, next: SegmentEntry | undefined, until: number): Promise<OpenSegment | undefined> {
    const found = await readHead(entry);
    if (found === undefined) return undefined;
    const successor = next !== undefined && next.base < until ? next : undefined;
    const nextHead = successor === undefined ? undefined : (await readHead(successor))?.head;
    const size = found.head?.size ?? found.fileBytes;
    const end = entry.base + size;
    let file: FileHandle;
    try {
      file = await open(entry.path, 'r');
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return undefined;
      throw error;
    }
    return {
      file,
      base: entry.base,
      size,
      epoch: found.head?.epoch ?? 0,
      nextBase: successor?.base,
      end: nextHead === undefined ? end : Math.min(end, Math.max(nextHead.previousEnd, entry.base)),
    };
  }
}
