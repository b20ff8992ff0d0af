import { DatabaseSync } from 'node:sqlite';

const SQLITE_BUSY = 5;

/**
 * Takes the lock that the file at `path` stands for, and returns what gives it back; undefined when somebody has it, in
 * this process or another. Throws what the file system says when the file cannot be made.
 *
 * Node has no flock. SQLite has: an exclusive transaction holds a kernel lock on an (empty) file, which the kernel lets go
 * when the process dies however it dies. So there is no stale lock to judge, a reused pid cannot matter, and it also
 * holds between containers that share a volume, where process ids mean nothing. The file stays; removing it would let
 * two in.
 */
export function tryLockFile(path: string): (() => void) | undefined {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(path);
    // journal_mode=MEMORY: the transaction must not need a single byte of disk.
    database.exec('PRAGMA busy_timeout=0; PRAGMA journal_mode=MEMORY; PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE');
  } catch (error) {
    database?.close();
    if (typeof error === 'object' && error !== null && 'errcode' in error && error.errcode === SQLITE_BUSY) {
      return undefined;
    }
    throw error;
  }
  const held = database;
  return () => {
    if (held.isOpen) held.close();
  };
}
