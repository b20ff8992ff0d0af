import { type Generated, type Kysely, sql } from 'kysely';
import type { Clock } from '../kit/clock.ts';
import { ModeltapError } from '../kit/errors.ts';

/** When a row was made and last changed (ISO 8601, UTC), and how often: `revision` is 1 and grows by 1 with each change. */
interface Versioned {
  created_at: string;
  updated_at: string;
  revision: number;
}

/** The tables of a catalog. Columns ending in `_json` hold JSON text. */
export interface CatalogTables {
  settings: { name: string; value: string };
  endpoints: Versioned & { name: string; config_json: string; source_yaml: string | null };
  endpoint_keys: Versioned & { endpoint_name: string; primary_key: string; secondary_key: string };
  deployments: Versioned & {
    endpoint_name: string;
    name: string;
    config_json: string;
    source_yaml: string | null;
    provisioning_state: string;
    collector_port: number | null;
  };
  datastores: Versioned & { name: string; type: string; config_json: string };
  data_assets: Versioned & {
    /** Grows with every registration: the order of creation. */
    id: Generated<number>;
    name: string;
    version: string;
    type: string;
    path: string;
    description: string;
    tags_json: string;
    archived: number;
  };
  assets: Versioned & {
    /** Grows with every registration: the order of creation. */
    id: Generated<number>;
    /** `model` or `environment`. */
    kind: string;
    name: string;
    version: string;
    content_json: string;
    archived: number;
  };
  schema_migrations: { version: number; name: string; applied_at: string };
}

interface Migration {
  readonly name: string;
  readonly statements: readonly string[];
}

/** In order; never changed once released. The schema version is the number of migrations applied. */
const MIGRATIONS: readonly Migration[] = [
  {
    name: 'workspace, endpoints, deployments, datastores, data assets',
    statements: [
      'create table settings (name text primary key, value text not null) strict',
      `create table endpoints (
         name text primary key, config_json text not null, source_yaml text,
         created_at text not null, updated_at text not null, revision integer not null) strict`,
      `create table deployments (
         endpoint_name text not null references endpoints (name) on delete restrict, name text not null,
         config_json text not null, source_yaml text, provisioning_state text not null, collector_port integer,
         created_at text not null, updated_at text not null, revision integer not null,
         primary key (endpoint_name, name)) strict`,
      `create table datastores (
         name text primary key, type text not null, config_json text not null,
         created_at text not null, updated_at text not null, revision integer not null) strict`,
      `create table data_assets (
         id integer primary key autoincrement, name text not null, version text not null, type text not null,
         path text not null, description text not null, tags_json text not null, archived integer not null,
         created_at text not null, updated_at text not null, revision integer not null,
         unique (name, version)) strict`,
    ],
  },
  {
    name: 'models and environments',
    statements: [
      `create table assets (
         id integer primary key autoincrement, kind text not null, name text not null, version text not null,
         content_json text not null, archived integer not null,
         created_at text not null, updated_at text not null, revision integer not null,
         unique (kind, name, version)) strict`,
      // Environments were kept as written and never used. A reference has a form of its own now; the others are read
      // again with the next update of the deployment.
      `update deployments set config_json = json_set(config_json, '$.environment',
         json_object('reference', json_extract(config_json, '$.environment')))
         where json_type(config_json, '$.environment') = 'text'`,
      `update deployments set config_json = json_remove(config_json, '$.environment')
         where json_type(config_json, '$.environment') = 'object'
         and json_type(config_json, '$.environment.reference') is null`,
    ],
  },
  {
    name: 'keys of endpoints',
    statements: [
      `create table endpoint_keys (
         endpoint_name text primary key references endpoints (name) on delete cascade,
         primary_key text not null, secondary_key text not null,
         created_at text not null, updated_at text not null, revision integer not null) strict`,
    ],
  },
];

/** Highest schema version this code knows. */
export const SCHEMA_VERSION = MIGRATIONS.length;

/**
 * Brings a catalog to the newest schema, in one transaction. Throws `catalog_too_new` when a newer Modeltap wrote it.
 * Safe when several processes open the same new file at once.
 */
export async function migrate(
  database: Kysely<CatalogTables>,
  options: { readonly file: string; readonly clock: Clock },
): Promise<void> {
  await database.transaction().execute(async (trx) => {
    await sql`create table if not exists schema_migrations
      (version integer primary key, name text not null, applied_at text not null) strict`.execute(trx);
    const row = await trx
      .selectFrom('schema_migrations')
      .select((eb) => eb.fn.max('version').as('version'))
      .executeTakeFirst();
    const found = row?.version ?? 0;
    if (found > SCHEMA_VERSION) {
      throw new ModeltapError('catalog_too_new', { file: options.file, found, known: SCHEMA_VERSION });
    }
    for (const [index, migration] of MIGRATIONS.entries()) {
      if (index < found) continue;
      for (const statement of migration.statements) await sql.raw(statement).execute(trx);
      const applied_at = new Date(options.clock.now()).toISOString();
      await trx
        .insertInto('schema_migrations')
        .values({ version: index + 1, name: migration.name, applied_at })
        .execute();
    }
  });
}
