const QUOTE = 0x22;
const BACKSLASH = 0x5c;
/** What follows the backslash, by control character; the others are written as `\u00xx`. */
const ESCAPES: Readonly<Record<number, number>> = { 8: 0x62, 9: 0x74, 10: 0x6e, 12: 0x66, 13: 0x72 };

/** A growing buffer of JSON text. */
export class JsonBuffer {
  bytes: Buffer;
  length = 0;

  constructor(size: number) {
    this.bytes = Buffer.allocUnsafeSlow(size);
  }

  /** Text of ASCII characters only, as it is. */
  ascii(text: string): void {
    this.#room(text.length);
    const bytes = this.bytes;
    let at = this.length;
    for (let i = 0; i < text.length; i++) bytes[at++] = text.charCodeAt(i);
    this.length = at;
  }

  /** Bytes as they are. */
  raw(from: Uint8Array): void {
    this.#room(from.length);
    this.bytes.set(from, this.length);
    this.length += from.length;
  }

  /** What is already written from `from` up to `to`, once more. */
  again(from: number, to: number): void {
    this.#room(to - from);
    this.bytes.copyWithin(this.length, from, to);
    this.length += to - from;
  }

  /** One byte. */
  byte(value: number): void {
    this.#room(1);
    this.bytes[this.length++] = value;
  }

  /** A JSON string holding this text. */
  text(value: string): void {
    this.string(Buffer.from(value));
  }

  /** A JSON string whose UTF-8 bytes are given; escapes what `JSON.stringify` escapes. */
  string(from: Uint8Array, start = 0, end = from.length): void {
    // One byte becomes at most six: \u00xx.
    this.#room((end - start) * 6 + 2);
    const bytes = this.bytes;
    let at = this.length;
    bytes[at++] = QUOTE;
    for (let i = start; i < end; i++) {
      const byte = from[i] as number;
      if (byte >= 0x20 && byte !== QUOTE && byte !== BACKSLASH) {
        bytes[at++] = byte;
        continue;
      }
      bytes[at++] = BACKSLASH;
      const short = byte >= 0x20 ? byte : ESCAPES[byte];
      if (short !== undefined) {
        bytes[at++] = short;
        continue;
      }
      bytes[at++] = 0x75;
      bytes[at++] = 0x30;
      bytes[at++] = 0x30;
      bytes[at++] = hexDigit(byte >> 4);
      bytes[at++] = hexDigit(byte & 15);
    }
    bytes[at++] = QUOTE;
    this.length = at;
  }

  #room(need: number): void {
    const wanted = this.length + need;
    if (wanted <= this.bytes.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(this.bytes.length * 2, wanted));
    this.bytes.copy(grown, 0, 0, this.length);
    this.bytes = grown;
  }
}

function hexDigit(value: number): number {
  return value < 10 ? 0x30 + value : 0x57 + value;
}
