import type { StoredRecord } from './types.ts';

/*
 * The payload of one spool frame (docs/spool-format.md). Little-endian, head of 40 bytes:
 *
 *   0 u8  version (1)          12 u16 id length             24 f64 received, ms
 *   1 u8  flags                14 u16 correlation id length 32 f64 body length, bytes
 *   2 u16 attributes length    16 f64 event time, ms        40 attributes, id, correlation id (UTF-8), body
 *   4 u32 destination id
 *   8 u32 rows
 *
 * The head is written by hand and not as JSON because this runs once per request on the ingest path.
 */
const VERSION = 1;
const HEAD_BYTES = 40;

/** Bits of the flags byte. */
export const FLAG = { json: 1, array: 2, lineBreaks: 4, escapes: 8, sideFile: 16 } as const;

/** Longest attributes, id or correlation id, bytes. */
export const MAX_FIELD_BYTES = 65_535;

/** What `encodeHead` needs: a record without its body. */
export interface RecordHead {
  readonly destinationId: number;
  readonly timeMs: number;
  readonly receivedMs: number;
  /** JSON text of the attributes as UTF-8; callers keep one buffer per distinct text. */
  readonly attributes: Buffer;
  readonly id: string;
  readonly correlationId: string;
  /** Sum of `FLAG` bits. */
  readonly flags: number;
  readonly rows: number;
  readonly bodyBytes: number;
}

/** Bytes that `encodeHead` can need at most for this head. */
export function maxHeadBytes(head: RecordHead): number {
  return HEAD_BYTES + head.attributes.length + 3 * (head.id.length + head.correlationId.length);
}

/**
 * Writes everything before the body into `target` from `offset` on and returns how many bytes it took. The caller has
 * made sure that there is room (`maxHeadBytes`) and that no field is longer than `MAX_FIELD_BYTES`.
 */
export function encodeHead(target: Buffer, offset: number, head: RecordHead): number {
  const attributesBytes = head.attributes.length;
  target[offset] = VERSION;
  target[offset + 1] = head.flags;
  target.writeUInt16LE(attributesBytes, offset + 2);
  target.writeUInt32LE(head.destinationId, offset + 4);
  target.writeUInt32LE(head.rows, offset + 8);
  target.writeDoubleLE(head.timeMs, offset + 16);
  target.writeDoubleLE(head.receivedMs, offset + 24);
  target.writeDoubleLE(head.bodyBytes, offset + 32);
  let at = offset + HEAD_BYTES;
  target.set(head.attributes, at);
  at += attributesBytes;
  const idBytes = head.id.length === 0 ? 0 : target.write(head.id, at, 'utf8');
  at += idBytes;
  const correlationBytes = target.write(head.correlationId, at, 'utf8');
  target.writeUInt16LE(idBytes, offset + 12);
  target.writeUInt16LE(correlationBytes, offset + 14);
  return at + correlationBytes - offset;
}

/** Reads a frame payload. The body is a view into `payload`. Undefined for a version this code does not know or a payload that is too short for its own lengths. */
export function decodeRecord(payload: Buffer): StoredRecord | undefined {
  if (payload.length < HEAD_BYTES || payload[0] !== VERSION) return undefined;
  const flags = payload[1] ?? 0;
  const attributesEnd = HEAD_BYTES + payload.readUInt16LE(2);
  const idEnd = attributesEnd + payload.readUInt16LE(12);
  const correlationEnd = idEnd + payload.readUInt16LE(14);
  const bodyBytes = payload.readDoubleLE(32);
  const inline = (flags & FLAG.sideFile) === 0;
  if (correlationEnd + (inline ? bodyBytes : 0) !== payload.length) return undefined;
  return {
    destinationId: payload.readUInt32LE(4),
    rows: payload.readUInt32LE(8),
    timeMs: payload.readDoubleLE(16),
    receivedMs: payload.readDoubleLE(24),
    attributes: payload.toString('utf8', HEAD_BYTES, attributesEnd),
    id: payload.toString('utf8', attributesEnd, idEnd),
    correlationId: payload.toString('utf8', idEnd, correlationEnd),
    json: (flags & FLAG.json) !== 0,
    array: (flags & FLAG.array) !== 0,
    lineBreaks: (flags & FLAG.lineBreaks) !== 0,
    escapes: (flags & FLAG.escapes) !== 0,
    bodyBytes,
    body: inline ? payload.subarray(correlationEnd) : undefined,
  };
}
