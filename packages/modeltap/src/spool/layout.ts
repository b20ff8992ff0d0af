import { open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ModeltapError, systemCode } from '../kit/errors.ts';
import { FORMAT, SEGMENT_HEAD_BYTES, type SegmentHead, SIDE_FILE_NAME, readSegmentHead } from './frame.ts';
import { readFully } from './scan.ts';

const SEGMENT_NAME = /^(\d{16})\.seg$/;

/** File name of the segment that begins at a position. */
export function segmentName(base: number): string {
  return `${String(base).padStart(16, '0')}.seg`;
}

/** A segment file by its name. */
export interface SegmentEntry {
  readonly name: string;
  readonly path: string;
  readonly base: number;
}

/** Segment files of a spool directory in order of position. */
export async function listSegments(directory: string): Promise<SegmentEntry[]> {
  const names = await readdir(directory);
  return names
    .flatMap((name) => {
      const digits = SEGMENT_NAME.exec(name)?.[1];
      return digits === undefined ? [] : [{ name, path: join(directory, name), base: Number(digits) }];
    })
    .sort((a, b) => a.base - b.base);
}

/** Side files of a spool directory with their sizes, by name. */
export async function listSideFiles(directory: string): Promise<Map<string, number>> {
  const found = new Map<string, number>();
  for (const name of await readdir(directory)) {
    if (!SIDE_FILE_NAME.test(name)) continue;
    found.set(name, (await stat(join(directory, name))).size);
  }
  return found;
}

/** What the beginning of a segment file says. */
export interface HeadFound {
  /** Undefined: damaged, never written, or that of the segment the file held before it was recycled. */
  readonly head: SegmentHead | undefined;
  readonly fileBytes: number;
}

/** Reads the head of a segment. Undefined when the file is gone. Throws `spool_format` when a newer version wrote it. */
export async function readHead(entry: SegmentEntry): Promise<HeadFound | undefined> {
  let file;
  try {
    file = await open(entry.path, 'r');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const buffer = Buffer.alloc(SEGMENT_HEAD_BYTES);
    await readFully(file, buffer, buffer.length, 0);
    const { size } = await file.stat();
    const head = readSegmentHead(buffer);
    if (head !== undefined && head.format > FORMAT) {
      throw new ModeltapError('spool_format', { directory: entry.path, found: head.format, known: FORMAT });
    }
    return { head: head?.base === entry.base ? head : undefined, fileBytes: size };
  } finally {
    await file.close();
  }
}
