import { BLOCK_BYTES, type Block, cutBlocks, nameBlock, parseBlockId, stageBlocks } from './azure-blocks.ts';
import type { AzureCall, AzureContainer } from './azure-client.ts';
import { AzureStorageError, hasCode } from './azure-errors.ts';
import { showKey } from './object-key-check.ts';
import { StorageError, type StoreLimits } from './store.ts';

/** An agent's choice, not the service's (50 000 blocks): every append sends the whole list of ids again. */
export const APPEND_LIMITS: StoreLimits = { appends: 500, appendBytes: 256 * 1024 * 1024 };
/** 500 appends fit whatever their sizes: at most this many blocks come from cutting large ones. */
const MAX_BLOCKS = APPEND_LIMITS.appends + APPEND_LIMITS.appendBytes / BLOCK_BYTES;
/** Objects whose block list is remembered; at most about 20 KB each. */
const REMEMBERED = 256;

/** What is known of a growing object. */
interface Grown {
  /** Undefined when there is no object yet. */
  readonly etag: string | undefined;
  /** Its block ids in order; undefined when it is not made of blocks of ours. */
  readonly ids: readonly string[] | undefined;
  readonly bytes: number;
}

/**
 * Grows block blobs by committing the old block ids and the new ones, on condition that nobody changed the object in
 * between. The ids tell an attempt that succeeded without our hearing of it from somebody else's write.
 */
export class BlobGrower {
  readonly #container: AzureContainer;
  readonly #name: string;
  /** Least recently used first. */
  readonly #known = new Map<string, Grown>();

  constructor(container: AzureContainer, name: string) {
    this.#container = container;
    this.#name = name;
  }

  /** Forgets an object that was written by other means. */
  forget(key: string): void {
    this.#known.delete(key);
  }

  /** `ObjectStore.append`. Calls for one key must come one after the other. */
  async append(key: string, chunk: Uint8Array, offset: number): Promise<void> {
    const blocks = cutBlocks(chunk, offset);
    const remembered = this.#known.get(key);
    this.#known.delete(key);
    const fresh = remembered === undefined;
    const first = remembered ?? (await this.#read(key));
    const grown =
      (await this.#attempt(key, { blocks, offset, state: first, last: fresh })) ??
      // Remembered or read, the state was stale: one more try with a fresh one.
      (await this.#attempt(key, { blocks, offset, state: await this.#read(key), last: true })) ??
      undefined;
    if (!grown) throw this.#conflict(key, 'another program changes it at the same time');
    this.#remember(key, grown);
  }

  /** The state after the append; undefined when the state given turned out to be stale. */
  async #attempt(
    key: string,
    at: { blocks: readonly Block[]; offset: number; state: Grown; last: boolean },
  ): Promise<Grown | undefined> {
    const { blocks, offset, state } = at;
    const bytes = blocks.reduce((sum, block) => sum + block.data.length, offset);
    if (state.bytes === bytes && endsWith(state, blocks, offset)) {
      if (blocks.length > 0 || state.etag !== undefined) return state;
    }
    if (state.bytes !== offset) {
      if (!at.last) return undefined;
      throw this.#conflict(key, `it has ${state.bytes} bytes where ${offset} are expected, or other ones behind that`);
    }
    const ids = state.ids ?? (await this.#restage(key, state));
    this.#checkLimits(key, bytes, ids.length + blocks.length);
    const what = { action: 'append', key };
    try {
      await stageBlocks(this.#container, what, blocks);
      return await this.#commit(what, state.etag, { ids: [...ids, ...blocks.map((block) => block.id)], bytes });
    } catch (error) {
      if (isStale(error)) return undefined;
      throw error;
    }
  }

  async #commit(what: AzureCall, etag: string | undefined, next: { ids: string[]; bytes: number }): Promise<Grown> {
    const conditions = etag === undefined ? { ifNoneMatch: '*' } : { ifMatch: etag };
    const answer = await this.#container.call(what, (abortSignal) =>
      this.#container.blob(what.key).commitBlockList(next.ids, { conditions, abortSignal }),
    );
    return { etag: answer.etag, ids: next.ids, bytes: next.bytes };
  }

  async #read(key: string): Promise<Grown> {
    try {
      const answer = await this.#container.call({ action: 'append', key }, (abortSignal) =>
        this.#container.blob(key).getBlockList('committed', { abortSignal }),
      );
      const committed = answer.committedBlocks ?? [];
      const bytes = answer.blobContentLength ?? 0;
      let end = 0;
      const ours = committed.every(({ name, size }) => {
        const block = parseBlockId(name);
        const fits = block?.offset === end && block.bytes === size;
        end += size;
        return fits;
      });
      const ids = ours && end === bytes ? committed.map((block) => block.name) : undefined;
      return { etag: answer.etag, ids, bytes };
    } catch (error) {
      if (hasCode(error, 'BlobNotFound')) return { etag: undefined, ids: [], bytes: 0 };
      throw error;
    }
  }

  /**
   * Sends the bytes of an object that was written by other means once more, as blocks of ours: committing a block list
   * drops what is in no listed block. The etag keeps both the reading and the commit to the same version.
   */
  async #restage(key: string, state: Grown): Promise<string[]> {
    const what = { action: 'append', key };
    this.#checkLimits(key, state.bytes, 0);
    const ids: string[] = [];
    for (let offset = 0; offset < state.bytes; offset += BLOCK_BYTES) {
      const bytes = Math.min(BLOCK_BYTES, state.bytes - offset);
      const data = await this.#container.call({ ...what, bytes }, (abortSignal) =>
        this.#container.blob(key).downloadToBuffer(offset, bytes, {
          abortSignal,
          blockSize: BLOCK_BYTES,
          conditions: state.etag === undefined ? {} : { ifMatch: state.etag },
        }),
      );
      const block = nameBlock(offset, data);
      await stageBlocks(this.#container, what, [block]);
      ids.push(block.id);
    }
    return ids;
  }

  #checkLimits(key: string, bytes: number, blocks: number): void {
    if (bytes <= APPEND_LIMITS.appendBytes && blocks <= MAX_BLOCKS) return;
    const reason = `it would have ${bytes} bytes in ${blocks} blocks; at most ${APPEND_LIMITS.appendBytes} in ${MAX_BLOCKS} are grown`;
    throw new StorageError('invalid', `datastore ${this.#name}: cannot append to ${showKey(key)}: ${reason}`, {
      fix: 'Go on in a new object before the limits of the store are reached.',
    });
  }

  #conflict(key: string, reason: string): StorageError {
    return new StorageError('conflict', `datastore ${this.#name}: cannot append to ${showKey(key)}: ${reason}`, {
      fix: 'Another program wrote to the object. Go on in a new one, and let only one agent write in a folder.',
    });
  }

  #remember(key: string, grown: Grown): void {
    this.#known.set(key, grown);
    if (this.#known.size <= REMEMBERED) return;
    const [oldest] = this.#known.keys();
    if (oldest !== undefined) this.#known.delete(oldest);
  }
}

/** The object ends with exactly these blocks, the first of them at `offset`. */
function endsWith(state: Grown, blocks: readonly Block[], offset: number): boolean {
  if (state.ids === undefined) return false;
  const from = state.ids.length - blocks.length;
  if (from < 0 || blocks.some((block, i) => state.ids?.[from + i] !== block.id)) return false;
  return blocks.length > 0 || state.bytes === offset;
}

/** The object is not what it was: somebody wrote, or an attempt of ours succeeded unheard. */
function isStale(error: unknown): boolean {
  if (!(error instanceof AzureStorageError)) return false;
  if (error.kind !== 'conflict') return false;
  return error.status === 412 || error.status === 409 || hasCode(error, 'InvalidBlockList', 'BlobNotFound');
}
