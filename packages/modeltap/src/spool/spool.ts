/*
 * The spool on disk, in short (docs/spool-format.md has every offset and the rules of recovery).
 *
 *   <directory>/lock                       held by the process that writes
 *               meta.json                  spool id, released and committed position, with a checksum
 *               <position, 16 digits>.seg  segments; the name is the position of their first byte
 *               <32 hex digits>.side       bodies too large for a frame
 *
 * A segment begins with a head of 64 bytes (spool id, base position, size, a random epoch, where the log before it ended)
 * and then holds frames, aligned to 8 bytes: a head of 32 bytes (magic, crc32 of all that follows it, epoch, payload
 * length, position, where its batch begins, length of the side file's name), the name, the payload. A frame never crosses
 * segments. Since a frame says its own position and epoch, what a recycled file held before is never taken for one.
 *
 * Batches are written one at a time, so a batch behind another proves that the first was acknowledged: that is how
 * recovery tells damage (skipped and reported) from a batch that a crash tore (cut off). Files are filled with zeros ahead
 * of the batches, so a batch needs no new block and a full disk is found before anything of it is written.
 */
import { mkdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { ModeltapError } from '../kit/errors.ts';
import { type SpoolEffects, realEffects, toSpoolError } from './files.ts';
import { SEGMENT_HEAD_BYTES } from './frame.ts';
import { listSegments, listSideFiles } from './layout.ts';
import { lockDirectory } from './lock.ts';
import { writeMeta } from './meta.ts';
import { openSpoolReader } from './reader.ts';
import { FIXED_BYTES, SegmentFiles } from './segments.ts';
import { type Survey, baseAfter, surveySpool } from './survey.ts';
import type { RecoveryReport, SpoolFrame, SpoolOptions, SpoolWriter } from './types.ts';
import { type PendingSideFile, Writer } from './writer.ts';

export { openSpoolReader } from './reader.ts';

const MiB = 1024 * 1024;
const MIN_SEGMENT_BYTES = 64 * 1024;
const MAX_SEGMENT_BYTES = 1024 * MiB;
const MIN_SPOOL_BYTES = 512 * 1024;

/**
 * Opens the spool for writing: takes the lock, recovers, makes the tail clean. Rejects with `spool_locked`,
 * `spool_too_small` (`maxBytes` below 512 KiB), `spool_format`, `spool_foreign`, `spool_full` or `spool_disk_error`.
 */
export async function openSpool(options: SpoolOptions, effects: SpoolEffects = realEffects): Promise<SpoolWriter> {
  const directory = resolve(options.directory);
  const limits = limitsOf(options);
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await effects.files.syncDirectory(dirname(directory));
  } catch (error) {
    throw toSpoolError(error, directory);
  }
  const unlock = lockDirectory(directory);
  try {
    const survey = await surveySpool(directory);
    const spoolId = survey.spoolId ?? effects.random(16).toString('hex');
    const segments = new SegmentFiles(effects.files, { directory, ...limits });
    await adoptSegments(segments, survey);
    // Before anything is appended: the id must be kept, and the notes of a clean close or of a failed batch are void.
    const about = { released: survey.released, committed: survey.end };
    await writeMeta(effects.files, directory, { spoolId, ...about, cut: undefined, closed: false });
    const sides = await adoptSideFiles(directory, survey, { segments, effects });
    const { released, frames, end, tornBytes, damaged } = survey;
    const { orphanSideFiles, missingSideFiles, sideFiles } = sides;
    const recovery: RecoveryReport = { frames, end, tornBytes, damaged, orphanSideFiles, missingSideFiles };
    const nextBase = baseAfter(survey);
    return new Writer({
      directory,
      ...limits,
      effects,
      segments,
      spoolId,
      recovery,
      released,
      nextBase,
      sideFiles,
      unlock,
    });
  } catch (error) {
    unlock();
    throw toSpoolError(error, directory);
  }
}

/**
 * Every payload that is not released, in order, with what recovery would drop left out. Changes nothing, but is only
 * sound while no writer has the spool open. Each frame is valid until the next is asked for.
 */
export async function* scanSpool(directory: string): AsyncGenerator<SpoolFrame> {
  const { released, end } = await surveySpool(directory);
  yield* framesBetween(directory, released, end);
}

/**
 * Every payload below `end` that is still on disk, released ones included, in order. For a spool just opened, before
 * anything is appended or released. Each frame is valid until the next is asked for.
 */
export async function* scanKept(directory: string, end: number): AsyncGenerator<SpoolFrame> {
  const [oldest] = await listSegments(directory);
  yield* framesBetween(directory, oldest?.base ?? end, end);
}

async function* framesBetween(directory: string, from: number, end: number): AsyncGenerator<SpoolFrame> {
  const reader = await openSpoolReader(directory);
  try {
    for (let position = from; position < end; ) {
      const { frames, next } = await reader.read(position, end, MiB);
      yield* frames;
      if (next <= position) return;
      position = next;
    }
  } finally {
    await reader.close();
  }
}

function limitsOf(options: SpoolOptions) {
  const { maxBytes } = options;
  if (!(maxBytes >= MIN_SPOOL_BYTES)) throw new ModeltapError('spool_too_small', { maxBytes, least: MIN_SPOOL_BYTES });
  const most = Math.min((maxBytes - FIXED_BYTES) / 4, MAX_SEGMENT_BYTES);
  const segmentBytes = blocks(Math.max(MIN_SEGMENT_BYTES, Math.min(options.segmentBytes ?? 32 * MiB, most)));
  const batchBytes = blocks(Math.max(4096, Math.min(options.batchBytes ?? 8 * MiB, segmentBytes)));
  const queueBytes = Math.max(options.queueBytes ?? 64 * MiB, 2 * batchBytes);
  return { maxBytes, segmentBytes, batchBytes, queueBytes, maxSideFiles: options.maxSideFiles ?? 16_384 };
}

function blocks(bytes: number): number {
  return Math.floor(bytes / 4096) * 4096;
}

/** Hands what was found to the writer's side and makes the end of the log clean. */
async function adoptSegments(segments: SegmentFiles, survey: Survey): Promise<void> {
  for (const { path, fileBytes, released } of survey.unused) segments.adoptUnused(path, fileBytes, released);
  const last = survey.segments.at(-1);
  for (const found of survey.segments) {
    if (found === last && found.end < found.base + SEGMENT_HEAD_BYTES) {
      segments.adoptUnused(found.path, found.fileBytes, false);
      continue;
    }
    const goesOn = found === last && found.epoch !== 0 && found.end === survey.end;
    const segment = segments.adopt(found, !goesOn);
    if (found !== last || !survey.dirty) continue;
    if (!(await segments.cut(segment, found.end))) {
      throw new ModeltapError('spool_disk_error', { detail: `the end of ${found.name} cannot be made clean` });
    }
    segment.final = !goesOn;
    segment.sealed = !goesOn;
  }
  await segments.settled();
}

async function adoptSideFiles(
  directory: string,
  survey: Survey,
  to: { segments: SegmentFiles; effects: SpoolEffects },
) {
  const { segments, effects } = to;
  const orphans = await listSideFiles(directory);
  const sideFiles: PendingSideFile[] = [];
  let missingSideFiles = 0;
  for (const { position, name } of survey.sideFiles) {
    const bytes = orphans.get(name);
    if (bytes === undefined) {
      missingSideFiles += 1;
      continue;
    }
    orphans.delete(name);
    segments.adoptSide(bytes);
    const remove = async () => {
      try {
        await effects.files.remove(join(directory, name));
        segments.releaseSide(bytes);
      } catch {
        return; // It stays counted, because it is still there; the next start removes it as an orphan.
      }
    };
    sideFiles.push({ position, bytes, remove });
  }
  for (const name of orphans.keys()) await effects.files.remove(join(directory, name));
  return { sideFiles, missingSideFiles, orphanSideFiles: orphans.size };
}
