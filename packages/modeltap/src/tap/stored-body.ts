import { isUtf8 } from 'node:buffer';
import { FLAG } from '../record/codec.ts';
import type { SideFile } from '../spool/types.ts';
import type { ContentType } from './content.ts';
import { hasControlBytes } from './content.ts';
import type { BodyFacts, BodyScanner } from './types.ts';

/** A body in the form it has in the spool. */
export interface StoredBody {
  /** Bits of a record's flags. */
  readonly flags: number;
  readonly rows: number;
  /** The bytes that go into the spool, or none when they lie in the side file. */
  readonly bytes: Buffer | undefined;
  readonly sideFile: SideFile | undefined;
  readonly bodyBytes: number;
  /** `data` is a string that holds the text, or there is none. */
  readonly text: boolean;
  /** The text itself, of a body that is stored as text. */
  readonly plain?: string;
  /** Called JSON by the sender, and is not. */
  readonly badJson: boolean;
}

const OPAQUE = { flags: 0, rows: 1, text: false, badJson: false } as const;

/** An empty body: an event without `data`. */
export const EMPTY_BODY: StoredBody = {
  ...OPAQUE,
  flags: FLAG.json,
  bytes: Buffer.alloc(0),
  sideFile: undefined,
  bodyBytes: 0,
  text: true,
};

/** The flags of a JSON body. */
export function jsonFlags(facts: BodyFacts): number {
  return (
    FLAG.json |
    (facts.array ? FLAG.array : 0) |
    (facts.lineBreaks ? FLAG.lineBreaks : 0) |
    (facts.escapes ? FLAG.escapes : 0)
  );
}

/** A body that is in memory, as its media type and its bytes have it: JSON, text, or opaque. */
export function storedBody(bytes: Buffer, type: ContentType, scanner: BodyScanner): StoredBody {
  if (bytes.length === 0) return EMPTY_BODY;
  const { kind } = type;
  const inMemory = { bytes, sideFile: undefined, bodyBytes: bytes.length };
  const facts = kind === 'json' || (kind === 'unknown' && beginsJson(bytes)) ? scanner.whole(bytes) : undefined;
  if (facts !== undefined)
    return { ...inMemory, flags: jsonFlags(facts), rows: facts.rows, text: false, badJson: false };
  const badJson = kind === 'json';
  if (isText(bytes, type)) {
    const plain = bytes.toString('utf8');
    const text = Buffer.from(JSON.stringify(plain));
    return {
      ...OPAQUE,
      flags: textFlags(text),
      bytes: text,
      sideFile: undefined,
      bodyBytes: text.length,
      text: true,
      plain,
      badJson,
    };
  }
  return { ...OPAQUE, ...inMemory, badJson };
}

/** Whether bytes of this media type can be stored as text. */
export function isText(bytes: Buffer, type: ContentType): boolean {
  if (type.kind === 'binary' || !type.utf8 || !isUtf8(bytes)) return false;
  return type.kind !== 'unknown' || !hasControlBytes(bytes);
}

/** Flags of a text that was made a JSON string. */
export function textFlags(text: Buffer): number {
  return FLAG.json | (text.includes(0x3c) || text.includes(0x3e) || text.includes(0x26) ? FLAG.escapes : 0);
}

/** Bodies of an unknown type are JSON only when they are an object or an array: `42` may be anything. */
function beginsJson(bytes: Buffer): boolean {
  const first = bytes.find((byte) => byte !== 32 && byte !== 9 && byte !== 10 && byte !== 13);
  return first === 0x7b || first === 0x5b;
}
