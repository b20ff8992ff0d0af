import { join } from 'node:path';
import { ModeltapError, errorText } from '../kit/errors.ts';
import { tryLockFile } from '../kit/file-lock.ts';

/** Name of the lock file in the spool directory. It stays empty. */
export const LOCK_FILE = 'lock';

/**
 * Takes the spool directory for this process, or throws `spool_locked` when it is taken, by this process or another.
 * Returns what gives it back.
 */
export function lockDirectory(directory: string): () => void {
  const path = join(directory, LOCK_FILE);
  let release: (() => void) | undefined;
  try {
    release = tryLockFile(path);
  } catch (error) {
    throw new ModeltapError('spool_disk_error', { detail: `${path}: ${errorText(error)}` }, { cause: error });
  }
  if (release === undefined) throw new ModeltapError('spool_locked', { directory });
  return release;
}
