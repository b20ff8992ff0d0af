import type { Dirent } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { systemCode } from '../kit/errors.ts';
import { compareKeys, keyProblem } from './object-key-check.ts';

/** One line of a listing: a key, or with a delimiter the beginning that several keys share. */
export interface ListEntry {
  readonly text: string;
  readonly isPrefix: boolean;
}

/** What to walk. */
export interface WalkOptions {
  readonly root: string;
  /** Name directly in the root that is never listed. */
  readonly hidden: string;
  readonly prefix: string;
  readonly delimiter: string | undefined;
  /** Text of the last entry of the page before; `''` for the first page. */
  readonly after: string;
}

/**
 * Entries behind `after`, in byte order, one folder read at a time and only when it is reached. Symbolic links are not
 * listed, nor is what disappears meanwhile.
 */
export async function* walkEntries(options: WalkOptions): AsyncGenerator<ListEntry> {
  const { prefix, delimiter, after } = options;
  const start = prefix.slice(0, prefix.lastIndexOf('/') + 1);
  if (start !== '' && keyProblem(start.slice(0, -1)) !== undefined) return;
  if (start.startsWith(`${options.hidden}/`)) return;
  let last = '';
  const pastGroup = delimiter !== undefined && after.endsWith(delimiter) ? after : undefined;
  for await (const entry of walkFolder(options, start)) {
    const cut = entry.isPrefix || delimiter === undefined ? -1 : entry.text.indexOf(delimiter, prefix.length);
    const found = cut < 0 ? entry : { text: entry.text.slice(0, cut + (delimiter ?? '').length), isPrefix: true };
    if (found.text === last || found.text === pastGroup) continue;
    last = found.text;
    yield found;
  }
}

async function* walkFolder(options: WalkOptions, folder: string): AsyncGenerator<ListEntry> {
  for (const text of await sortedNames(options, folder)) {
    if (!text.endsWith('/')) {
      yield { text, isPrefix: false };
    } else if (options.delimiter === '/' && text.length > options.prefix.length) {
      // An empty folder is no beginning of any key, so it is looked into, but only as far as its first object.
      const inside = walkFolder({ ...options, delimiter: undefined, after: '' }, text);
      const first = await inside.next();
      await inside.return(undefined);
      if (!first.done) yield { text, isPrefix: true };
    } else {
      yield* walkFolder(options, text);
    }
  }
}

/** Full names in a folder that can matter, folders with a slash behind them: that is what puts `a-b` before `a/b`. */
async function sortedNames(options: WalkOptions, folder: string): Promise<string[]> {
  const { prefix, after } = options;
  const names: string[] = [];
  let bytewise = true;
  for (const entry of await readFolder(join(options.root, folder))) {
    if (folder === '' && entry.name === options.hidden) continue;
    const isFolder = entry.isDirectory();
    if (!isFolder && !entry.isFile()) continue;
    const text = `${folder}${entry.name}${isFolder ? '/' : ''}`;
    if (!text.startsWith(prefix) && !(isFolder && prefix.startsWith(text))) continue;
    const behind = compareKeys(text, after) > 0 || (isFolder && after.startsWith(text) && after !== text);
    if (!behind) continue;
    names.push(text);
    bytewise &&= !/[\ud800-\uffff]/.test(entry.name);
  }
  // JavaScript's own order is the byte order as long as no surrogate meets a unit above them, and it is much faster.
  return bytewise ? names.sort() : names.sort(compareKeys);
}

async function readFolder(path: string): Promise<Dirent[]> {
  try {
    return await readdir(path, { withFileTypes: true });
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return [];
    throw error;
  }
}
