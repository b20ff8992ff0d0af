import { join } from 'node:path';
import { ModeltapError } from '../kit/errors.ts';
import { type SpoolEffects, toSpoolError, writeAll } from './files.ts';
import type { SegmentFiles } from './segments.ts';
import type { SideFile } from './types.ts';

/** What a side file needs of the spool it belongs to. */
export interface SideFileHost {
  readonly directory: string;
  readonly effects: SpoolEffects;
  readonly segments: Pick<SegmentFiles, 'reserveSide' | 'releaseSide'>;
  /** Called once, when the file no longer counts among the open ones. */
  onGone(): void;
}

/** A side file being written. `taken` means that a frame refers to it; it is then deleted by releasing that frame. */
export class SpoolSideFile implements SideFile {
  readonly name: string;
  readonly path: string;
  readonly #host: SideFileHost;
  #fd: number | undefined;
  #bytes = 0;
  #failure: ModeltapError | undefined;
  #state: 'open' | 'sealed' | 'taken' | 'gone' = 'open';
  #writes: Promise<void> = Promise.resolve();

  private constructor(host: SideFileHost, name: string, fd: number) {
    this.#host = host;
    this.name = name;
    this.path = join(host.directory, name);
    this.#fd = fd;
  }

  /** Makes an empty side file. Rejects with `spool_full` or `spool_disk_error`. */
  static async create(host: SideFileHost): Promise<SpoolSideFile> {
    const name = `${host.effects.random(16).toString('hex')}.side`;
    try {
      return new SpoolSideFile(host, name, await host.effects.files.open(join(host.directory, name), 'fresh'));
    } catch (error) {
      throw toSpoolError(error, host.directory);
    }
  }

  get bytes(): number {
    return this.#bytes;
  }

  get sealed(): boolean {
    return this.#state === 'sealed';
  }

  write(chunk: Uint8Array): Promise<void> {
    const { directory, effects, segments } = this.#host;
    const fd = this.#fd;
    if (this.#state !== 'open' || fd === undefined) {
      return Promise.reject(new ModeltapError('spool_disk_error', { detail: `side file ${this.name} is not open` }));
    }
    if (!segments.reserveSide(chunk.length)) return Promise.reject(new ModeltapError('spool_full', { directory }));
    const position = this.#bytes;
    this.#bytes += chunk.length;
    const written = this.#writes.then(() => writeAll(effects.files, fd, chunk, position));
    // `abort` waits for writes whatever becomes of them; the caller learns of a failure from its own promise.
    this.#writes = written.catch((error: unknown) => {
      this.#failure ??= toSpoolError(error, directory);
    });
    return written.catch((error: unknown) => {
      throw toSpoolError(error, directory);
    });
  }

  async seal(): Promise<void> {
    const { directory, effects } = this.#host;
    const fd = this.#fd;
    if (this.#state !== 'open' || fd === undefined) return;
    try {
      await this.#writes;
      if (this.#failure) throw this.#failure;
      await effects.files.sync(fd);
      this.#fd = undefined;
      await effects.files.close(fd);
      await effects.files.syncDirectory(directory);
      this.#state = 'sealed';
    } catch (error) {
      throw toSpoolError(error, directory);
    }
  }

  async abort(): Promise<void> {
    if (this.#state === 'taken' || this.#state === 'gone') return;
    await this.remove();
  }

  /** A frame refers to it from now on. */
  take(): void {
    this.#state = 'taken';
  }

  /** Deletes it, taken or not. A failure to delete leaves an orphan that the next start removes. */
  async remove(): Promise<void> {
    if (this.#state === 'gone') return;
    this.#state = 'gone';
    const { effects, segments } = this.#host;
    await this.#writes;
    const fd = this.#fd;
    this.#fd = undefined;
    try {
      if (fd !== undefined) await effects.files.close(fd);
      await effects.files.remove(this.path);
      segments.releaseSide(this.#bytes);
    } catch {
      return; // It stays counted, because it is still there.
    } finally {
      this.#host.onGone();
    }
  }
}
