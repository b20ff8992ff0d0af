import { isModeltapError } from '../kit/errors.ts';
import type { SideFile, SpoolWriter } from '../spool/types.ts';
import type { BodyFacts, BodyScanner, LostReason, MemoryBudget } from './types.ts';

/** Bytes written at a time when so many wait. */
const WRITE_BYTES = 1024 * 1024;
/** Buffers in which pieces are gathered for writing, kept for the next ones: of all taps together. */
const gathering: Buffer[] = [];
const MAX_GATHERING = 4;
/** Share of all capture memory that one body may have waiting for the disk. */
const WAITING_SHARE = 1 / 8;

/** What a spill is made of. */
export interface SpillOptions {
  readonly spool: SpoolWriter;
  readonly budget: MemoryBudget;
  /** Given when the body may be JSON: it is scanned as it is written. */
  readonly scanner: BodyScanner | undefined;
  /** Called once when the body cannot be kept; it is aborted then. */
  readonly onLost: (reason: LostReason) => void;
}

/** A body that is durable in its side file, and what is known of it as JSON. */
export interface FinishedSpill {
  readonly file: SideFile;
  readonly facts: BodyFacts | undefined;
}

/**
 * A body on its way to a side file of the spool while it passes. It never holds the connection back: when more waits for
 * the disk than may be in memory, the body is given up. `push` hands over bytes that were taken from the budget.
 */
export class Spill {
  readonly #options: SpillOptions;
  readonly #opened: Promise<SideFile>;
  readonly #scan: ReturnType<BodyScanner['start']> | undefined;
  #queue: Buffer[] = [];
  #queued = 0;
  #writing: Promise<void> | undefined;
  #finishing: Promise<FinishedSpill | undefined> | undefined;
  #gone = false;

  constructor(options: SpillOptions) {
    this.#options = options;
    this.#scan = options.scanner?.start();
    this.#opened = options.spool.openSideFile();
    this.#opened.catch((error: unknown) => this.#fail(lossOf(error)));
  }

  push(piece: Buffer): void {
    if (this.#gone) {
      this.#options.budget.give(piece.length);
      return;
    }
    this.#queue.push(piece);
    this.#queued += piece.length;
    if (this.#queued > this.#options.budget.maxBytes * WAITING_SHARE) this.#fail('disk_slow');
    else this.#start();
  }

  /** All bytes were pushed: makes the file durable, once. Undefined when the body was given up. */
  finish(): Promise<FinishedSpill | undefined> {
    this.#finishing ??= this.#finish();
    return this.#finishing;
  }

  async #finish(): Promise<FinishedSpill | undefined> {
    try {
      const file = await this.#opened;
      while (this.#writing !== undefined && !this.#gone) await this.#writing;
      if (this.#gone) return undefined;
      await file.seal();
      return { file, facts: this.#scan?.end() };
    } catch (error) {
      this.#fail(lossOf(error));
      return undefined;
    }
  }

  /** Stops writing and removes the file. */
  abort(): void {
    if (this.#gone) return;
    this.#gone = true;
    const remove = async () => {
      // What is being written is given back by the loop that writes it.
      await this.#writing;
      // A file is not removed while it is made durable: both would close it.
      await this.#finishing;
      await (await this.#opened).abort();
    };
    this.#options.budget.give(this.#waiting());
    // What cannot be removed is an orphan that the next start removes.
    remove().catch(() => undefined);
  }

  #waiting(): number {
    const bytes = this.#queue.reduce((sum, piece) => sum + piece.length, 0);
    this.#queue = [];
    return bytes;
  }

  #start(): void {
    if (this.#writing !== undefined || this.#gone) return;
    this.#writing = this.#write().then(
      () => {
        this.#writing = undefined;
        if (this.#queue.length > 0) this.#start();
      },
      (error: unknown) => {
        this.#writing = undefined;
        this.#fail(lossOf(error));
      },
    );
  }

  async #write(): Promise<void> {
    const file = await this.#opened;
    while (this.#queue.length > 0 && !this.#gone) {
      const pieces = this.#next();
      const [first] = pieces;
      const gathered = pieces.length > 1 ? (gathering.pop() ?? Buffer.allocUnsafeSlow(WRITE_BYTES)) : undefined;
      const batch = gathered === undefined ? (first as Buffer) : gatheredIn(gathered, pieces);
      try {
        this.#scan?.feed(batch);
        await file.write(batch);
      } finally {
        if (gathered !== undefined && gathering.length < MAX_GATHERING) gathering.push(gathered);
        this.#queued -= batch.length;
        this.#options.budget.give(batch.length);
      }
    }
  }

  /** The oldest pieces, for one write: few writes, and no long copy. */
  #next(): Buffer[] {
    let bytes = 0;
    const end = this.#queue.findIndex((piece) => (bytes += piece.length) > WRITE_BYTES);
    return this.#queue.splice(0, end < 0 ? this.#queue.length : Math.max(1, end));
  }

  #fail(reason: LostReason): void {
    if (this.#gone) return;
    this.abort();
    this.#options.onLost(reason);
  }
}

/** The pieces one behind the other in a buffer that has room for them. */
function gatheredIn(buffer: Buffer, pieces: readonly Buffer[]): Buffer {
  let bytes = 0;
  for (const piece of pieces) bytes += piece.copy(buffer, bytes);
  return buffer.subarray(0, bytes);
}

/** The reason for an error of the spool. */
export function lossOf(error: unknown): LostReason {
  return isModeltapError(error) && (error.code === 'spool_full' || error.code === 'spool_closed')
    ? error.code
    : 'spool_disk_error';
}
