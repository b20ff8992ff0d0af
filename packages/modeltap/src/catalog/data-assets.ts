import type { ExpressionBuilder, Selectable, Transaction } from 'kysely';
import { parseAssetReference } from '../config/azureml-uri.ts';
import type { DataAssetConfig } from '../config/types.ts';
import { ModeltapError } from '../kit/errors.ts';
import { type Access, changed, created, KINDS, notFound, toTimes, write } from './access.ts';
import type { DataAssetEntry } from './entries.ts';
import type { CatalogTables } from './schema.ts';

/** Most versions `list` gives at once. */
const MAX_PAGE = 1000;

/** A data asset to register; what is left out has its default. */
export type DataAssetInput = Pick<DataAssetConfig, 'name' | 'path'> & Partial<Omit<DataAssetConfig, 'name' | 'path'>>;

/** Data assets of a workspace, by name and version. The path of a version never changes. */
export class DataAssetTable {
  readonly #access: Access;

  constructor(access: Access) {
    this.#access = access;
  }

  /**
   * Registers a version; without one, the highest whole number so far plus 1. A version that already has this path is
   * given back as it is (`created` false), and comes back when it was archived. Type `uri_folder` by default. Throws
   * `asset_version_taken` when the version has another path.
   */
  async register(input: DataAssetInput): Promise<{ readonly entry: DataAssetEntry; readonly created: boolean }> {
    return write(this.#access, async (trx) => {
      const { name } = input;
      const path = input.path.trim();
      const version = input.version ?? (await nextVersion(trx, name));
      const old = await trx
        .selectFrom('data_assets')
        .selectAll()
        .where('name', '=', name)
        .where('version', '=', version)
        .executeTakeFirst();
      if (old !== undefined && old.path !== path) {
        throw new ModeltapError('asset_version_taken', { name, version, path: old.path });
      }
      if (old?.archived === 0) return { entry: toEntry(old), created: false };
      if (old !== undefined) {
        const row = { ...old, archived: 0, ...changed(this.#access.clock, old.revision) };
        await trx
          .updateTable('data_assets')
          .set({ archived: 0, updated_at: row.updated_at, revision: row.revision })
          .where('id', '=', old.id)
          .execute();
        return { entry: toEntry(row), created: false };
      }
      const row = {
        name,
        version,
        type: input.type ?? 'uri_folder',
        path,
        description: input.description ?? '',
        tags_json: JSON.stringify(input.tags ?? {}),
        archived: 0,
        ...created(this.#access.clock),
      };
      await trx.insertInto('data_assets').values(row).execute();
      return { entry: toEntry(row), created: true };
    });
  }

  /** One version, archived or not; without one, the latest: the most recently registered that is not archived. */
  async find(name: string, version?: string): Promise<DataAssetEntry | undefined> {
    let query = this.#access.database.selectFrom('data_assets').selectAll().where('name', '=', name);
    query =
      version === undefined
        ? query.where('archived', '=', 0).orderBy('id', 'desc').limit(1)
        : query.where('version', '=', version);
    const row = await query.executeTakeFirst();
    return row && toEntry(row);
  }

  /** Like `find`, but throws `not_found`. */
  async get(name: string, version?: string): Promise<DataAssetEntry> {
    const entry = await this.find(name, version);
    if (entry === undefined) throw notFound(KINDS.dataAsset, version === undefined ? name : `${name}:${version}`);
    return entry;
  }

  /** What `azureml:<name>:<version>`, `azureml:<name>@latest` or `azureml:<name>` (also the latest) stands for. Throws `uri_invalid` or `not_found`. */
  async resolve(reference: string): Promise<DataAssetEntry> {
    const { name, version } = parseAssetReference(reference);
    return this.get(name, version);
  }

  /**
   * By name, newest version first; without a name, only the latest version of each asset. At most 1 000; `after` is the
   * last entry of the page before.
   */
  async list(
    options: {
      readonly name?: string;
      readonly archived?: boolean;
      readonly limit?: number;
      readonly after?: { readonly name: string; readonly version: string };
    } = {},
  ): Promise<readonly DataAssetEntry[]> {
    const limit = Math.min(options.limit ?? MAX_PAGE, MAX_PAGE);
    let query = this.#access.database
      .selectFrom('data_assets as a')
      .selectAll('a')
      .orderBy('a.name')
      .orderBy('a.id', 'desc')
      .limit(limit);
    if (options.archived !== true) query = query.where('a.archived', '=', 0);
    query =
      options.name === undefined
        ? query.where((where) => where.not(where.exists(newerVersion(where, options.archived === true))))
        : query.where('a.name', '=', options.name);
    const { after } = options;
    if (after !== undefined) query = query.where((where) => isAfter(where, after));
    return (await query.execute()).map(toEntry);
  }

  /** Hides a version from `list` and from the latest; `get` still finds it. Idempotent. Throws `not_found`. */
  async archive(name: string, version: string): Promise<DataAssetEntry> {
    return write(this.#access, async (trx) => {
      const old = await trx
        .selectFrom('data_assets')
        .selectAll()
        .where('name', '=', name)
        .where('version', '=', version)
        .executeTakeFirst();
      if (old === undefined) throw notFound(KINDS.dataAsset, `${name}:${version}`);
      if (old.archived === 1) return toEntry(old);
      const row = { ...old, archived: 1, ...changed(this.#access.clock, old.revision) };
      await trx
        .updateTable('data_assets')
        .set({ archived: 1, updated_at: row.updated_at, revision: row.revision })
        .where('id', '=', old.id)
        .execute();
      return toEntry(row);
    });
  }
}

type Where = ExpressionBuilder<CatalogTables & { a: CatalogTables['data_assets'] }, 'a'>;

function newerVersion(where: Where, archived: boolean) {
  return where
    .selectFrom('data_assets as b')
    .select('b.id')
    .whereRef('b.name', '=', 'a.name')
    .whereRef('b.id', '>', 'a.id')
    .where('b.archived', '<=', archived ? 1 : 0);
}

function isAfter(where: Where, after: { readonly name: string; readonly version: string }) {
  const id = where
    .selectFrom('data_assets as c')
    .select('c.id')
    .where('c.name', '=', after.name)
    .where('c.version', '=', after.version);
  return where.or([
    where('a.name', '>', after.name),
    where.and([where('a.name', '=', after.name), where('a.id', '<', id)]),
  ]);
}

async function nextVersion(trx: Transaction<CatalogTables>, name: string): Promise<string> {
  const rows = await trx.selectFrom('data_assets').select('version').where('name', '=', name).execute();
  const numbers = rows.map((row) => (/^\d{1,15}$/.test(row.version) ? Number(row.version) : 0));
  return String(numbers.reduce((highest, each) => Math.max(highest, each), 0) + 1);
}

function toEntry(row: Omit<Selectable<CatalogTables['data_assets']>, 'id'>): DataAssetEntry {
  return {
    name: row.name,
    version: row.version,
    type: row.type as DataAssetEntry['type'],
    path: row.path,
    description: row.description,
    tags: JSON.parse(row.tags_json),
    archived: row.archived === 1,
    ...toTimes(row),
  };
}
