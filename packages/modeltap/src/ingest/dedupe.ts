import type { SpoolRefusal, SpoolWriter } from '../spool/types.ts';

/** Told what became of an event that another request has claimed. */
export type Waiter = (refusal: SpoolRefusal | undefined) => void;

/** An answer of `claim` that is no claim: the event is durable already. */
export const DUPLICATE = -1;

/** An answer of `claim` that is no claim: the event is on its way to the disk; `wait` tells when. */
export const PENDING = -2;

/**
 * The ids of the last events, per spool and destination. Two events are the same when their ids (as 64-bit hash), body
 * lengths and body crcs agree; a known id with another body is another event. Bounded: the oldest is forgotten for each
 * new one. Kept in typed arrays and not in a map of strings, because this runs for every event of a batch and 65 536
 * strings that come and go are work for the garbage collector.
 */
export class DedupeWindow {
  readonly #size: number;
  readonly #salts = new Map<SpoolWriter, Map<number, number>>();
  #lastSalt = 0;
  // Chains of slots by hash; -1 ends one.
  readonly #mask: number;
  readonly #heads: Int32Array;
  readonly #nexts: Int32Array;
  // The slots, used in turn.
  readonly #low: Int32Array;
  readonly #high: Int32Array;
  readonly #crcs: Uint32Array;
  readonly #bytes: Float64Array;
  /** The claim that holds the slot, or -1. */
  readonly #claims: Float64Array;
  readonly #durable: Uint8Array;
  readonly #waiters = new Map<number, Waiter[]>();
  #next = 0;
  #found = -1;

  /** Room for `size` ids. */
  constructor(size: number) {
    this.#size = Math.max(1, size);
    const buckets = 2 ** Math.ceil(Math.log2(this.#size * 2));
    this.#mask = buckets - 1;
    this.#heads = new Int32Array(buckets).fill(-1);
    this.#nexts = new Int32Array(this.#size).fill(-1);
    this.#low = new Int32Array(this.#size);
    this.#high = new Int32Array(this.#size);
    this.#crcs = new Uint32Array(this.#size);
    this.#bytes = new Float64Array(this.#size);
    this.#claims = new Float64Array(this.#size).fill(-1);
    this.#durable = new Uint8Array(this.#size);
  }

  /** A number for a destination of a spool: hand it to `claim`. */
  saltOf(spool: SpoolWriter, destinationId: number): number {
    let destinations = this.#salts.get(spool);
    if (!destinations) this.#salts.set(spool, (destinations = new Map()));
    let salt = destinations.get(destinationId);
    if (salt === undefined) destinations.set(destinationId, (salt = this.#lastSalt += 1));
    return salt;
  }

  /**
   * Asks for an event and remembers it when it is new: then the answer is the claim (0 or more), to be given to `settle`
   * when the event is durable or refused. Otherwise `DUPLICATE` or `PENDING`.
   */
  claim(salt: number, id: string, bytes: number, crc: number): number {
    // Two multiplicative hashes of 32 bits over the characters.
    let low = Math.imul(salt, 0x9e3779b1) ^ 0x2545f491;
    let high = Math.imul(salt, 0x85ebca6b) ^ 0x1b873593;
    for (let index = 0; index < id.length; index += 1) {
      const code = id.charCodeAt(index);
      low = Math.imul(low ^ code, 0x9e3779b1);
      high = Math.imul(high ^ code, 0x5f356495);
    }
    low = Math.imul(low ^ (low >>> 15), 0x85ebca77) ^ Math.imul(high ^ (high >>> 13), 0xc2b2ae3d);
    high = Math.imul(high ^ (high >>> 16), 0x85ebca77) ^ Math.imul(low ^ (low >>> 13), 0xc2b2ae3d);
    const bucket = (low ^ (low >>> 16)) & this.#mask;
    for (let slot = this.#heads[bucket] as number; slot >= 0; slot = this.#nexts[slot] as number) {
      if (this.#low[slot] !== low || this.#high[slot] !== high) continue;
      if (this.#crcs[slot] !== crc || this.#bytes[slot] !== bytes) continue;
      if (this.#durable[slot] === 1) return DUPLICATE;
      this.#found = this.#claims[slot] as number;
      return PENDING;
    }
    const claim = this.#next++;
    const slot = claim % this.#size;
    if ((this.#claims[slot] as number) >= 0) this.#forget(slot);
    this.#low[slot] = low;
    this.#high[slot] = high;
    this.#crcs[slot] = crc;
    this.#bytes[slot] = bytes;
    this.#claims[slot] = claim;
    this.#durable[slot] = 0;
    this.#nexts[slot] = this.#heads[bucket] as number;
    this.#heads[bucket] = slot;
    return claim;
  }

  /** Right after `PENDING`: will be told with the claim found. */
  wait(waiter: Waiter): void {
    const waiters = this.#waiters.get(this.#found);
    if (waiters) waiters.push(waiter);
    else this.#waiters.set(this.#found, [waiter]);
  }

  /** Tells what became of a claimed event: durable, or refused and to be forgotten. */
  settle(claim: number, refusal: SpoolRefusal | undefined): void {
    const slot = claim % this.#size;
    // A slot may have been given on meanwhile.
    if (this.#claims[slot] === claim) {
      if (refusal === undefined) this.#durable[slot] = 1;
      else this.#forget(slot);
    }
    if (this.#waiters.size === 0) return;
    const waiters = this.#waiters.get(claim);
    this.#waiters.delete(claim);
    for (const waiter of waiters ?? []) waiter(refusal);
  }

  #forget(slot: number): void {
    const low = this.#low[slot] as number;
    const bucket = (low ^ (low >>> 16)) & this.#mask;
    let before = -1;
    for (let at = this.#heads[bucket] as number; at >= 0; at = this.#nexts[at] as number) {
      if (at === slot) {
        const next = this.#nexts[slot] as number;
        if (before < 0) this.#heads[bucket] = next;
        else this.#nexts[before] = next;
        break;
      }
      before = at;
    }
    this.#claims[slot] = -1;
  }
}
