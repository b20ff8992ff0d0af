import type { Spill } from './spill.ts';

/** A piece that fills so much of its buffer is kept as it is; others are copied, so that they do not keep what is around them. */
const FULL_SHARE = 0.75;

/** What a body capture may do. One for both bodies of an exchange. */
export interface CaptureRoom {
  /** Bytes of pieces of this exchange in memory. */
  readonly memory: number;
  readonly memoryBytes: number;
  readonly maxBodyBytes: number;
  /** Takes memory from the budget; false: the exchange is given up. */
  take(bytes: number): boolean;
  /** A place on disk for what is more than fits memory; undefined: it is cut off instead. */
  spill(side: 'request' | 'response'): Spill | undefined;
  /** Pieces taken before belong to the spill now. */
  moved(bytes: number): void;
}

/** One body as it passes: kept in memory first, on disk when it is larger. */
export class BodyCapture {
  readonly #room: CaptureRoom;
  readonly #side: 'request' | 'response';
  /** Bytes that passed. */
  seen = 0;
  /** Bytes that are kept. */
  kept = 0;
  /** Not all that passed is kept. */
  truncated = false;
  pieces: Buffer[] = [];
  spill: Spill | undefined;

  constructor(room: CaptureRoom, side: 'request' | 'response') {
    this.#room = room;
    this.#side = side;
  }

  /** Takes the next bytes; what must be kept of them is copied. */
  push(bytes: Buffer): void {
    this.seen += bytes.length;
    if (this.truncated) return;
    const room = this.#room;
    const left = room.maxBodyBytes - this.kept;
    this.truncated = bytes.length > left;
    let part = this.truncated ? bytes.subarray(0, left) : bytes;
    if (this.spill === undefined && room.memory + part.length > room.memoryBytes) {
      this.#moveToDisk();
      if (this.spill === undefined) {
        part = part.subarray(0, Math.max(0, room.memoryBytes - room.memory));
        this.truncated = true;
      }
    }
    if (part.length > 0) this.#keep(part);
  }

  /** Gives up what is kept. The memory is the room's to give back. */
  drop(): void {
    this.pieces = [];
    this.spill?.abort();
    this.spill = undefined;
    this.truncated = true;
  }

  #keep(part: Buffer): void {
    if (!this.#room.take(part.length)) return;
    this.kept += part.length;
    const piece = part.length >= part.buffer.byteLength * FULL_SHARE ? part : Buffer.from(part);
    if (this.spill === undefined) this.pieces.push(piece);
    else {
      this.#room.moved(piece.length);
      this.spill.push(piece);
    }
  }

  #moveToDisk(): void {
    const spill = this.#room.spill(this.#side);
    if (spill === undefined) return;
    this.spill = spill;
    for (const piece of this.pieces) {
      this.#room.moved(piece.length);
      spill.push(piece);
    }
    this.pieces = [];
  }
}
