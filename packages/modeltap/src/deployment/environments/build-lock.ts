import type { Clock } from '../../kit/clock.ts';
import { errorText, ModeltapError } from '../../kit/errors.ts';
import { tryLockFile } from '../../kit/file-lock.ts';

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
  try {
    return tryLockFile(path);
  } catch (error) {
    throw new ModeltapError('environment_unusable', { path, detail: errorText(error) }, { cause: error });
  }
}
