import type { Kysely, Transaction } from 'kysely';
import type { Clock } from '../kit/clock.ts';
import { ModeltapError } from '../kit/errors.ts';
import type { EntryTimes } from './entries.ts';
import { isBusy } from './sqlite.ts';
import type { CatalogTables } from './schema.ts';

/** What every part of the catalog works with. */
export interface Access {
  readonly file: string;
  readonly database: Kysely<CatalogTables>;
  readonly clock: Clock;
}

/** How an error names a thing. */
export interface Kind {
  readonly kind: string;
  /** Its command. */
  readonly command: string;
}

/** Names of things as errors say them. */
export const KINDS = {
  endpoint: { kind: 'endpoint', command: 'online-endpoint' },
  deployment: { kind: 'deployment', command: 'online-deployment' },
  datastore: { kind: 'datastore', command: 'datastore' },
  dataAsset: { kind: 'data asset', command: 'data' },
  model: { kind: 'model', command: 'model' },
  environment: { kind: 'environment', command: 'environment' },
} as const satisfies Record<string, Kind>;

/** The revision the caller has seen; the call fails with `revision_conflict` when it is no longer the current one. */
export interface Expected {
  readonly revision?: number;
}

/** Runs `work` with the write lock held. Throws `catalog_busy` when another process does not give it up. */
export async function write<T>(access: Access, work: (trx: Transaction<CatalogTables>) => Promise<T>): Promise<T> {
  try {
    return await access.database.transaction().execute(work);
  } catch (error) {
    if (isBusy(error)) throw new ModeltapError('catalog_busy', { file: access.file }, { cause: error });
    throw error;
  }
}

/** `not_found`. */
export function notFound(kind: Kind, name: string): ModeltapError {
  return new ModeltapError('not_found', { ...kind, name });
}

/** `already_exists`. */
export function alreadyExists(kind: Kind, name: string): ModeltapError {
  return new ModeltapError('already_exists', { ...kind, name });
}

/** Throws `revision_conflict` when the caller has seen another revision. */
export function requireRevision(kind: Kind, name: string, current: number, expected: Expected): void {
  if (expected.revision !== undefined && expected.revision !== current) {
    throw new ModeltapError('revision_conflict', { ...kind, name });
  }
}

/** Throws `limit_reached` when `count` things are as many as may be. */
export function requireRoom(count: unknown, limit: number, kind: string): void {
  if (Number(count) >= limit) throw new ModeltapError('limit_reached', { limit, kind });
}

/** Columns of a new row. */
export function created(clock: Clock) {
  const now = new Date(clock.now()).toISOString();
  return { created_at: now, updated_at: now, revision: 1 };
}

/** Columns of a changed row. */
export function changed(clock: Clock, revision: number) {
  return { updated_at: new Date(clock.now()).toISOString(), revision: revision + 1 };
}

/** The times and revision of a row. */
export function toTimes(row: { created_at: string; updated_at: string; revision: number }): EntryTimes {
  return { createdAt: row.created_at, updatedAt: row.updated_at, revision: row.revision };
}
