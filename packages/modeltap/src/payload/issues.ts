import { LIMITS } from './types.ts';

const NAME_CHARS = 60;

/** A name out of a body, for an issue: quoted, shortened, on one line. */
export function named(name: string): string {
  return JSON.stringify(name.length > NAME_CHARS ? `${name.slice(0, NAME_CHARS)}…` : name);
}

/** Collects what is wrong with one side of an exchange. Texts name places and columns, never values. */
export class Issues {
  readonly #side: string;
  readonly #texts: string[] = [];
  #nonFinite = 0;

  /** `side` is what every text begins with: `request` or `response`. */
  constructor(side: string) {
    this.#side = side;
  }

  /** Adds one sentence, without a full stop. Beyond `LIMITS.issues` they are dropped. */
  add(text: string): void {
    if (this.#texts.length < LIMITS.issues) this.#texts.push(`${this.#side}: ${text}`);
  }

  /** Adds sentences that have their beginning already. */
  addAll(texts: readonly string[]): void {
    this.#texts.push(...texts.slice(0, LIMITS.issues - this.#texts.length));
  }

  /** Counts values that JSON cannot express and that were written as `null`. */
  nonFinite(count = 1): void {
    this.#nonFinite += count;
  }

  /** Everything said, in order; the count of values that became `null` comes last. */
  list(): string[] {
    if (this.#nonFinite === 0) return this.#texts;
    return [
      ...this.#texts,
      `${this.#side}: NaN or infinite values became null, because JSON has none (${this.#nonFinite} in all)`,
    ];
  }
}
