import { type FileHandle, mkdir, open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { StringDecoder } from 'node:string_decoder';
import { type Clock, systemClock } from '../kit/clock.ts';
import { systemCode } from '../kit/errors.ts';

/** Limits of a log file. */
export interface InstanceLogOptions {
  readonly path: string;
  /** A file that would grow beyond it is rotated. Default 10 MiB. */
  readonly maxBytes?: number;
  /** Files kept: `path`, `path.1`, … Default 3. */
  readonly files?: number;
  /** Bytes waiting for the disk; beyond it lines are dropped and counted in the log itself. Default 1 MiB. */
  readonly maxPendingBytes?: number;
  /** Longer lines are cut into several. Default 16 384 characters. */
  readonly maxLineLength?: number;
  readonly clock?: Clock;
}

/** Which stream a line came from; `sup` is the supervisor itself. */
export type LogSource = 'out' | 'err' | 'sup';

/** Bytes at the end of a file that `tail` looks at. */
const TAIL_BYTES = 1024 ** 2;
/** Lines kept in memory for error messages: enough to hold a traceback and what a server says after it. */
const RECENT_LINES = 250;

/**
 * The log of an instance: one line a line of output, `<ISO time> <pid> <out|err|sup> <text>`. Writing never waits and
 * never fails: a full or broken disk costs lines, and the log says how many as soon as it can.
 */
export class InstanceLog {
  readonly path: string;
  readonly #options: Required<Omit<InstanceLogOptions, 'path'>>;
  #file: FileHandle | undefined;
  #size = 0;
  #pending: string[] = [];
  #pendingBytes = 0;
  #dropped = 0;
  #writing: Promise<void> | undefined;
  readonly #recent: string[] = [];

  constructor(options: InstanceLogOptions) {
    this.path = options.path;
    this.#options = {
      maxBytes: options.maxBytes ?? 10 * 1024 ** 2,
      files: options.files ?? 3,
      maxPendingBytes: options.maxPendingBytes ?? 1024 ** 2,
      maxLineLength: options.maxLineLength ?? 16_384,
      clock: options.clock ?? systemClock,
    };
  }

  /** Adds one line; control characters that would break it are replaced. */
  line(pid: number, source: LogSource, text: string): void {
    const time = new Date(this.#options.clock.now()).toISOString();
    const line = `${time} ${pid} ${source} ${text.replace(/[\r\n]+/g, ' ')}`;
    this.#recent.push(line);
    if (this.#recent.length > RECENT_LINES) this.#recent.shift();
    const bytes = Buffer.byteLength(line) + 1;
    if (this.#pendingBytes + bytes > this.#options.maxPendingBytes) {
      this.#dropped += 1;
      return;
    }
    this.#pending.push(line);
    this.#pendingBytes += bytes;
    this.#writing ??= this.#write();
  }

  /** A function that takes the bytes of one output stream, and undefined at its end. */
  stream(pid: number, source: LogSource): (chunk: Buffer | undefined) => void {
    const decoder = new StringDecoder('utf8');
    let rest = '';
    return (chunk) => {
      rest += chunk === undefined ? decoder.end() : decoder.write(chunk);
      const lines = rest.split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) this.#cut(pid, source, line.endsWith('\r') ? line.slice(0, -1) : line);
      if (rest.length >= this.#options.maxLineLength || (chunk === undefined && rest !== '')) {
        this.#cut(pid, source, rest);
        rest = '';
      }
    };
  }

  /** The last lines of a process of this log, oldest first, from memory. At most 250. */
  recent(pid: number): readonly string[] {
    return this.#recent.filter((line) => line.split(' ', 2)[1] === String(pid));
  }

  /** The last `count` lines, oldest first, from at most 1 MiB at the end of each of the two newest files. */
  async tail(count: number): Promise<string[]> {
    await this.#writing;
    const lines = await lastLines(this.path, count);
    if (lines.length >= count) return lines;
    return [...(await lastLines(`${this.path}.1`, count - lines.length)), ...lines];
  }

  /** Writes what waits and closes the file; a later line opens it again. */
  async close(): Promise<void> {
    await this.#writing;
    await this.#file?.close();
    this.#file = undefined;
  }

  #cut(pid: number, source: LogSource, text: string): void {
    const { maxLineLength } = this.#options;
    for (let start = 0; start === 0 || start < text.length; start += maxLineLength) {
      this.line(pid, source, text.slice(start, start + maxLineLength));
    }
  }

  async #write(): Promise<void> {
    while (this.#pending.length > 0) {
      const lines = this.#pending;
      const dropped = this.#dropped;
      this.#pending = [];
      this.#dropped = 0;
      const bytes = this.#pendingBytes;
      try {
        if (dropped > 0)
          lines.push(`${new Date(this.#options.clock.now()).toISOString()} 0 sup ${dropped} lines dropped`);
        await this.#append(Buffer.from(`${lines.join('\n')}\n`));
      } catch {
        // The disk is full or the folder is gone: the instance must go on, and the count is written when it can be.
        this.#dropped += dropped + lines.length;
        await this.#file?.close().catch(() => undefined);
        this.#file = undefined;
      }
      this.#pendingBytes -= bytes;
    }
    this.#writing = undefined;
  }

  async #append(bytes: Buffer): Promise<void> {
    let file = this.#file ?? (await this.#open());
    if (this.#size > 0 && this.#size + bytes.length > this.#options.maxBytes) {
      await this.#rotate();
      file = await this.#open();
    }
    await file.appendFile(bytes);
    this.#size += bytes.length;
  }

  async #open(): Promise<FileHandle> {
    await mkdir(dirname(this.path), { recursive: true });
    this.#file = await open(this.path, 'a', 0o600);
    this.#size = (await this.#file.stat()).size;
    return this.#file;
  }

  async #rotate(): Promise<void> {
    await this.#file?.close();
    this.#file = undefined;
    for (let index = this.#options.files - 1; index > 0; index -= 1) {
      const from = index === 1 ? this.path : `${this.path}.${index - 1}`;
      await rename(from, `${this.path}.${index}`).catch((error: unknown) => {
        if (systemCode(error) !== 'ENOENT') throw error;
      });
    }
  }
}

async function lastLines(path: string, count: number): Promise<string[]> {
  let file: FileHandle;
  try {
    file = await open(path, 'r');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return [];
    throw error;
  }
  try {
    const { size } = await file.stat();
    const start = Math.max(0, size - TAIL_BYTES);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(size - start), 0, size - start, start);
    const lines = buffer.toString('utf8', 0, bytesRead).split('\n');
    lines.pop();
    if (start > 0) lines.shift();
    return count <= 0 ? [] : lines.slice(-count);
  } finally {
    await file.close();
  }
}
