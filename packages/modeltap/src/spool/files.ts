import * as fs from 'node:fs';
import { open as openHandle } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import { ModeltapError, errorText, systemCode } from '../kit/errors.ts';
import { type Clock, systemClock } from '../kit/clock.ts';

/** How a file is opened: `fresh` makes it and fails if it is there; `durable` needs it and returns from writes only when the bytes are on disk; `plain` makes it if missing. */
export type OpenMode = 'fresh' | 'plain' | 'durable';

/** The writing file operations of the spool. All reject with Node system errors. */
export interface SpoolFiles {
  /** False where the system has no `O_DSYNC` that can be trusted: then every batch is written and then synced. */
  readonly durableWrites: boolean;
  open(path: string, mode: OpenMode): Promise<number>;
  /** Writes `data` at `position`; may write less than all of it. A callback and not a promise: it is on the hot path. */
  write(fd: number, data: Uint8Array, position: number, done: (error: Error | null, written: number) => void): void;
  /** Makes data and size durable (fdatasync). */
  sync(fd: number): Promise<void>;
  truncate(fd: number, bytes: number): Promise<void>;
  close(fd: number): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Deletes a file; one that is not there is no error. */
  remove(path: string): Promise<void>;
  /** Makes creations, renames and deletions in a directory durable. */
  syncDirectory(path: string): Promise<void>;
  /** Room on the file system of `path`, bytes. */
  space(path: string): Promise<{ readonly free: number; readonly total: number }>;
}

/** What the spool needs of the outside. */
export interface SpoolEffects {
  readonly files: SpoolFiles;
  readonly clock: Clock;
  random(bytes: number): Buffer;
}

const { O_CREAT, O_EXCL, O_RDWR } = fs.constants;
// Only Linux promises that O_DSYNC reaches past the drive's cache; macOS needs the F_FULLFSYNC that libuv does in fsync.
const O_DSYNC = process.platform === 'linux' ? fs.constants.O_DSYNC : 0;
const FLAGS: Readonly<Record<OpenMode, number>> = {
  fresh: O_RDWR | O_CREAT | O_EXCL,
  plain: O_RDWR | O_CREAT,
  durable: O_RDWR | O_DSYNC,
};
const open = promisify(fs.open);

/** The file system. */
export const realFiles: SpoolFiles = {
  durableWrites: O_DSYNC !== 0,
  open: (path, mode) => open(path, FLAGS[mode], 0o600),
  write: (fd, data, position, done) => fs.write(fd, data, 0, data.length, position, done),
  sync: promisify(fs.fdatasync),
  truncate: promisify(fs.ftruncate),
  close: promisify(fs.close),
  rename: promisify(fs.rename),
  remove: (path) => fs.promises.rm(path, { force: true }),
  async space(path) {
    const { bavail, blocks, bsize } = await fs.promises.statfs(path);
    return { free: bavail * bsize, total: blocks * bsize };
  },
  async syncDirectory(path) {
    if (process.platform === 'win32') return; // Windows cannot open a directory; its renames are journaled.
    const handle = await openHandle(path, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  },
};

/** The machine: its files, clock and random numbers. */
export const realEffects: SpoolEffects = { files: realFiles, clock: systemClock, random: randomBytes };

/** Writes all of `data` at `position`. Rejects with the system error of the first write that fails. */
export function writeAll(files: SpoolFiles, fd: number, data: Uint8Array, position: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const step = (from: number) => {
      files.write(fd, data.subarray(from), position + from, (error, written) => {
        if (error) reject(error);
        else if (from + written >= data.length) resolve();
        else if (written === 0) reject(new ModeltapError('spool_disk_error', { detail: 'a write wrote nothing' }));
        else step(from + written);
      });
    };
    step(0);
  });
}

/** True when an error says that there is no room on the disk, in the quota or in the spool's share of it. */
export function isNoSpace(error: unknown): boolean {
  const code = systemCode(error);
  return code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG' || code === 'spool_full';
}

/** A failed file operation as an error of the registry: `spool_full` when the disk is full, else `spool_disk_error`. */
export function toSpoolError(error: unknown, directory: string): ModeltapError {
  if (error instanceof ModeltapError) return error;
  return isNoSpace(error)
    ? new ModeltapError('spool_full', { directory }, { cause: error })
    : new ModeltapError('spool_disk_error', { detail: errorText(error) }, { cause: error });
}
