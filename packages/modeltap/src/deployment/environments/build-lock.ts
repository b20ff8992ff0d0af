import { DatabaseSync } from 'node:sqlite';
import type { Clock } from '../../kit/clock.ts';
import { errorText } from '../../kit/errors.ts';
import { ModeltapError } from '../../kit/errors.ts';

const SQLITE_BUSY = 5;
const FIRST_WAIT_MS = 20;
const LONGEST_WAIT_MS = 250;

/** How to wait for a lock. */
export interface LockWait {
  readonly clock: Clock;
  readonly signal?: AbortSignal;
  /** Called once, when somebody else has it. */
  readonly onWait?: () => void;
}

/**
 * Takes the lock at `path`, in turn with everybody else in this process and in others, and returns what gives it back.
 * Undefined when the signal aborts first.
 *
 * As the spool does it: an exclusive transaction of SQLite holds a kernel lock on an empty file, which the kernel lets go
 * when the process dies however it dies. So no lock is ever stale. The file stays; removing it would let two in.
 */
export async function takeLock(path: string, wait: LockWait): Promise<(() => void) | undefined> {
  for (let waitMs = FIRST_WAIT_MS; !wait.signal?.aborted; waitMs = Math.min(waitMs * 2, LONGEST_WAIT_MS)) {
    const release = tryLock(path);
    if (release !== undefined) return release;
    if (waitMs === FIRST_WAIT_MS) wait.onWait?.();
    await wait.clock.sleep(waitMs, wait.signal === undefined ? {} : { signal: wait.signal });
  }
  return undefined;
}

/** Takes the lock at `path` if it is free, and returns what gives it back; undefined when it is taken. */
export function tryLock(path: string): (() => void) | undefined {
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
    throw new ModeltapError('environment_unusable', { path, detail: errorText(error) }, { cause: error });
  }
  const held = database;
  return () => {
    if (held.isOpen) held.close();
  };
}
