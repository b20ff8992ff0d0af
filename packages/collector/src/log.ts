import type { CollectorError } from './errors.ts';

const REPEAT_MS = 60_000;
const MAX_CAUSES = 1000;

/** Failures on stderr: each cause at once, and then at most once a minute with how often it came meanwhile. */
export class FailureLog {
  readonly #write: (line: string) => void;
  readonly #now: () => number;
  readonly #causes = new Map<string, { loggedMs: number; silent: number }>();
  /** Log every failure. */
  debug = false;

  constructor(write: (line: string) => void = (line) => process.stderr.write(line), now: () => number = Date.now) {
    this.#write = write;
    this.#now = now;
  }

  failure(cause: string, error: CollectorError): void {
    const now = this.#now();
    const known = this.#causes.get(cause);
    if (known !== undefined && !this.debug && now - known.loggedMs < REPEAT_MS) {
      known.silent++;
      return;
    }
    if (known === undefined && this.#causes.size >= MAX_CAUSES) this.#causes.clear();
    this.#causes.set(cause, { loggedMs: now, silent: 0 });
    const more = known !== undefined && known.silent > 0 ? ` (and ${known.silent} times more since the last line)` : '';
    this.#write(`modeltap collector: ${error.code}: ${error.message}${more}. ${error.fix}\n`);
  }
}
