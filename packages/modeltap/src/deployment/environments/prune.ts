import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { systemCode } from '../../kit/errors.ts';
import { COMPLETE_FILE } from './build.ts';
import { tryLock } from './build-lock.ts';

/** An environment that no deployment uses stays this long, in ms: 30 days. */
export const UNUSED_KEPT_MS = 30 * 24 * 3_600_000;

/**
 * Removes the environments below `directory` that are not in `keepHashes` and were last prepared longer ago than
 * `olderThanMs` (default 30 days), and logs of builds that failed so long ago. Returns the hashes removed. One that is
 * being built is left alone. The caller keeps those that instances run from.
 */
export async function pruneEnvironments(
  directory: string,
  keepHashes: Iterable<string>,
  olderThanMs = UNUSED_KEPT_MS,
): Promise<readonly string[]> {
  const keep = new Set(keepHashes);
  const removed: string[] = [];
  for (const hash of await hashesIn(directory)) {
    if (keep.has(hash)) continue;
    const release = tryLock(join(directory, `${hash}.lock`));
    if (release === undefined) continue;
    try {
      const folder = join(directory, hash);
      const lastUsed = (await timeOf(join(folder, COMPLETE_FILE))) ?? (await timeOf(folder)) ?? Date.now();
      if (Date.now() - lastUsed < olderThanMs) continue;
      // First the mark: a removal cut short must not leave something that looks whole.
      await rm(join(folder, COMPLETE_FILE), { force: true });
      await rm(folder, { recursive: true, force: true, maxRetries: 3 });
      removed.push(hash);
    } finally {
      release();
    }
  }
  return removed;
}

async function hashesIn(directory: string): Promise<readonly string[]> {
  try {
    return (await readdir(directory)).filter((name) => /^[0-9a-f]{16}$/.test(name)).toSorted();
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return [];
    throw error;
  }
}

async function timeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).mtimeMs;
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}
