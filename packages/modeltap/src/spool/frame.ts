import { crc32 } from 'node:zlib';

/*
 * The bytes of segment heads and frames (docs/spool-format.md has the offsets). Written by hand and without objects,
 * because `writeFrameHead` runs once per record on the ingest path.
 */

/** Version of the on-disk format. A spool of a newer one is refused. */
export const FORMAT = 1;
/** Length of a segment head; the first frame begins behind it. */
export const SEGMENT_HEAD_BYTES = 64;
/** Length of a frame head. */
export const FRAME_HEAD_BYTES = 32;
/** Frames begin at multiples of this, so that a search after damage looks at few places. */
export const ALIGNMENT = 8;
/** Longest payload of one frame, bytes. */
export const MAX_PAYLOAD_BYTES = 16 * 1024 * 1024;
/** What a side file may be called: 32 hex digits and `.side`. */
export const SIDE_FILE_NAME = /^[0-9a-f]{32}\.side$/;
/** The four bytes every frame begins with. */
export const FRAME_MAGIC: Buffer = Buffer.from('MTF1', 'latin1');

const SEGMENT_MAGIC = Buffer.from('MTSPOOL1', 'latin1');
const FRAME_MAGIC_WORD = FRAME_MAGIC.readUInt32LE(0);
const MAX_NAME_BYTES = 37;
const HIGH = 0x1_0000_0000;

/** The head of a segment file. */
export interface SegmentHead {
  /** Position of the first byte of the file. */
  readonly base: number;
  /** Bytes the file is meant to have. */
  readonly size: number;
  /** Random and not 0: every frame of the segment carries it. */
  readonly epoch: number;
  /** Position after the last frame written before this segment was begun. */
  readonly previousEnd: number;
  /** 32 hex digits. */
  readonly spoolId: string;
}

/** `value` rounded up to a multiple of `unit`. */
export function alignUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

/** Bytes a frame takes in its segment. */
export function frameBytes(payloadBytes: number, nameBytes: number): number {
  return (FRAME_HEAD_BYTES + nameBytes + payloadBytes + (ALIGNMENT - 1)) & ~(ALIGNMENT - 1);
}

/** Writes a segment head of `SEGMENT_HEAD_BYTES` bytes at the beginning of `target`. */
export function writeSegmentHead(target: Buffer, head: SegmentHead): void {
  SEGMENT_MAGIC.copy(target, 0);
  target.writeUInt32LE(FORMAT, 8);
  target.writeUInt32LE(head.epoch, 12);
  writePosition(target, head.base, 16);
  writePosition(target, head.size, 24);
  writePosition(target, head.previousEnd, 32);
  target.write(head.spoolId, 40, 16, 'hex');
  target.writeUInt32LE(0, 56);
  target.writeUInt32LE(crc32(target.subarray(0, 60)), 60);
}

/** Reads a segment head; undefined when these bytes are not a whole and undamaged one. */
export function readSegmentHead(source: Buffer): (SegmentHead & { readonly format: number }) | undefined {
  if (source.length < SEGMENT_HEAD_BYTES || !source.subarray(0, 8).equals(SEGMENT_MAGIC)) return undefined;
  if (crc32(source.subarray(0, 60)) !== source.readUInt32LE(60)) return undefined;
  return {
    format: source.readUInt32LE(8),
    epoch: source.readUInt32LE(12),
    base: readPosition(source, 16),
    size: readPosition(source, 24),
    previousEnd: readPosition(source, 32),
    spoolId: source.toString('hex', 40, 56),
  };
}

/** Where a frame goes and what it is part of. */
export interface FramePlace {
  readonly epoch: number;
  readonly position: number;
  /** Offset in the segment of the first frame of the same batch. */
  readonly batchOffset: number;
  readonly nameBytes: number;
  readonly payloadBytes: number;
}

/** Writes the head and the padding of a frame whose name and payload already lie behind the head at `at`. */
export function writeFrameHead(target: Buffer, at: number, place: FramePlace): void {
  const end = at + FRAME_HEAD_BYTES + place.nameBytes + place.payloadBytes;
  target.writeUInt32LE(FRAME_MAGIC_WORD, at);
  target.writeUInt32LE(place.epoch, at + 8);
  target.writeUInt32LE(place.payloadBytes, at + 12);
  writePosition(target, place.position, at + 16);
  target.writeUInt32LE(place.batchOffset, at + 24);
  target.writeUInt32LE(place.nameBytes, at + 28);
  target.writeUInt32LE(crc32(target.subarray(at + 8, end)), at + 4);
  for (let i = end; i % ALIGNMENT !== 0; i += 1) target[i] = 0;
}

/** What a reader must know of a segment to tell its frames from anything else. */
export interface FrameOrigin {
  readonly base: number;
  readonly size: number;
  /** 0 when the segment head is lost: then any epoch is taken. */
  readonly epoch: number;
}

/** True when the bytes at `at` claim to be the frame of this segment that lies at `offset`. Needs 32 bytes. */
export function claimsFrame(source: Buffer, at: number, origin: FrameOrigin, offset: number): boolean {
  if (source.readUInt32LE(at) !== FRAME_MAGIC_WORD) return false;
  if (origin.epoch !== 0 && source.readUInt32LE(at + 8) !== origin.epoch) return false;
  return readPosition(source, at + 16) === origin.base + offset;
}

/** Bytes the frame at `at` says it takes, without any check. */
export function claimedBytes(source: Buffer, at: number): number {
  return alignUp(FRAME_HEAD_BYTES + source.readUInt16LE(at + 28) + source.readUInt32LE(at + 12), ALIGNMENT);
}

/**
 * Checks the frame at `at` of `source`, which has `available` valid bytes from there on and lies at `offset` of the
 * segment. Gives the bytes the frame takes; 0: not a frame of this segment, or damaged; negative: cannot be told
 * without that many bytes from `at` on.
 */
export function checkFrame(source: Buffer, at: number, available: number, where: FrameOrigin & { offset: number }) {
  if (available < FRAME_HEAD_BYTES) return -FRAME_HEAD_BYTES;
  if (!claimsFrame(source, at, where, where.offset)) return 0;
  const payloadBytes = source.readUInt32LE(at + 12);
  const nameBytes = source.readUInt32LE(at + 28);
  if (nameBytes > MAX_NAME_BYTES || payloadBytes > MAX_PAYLOAD_BYTES) return 0;
  const bytes = frameBytes(payloadBytes, nameBytes);
  if (where.offset + bytes > where.size) return 0;
  if (available < bytes) return -bytes;
  const end = at + FRAME_HEAD_BYTES + nameBytes + payloadBytes;
  if (crc32(source.subarray(at + 8, end)) !== source.readUInt32LE(at + 4)) return 0;
  if (nameBytes !== 0 && !SIDE_FILE_NAME.test(frameName(source, at))) return 0;
  return bytes;
}

/** Name of the side file of a checked frame; empty when it has none. */
export function frameName(source: Buffer, at: number): string {
  const nameBytes = source.readUInt16LE(at + 28);
  return nameBytes === 0 ? '' : source.toString('latin1', at + FRAME_HEAD_BYTES, at + FRAME_HEAD_BYTES + nameBytes);
}

/** The payload of a checked frame, a view. */
export function framePayload(source: Buffer, at: number): Buffer {
  const from = at + FRAME_HEAD_BYTES + source.readUInt16LE(at + 28);
  return source.subarray(from, from + source.readUInt32LE(at + 12));
}

/** Offset in the segment of the first frame of the batch that a checked frame belongs to. */
export function frameBatchOffset(source: Buffer, at: number): number {
  return source.readUInt32LE(at + 24);
}

/** Epoch of a checked frame. */
export function frameEpoch(source: Buffer, at: number): number {
  return source.readUInt32LE(at + 8);
}

// Two 32-bit halves instead of a BigInt: positions stay below 2^53 and this is on the hot path.
function writePosition(target: Buffer, position: number, at: number): void {
  target.writeUInt32LE(position % HIGH, at);
  target.writeUInt32LE(Math.floor(position / HIGH), at + 4);
}

function readPosition(source: Buffer, at: number): number {
  return source.readUInt32LE(at + 4) * HIGH + source.readUInt32LE(at);
}
