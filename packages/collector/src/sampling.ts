const PRIME = 0x01000193;

/** State of the hash of `samplePoint` before the first byte. */
export const HASH_OFFSET = 0x811c9dc5 | 0;

/**
 * The place of a correlation id in [0, 1): a pure function of the id, so that every collector, process and language
 * that repeats it keeps or drops the same ids. A record is kept when `samplePoint(id) < rate`.
 *
 * It is FNV-1a of the UTF-8 bytes of the id, 32 bits (offset 0x811c9dc5, prime 0x01000193), then the finalizer of
 * MurmurHash3 (`h ^= h>>>16; h *= 0x85ebca6b; h ^= h>>>13; h *= 0xc2b2ae35; h ^= h>>>16`), divided by 2^32. FNV alone
 * would spread consecutive ids badly over the high bits. A lone surrogate counts as U+FFFD.
 */
export function samplePoint(id: string): number {
  return finishHash(hashText(HASH_OFFSET, id));
}

/** Takes the UTF-8 bytes of a text into the hash. */
export function hashText(state: number, text: string): number {
  let hash = state;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit > 0x7f) return hashBytes(state, new TextEncoder().encode(text));
    hash = Math.imul(hash ^ unit, PRIME);
  }
  return hash;
}

/** Takes the hex digits of a word into the hash, from the digit at bit `from` down to the last: `hashText` of its text. */
export function hashWord(state: number, word: number, from: number): number {
  let hash = state;
  for (let shift = from; shift >= 0; shift -= 4) {
    const digit = (word >>> shift) & 15;
    hash = Math.imul(hash ^ (digit < 10 ? 48 + digit : 87 + digit), PRIME);
  }
  return hash;
}

/** The place in [0, 1) for a state of the hash. */
export function finishHash(state: number): number {
  let hash = state;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return ((hash ^ (hash >>> 16)) >>> 0) / 0x1_0000_0000;
}

/**
 * `sampledrate` of the CloudEvents sampling extension: how many records one kept record stands for. The extension
 * wants an integer, so `1 / rate` is rounded; undefined when nothing is dropped or nothing is kept.
 */
export function sampledRate(rate: number): number | undefined {
  if (rate >= 1 || rate <= 0) return undefined;
  return Math.max(1, Math.round(1 / rate));
}

function hashBytes(state: number, bytes: Uint8Array): number {
  let hash = state;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, PRIME);
  return hash;
}
