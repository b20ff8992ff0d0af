import type { ExpressionBuilder, Selectable, Transaction } from 'kysely';
import { ModeltapError } from '../kit/errors.ts';
import { type Access, changed, created, type Kind, notFound, toTimes, write } from './access.ts';
import type { EntryTimes } from './entries.ts';
import type { CatalogTables } from './schema.ts';

/** Most versions `list` gives at once. */
const MAX_PAGE = 1000;
/** Most names or versions that an error text lists. */
const MAX_NAMED = 10;

/** One registered version of a kind of asset. */
export interface AssetVersion<C> extends EntryTimes {
  readonly name: string;
  readonly version: string;
  /** What was registered; plain JSON. */
  readonly content: C;
  readonly archived: boolean;
}

/** What `list` gives. */
export interface AssetPage {
  /** Only the versions of this one, newest first. Without it, the latest version of each, by name. */
  readonly name?: string;
  /** Archived versions too. Default false. */
  readonly archived?: boolean;
  /** Default and maximum 1 000. */
  readonly limit?: number;
}

/** Versions of one kind of asset, by name. What a version holds never changes. */
export class AssetVersions<C> {
  readonly #access: Access;
  readonly #kind: Kind;
  readonly #same: (a: C, b: C) => boolean;

  /** `same` says whether two contents stand for the same thing, so that registering it again changes nothing. */
  constructor(access: Access, kind: Kind, same: (a: C, b: C) => boolean) {
    this.#access = access;
    this.#kind = kind;
    this.#same = same;
  }

  /**
   * Registers a version; without one, the highest whole number so far plus 1. A version that already has this content is
   * given back as it is (`created` false), and comes back when it was archived. Throws `version_taken` when it has another.
   */
  async register(
    input: { readonly name: string; readonly version: string | undefined },
    content: C,
  ): Promise<{ readonly entry: AssetVersion<C>; readonly created: boolean }> {
    const { kind } = this.#kind;
    const { name } = input;
    return write(this.#access, async (trx) => {
      const version = input.version ?? (await this.#next(trx, name));
      const old = await this.#rows(trx).where('name', '=', name).where('version', '=', version).executeTakeFirst();
      if (old === undefined) {
        const content_json = JSON.stringify(content);
        const row = { kind, name, version, content_json, archived: 0, ...created(this.#access.clock) };
        await trx.insertInto('assets').values(row).execute();
        return { entry: toVersion<C>(row), created: true };
      }
      if (!this.#same(JSON.parse(old.content_json), content)) {
        throw new ModeltapError('version_taken', { kind, name, version });
      }
      return { entry: await this.#setArchived(trx, old, 0), created: false };
    });
  }

  /** One version, archived or not; without one, the latest: the most recently registered that is not archived. */
  async find(name: string, version?: string): Promise<AssetVersion<C> | undefined> {
    let query = this.#rows(this.#access.database).where('name', '=', name);
    query =
      version === undefined
        ? query.where('archived', '=', 0).orderBy('id', 'desc').limit(1)
        : query.where('version', '=', version);
    const row = await query.executeTakeFirst();
    return row && toVersion<C>(row);
  }

  /** Like `find`, but throws `not_found`. */
  async get(name: string, version?: string): Promise<AssetVersion<C>> {
    const found = await this.find(name, version);
    if (found === undefined) throw notFound(this.#kind, version === undefined ? name : `${name}:${version}`);
    return found;
  }

  /** The error for a reference that leads nowhere; it lists the versions of `name`, or the names there are. */
  async unknown(reference: string, name: string): Promise<ModeltapError> {
    const versions = (await this.list({ name })).map((each) => `${name}:${each.version}`);
    const texts = versions.length > 0 ? versions : (await this.list()).map((each) => each.name);
    const more = texts.length > MAX_NAMED ? ` and ${texts.length - MAX_NAMED} more` : '';
    const known = texts.length === 0 ? 'nothing yet' : `${texts.slice(0, MAX_NAMED).join(', ')}${more}`;
    return new ModeltapError('reference_unknown', { ...this.#kind, reference, known });
  }

  /** The version that `register` would give next to an asset of this name. */
  async nextVersion(name: string): Promise<string> {
    return this.#next(this.#access.database, name);
  }

  async list(page: AssetPage = {}): Promise<readonly AssetVersion<C>[]> {
    const { name, archived = false, limit = MAX_PAGE } = page;
    let query = this.#access.database
      .selectFrom('assets as a')
      .selectAll('a')
      .where('a.kind', '=', this.#kind.kind)
      .orderBy('a.name')
      .orderBy('a.id', 'desc')
      .limit(Math.min(limit, MAX_PAGE));
    if (!archived) query = query.where('a.archived', '=', 0);
    query =
      name === undefined
        ? query.where((where) => where.not(where.exists(newerVersion(where, archived))))
        : query.where('a.name', '=', name);
    return (await query.execute()).map((row) => toVersion<C>(row));
  }

  /** Hides a version from `list` and from the latest, or shows it again; `get` always finds it. Idempotent. Throws `not_found`. */
  async setArchived(name: string, version: string, archived: boolean): Promise<AssetVersion<C>> {
    return write(this.#access, async (trx) => {
      const old = await this.#rows(trx).where('name', '=', name).where('version', '=', version).executeTakeFirst();
      if (old === undefined) throw notFound(this.#kind, `${name}:${version}`);
      return this.#setArchived(trx, old, archived ? 1 : 0);
    });
  }

  async #setArchived(
    trx: Transaction<CatalogTables>,
    old: Selectable<CatalogTables['assets']>,
    archived: 0 | 1,
  ): Promise<AssetVersion<C>> {
    if (old.archived === archived) return toVersion<C>(old);
    const row = { ...old, archived, ...changed(this.#access.clock, old.revision) };
    const { updated_at, revision } = row;
    await trx.updateTable('assets').set({ archived, updated_at, revision }).where('id', '=', old.id).execute();
    return toVersion<C>(row);
  }

  #rows(database: Pick<Transaction<CatalogTables>, 'selectFrom'>) {
    return database.selectFrom('assets').selectAll().where('kind', '=', this.#kind.kind);
  }

  async #next(database: Pick<Transaction<CatalogTables>, 'selectFrom'>, name: string): Promise<string> {
    const rows = await this.#rows(database).where('name', '=', name).execute();
    const numbers = rows.map((row) => (/^\d{1,15}$/.test(row.version) ? Number(row.version) : 0));
    return String(numbers.reduce((highest, each) => Math.max(highest, each), 0) + 1);
  }
}

type Where = ExpressionBuilder<CatalogTables & { a: CatalogTables['assets'] }, 'a'>;

function newerVersion(where: Where, archived: boolean) {
  return where
    .selectFrom('assets as b')
    .select('b.id')
    .whereRef('b.kind', '=', 'a.kind')
    .whereRef('b.name', '=', 'a.name')
    .whereRef('b.id', '>', 'a.id')
    .where('b.archived', '<=', archived ? 1 : 0);
}

function toVersion<C>(row: Omit<Selectable<CatalogTables['assets']>, 'id'>): AssetVersion<C> {
  return {
    name: row.name,
    version: row.version,
    content: JSON.parse(row.content_json),
    archived: row.archived === 1,
    ...toTimes(row),
  };
}
