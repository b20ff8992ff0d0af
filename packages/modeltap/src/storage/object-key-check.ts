import { ModeltapError } from '../kit/errors.ts';
import { StorageError } from './store.ts';

/** Longest key, bytes of UTF-8. Azure's limit is 1 024 characters; S3's and GCS's is 1 024 bytes. */
export const MAX_KEY_BYTES = 1024;

/** A text for messages: quoted, control characters escaped, cut at 200 characters. */
export function showKey(key: string): string {
  return JSON.stringify(key.length > 200 ? `${key.slice(0, 200)}…` : key);
}

/**
 * Throws unless `key` names an object that every backend can hold and none can be led astray by: 1 to 1 024 bytes of
 * well-formed Unicode, `/`-separated parts that are neither empty nor `.` nor `..`, no control characters (NUL, line
 * breaks: XML listings cannot carry them back unchanged). The error is a `StorageError` of kind `invalid` whose cause
 * is the `ModeltapError` `bad_object_key`.
 */
export function checkObjectKey(key: string): void {
  const reason = keyProblem(key);
  if (reason === undefined) return;
  throw badObjectKey(key, reason);
}

/** The error for a key that is refused for `reason`. */
export function badObjectKey(key: string, reason: string): StorageError {
  const cause = new ModeltapError('bad_object_key', { key: showKey(key), reason });
  return new StorageError('invalid', cause.message, { fix: cause.fix, cause });
}

/** What is wrong with a key; undefined when nothing is. */
export function keyProblem(key: string): string | undefined {
  if (key === '') return 'it is empty';
  if (/\p{Surrogate}/u.test(key)) return 'it is not well-formed Unicode';
  if (Buffer.byteLength(key) > MAX_KEY_BYTES) return `it is longer than ${MAX_KEY_BYTES} bytes`;
  if (/[\u0000-\u001f\u007f\ufffe\uffff]/.test(key)) return 'it has control characters';
  for (const part of key.split('/')) {
    if (part === '') return 'it has an empty part (a leading, trailing or double slash)';
    if (part === '.' || part === '..') return `it has a part "${part}"`;
  }
  return undefined;
}

/**
 * Order of two keys by their UTF-8 bytes. JavaScript's own order differs from it where a character beyond U+FFFF meets
 * one of U+E000–U+FFFF: the first is written with surrogates, which are smaller units but larger bytes.
 */
export function compareKeys(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i += 1) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) return byteRank(x) - byteRank(y);
  }
  return a.length - b.length;
}

function byteRank(unit: number): number {
  if (unit < 0xd800) return unit;
  return unit < 0xe000 ? unit + 0x2000 : unit - 0x800;
}
