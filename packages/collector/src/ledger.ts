/** What the sending thread counts, per collection. */
export const OUTCOMES = ['sent', 'rejected', 'deadline', 'too_large'] as const;
/** How a record leaves the queue. */
export type Outcome = (typeof OUTCOMES)[number];

/** Collections a ledger can count. */
export const SLOTS = 256;

const RELEASED_ITEMS = 0;
const RELEASED_BYTES = 1;
const FLUSHED = 2;
const CONTROL_BYTES = 16;
const COUNTS_BYTES = SLOTS * OUTCOMES.length * 8;
const WORDS_BYTES = SLOTS * 4;

/**
 * Counters in memory that both threads see: the sending thread writes, the scoring thread reads without waiting; the
 * count of records left out by sampling goes the other way. The two released counters are 32 bits wide and wrap; readers
 * take differences, which the limits of the queue (at most 1 GiB and 10 million records) keep below half of that range.
 */
export class Ledger {
  readonly memory: SharedArrayBuffer;
  readonly #control: Int32Array;
  readonly #counts: BigInt64Array;
  readonly #sampled: Int32Array;
  readonly #reported: Int32Array;

  constructor(memory: SharedArrayBuffer = new SharedArrayBuffer(CONTROL_BYTES + COUNTS_BYTES + 2 * WORDS_BYTES)) {
    this.memory = memory;
    this.#control = new Int32Array(memory, 0, CONTROL_BYTES / 4);
    this.#counts = new BigInt64Array(memory, CONTROL_BYTES, COUNTS_BYTES / 8);
    this.#sampled = new Int32Array(memory, CONTROL_BYTES + COUNTS_BYTES, SLOTS);
    this.#reported = new Int32Array(memory, CONTROL_BYTES + COUNTS_BYTES + WORDS_BYTES, SLOTS);
  }

  /** A record of the collection was left out by sampling. Only the scoring thread may call this. */
  leaveOut(slot: number): void {
    // One thread writes, so this needs no Atomics: it is on the path of every record left out.
    (this.#sampled[slot] as number)++;
  }

  /** Records of the collection left out by sampling that the agent does not know of, below 2^32. */
  unreported(slot: number): number {
    return (Atomics.load(this.#sampled, slot) - Atomics.load(this.#reported, slot)) >>> 0;
  }

  /** The agent was told of so many records of the collection. */
  reported(slot: number, count: number): void {
    Atomics.add(this.#reported, slot, count | 0);
  }

  /** Records left the queue: `items` of a collection, `bytes` together. */
  release(slot: number, outcome: Outcome, items: number, bytes: number): void {
    Atomics.add(this.#counts, slot * OUTCOMES.length + OUTCOMES.indexOf(outcome), BigInt(items));
    Atomics.add(this.#control, RELEASED_BYTES, bytes);
    Atomics.add(this.#control, RELEASED_ITEMS, items);
  }

  /** Records of a collection that ended so. */
  count(slot: number, outcome: Outcome): number {
    return Number(Atomics.load(this.#counts, slot * OUTCOMES.length + OUTCOMES.indexOf(outcome)));
  }

  /** Records that left the queue, modulo 2^32. */
  releasedItems(): number {
    return Atomics.load(this.#control, RELEASED_ITEMS);
  }

  /**
   * True when something left the queue since `releasedItems()` was `seen`. A read without Atomics, a tenth of the cost
   * of one with, for the path of every record: false may be out of date, so ask `releasedItems()` before refusing one.
   */
  mayHaveReleased(seen: number): boolean {
    return this.#control[RELEASED_ITEMS] !== seen;
  }

  /** Bytes that left the queue, modulo 2^32. */
  releasedBytes(): number {
    return Atomics.load(this.#control, RELEASED_BYTES);
  }

  /** The flush with this number is done: wakes a thread that waits for it. */
  flushed(token: number): void {
    Atomics.store(this.#control, FLUSHED, token);
    Atomics.notify(this.#control, FLUSHED);
  }

  /** Blocks this thread until the flush with this number is done; false when the time ran out. */
  waitFlushed(token: number, timeoutMs: number): boolean {
    const until = Date.now() + timeoutMs;
    for (;;) {
      const seen = Atomics.load(this.#control, FLUSHED);
      if (seen >= token) return true;
      const left = until - Date.now();
      if (left <= 0) return false;
      Atomics.wait(this.#control, FLUSHED, seen, left);
    }
  }
}
