import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { ModeltapError, errorText } from '../kit/errors.ts';

/** Name of the lock file in the spool directory. It stays empty. */
export const LOCK_FILE = 'lock';

const SQLITE_BUSY = 5;

/**
 * Takes the spool directory for this process, or throws `spool_locked` when it is taken, by this process or another.
 * Returns what gives it back.
 *
 * Node has no flock. SQLite has: an exclusive transaction holds a kernel lock on an (empty) file, which the kernel lets go
 * when the process dies however it dies. So there is no stale lock to judge, a reused pid cannot matter, and it also
 * holds between containers that share a volume, where process ids mean nothing.
 */
export function lockDirectory(directory: string): () => void {
  const path = join(directory, LOCK_FILE);
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(path);
    // journal_mode=MEMORY: the transaction must not need a single byte of disk.
    database.exec('PRAGMA busy_timeout=0; PRAGMA journal_mode=MEMORY; PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE');
  } catch (error) {
    database?.close();
    const busy = typeof error === 'object' && error !== null && 'errcode' in error && error.errcode === SQLITE_BUSY;
    if (busy) throw new ModeltapError('spool_locked', { directory }, { cause: error });
    throw new ModeltapError('spool_disk_error', { detail: `${path}: ${errorText(error)}` }, { cause: error });
  }
  const held = database;
  return () => {
    if (held.isOpen) held.close();
  };
}
