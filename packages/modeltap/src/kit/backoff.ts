/** How retries are spaced. */
export interface BackoffOptions {
  /** First delay. Default 100 ms. */
  readonly minMs?: number;
  /** Largest delay. Default 30 000 ms. */
  readonly maxMs?: number;
  /** Source of jitter in [0, 1). Default `Math.random`. */
  readonly random?: () => number;
}

/**
 * Delay before retry number `attempt` (0 is the first retry): exponential with full jitter over its upper half, so
 * that many clients do not return in step. Never less than half of `minMs`, never more than `maxMs`.
 */
export function backoffMs(attempt: number, options: BackoffOptions = {}): number {
  const { minMs = 100, maxMs = 30_000, random = Math.random } = options;
  const full = Math.min(maxMs, minMs * 2 ** Math.min(attempt, 30));
  return full / 2 + (random() * full) / 2;
}
