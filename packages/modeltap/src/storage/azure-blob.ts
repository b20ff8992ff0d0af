import { Readable } from 'node:stream';
import { APPEND_LIMITS, BlobGrower } from './azure-append.ts';
import { BLOCK_BYTES, type Block, nameBlock, stageBlocks } from './azure-blocks.ts';
import { type AzureContainer, openContainer } from './azure-client.ts';
import { AzureStorageError, hasCode } from './azure-errors.ts';
import { openRead } from './azure-read.ts';
import { KeyLocks } from './key-locks.ts';
import { checkObjectKey, showKey } from './object-key-check.ts';
import type { DatastoreOptions, ListOptions, ObjectBody, ObjectInfo, ObjectPage, ObjectStore } from './store.ts';
import { bodyBlocks, bodyBytes, checkedChunks } from './streams.ts';

/** Up to this size an object goes in one request, bytes. */
const SINGLE_BYTES = 8 * 1024 * 1024;
/** The service's limit of blocks in one object. */
const MAX_BLOCKS = 50_000;
const MAX_PAGE = 5000;

type AzureOptions = Extract<DatastoreOptions, { type: 'azure_blob' }>;

/** What `openAzureBlob` can be told beside where the container is. */
export interface AzureBlobSettings {
  /** Longest wait for the answer to one request, milliseconds; a large body adds to it. Default 30 000. */
  readonly timeoutMs?: number;
}

/**
 * Opens a container of Azure Blob Storage (or Azurite) as a store. Sends nothing yet. Writes block blobs only; in
 * accounts with a hierarchical namespace too. Address or credentials that cannot be used at all are `invalid`.
 */
export async function openAzureBlob(options: AzureOptions, settings: AzureBlobSettings = {}): Promise<ObjectStore> {
  return new AzureBlobStore(options.name, await openContainer(options, settings.timeoutMs));
}

interface PutOptions {
  readonly ifAbsent?: boolean;
  readonly contentType?: string;
}

class AzureBlobStore implements ObjectStore {
  readonly kind = 'azure_blob';
  readonly limits = APPEND_LIMITS;
  readonly #name: string;
  readonly #container: AzureContainer;
  readonly #grower: BlobGrower;
  readonly #locks = new KeyLocks();

  constructor(name: string, container: AzureContainer) {
    this.#name = name;
    this.#container = container;
    this.#grower = new BlobGrower(container, name);
  }

  url(key: string): string {
    checkObjectKey(key);
    // A SAS rides in the query of the client's address and must not be handed out.
    const url = new URL(this.#container.blob(key).url);
    return `${url.origin}${url.pathname}`;
  }

  async put(key: string, body: ObjectBody, options: PutOptions = {}): Promise<{ created: boolean }> {
    checkObjectKey(key);
    return this.#locks.run(key, async () => {
      this.#grower.forget(key);
      try {
        await this.#write(key, body, options);
        return { created: true };
      } catch (error) {
        if (!(error instanceof AzureStorageError)) throw error;
        if (options.ifAbsent && (await this.#existsAlready(key, error))) return { created: false };
        // A writer of the same key committed first, which discards the blocks of all others.
        if (!hasCode(error, 'InvalidBlockList')) throw error;
        await this.#write(key, body, options);
        return { created: true };
      }
    });
  }

  async append(key: string, chunk: Uint8Array, offset: number): Promise<void> {
    checkObjectKey(key);
    return this.#locks.run(key, () => this.#grower.append(key, chunk, offset));
  }

  async get(key: string, range: { start: number; end?: number } = { start: 0 }): Promise<Readable | undefined> {
    checkObjectKey(key);
    const { start, end } = range;
    if (end !== undefined && start >= end) return (await this.head(key)) ? Readable.from([]) : undefined;
    try {
      return await openRead(this.#container, key, { start, end });
    } catch (error) {
      if (isMissing(error)) return undefined;
      if (error instanceof AzureStorageError && error.status === 416) return Readable.from([]);
      throw error;
    }
  }

  async head(key: string): Promise<ObjectInfo | undefined> {
    checkObjectKey(key);
    try {
      const found = await this.#container.call({ action: 'head', key }, (abortSignal) =>
        this.#container.blob(key).getProperties({ abortSignal }),
      );
      return objectInfo(key, found);
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  async list(options: ListOptions = {}): Promise<ObjectPage> {
    const { prefix, delimiter, after, limit = MAX_PAGE } = options;
    const page = {
      maxPageSize: Math.max(1, Math.min(limit, MAX_PAGE)),
      ...(after ? { continuationToken: after } : {}),
    };
    return this.#container.call({ action: 'list', key: prefix ?? '' }, async (abortSignal) => {
      const wanted = { abortSignal, includeMetadata: true, ...(prefix ? { prefix } : {}) };
      const { client } = this.#container;
      if (delimiter) {
        for await (const answer of client.listBlobsByHierarchy(delimiter, wanted).byPage(page)) {
          const prefixes = (answer.segment.blobPrefixes ?? []).map((found) => found.name);
          return { objects: infos(answer.segment.blobItems), prefixes, next: answer.continuationToken || undefined };
        }
      } else {
        for await (const answer of client.listBlobsFlat(wanted).byPage(page)) {
          return {
            objects: infos(answer.segment.blobItems),
            prefixes: [],
            next: answer.continuationToken || undefined,
          };
        }
      }
      return { objects: [], prefixes: [], next: undefined };
    });
  }

  async delete(key: string): Promise<boolean> {
    checkObjectKey(key);
    return this.#locks.run(key, async () => {
      this.#grower.forget(key);
      try {
        await this.#container.call({ action: 'delete', key }, (abortSignal) =>
          this.#container.blob(key).delete({ abortSignal, deleteSnapshots: 'include' }),
        );
        return true;
      } catch (error) {
        if (isMissing(error)) return false;
        throw error;
      }
    });
  }

  async #write(key: string, body: ObjectBody, options: PutOptions): Promise<void> {
    const size = bodyBytes(body);
    const what = { action: 'put', key };
    const conditions = options.ifAbsent ? { ifNoneMatch: '*' } : {};
    const blobHTTPHeaders = { blobContentType: options.contentType ?? 'application/octet-stream' };
    const blob = this.#container.blob(key);
    if (size <= SINGLE_BYTES) {
      const data = await wholeBody(body, this.#label(key));
      await this.#container.call({ ...what, bytes: size }, (abortSignal) =>
        blob.upload(data, data.length, { conditions, blobHTTPHeaders, abortSignal }),
      );
      return;
    }
    if (options.ifAbsent && (await this.head(key))) throw this.#alreadyExists(key);
    const ids: string[] = [];
    await stageBlocks(this.#container, what, namedBlocks(body, { size, ids, label: this.#label(key) }));
    await this.#container.call(what, (abortSignal) =>
      blob.commitBlockList(ids, { conditions, blobHTTPHeaders, abortSignal }),
    );
  }

  /** Whether a put that may not overwrite failed because there is an object. */
  async #existsAlready(key: string, error: AzureStorageError): Promise<boolean> {
    if (hasCode(error, 'BlobAlreadyExists', 'ConditionNotMet')) return true;
    // Where overwriting is forbidden altogether, and where another put of this key was faster, the answer names that.
    const maybe = hasCode(error, 'UnauthorizedBlobOverwrite', 'BlobImmutableDueToPolicy', 'InvalidBlockList');
    return maybe && (await this.head(key)) !== undefined;
  }

  #alreadyExists(key: string): AzureStorageError {
    return new AzureStorageError('conflict', `${this.#label(key)}: it exists`, { fix: '', code: 'BlobAlreadyExists' });
  }

  #label(key: string): string {
    return `datastore ${this.#name}: put ${showKey(key)}`;
  }
}

async function wholeBody(body: ObjectBody, label: string): Promise<Uint8Array> {
  if (body instanceof Uint8Array) return body;
  const chunks: Buffer[] = [];
  for await (const chunk of checkedChunks(body, label)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** The blocks of a body; their ids go into `ids`, in order, as they are made. */
async function* namedBlocks(
  body: ObjectBody,
  into: { size: number; ids: string[]; label: string },
): AsyncGenerator<Block & { release: () => void }> {
  const blockBytes = Math.max(BLOCK_BYTES, Math.ceil(into.size / MAX_BLOCKS));
  for await (const { offset, data, release } of bodyBlocks(body, blockBytes, into.label)) {
    const block = nameBlock(offset, data);
    into.ids.push(block.id);
    yield { ...block, release };
  }
}

function isMissing(error: unknown): boolean {
  return hasCode(error, 'BlobNotFound');
}

interface FoundProperties {
  readonly contentLength?: number;
  readonly etag?: string;
  readonly lastModified?: Date;
}

function objectInfo(key: string, found: FoundProperties): ObjectInfo {
  return {
    key,
    bytes: found.contentLength ?? 0,
    // Quoted in headers, bare in listings.
    etag: (found.etag ?? '').replaceAll('"', ''),
    modifiedMs: found.lastModified?.getTime() ?? 0,
  };
}

interface ListedBlob {
  readonly name: string;
  readonly properties: FoundProperties;
  readonly metadata?: Readonly<Record<string, string>>;
}

/** Accounts with a hierarchical namespace list their folders too, as empty blobs with this mark: they are no objects. */
function infos(items: readonly ListedBlob[]): ObjectInfo[] {
  return items
    .filter((item) => item.metadata?.['hdi_isfolder'] !== 'true')
    .map((item) => objectInfo(item.name, item.properties));
}
