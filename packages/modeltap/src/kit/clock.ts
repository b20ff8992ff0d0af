/** Time as an effect, so that tests can drive it. */
export interface Clock {
  /** Wall clock, milliseconds since the Unix epoch. */
  now(): number;
  /** Monotonic milliseconds, for durations. */
  monotonic(): number;
  /** Resolves after `ms` milliseconds, or at once when the signal aborts. Never rejects. Does not keep the process alive when `unref`. */
  sleep(ms: number, options?: { signal?: AbortSignal; unref?: boolean }): Promise<void>;
}

/** The machine's clock. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: (ms, options = {}) =>
    new Promise((resolve) => {
      const { signal } = options;
      if (signal?.aborted) {
        resolve();
        return;
      }
      const done = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      if (options.unref) timer.unref();
      signal?.addEventListener('abort', done, { once: true });
    }),
};
