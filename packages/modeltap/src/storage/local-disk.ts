import { randomBytes } from 'node:crypto';
import { type BigIntStats, constants } from 'node:fs';
import { type FileHandle, link, lstat, mkdir, open, readdir, realpath, rename, rm, stat } from 'node:fs/promises';
import { dirname, join, resolve, sep } from 'node:path';
import { Readable } from 'node:stream';
import { systemCode } from '../kit/errors.ts';
import { KeyLocks } from './key-locks.ts';
import { localError } from './local-errors.ts';
import { type ListEntry, walkEntries } from './local-list.ts';
import { badObjectKey, checkObjectKey, showKey } from './object-key-check.ts';
import type { DatastoreOptions, ListOptions, ObjectBody, ObjectInfo, ObjectPage, ObjectStore } from './store.ts';
import { StorageError } from './store.ts';
import { checkedChunks, mapStreamErrors } from './streams.ts';

/** Folder of half-written objects inside the root. No key may begin with it and no listing shows it. */
const TEMPORARY = '.modeltap-tmp';
/** A temporary file this old was left by a process that died. */
const STALE_MS = 60 * 60 * 1000;
const COMPARE_BYTES = 1024 * 1024;
const MAX_PAGE = 5000;
const MAX_SYNCED = 4096;

type LocalOptions = Extract<DatastoreOptions, { type: 'local' }>;

/**
 * Opens a folder as a store; the folder is made by the first write. An object is a file, its key the path below the
 * root. Other processes may write in the same folder, but not append to the same key.
 */
export function openLocalDisk(options: LocalOptions): Promise<ObjectStore> {
  return Promise.resolve(new LocalDiskStore(options));
}

class LocalDiskStore implements ObjectStore {
  readonly kind = 'local';
  readonly limits = { appends: Number.POSITIVE_INFINITY, appendBytes: Number.POSITIVE_INFINITY };
  readonly #name: string;
  readonly #root: string;
  readonly #locks = new KeyLocks();
  /** Folders whose entry is known to be durable. */
  readonly #synced = new Set<string>();
  #swept: Promise<void> | undefined;

  constructor(options: LocalOptions) {
    this.#name = options.name;
    this.#root = resolve(options.path);
  }

  url(key: string): string {
    // A plain path and no file: URL: Azure ML's reader hands what `dataref` says to open().
    return this.#path(key);
  }

  put(key: string, body: ObjectBody, options: { readonly ifAbsent?: boolean } = {}): Promise<{ created: boolean }> {
    return this.#guard('put', key, async () => {
      const path = await this.#resolve(key);
      const { ifAbsent = false } = options;
      const found = await this.#stat(path, key);
      if (found && ifAbsent) return { created: false };
      await this.#sweep();
      const temporary = join(this.#root, TEMPORARY, `${process.pid}-${randomBytes(8).toString('hex')}`);
      try {
        await this.#writeTemporary(temporary, body, key);
        return await this.#locks.run(key, () => this.#publish(temporary, path, ifAbsent));
      } finally {
        await missingAsUndefined(rm(temporary));
      }
    });
  }

  append(key: string, chunk: Uint8Array, offset: number): Promise<void> {
    return this.#guard('append', key, () =>
      this.#locks.run(key, async () => {
        const path = await this.#resolve(key);
        const file = await this.#openForAppend(path, key, offset);
        try {
          await this.#checkTail(file, { key, chunk, offset });
          await this.#grow(file, chunk, offset);
        } finally {
          await file.close();
        }
        // At 0 also when the file was there: an attempt that made it may have died before this line.
        if (offset === 0) await syncFolder(dirname(path));
      }),
    );
  }

  get(key: string, range?: { readonly start: number; readonly end?: number }): Promise<Readable | undefined> {
    return this.#guard('get', key, async () => {
      const path = await this.#resolve(key);
      const file = await missingAsUndefined(open(path, constants.O_RDONLY | constants.O_NOFOLLOW));
      if (!file) return undefined;
      const found = await file.stat();
      const start = range?.start ?? 0;
      const end = Math.min(range?.end ?? found.size, found.size);
      if (!found.isFile() || start >= end) {
        await file.close();
        return found.isFile() ? Readable.from([]) : undefined;
      }
      const source = file.createReadStream({ start, end: end - 1, highWaterMark: 256 * 1024 });
      return mapStreamErrors(source, (error) => localError(this.#name, 'get', key, error));
    });
  }

  head(key: string): Promise<ObjectInfo | undefined> {
    return this.#guard('head', key, async () => {
      const found = await missingAsUndefined(lstat(await this.#resolve(key), { bigint: true }));
      if (found?.isSymbolicLink()) throw this.#linkRefused(key);
      return found?.isFile() ? objectInfo(key, found) : undefined;
    });
  }

  list(options: ListOptions = {}): Promise<ObjectPage> {
    const { prefix = '', delimiter, after = '', limit = MAX_PAGE } = options;
    return this.#guard('list', prefix, async () => {
      if (prefix.includes('/')) await this.#checkInside(dirname(join(this.#root, `${prefix}x`)), prefix);
      const most = Math.max(1, Math.min(limit, MAX_PAGE));
      const entries: ListEntry[] = [];
      let next: string | undefined;
      for await (const entry of walkEntries({ root: this.#root, hidden: TEMPORARY, prefix, delimiter, after })) {
        if (entries.length === most) {
          next = entries.at(-1)?.text;
          break;
        }
        entries.push(entry);
      }
      return {
        objects: await this.#infos(entries.filter((entry) => !entry.isPrefix).map((entry) => entry.text)),
        prefixes: entries.filter((entry) => entry.isPrefix).map((entry) => entry.text),
        next,
      };
    });
  }

  delete(key: string): Promise<boolean> {
    return this.#guard('delete', key, () =>
      this.#locks.run(key, async () => {
        const path = await this.#resolve(key);
        if (!(await this.#stat(path, key, 'folder_is_absent'))) return false;
        const gone = await missingAsUndefined(rm(path).then(() => true));
        if (gone) await syncFolder(dirname(path));
        return gone ?? false;
      }),
    );
  }

  async #guard<T>(action: string, key: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw localError(this.#name, action, key, error);
    }
  }

  #path(key: string): string {
    checkObjectKey(key);
    if (key === TEMPORARY || key.startsWith(`${TEMPORARY}/`)) {
      throw badObjectKey(key, `"${TEMPORARY}" is where the store keeps half-written objects`);
    }
    return join(this.#root, key);
  }

  async #resolve(key: string): Promise<string> {
    const path = this.#path(key);
    await this.#checkInside(dirname(path), key);
    return path;
  }

  /** Throws when a symbolic link leads `folder`, or the nearest existing folder above it, out of the root. */
  async #checkInside(folder: string, key: string): Promise<void> {
    const root = await missingAsUndefined(realpath(this.#root));
    if (root === undefined) return;
    for (let at = folder; at.startsWith(this.#root); at = dirname(at)) {
      const real = await missingAsUndefined(realpath(at));
      if (real === undefined) continue;
      if (real !== root && !real.startsWith(root.endsWith(sep) ? root : root + sep)) throw this.#linkRefused(key);
      return;
    }
  }

  #linkRefused(key: string): StorageError {
    return new StorageError('refused', `datastore ${this.#name}: ${showKey(key)} is, or lies behind, a symbolic link`, {
      fix: 'Replace the symbolic link inside the datastore by a real file or folder. The root itself may be a link.',
    });
  }

  async #stat(path: string, key: string, folder?: 'folder_is_absent'): Promise<BigIntStats | undefined> {
    const found = await missingAsUndefined(lstat(path, { bigint: true }));
    if (found?.isSymbolicLink()) throw this.#linkRefused(key);
    if (!found?.isDirectory()) return found;
    if (folder === 'folder_is_absent') return undefined;
    throw localError(this.#name, 'write', key, Object.assign(new Error('it is a folder'), { code: 'EISDIR' }));
  }

  async #infos(keys: readonly string[]): Promise<ObjectInfo[]> {
    const infos: ObjectInfo[] = [];
    for (let i = 0; i < keys.length; i += 64) {
      const batch = keys.slice(i, i + 64).map(async (key) => {
        const found = await missingAsUndefined(lstat(join(this.#root, key), { bigint: true }));
        return found?.isFile() ? objectInfo(key, found) : undefined;
      });
      for (const info of await Promise.all(batch)) if (info) infos.push(info);
    }
    return infos;
  }

  async #writeTemporary(path: string, body: ObjectBody, key: string): Promise<void> {
    await this.#folder(dirname(path));
    const file = await open(path, 'wx');
    try {
      let at = 0;
      const what = `datastore ${this.#name}: put ${showKey(key)}`;
      const chunks = body instanceof Uint8Array ? [body] : checkedChunks(body, what);
      for await (const chunk of chunks) {
        await writeAt(file, chunk, at);
        at += chunk.length;
      }
      await file.sync();
    } finally {
      await file.close();
    }
  }

  async #publish(temporary: string, path: string, ifAbsent: boolean): Promise<{ created: boolean }> {
    await this.#folder(dirname(path));
    try {
      if (ifAbsent) await link(temporary, path);
      else await rename(temporary, path);
    } catch (error) {
      if (ifAbsent && systemCode(error) === 'EEXIST') return { created: false };
      throw error;
    }
    await syncFolder(dirname(path));
    return { created: true };
  }

  async #openForAppend(path: string, key: string, offset: number): Promise<FileHandle> {
    await this.#stat(path, key);
    if (offset === 0) {
      await this.#folder(dirname(path));
      return open(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o666);
    }
    const file = await missingAsUndefined(open(path, constants.O_RDWR | constants.O_NOFOLLOW));
    if (!file) throw this.#conflict(key, `there is no object, but ${offset} bytes are expected`);
    return file;
  }

  /**
   * Throws unless the file ends at `offset` or what is behind it can be the work of an interrupted attempt at the same
   * append: no longer than the chunk, and each byte the chunk's, or zero where a power failure kept the new length
   * but lost the data.
   */
  async #checkTail(file: FileHandle, at: { key: string; chunk: Uint8Array; offset: number }): Promise<void> {
    const { key, chunk, offset } = at;
    const { size } = await file.stat();
    if (size === offset) return;
    const tail = size - offset;
    if (tail < 0 || tail > chunk.length) {
      throw this.#conflict(key, `it has ${size} bytes where ${offset} are expected`);
    }
    const buffer = Buffer.allocUnsafe(Math.min(tail, COMPARE_BYTES));
    for (let from = 0; from < tail; ) {
      const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, tail - from), offset + from);
      if (bytesRead === 0) throw this.#conflict(key, 'it became shorter while it was read');
      if (!isTorn(buffer.subarray(0, bytesRead), chunk.subarray(from, from + bytesRead))) {
        throw this.#conflict(key, `behind byte ${offset} it has other bytes than those to append`);
      }
      from += bytesRead;
    }
  }

  #conflict(key: string, reason: string): StorageError {
    return new StorageError('conflict', `datastore ${this.#name}: cannot append to ${showKey(key)}: ${reason}`, {
      fix: 'Another program wrote to the file. Go on in a new one, and let only one agent write in a folder.',
    });
  }

  /** Writes and syncs; when the disk is full no part of a line stays behind for readers to trip over. */
  async #grow(file: FileHandle, chunk: Uint8Array, offset: number): Promise<void> {
    try {
      await writeAt(file, chunk, offset);
      await file.datasync();
    } catch (error) {
      // Should this fail too, the next attempt finds the tail and replaces it.
      await file.truncate(offset).catch(() => undefined);
      throw error;
    }
  }

  /**
   * Makes a folder and those above it, durably. Folders that exist are synced once too: the process that made them
   * may have died in between.
   */
  async #folder(path: string): Promise<void> {
    const first = await mkdir(path, { recursive: true }).catch(async (error: unknown) => {
      throw (await this.#rootProblem(error)) ?? error;
    });
    if (first === undefined && this.#synced.has(path)) return;
    const shortest = Math.min(first?.length ?? Number.POSITIVE_INFINITY, this.#root.length + 1);
    for (let at = path; at.length >= shortest; at = dirname(at)) await syncFolder(dirname(at));
    if (this.#synced.size >= MAX_SYNCED) this.#synced.clear();
    this.#synced.add(path);
  }

  /** The error for a root that is, or lies below, something else than a folder. */
  async #rootProblem(error: unknown): Promise<StorageError | undefined> {
    const code = systemCode(error);
    if (code !== 'EEXIST' && code !== 'ENOTDIR') return undefined;
    if ((await missingAsUndefined(stat(this.#root)))?.isDirectory()) return undefined;
    return new StorageError('no_container', `datastore ${this.#name}: its path is not a folder and cannot become one`, {
      fix: 'Remove the file that is in the way, or choose another path for the datastore.',
      cause: error,
    });
  }

  /** Removes what dead processes left, once in the life of the store. */
  #sweep(): Promise<void> {
    this.#swept ??= removeStale(join(this.#root, TEMPORARY), Date.now() - STALE_MS);
    return this.#swept;
  }
}

function isTorn(found: Uint8Array, wanted: Uint8Array): boolean {
  if (Buffer.compare(found, wanted) === 0) return true;
  return found.every((byte, i) => byte === wanted[i] || byte === 0);
}

function objectInfo(key: string, found: BigIntStats): ObjectInfo {
  const etag = [found.ino, found.size, found.mtimeNs].map((part) => part.toString(36)).join('-');
  return { key, bytes: Number(found.size), etag, modifiedMs: Number(found.mtimeMs) };
}

async function removeStale(folder: string, beforeMs: number): Promise<void> {
  for (const name of (await missingAsUndefined(readdir(folder))) ?? []) {
    const path = join(folder, name);
    const found = await missingAsUndefined(stat(path));
    if (found && found.mtimeMs < beforeMs) await rm(path, { force: true });
  }
}

async function missingAsUndefined<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  }
}

async function writeAt(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}

async function syncFolder(path: string): Promise<void> {
  // Windows cannot sync a folder and keeps its entries safe itself.
  if (process.platform === 'win32') return;
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
