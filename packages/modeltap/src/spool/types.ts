/**
 * The spool: a durable local queue of opaque payloads. One writer (the ingest thread), one reader (the delivery thread),
 * both in one process, meeting only in files and positions.
 *
 * A **position** is the number of bytes that were ever reserved in this spool before a frame: it only grows, over
 * restarts too, stays below 2^53 and names a payload for ever.
 */
export interface SpoolOptions {
  /** Made if missing. Belongs to one process at a time: opening it twice is `spool_locked`. */
  readonly directory: string;
  /** Most bytes on disk, segments and side files together, preallocated space included. Appends beyond it are refused. */
  readonly maxBytes: number;
  /** Size of one segment file. Default 32 MiB, at most `maxBytes / 4`. */
  readonly segmentBytes?: number;
  /** Size of one batch buffer, in memory. Default 8 MiB, at most a segment. */
  readonly batchBytes?: number;
  /** Most bytes of frames waiting for the disk, in memory, give or take one buffer. Appends beyond it are refused. Default 64 MiB, at least two buffers. */
  readonly queueBytes?: number;
  /** Most side files at a time, those being written and those that wait. Opening more is `spool_full`. Default 16 384. */
  readonly maxSideFiles?: number;
}

/** What recovery found. */
export interface RecoveryReport {
  /** Whole payloads found. */
  readonly frames: number;
  /** Position after the last of them: where appending goes on. */
  readonly end: number;
  /** Bytes of a half-written last batch that were cut off. Normal after a crash: nothing in them was acknowledged. */
  readonly tornBytes: number;
  /** Damaged stretches with good frames behind them: acknowledged data that the disk lost. Each is logged and counted. `segment` is a file name, `from` and `to` are positions. */
  readonly damaged: readonly { readonly segment: string; readonly from: number; readonly to: number }[];
  /** Side files that no frame refers to and that were deleted. */
  readonly orphanSideFiles: number;
  /** Frames whose side file is gone. They are read like any other; opening the side file fails with `ENOENT`. */
  readonly missingSideFiles: number;
}

/**
 * Why an append was refused at once, or failed later. Nothing was taken, and it never appears later.
 *
 * - `spool_full`: no room under `maxBytes` or on the disk; goes away by releasing or when the disk has room.
 * - `spool_busy`: the disk is slower than what comes in and the buffers are full; goes away by itself.
 * - `spool_too_large`: the payload can never fit in one frame (16 MiB, or half of `maxBytes`).
 * - `spool_disk_error`: the disk failed; tried again by later appends.
 */
export type SpoolRefusal = 'spool_full' | 'spool_busy' | 'spool_too_large' | 'spool_disk_error' | 'spool_closed';

/** Called exactly once per append: after the payload is durable (`undefined`), or with why it is not. */
export type AppendDone = (refusal: SpoolRefusal | undefined) => void;

/** A large body on its way to a file of its own beside the segments, so that it is never whole in memory. */
export interface SideFile {
  readonly name: string;
  readonly bytes: number;
  /** Resolves when the bytes are handed to the operating system. Rejects with `spool_full` or `spool_disk_error`. */
  write(chunk: Uint8Array): Promise<void>;
  /** Makes the file durable (fsync of file and folder). After it, hand the side file to `append`. */
  seal(): Promise<void>;
  /** Removes it. Safe at any time before `append`, also twice. */
  abort(): Promise<void>;
}

/** The writing end of a spool. There is one, on one thread. */
export interface SpoolWriter {
  readonly recovery: RecoveryReport;
  /** 16 random bytes as hex, made with the spool and kept: the instance id. */
  readonly spoolId: string;
  /** Everything below this position is durable. */
  readonly committed: number;
  /** Everything below this position has been released. */
  readonly released: number;
  /** Bytes on disk now, preallocated space included, and the limit. */
  readonly diskBytes: number;
  readonly maxBytes: number;
  /** Bytes not yet released: frames with their heads, and their side files. */
  readonly pendingBytes: number;
  /**
   * Copies the parts, one after the other, into the current batch as one payload. False: refused now (`done` is not
   * called; the reason is `refusal`). The batch is written as soon as the one before is on disk; no timer.
   *
   * `sideFile` must be sealed. It belongs to the spool once the append is taken, also when `done` gets a refusal later:
   * then the spool has deleted it. After false it is still the caller's.
   */
  append(parts: readonly Uint8Array[], done: AppendDone, sideFile?: SideFile): boolean;
  /** Why the last `append` gave false. */
  readonly refusal: SpoolRefusal;
  openSideFile(): Promise<SideFile>;
  /** Called after each commit with the new `committed`. */
  onCommit(listener: (committed: number) => void): void;
  /** Declares that everything below `position` is done with; segments and side files wholly below it are deleted or recycled, but the newest released segment is kept until the next one is full. */
  release(position: number): Promise<void>;
  /** Waits for what was appended, then closes. Later appends are refused with `spool_closed`. */
  close(): Promise<void>;
}

/** One payload as read back. */
export interface SpoolFrame {
  readonly position: number;
  /** Position of the frame behind it. */
  readonly next: number;
  /** A view, valid until the next `read`. */
  readonly payload: Buffer;
  /** Path of the side file, when the payload has one. */
  readonly sideFile: string | undefined;
}

/** Reads committed payloads in order. May live in another thread than the writer. */
export interface SpoolReader {
  /**
   * Whole frames from `from` on, none at or beyond `until`, about `maxBytes` in all (always at least one frame if there
   * is one). `next` is where the following read begins: it jumps over segment ends and damaged stretches.
   */
  read(
    from: number,
    until: number,
    maxBytes: number,
  ): Promise<{ readonly frames: readonly SpoolFrame[]; readonly next: number }>;
  close(): Promise<void>;
}
