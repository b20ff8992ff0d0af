import { Readable, type Transform, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import {
  constants,
  createBrotliDecompress,
  createGunzip,
  createInflate,
  createInflateRaw,
  createZstdDecompress,
} from 'node:zlib';

/** A body that grows a thousandfold above this size was made to do so. */
const RATIO_FROM = 1024 * 1024;
const MAX_RATIO = 200;
/** Encodings one upon another. */
const MAX_CODINGS = 3;
/** Ends a pipeline; never leaves this file. */
const LIMIT_REACHED = new Error('enough');

/** How the decoding of a body ended: `bad` bytes, an encoding that is `unknown` here, or more bytes than the `limit`. */
export type DecodeResult = 'ok' | 'bad' | 'unknown' | 'limit';

/** What is decoded, and how far. */
export interface DecodeOptions {
  /** As in `content-encoding`: the last was applied last. */
  readonly codings: readonly string[];
  /** The body ends in the middle: what can be decoded is taken. */
  readonly cut: boolean;
  readonly encodedBytes: number;
  readonly maxBytes: number;
}

/** Decodes a body in the thread pool and gives its bytes to `sink`, waiting for it. Never throws for what is in the body; errors of `sink` are thrown. */
export async function decodeBody(
  source: AsyncIterable<Buffer> | Iterable<Buffer>,
  options: DecodeOptions,
  sink: (bytes: Buffer) => Promise<void> | void,
): Promise<DecodeResult> {
  const { codings, cut, maxBytes } = options;
  if (codings.length > MAX_CODINGS) return 'unknown';
  const iterator = Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
  const first = await iterator.next();
  const decoders: Transform[] = [];
  for (const coding of codings.toReversed()) {
    // Only the outermost layer's first bytes can be looked at.
    const decoder = decoderOf(coding, decoders.length === 0 ? first.value : undefined, cut);
    if (decoder === undefined) return 'unknown';
    decoders.push(decoder);
  }
  const most = Math.min(maxBytes, Math.max(RATIO_FROM, options.encodedBytes * MAX_RATIO));
  let bytes = 0;
  let result: DecodeResult = 'ok';
  let failure: unknown;
  const take = async (piece: Buffer) => {
    bytes += piece.length;
    if (bytes > most) result = 'limit';
    else await sink(piece);
  };
  const target = new Writable({
    write(piece: Buffer, _encoding, done) {
      take(piece).then(
        () => done(result === 'limit' ? LIMIT_REACHED : undefined),
        (error: unknown) => {
          failure = error;
          done(LIMIT_REACHED);
        },
      );
    },
  });
  try {
    await pipeline([Readable.from(whole(first, iterator)), ...decoders, target]);
  } catch {
    // Bytes that are not what they are called; how far it came does not matter. A limit ends the pipeline too.
    if (result === 'ok') result = 'bad';
  }
  if (failure !== undefined) throw failure;
  return result;
}

async function* whole(
  first: IteratorResult<Buffer>,
  iterator: Iterator<Buffer> | AsyncIterator<Buffer>,
): AsyncGenerator<Buffer> {
  for (let next = first; next.done !== true; next = await iterator.next()) yield next.value;
}

function decoderOf(coding: string, first: Buffer | undefined, cut: boolean): Transform | undefined {
  const zlib = cut ? { finishFlush: constants.Z_SYNC_FLUSH } : {};
  switch (coding) {
    case 'gzip':
    case 'x-gzip':
      return createGunzip(zlib);
    case 'deflate':
      return isZlib(first) ? createInflate(zlib) : createInflateRaw(zlib);
    case 'br':
      return createBrotliDecompress(cut ? { finishFlush: constants.BROTLI_OPERATION_FLUSH } : {});
    case 'zstd':
      return createZstdDecompress(cut ? { finishFlush: constants.ZSTD_e_flush } : {});
    default:
      return undefined;
  }
}

/** `deflate` means zlib by the standard, and raw deflate to some. */
function isZlib(first: Buffer | undefined): boolean {
  if (first === undefined) return true;
  const [method = 0x78, flags] = first;
  return (method & 0x0f) === 8 && (flags === undefined || (method * 256 + flags) % 31 === 0);
}
