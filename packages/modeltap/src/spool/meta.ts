import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { ModeltapError, systemCode } from '../kit/errors.ts';
import { FORMAT } from './frame.ts';
import { type SpoolFiles, isNoSpace, writeAll } from './files.ts';

/** Name of the meta file in the spool directory. */
export const META_FILE = 'meta.json';

/** Always the same length, so that one can be written over another. */
const META_BYTES = 256;

/** What the spool keeps beside its segments. */
export interface SpoolMeta {
  /** 32 hex digits. */
  readonly spoolId: string;
  /** Everything below was released. May be older than the truth. */
  readonly released: number;
  /** Everything below was acknowledged. May be older than the truth. */
  readonly committed: number;
  /** Set when a failed batch could not be removed from its segment: nothing from this position on counts. */
  readonly cut: number | undefined;
  /** The spool was closed after this was written: nothing lies behind `committed`. */
  readonly closed: boolean;
}

/**
 * Reads the meta file. Undefined when it is missing or damaged (it is replaced atomically, so only a broken disk damages
 * it). Throws `spool_format` when a newer version wrote it.
 */
export async function readMeta(directory: string): Promise<SpoolMeta | undefined> {
  let text: string;
  try {
    text = await readFile(join(directory, META_FILE), 'utf8');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  const [body = '', sum] = text.split('\n');
  if (sum !== checksum(body)) return undefined;
  const fields = JSON.parse(body) as Record<string, unknown>;
  if (typeof fields['format'] !== 'number' || fields['format'] > FORMAT) {
    throw new ModeltapError('spool_format', { directory, found: String(fields['format']), known: FORMAT });
  }
  return {
    spoolId: String(fields['spool_id']),
    released: Number(fields['released']),
    committed: Number(fields['committed']),
    cut: typeof fields['cut'] === 'number' ? fields['cut'] : undefined,
    closed: fields['closed'] === true,
  };
}

/**
 * Replaces the meta file: the old or the new one is there whole, whatever happens in between. On a disk without room the
 * old one is written over, which needs none; a power failure at that moment may cost it, and with it no record.
 */
export async function writeMeta(files: SpoolFiles, directory: string, meta: SpoolMeta): Promise<void> {
  const { spoolId, released, committed, cut } = meta;
  const closed = meta.closed ? true : undefined; // Like `cut`, left out when undefined.
  const body = JSON.stringify({ format: FORMAT, spool_id: spoolId, released, committed, cut, closed });
  const bytes = Buffer.from(`${`${body}\n${checksum(body)}\n`.padEnd(META_BYTES - 1)}\n`);
  const path = join(directory, META_FILE);
  try {
    await writeFile(files, `${path}.tmp`, bytes);
  } catch (error) {
    if (!isNoSpace(error)) throw error;
    await writeFile(files, path, bytes);
    return;
  }
  await files.rename(`${path}.tmp`, path);
  await files.syncDirectory(directory);
}

async function writeFile(files: SpoolFiles, path: string, bytes: Uint8Array): Promise<void> {
  const fd = await files.open(path, 'plain');
  try {
    await writeAll(files, fd, bytes, 0);
    await files.sync(fd);
  } finally {
    await files.close(fd);
  }
}

function checksum(body: string): string {
  return crc32(body).toString(16).padStart(8, '0');
}
