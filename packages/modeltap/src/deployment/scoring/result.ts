import { Readable } from 'node:stream';

/** Chunks a script may stream: bytes or text. */
export type ResultChunk = Uint8Array | string;

/** What becomes of the value that `run()` returned. */
export type EncodedResult =
  | { readonly kind: 'json'; readonly text: string }
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array }
  | { readonly kind: 'response'; readonly response: Response }
  | { readonly kind: 'stream'; readonly chunks: AsyncIterable<ResultChunk> }
  | { readonly kind: 'unserialisable'; readonly reason: string };

/**
 * Decides how a result is answered. `undefined` and `null` are `{}`, a string is a JSON string (both as the Azure ML
 * inference server does), a typed array of numbers is a JSON array, a BigInt keeps all its digits. A fetch `Response`
 * is answered as it is; bytes, Node and web streams and async iterables are raw bytes. Never throws.
 */
export function encodeResult(value: unknown): EncodedResult {
  if (value === undefined || value === null) return { kind: 'json', text: '{}' };
  if (typeof value === 'object') {
    if (value instanceof Uint8Array) return { kind: 'bytes', bytes: value };
    if (value instanceof Response) return { kind: 'response', response: value };
    if (value instanceof Readable || isAsyncIterable(value)) {
      return { kind: 'stream', chunks: value as AsyncIterable<ResultChunk> };
    }
    if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
      return encodeJson(Array.from(value as unknown as ArrayLike<number | bigint>));
    }
  }
  return encodeJson(value);
}

function encodeJson(value: unknown): EncodedResult {
  try {
    const text = stringify(value);
    if (text === undefined) return { kind: 'unserialisable', reason: `a ${typeof value} has no JSON form` };
    return { kind: 'json', text };
  } catch (error) {
    return { kind: 'unserialisable', reason: error instanceof Error ? error.message : String(error) };
  }
}

/** The plain call first: a replacer function makes every answer several times dearer, and BigInts are rare. */
function stringify(value: unknown): string | undefined {
  try {
    return JSON.stringify(value);
  } catch (error) {
    if (!(error instanceof TypeError) || !error.message.includes('BigInt')) throw error;
    return JSON.stringify(value, (_key, item: unknown) => (typeof item === 'bigint' ? rawJson(String(item)) : item));
  }
}

/** `JSON.rawJSON` (V8 11.4, in every Node that runs this package) is not in TypeScript's library yet. */
const { rawJSON: rawJson } = JSON as unknown as { rawJSON(this: void, text: string): object };

function isAsyncIterable(value: object): boolean {
  return typeof (value as { [Symbol.asyncIterator]?: unknown })[Symbol.asyncIterator] === 'function';
}
