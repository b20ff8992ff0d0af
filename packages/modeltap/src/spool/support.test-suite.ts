import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type SpoolEffects, type SpoolFiles, realEffects, realFiles } from './files.ts';
import { openSpoolReader } from './spool.ts';
import type { SideFile, SpoolRefusal, SpoolWriter } from './types.ts';

export const KiB = 1024;
export const MiB = 1024 * 1024;

/** A directory that goes with the test. */
export async function scratch(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'modeltap-spool-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** Appends one payload and waits for its fate: 'ok', or why not. */
export function put(
  spool: SpoolWriter,
  payload: Uint8Array | string,
  sideFile?: SideFile,
): Promise<SpoolRefusal | 'ok'> {
  return new Promise((resolve) => {
    const taken = spool.append([Buffer.from(payload)], (refusal) => resolve(refusal ?? 'ok'), sideFile);
    if (!taken) resolve(spool.refusal);
  });
}

export interface ReadBack {
  readonly position: number;
  readonly next: number;
  readonly text: string;
  readonly sideFile: string | undefined;
}

/** Everything in [from, until) as a reader of its own sees it. */
export async function readBack(
  directory: string,
  from: number,
  until: number,
  maxBytes = 64 * KiB,
): Promise<ReadBack[]> {
  const reader = await openSpoolReader(directory);
  const all: ReadBack[] = [];
  try {
    for (let at = from; at < until; ) {
      const { frames, next } = await reader.read(at, until, maxBytes);
      for (const { position, next: behind, payload, sideFile } of frames) {
        all.push({ position, next: behind, text: payload.toString('latin1'), sideFile });
      }
      if (next <= at) break;
      at = next;
    }
  } finally {
    await reader.close();
  }
  return all;
}

export const texts = (frames: readonly { text: string }[]) => frames.map(({ text }) => text);

/** A payload that names itself and has the wanted length. */
export function named(name: string | number, bytes: number): string {
  return `${name}:`.padEnd(bytes, String(name));
}

/** What goes wrong with the files, changed while a test runs. */
export interface Faults {
  /** Fails writes for which it gives an error; called with the position, the bytes and whether they are a batch. */
  write?: (position: number, data: Uint8Array, batch: boolean) => SystemError | undefined;
  /** Lets this many bytes of a failing batch reach the file. */
  partial?: number;
  truncate?: () => SystemError | undefined;
  rename?: () => SystemError | undefined;
}

/** An error as Node's file functions give it. */
export interface SystemError extends Error {
  readonly code: string;
}

export function systemError(code: string): SystemError {
  return Object.assign(new Error(`${code}: injected`), { code });
}

/** The real files, with faults in front of them. */
export function faulty(faults: Faults, extra: Partial<SpoolFiles> = {}): SpoolEffects {
  const durable = new Set<number>();
  const files: SpoolFiles = {
    ...realFiles,
    async open(path, mode) {
      const fd = await realFiles.open(path, mode);
      if (mode === 'durable') durable.add(fd);
      else durable.delete(fd);
      return fd;
    },
    write(fd, data, position, done) {
      const error = faults.write?.(position, data, durable.has(fd));
      if (!error) return realFiles.write(fd, data, position, done);
      const part = faults.partial ?? 0;
      if (part === 0 || !durable.has(fd)) return void setImmediate(() => done(error, 0));
      return realFiles.write(fd, data.subarray(0, part), position, () => done(error, 0));
    },
    async truncate(fd, bytes) {
      const error = faults.truncate?.();
      if (error) throw error;
      await realFiles.truncate(fd, bytes);
    },
    async rename(from, to) {
      const error = faults.rename?.();
      if (error) throw error;
      await realFiles.rename(from, to);
    },
    ...extra,
  };
  return { ...realEffects, files };
}
