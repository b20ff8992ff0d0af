import { createReadStream } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { FLAG } from '../record/codec.ts';
import type { SideFile } from '../spool/types.ts';
import { codingsOf, type ContentType, contentTypeOf } from './content.ts';
import { type DecodeResult, decodeBody } from './decode.ts';
import type { Exchange, Side } from './exchange.ts';
import { fieldOf } from './head.ts';
import { EMPTY_BODY, isText, jsonFlags, type StoredBody, storedBody, textFlags } from './stored-body.ts';
import type { BodyFacts, BodyScanner, MemoryBudget, TapSink } from './types.ts';

/** A body ready to be stored, with what an event says about it. */
export interface PreparedBody {
  readonly body: StoredBody;
  /** Bytes of the body that the event stands for: decoded ones, when it was decoded. */
  readonly bytes: number;
  /** `content-encoding` of a body that was decoded, or that could not be. */
  readonly coding: string | undefined;
  /** Why it is stored as it was sent. */
  readonly undecoded: Exclude<DecodeResult, 'ok'> | undefined;
}

/** What preparing needs. */
export interface PrepareParts {
  readonly scanner: BodyScanner;
  readonly budget: MemoryBudget;
}

/** Where preparing failed for a reason that the disk has. Thrown through `lossOf`. */
interface Work extends PrepareParts {
  readonly sink: TapSink;
  readonly type: ContentType;
  readonly exchange: Exchange;
}

/** Whether a message can be prepared at once: it is in memory and was not encoded. */
export function isPlain(exchange: Exchange, side: Side): boolean {
  const { head, body } = exchange[side];
  if (body.kept === 0) return true;
  return body.spill === undefined && (head === undefined || codingsOf(fieldOf(head, 'content-encoding')).length === 0);
}

function typeOf(exchange: Exchange, side: Side): ContentType {
  const { head } = exchange[side];
  return contentTypeOf(head === undefined ? undefined : fieldOf(head, 'content-type'));
}

/** Prepares a message for which `isPlain` holds. */
export function preparePlain(exchange: Exchange, side: Side, scanner: BodyScanner): PreparedBody {
  const { body } = exchange[side];
  const bytes = joined(body.pieces);
  const stored = storedBody(bytes, typeOf(exchange, side), scanner);
  return { body: stored, bytes: bytes.length, coding: undefined, undecoded: undefined };
}

/**
 * Prepares any other message: reads back what was written to disk, decodes, and turns text into a string, a piece at a
 * time. Undefined when its body was given up meanwhile. Throws errors of the disk.
 */
export async function prepareSlow(
  exchange: Exchange,
  side: Side,
  sink: TapSink,
  parts: PrepareParts,
): Promise<PreparedBody | undefined> {
  const { head, body } = exchange[side];
  const work: Work = { ...parts, sink, exchange, type: typeOf(exchange, side) };
  const coding = head === undefined ? undefined : fieldOf(head, 'content-encoding');
  const codings = codingsOf(coding);
  const { spill } = body;
  let raw: Raw = { bytes: joined(body.pieces), file: undefined, facts: undefined };
  if (spill !== undefined) {
    const written = await spill.finish();
    if (written === undefined) return undefined;
    raw = { bytes: undefined, ...written };
  }
  if (codings.length === 0) return { ...(await present(raw, work)), coding: undefined, undecoded: undefined };
  const cut = body.truncated || !exchange[side].complete;
  const decoded = await decodeRaw(raw, { codings, cut, encodedBytes: body.kept }, work);
  if (typeof decoded === 'string') {
    const opaque = { ...work, type: { kind: 'binary', utf8: false } as const };
    return { ...(await present({ ...raw, facts: undefined }, opaque)), coding, undecoded: decoded };
  }
  await raw.file?.abort();
  return { ...(await present(decoded, work)), coding, undecoded: undefined };
}

/** A body in memory or in a side file, scanned if it is in one. */
type Raw =
  | { readonly bytes: Buffer; readonly file: undefined; readonly facts: undefined }
  | { readonly bytes: undefined; readonly file: SideFile; readonly facts: BodyFacts | undefined };

async function present(raw: Raw, work: Work): Promise<{ readonly body: StoredBody; readonly bytes: number }> {
  const { scanner, type } = work;
  if (raw.bytes !== undefined) return { body: storedBody(raw.bytes, type, scanner), bytes: raw.bytes.length };
  const { file, facts } = raw;
  const bodyBytes = file.bytes;
  if (bodyBytes === 0) {
    await file.abort();
    return { body: EMPTY_BODY, bytes: 0 };
  }
  const aside = { bytes: undefined, sideFile: file, bodyBytes, rows: 1, text: false, badJson: false } as const;
  if (facts !== undefined && (type.kind === 'json' || type.kind === 'unknown')) {
    return { body: { ...aside, flags: jsonFlags(facts) | FLAG.sideFile, rows: facts.rows }, bytes: bodyBytes };
  }
  const badJson = type.kind === 'json';
  const text = await textOf(file, work);
  return { body: text ?? { ...aside, flags: FLAG.sideFile, badJson }, bytes: bodyBytes };
}

/** A text of a side file as a JSON string in another, when it is small enough for a line. Undefined: it stays as it is. */
async function textOf(file: SideFile, work: Work): Promise<StoredBody | undefined> {
  const { exchange, type, sink, budget } = work;
  const { inlineBytes } = exchange.settings.limits;
  if (type.kind === 'binary' || file.bytes > inlineBytes) return undefined;
  // The bytes, the text and the string are in memory at the same time.
  const memory = 4 * file.bytes;
  if (!budget.take(memory)) return undefined;
  try {
    const bytes = await readFile(join(sink.spoolDirectory, file.name));
    if (!isText(bytes, type)) return undefined;
    const plain = bytes.toString('utf8');
    const text = Buffer.from(JSON.stringify(plain));
    if (text.length > inlineBytes) return undefined;
    const other = await sink.spool.openSideFile();
    await written(other, async () => other.write(text));
    await file.abort();
    const flags = textFlags(text) | FLAG.sideFile;
    const rest = { rows: 1, bytes: undefined, text: true, plain, badJson: type.kind === 'json' };
    return { ...rest, flags, sideFile: other, bodyBytes: text.length };
  } finally {
    budget.give(memory);
  }
}

async function written(file: SideFile, write: () => Promise<unknown>): Promise<void> {
  try {
    await write();
    await file.seal();
  } catch (error) {
    await file.abort();
    throw error;
  }
}

interface Encoding {
  readonly codings: readonly string[];
  readonly cut: boolean;
  readonly encodedBytes: number;
}

/** Decodes into memory, and on into a side file when it becomes too much for memory. */
async function decodeRaw(raw: Raw, encoding: Encoding, work: Work): Promise<Raw | Exclude<DecodeResult, 'ok'>> {
  const { sink, scanner, budget, exchange } = work;
  const { memoryBytes, maxDecodedBytes } = exchange.settings.limits;
  const source = raw.file === undefined ? [raw.bytes] : pieces(join(sink.spoolDirectory, raw.file.name));
  const scan = scanner.start();
  let file: SideFile | undefined;
  let held: Buffer[] = [];
  let bytes = 0;
  if (!budget.take(memoryBytes)) return 'limit';
  try {
    const result = await decodeBody(source, { ...encoding, maxBytes: maxDecodedBytes }, async (piece) => {
      bytes += piece.length;
      if (file === undefined && bytes <= memoryBytes) {
        held.push(piece);
        return;
      }
      file ??= await sink.spool.openSideFile();
      for (const one of [...held, piece]) {
        scan.feed(one);
        await file.write(one);
      }
      held = [];
    });
    if (result !== 'ok') {
      await file?.abort();
      return result;
    }
    const target = file as SideFile | undefined;
    if (target === undefined) return { bytes: joined(held), file: undefined, facts: undefined };
    await written(target, () => Promise.resolve());
    return { bytes: undefined, file: target, facts: scan.end() };
  } catch (error) {
    await file?.abort();
    throw error;
  } finally {
    budget.give(memoryBytes);
  }
}

function pieces(path: string): AsyncIterable<Buffer> {
  return createReadStream(path, { highWaterMark: 64 * 1024 }) as AsyncIterable<Buffer>;
}

function joined(parts: readonly Buffer[]): Buffer {
  const [first] = parts;
  return parts.length === 1 && first !== undefined ? first : Buffer.concat(parts);
}
