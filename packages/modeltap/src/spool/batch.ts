import { FRAME_HEAD_BYTES, SEGMENT_HEAD_BYTES, frameBytes, writeFrameHead, writeSegmentHead } from './frame.ts';
import type { Segment } from './segments.ts';
import type { SpoolSideFile } from './side-file.ts';
import type { AppendDone, SpoolRefusal } from './types.ts';

/** A side file and the frame that refers to it. */
export interface TakenSideFile {
  readonly position: number;
  readonly file: SpoolSideFile;
}

/** Frames that are written with one write: a buffer, where it goes and who waits for it. */
export class Batch {
  readonly buffer: Buffer;
  readonly segment: Segment;
  /** Position of the first byte of the buffer. */
  readonly start: number;
  readonly #batchOffset: number;
  readonly #dones: AppendDone[] = [];
  readonly sideFiles: TakenSideFile[] = [];
  /** Bytes of the buffer that are in use. */
  used = 0;

  /** A batch behind everything planned for the segment. The first one of a segment brings its head. */
  constructor(buffer: Buffer, segment: Segment, spoolId: string) {
    this.buffer = buffer;
    this.segment = segment;
    const first = segment.planned === segment.base + SEGMENT_HEAD_BYTES && segment.dataEnd === segment.base;
    this.start = first ? segment.base : segment.planned;
    this.#batchOffset = segment.planned - segment.base;
    if (!first) return;
    const { base, limit, epoch, previousEnd } = segment;
    writeSegmentHead(buffer, { base, size: limit - base, epoch, previousEnd, spoolId });
    this.used = SEGMENT_HEAD_BYTES;
  }

  /** Position after the last byte. */
  get end(): number {
    return this.start + this.used;
  }

  /** Bytes of frames, without the segment head. */
  get bytes(): number {
    return this.start === this.segment.base ? this.used - SEGMENT_HEAD_BYTES : this.used;
  }

  /** Frames in it. */
  get frames(): number {
    return this.#dones.length;
  }

  fits(bytes: number): boolean {
    return this.used + bytes <= this.buffer.length && this.end + bytes <= this.segment.limit;
  }

  /** Copies one payload in as a frame. The caller has asked `fits`. */
  add(parts: readonly Uint8Array[], payloadBytes: number, done: AppendDone, sideFile: SpoolSideFile | undefined): void {
    const { buffer, used: at } = this;
    const position = this.start + at;
    let to = at + FRAME_HEAD_BYTES;
    let nameBytes = 0;
    if (sideFile !== undefined) {
      nameBytes = buffer.write(sideFile.name, to, 'latin1');
      to += nameBytes;
      sideFile.take();
      this.sideFiles.push({ position, file: sideFile });
    }
    for (const part of parts) {
      buffer.set(part, to);
      to += part.length;
    }
    const { epoch } = this.segment;
    writeFrameHead(buffer, at, { epoch, position, batchOffset: this.#batchOffset, nameBytes, payloadBytes });
    this.used = at + frameBytes(payloadBytes, nameBytes);
    this.segment.planned = this.end;
    this.#dones.push(done);
  }

  /** Calls everybody who waits, in order. One that throws does not keep the others waiting. */
  finish(refusal: SpoolRefusal | undefined): void {
    for (const done of this.#dones) {
      try {
        done(refusal);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
