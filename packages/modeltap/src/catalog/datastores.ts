import type { Selectable } from 'kysely';
import type { DatastoreConfig } from '../config/types.ts';
import {
  type Access,
  alreadyExists,
  changed,
  created,
  type Expected,
  KINDS,
  notFound,
  requireRevision,
  requireRoom,
  toTimes,
  write,
} from './access.ts';
import type { DatastoreEntry } from './entries.ts';
import { publicDatastore } from './public.ts';
import type { CatalogTables } from './schema.ts';

/** More than any workspace needs; keeps `list` bounded. */
export const MAX_DATASTORES = 200;

/** Datastores of a workspace, by name. */
export class DatastoreTable {
  readonly #access: Access;

  constructor(access: Access) {
    this.#access = access;
  }

  /** Throws `already_exists`, or `limit_reached` at 200 datastores. */
  async create(config: DatastoreConfig): Promise<DatastoreEntry> {
    const { clock } = this.#access;
    return write(this.#access, async (trx) => {
      if (await trx.selectFrom('datastores').select('name').where('name', '=', config.name).executeTakeFirst()) {
        throw alreadyExists(KINDS.datastore, config.name);
      }
      const { count } = await trx
        .selectFrom('datastores')
        .select((eb) => eb.fn.countAll().as('count'))
        .executeTakeFirstOrThrow();
      requireRoom(count, MAX_DATASTORES, 'datastores');
      const row = { name: config.name, type: config.type, config_json: JSON.stringify(config), ...created(clock) };
      await trx.insertInto('datastores').values(row).execute();
      return toEntry(row);
    });
  }

  /** Undefined when there is none. */
  async find(name: string): Promise<DatastoreEntry | undefined> {
    const row = await this.#access.database
      .selectFrom('datastores')
      .selectAll()
      .where('name', '=', name)
      .executeTakeFirst();
    return row && toEntry(row);
  }

  /** Throws `not_found`. */
  async get(name: string): Promise<DatastoreEntry> {
    const entry = await this.find(name);
    if (entry === undefined) throw notFound(KINDS.datastore, name);
    return entry;
  }

  /** All, by name. */
  async list(): Promise<readonly DatastoreEntry[]> {
    const rows = await this.#access.database.selectFrom('datastores').selectAll().orderBy('name').execute();
    return rows.map(toEntry);
  }

  /** Replaces the configuration of the datastore of that name. Throws `not_found` or `revision_conflict`. */
  async update(config: DatastoreConfig, expected: Expected = {}): Promise<DatastoreEntry> {
    const { name } = config;
    return write(this.#access, async (trx) => {
      const old = await trx.selectFrom('datastores').selectAll().where('name', '=', name).executeTakeFirst();
      if (old === undefined) throw notFound(KINDS.datastore, name);
      requireRevision(KINDS.datastore, name, old.revision, expected);
      const row = {
        ...old,
        type: config.type,
        config_json: JSON.stringify(config),
        ...changed(this.#access.clock, old.revision),
      };
      await trx.updateTable('datastores').set(row).where('name', '=', name).execute();
      return toEntry(row);
    });
  }

  /** Takes it out of the catalog; its data stays where it is. Throws `not_found` or `revision_conflict`. */
  async delete(name: string, expected: Expected = {}): Promise<void> {
    await write(this.#access, async (trx) => {
      const old = await trx.selectFrom('datastores').select('revision').where('name', '=', name).executeTakeFirst();
      if (old === undefined) throw notFound(KINDS.datastore, name);
      requireRevision(KINDS.datastore, name, old.revision, expected);
      await trx.deleteFrom('datastores').where('name', '=', name).execute();
    });
  }
}

function toEntry(row: Selectable<CatalogTables['datastores']>): DatastoreEntry {
  const entry: DatastoreEntry = { config: JSON.parse(row.config_json), ...toTimes(row) };
  // An entry that reaches a log line or an answer by mistake shows no credentials.
  Object.defineProperty(entry, 'toJSON', { value: () => publicDatastore(entry) });
  return entry;
}
