import { isModeltapError, ModeltapError, errorText } from '../kit/errors.ts';
import type { SideFile, SpoolWriter } from '../spool/types.ts';
import type { ReadGate } from './read-gate.ts';

/** Bytes that may wait for the disk before the sender is held back. */
const PAUSE_AT_BYTES = 1024 * 1024;
/** Bytes from which on pieces are written without waiting for more. */
const WRITE_BYTES = 256 * 1024;

/** Writes a body to a side file as it arrives, one write after the other, and holds the sender back when the disk is slower. */
export class SideStream {
  readonly #gate: ReadGate;
  readonly #onError: (error: ModeltapError) => void;
  readonly #opened: Promise<SideFile>;
  #queue: Buffer[] = [];
  #queued = 0;
  #writing: Promise<void> | undefined;
  #aborted = false;
  paused = false;

  constructor(spool: SpoolWriter, gate: ReadGate, onError: (error: ModeltapError) => void) {
    this.#gate = gate;
    this.#onError = onError;
    this.#opened = spool.openSideFile();
    this.#opened.catch((error: unknown) => this.#fail(error));
  }

  push(chunk: Buffer): void {
    this.#queue.push(chunk);
    this.#queued += chunk.length;
    if (this.#queued > PAUSE_AT_BYTES && !this.paused) {
      this.paused = true;
      this.#gate.hold();
    }
    this.#start();
  }

  #start(): void {
    if (this.#writing !== undefined || this.#aborted) return;
    this.#writing = this.#write().then(
      () => {
        this.#writing = undefined;
        if (this.#queue.length > 0) this.#start();
      },
      (error: unknown) => this.#fail(error),
    );
  }

  async #write(): Promise<void> {
    const file = await this.#opened;
    while (this.#queue.length > 0 && !this.#aborted) {
      const batch = this.#next();
      await file.write(batch);
      this.#queued -= batch.length;
      if (this.paused && this.#queued <= PAUSE_AT_BYTES / 2) {
        this.paused = false;
        this.#gate.release();
      }
    }
  }

  /** The oldest pieces as one: few writes, and no long copy. */
  #next(): Buffer {
    let bytes = 0;
    const end = this.#queue.findIndex((piece) => (bytes += piece.length) >= WRITE_BYTES);
    const pieces = this.#queue.splice(0, end < 0 ? this.#queue.length : end + 1);
    const [first] = pieces;
    return pieces.length === 1 && first ? first : Buffer.concat(pieces);
  }

  /** All bytes were pushed: makes the file durable. Rejects after `onError` was called. */
  async finish(): Promise<SideFile> {
    const file = await this.#opened;
    while (this.#writing !== undefined && !this.#aborted) await this.#writing;
    try {
      await file.seal();
    } catch (error) {
      this.#fail(error);
      throw error;
    }
    return file;
  }

  /** Stops writing and removes the file. */
  abort(): void {
    if (this.#aborted) return;
    this.#aborted = true;
    this.#queue = [];
    const remove = async () => {
      const file = await this.#opened;
      await this.#writing;
      await file.abort();
    };
    // What cannot be removed is an orphan that the next start removes.
    remove().catch(() => undefined);
  }

  #fail(error: unknown): void {
    if (this.#aborted) return;
    this.#onError(isModeltapError(error) ? error : new ModeltapError('spool_disk_error', { detail: errorText(error) }));
    this.abort();
  }
}
