/** A buffer that grows: lines are spliced into it, so that a body is copied once. */
export class ByteWriter {
  #buffer: Buffer;
  #length = 0;

  /** `initialBytes` is only a first guess. */
  constructor(initialBytes = 1024) {
    this.#buffer = Buffer.allocUnsafe(initialBytes);
  }

  /** Bytes written so far. */
  get length(): number {
    return this.#length;
  }

  /** Bytes of memory held. */
  get capacity(): number {
    return this.#buffer.length;
  }

  /** Forgets what was written and keeps the memory. */
  clear(): void {
    this.#length = 0;
  }

  /** What was written. A view: valid until the next write. */
  get bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  /** Makes room for `count` more bytes and gives the buffer to write them into, from `length` on; follow with `advance`. */
  reserve(count: number): Buffer {
    const needed = this.#length + count;
    if (needed > this.#buffer.length) {
      const grown = Buffer.allocUnsafe(Math.max(needed, this.#buffer.length * 2));
      this.#buffer.copy(grown, 0, 0, this.#length);
      this.#buffer = grown;
    }
    return this.#buffer;
  }

  /** Says that `count` bytes were written into the buffer that `reserve` gave. */
  advance(count: number): void {
    this.#length += count;
  }

  /** Appends text as UTF-8. */
  text(text: string): void {
    this.#length += this.reserve(text.length * 3).write(text, this.#length, 'utf8');
  }

  /** Appends bytes as they are. */
  copy(bytes: Uint8Array): void {
    this.reserve(bytes.length).set(bytes, this.#length);
    this.#length += bytes.length;
  }
}
