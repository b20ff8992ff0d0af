import type { Readable } from 'node:stream';

/** What an object is made of: bytes in memory, or a stream that can be opened again for a retry. */
export type ObjectBody = Uint8Array | { readonly bytes: number; open(): Readable };

/** What is known of an object without reading it. */
export interface ObjectInfo {
  readonly key: string;
  readonly bytes: number;
  /** Changes with every write. */
  readonly etag: string;
  readonly modifiedMs: number;
}

/** One page of a listing, in byte order of the key. */
export interface ObjectPage {
  readonly objects: readonly ObjectInfo[];
  /** With a delimiter: the distinct key beginnings up to and with the delimiter ("folders"). */
  readonly prefixes: readonly string[];
  /** Hand this to the next call as `after`; undefined when the listing is complete. */
  readonly next: string | undefined;
}

/** What to list. */
export interface ListOptions {
  /** Only keys that begin with this text. Default: all. */
  readonly prefix?: string;
  /** Usually `/`: keys are cut at its first place behind the prefix and given once, as `prefixes`. */
  readonly delimiter?: string;
  /** The `next` of the page before. Opaque: only a value this store gave out. */
  readonly after?: string;
  /** Most entries in a page. Default and maximum 5 000. */
  readonly limit?: number;
}

/**
 * A place that holds objects by key. Keys are relative, `/`-separated, at most 1 024 bytes, without `.`/`..` parts,
 * NUL or a leading slash; a store refuses others with `bad_object_key` and never writes outside its root.
 *
 * A missing object is a value (`undefined`, `false`), not an error. Whatever else goes wrong is a `StorageError`.
 */
export interface ObjectStore {
  /** `local`, `azure_blob`, … */
  readonly kind: string;
  readonly limits: StoreLimits;
  /** The address a reader would use for the object: an absolute path on local disk, else `https://account.blob.core.windows.net/container/key`, percent-encoded. */
  url(key: string): string;
  /**
   * Writes the whole object. With `ifAbsent`, `created` is false and nothing is changed when the key exists. An
   * interrupted call leaves the old object or none, never a part.
   */
  put(
    key: string,
    body: ObjectBody,
    options?: { readonly ifAbsent?: boolean; readonly contentType?: string },
  ): Promise<{ readonly created: boolean }>;
  /**
   * Makes `chunk` the bytes of the object from `offset` on, where `offset` is the object's length before the call (0:
   * the object must not exist or be empty). Idempotent: the same call made again, after a crash at any point, leaves the
   * same object, whose length is `offset + chunk.length`. A tail that an interrupted attempt at this very call left is
   * replaced. When the object has another length, or other bytes at `offset`, than these calls explain,
   * it is a `StorageError` of kind `conflict` and nothing is changed. Only on stores with `limits.appends > 0`.
   */
  append(key: string, chunk: Uint8Array, offset: number): Promise<void>;
  /** Streams the object or the range `[start, end)` of it. Undefined when there is none. */
  get(key: string, range?: { readonly start: number; readonly end?: number }): Promise<Readable | undefined>;
  head(key: string): Promise<ObjectInfo | undefined>;
  list(options?: ListOptions): Promise<ObjectPage>;
  /** True when there was one. */
  delete(key: string): Promise<boolean>;
}

/** What a store can do. */
export interface StoreLimits {
  /** Most appends one object takes; 0 where appending is not possible; Infinity where there is no limit. */
  readonly appends: number;
  /** Largest object that is grown by appends, bytes. */
  readonly appendBytes: number;
}

/** Why a store did not do what it was asked. */
export type StorageErrorKind =
  /** 401, 403, EACCES: credentials or rights. Retried slowly for ever, with an alarm: an operator can mend it. */
  | 'refused'
  /** 429, 503 busy. */
  | 'throttled'
  /** No connection, time-out, reset, 5xx. */
  | 'unreachable'
  /** ENOSPC, quota. */
  | 'full'
  /** The container, bucket or root folder does not exist. */
  | 'no_container'
  /** Another writer changed the object. */
  | 'conflict'
  /** The request itself is wrong; the same call can never succeed. */
  | 'invalid';

/** Raised by every store. `message` names the store and key and never holds a secret. */
export class StorageError extends Error {
  override readonly name = 'StorageError';
  readonly kind: StorageErrorKind;
  /** False only for `conflict` and `invalid`. */
  readonly retryable: boolean;
  /** What the store asked for (Retry-After), if anything. */
  readonly retryAfterMs: number | undefined;
  /** What an operator can do about it. */
  readonly fix: string;

  constructor(
    kind: StorageErrorKind,
    message: string,
    options: { fix?: string; retryAfterMs?: number; cause?: unknown } = {},
  ) {
    super(message, { cause: options.cause });
    this.kind = kind;
    this.retryable = kind !== 'conflict' && kind !== 'invalid';
    this.retryAfterMs = options.retryAfterMs;
    this.fix = options.fix ?? '';
  }
}

/** Where a datastore is, with its credentials resolved: lives in memory only, never in a log line or an answer. */
export type DatastoreOptions =
  | { readonly type: 'local'; readonly name: string; readonly path: string }
  | {
      readonly type: 'azure_blob';
      readonly name: string;
      readonly accountName: string;
      readonly containerName: string;
      /** Blob service address without container, e.g. `https://acct.blob.core.windows.net` or Azurite's `http://127.0.0.1:10000/devstoreaccount1`. */
      readonly serviceUrl: string;
      readonly credentials:
        | { readonly kind: 'account_key'; readonly accountKey: string }
        | { readonly kind: 'sas_token'; readonly sasToken: string }
        | { readonly kind: 'connection_string'; readonly connectionString: string };
    };
