/** How a protobuf field lies on the wire. */
export const WIRE = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const;

/**
 * Reads protobuf fields one after the other. A message that breaks off or holds something unknown ends the reading:
 * `next` gives false and `problem` says why. Values of the last field stay valid; nothing throws.
 */
export class ProtobufReader {
  readonly #bytes: Buffer;
  #at = 0;
  /** Number of the field `next` found. */
  field = 0;
  /** Its wire type, one of `WIRE`. */
  wire = 0;
  /** Of a varint field: its value, 0 ≤ v < 2^64. */
  varint = 0n;
  /** Of any other field: its bytes, a view. */
  bytes: Buffer;
  /** Why reading ended before the end. */
  problem: string | undefined;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    this.bytes = bytes.subarray(0, 0);
  }

  /** Moves to the next field; false at the end and after a problem. */
  next(): boolean {
    if (this.problem !== undefined || this.#at >= this.#bytes.length) return false;
    const tag = Number(this.readVarint());
    this.field = Math.floor(tag / 8);
    this.wire = tag % 8;
    if (this.problem === undefined && this.field === 0) this.#fail('a field has the number 0');
    if (this.problem !== undefined) return false;
    if (this.wire === WIRE.varint) this.varint = this.readVarint();
    else if (this.wire === WIRE.bytes) this.bytes = this.#take(Number(this.readVarint()));
    else if (this.wire === WIRE.fixed64) this.bytes = this.#take(8);
    else if (this.wire === WIRE.fixed32) this.bytes = this.#take(4);
    else this.#fail(`a field has wire type ${this.wire}`);
    return this.problem === undefined;
  }

  /** Whether there are bytes left to read. */
  get more(): boolean {
    return this.problem === undefined && this.#at < this.#bytes.length;
  }

  /** Reads one bare varint, as packed lists hold them; 0 after a problem. */
  readVarint(): bigint {
    let low = 0;
    for (let shift = 0; shift < 28; shift += 7) {
      const byte = this.#bytes[this.#at];
      if (byte === undefined) return this.#fail('it is cut off');
      this.#at += 1;
      low += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return BigInt(low);
    }
    let value = BigInt(low);
    for (let shift = 28n; shift < 70n; shift += 7n) {
      const byte = this.#bytes[this.#at];
      if (byte === undefined) return this.#fail('it is cut off');
      this.#at += 1;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    return this.#fail('a varint has more than 10 bytes');
  }

  #take(length: number): Buffer {
    const from = this.#at;
    if (length > this.#bytes.length - from) {
      this.#fail('it is cut off');
      return this.bytes;
    }
    this.#at = from + length;
    return this.#bytes.subarray(from, this.#at);
  }

  #fail(reason: string): bigint {
    this.problem ??= `${reason}, at byte ${this.#at}`;
    return 0n;
  }
}
