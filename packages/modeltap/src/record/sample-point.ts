const OFFSET = 0x811c9dc5 | 0;
const PRIME = 0x01000193;

/**
 * The place of a correlation id in [0, 1): a pure function of the id, the same as that of the collector in
 * `@modeltap/collector`, so that an exchange and the records its scoring script collects are kept or dropped together.
 * Something is kept when `samplePoint(id) < rate`.
 *
 * FNV-1a of the UTF-8 bytes, 32 bits, then the finalizer of MurmurHash3, divided by 2^32.
 */
export function samplePoint(id: string): number {
  let hash = OFFSET;
  for (const byte of Buffer.from(id)) hash = Math.imul(hash ^ byte, PRIME);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return ((hash ^ (hash >>> 16)) >>> 0) / 0x1_0000_0000;
}

/** `sampledrate` for a rate: how many records one kept record stands for, rounded; undefined when nothing is dropped or nothing is kept. */
export function sampledRate(rate: number): number | undefined {
  return rate >= 1 || rate <= 0 ? undefined : Math.max(1, Math.round(1 / rate));
}
