/** Something to stop, in the order of registration reversed. */
export interface Stoppable {
  readonly name: string;
  /** Stops and drains until the deadline (milliseconds from now). */
  stop(deadlineMs: number): Promise<void>;
}

/**
 * Runs `onStop` once at the first SIGTERM or SIGINT. A second signal ends the process at once with status 130, so that
 * a person is never held hostage by a slow drain. Returns a function that removes the handlers.
 */
export function onShutdownSignal(onStop: (signal: NodeJS.Signals) => void): () => void {
  let stopping = false;
  const handle = (signal: NodeJS.Signals) => {
    if (stopping) process.exit(130);
    stopping = true;
    onStop(signal);
  };
  process.on('SIGTERM', handle);
  process.on('SIGINT', handle);
  return () => {
    process.off('SIGTERM', handle);
    process.off('SIGINT', handle);
  };
}

/** Stops the last started first; a failure to stop one does not keep the others running. Returns what failed. */
export async function stopAll(
  things: readonly Stoppable[],
  deadlineMs: number,
): Promise<readonly { name: string; error: unknown }[]> {
  const until = performance.now() + deadlineMs;
  const failures: { name: string; error: unknown }[] = [];
  for (const thing of things.toReversed()) {
    try {
      await thing.stop(Math.max(0, until - performance.now()));
    } catch (error) {
      failures.push({ name: thing.name, error });
    }
  }
  return failures;
}
