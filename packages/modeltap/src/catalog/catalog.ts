import { closeSync, chmodSync, openSync } from 'node:fs';
import { Kysely } from 'kysely';
import { type Clock, systemClock } from '../kit/clock.ts';
import { errorText, isModeltapError, ModeltapError } from '../kit/errors.ts';
import { type Access, write } from './access.ts';
import { DataAssetTable } from './data-assets.ts';
import { DatastoreTable } from './datastores.ts';
import { DeploymentTable } from './deployments.ts';
import { EndpointKeyTable } from './endpoint-keys.ts';
import { EndpointTable } from './endpoints.ts';
import { EnvironmentTable } from './environments.ts';
import { ModelTable } from './models.ts';
import { type CatalogTables, migrate } from './schema.ts';
import { isBusy, NodeSqliteDialect } from './sqlite.ts';

/** Everything a workspace knows, in one SQLite file. Several processes may have the same file open. */
export class Catalog {
  readonly endpoints: EndpointTable;
  readonly endpointKeys: EndpointKeyTable;
  readonly deployments: DeploymentTable;
  readonly datastores: DatastoreTable;
  readonly dataAssets: DataAssetTable;
  readonly models: ModelTable;
  readonly environments: EnvironmentTable;
  readonly #access: Access;

  /** Use `openCatalog`. */
  constructor(access: Access) {
    this.#access = access;
    this.endpoints = new EndpointTable(access);
    this.endpointKeys = new EndpointKeyTable(access);
    this.deployments = new DeploymentTable(access);
    this.datastores = new DatastoreTable(access);
    this.dataAssets = new DataAssetTable(access);
    this.models = new ModelTable(access);
    this.environments = new EnvironmentTable(access);
  }

  /** A setting of the workspace, or undefined. */
  async getSetting(name: string): Promise<string | undefined> {
    const row = await this.#access.database
      .selectFrom('settings')
      .select('value')
      .where('name', '=', name)
      .executeTakeFirst();
    return row?.value;
  }

  async setSetting(name: string, value: string): Promise<void> {
    await write(this.#access, async (trx) => {
      await trx
        .insertInto('settings')
        .values({ name, value })
        .onConflict((conflict) => conflict.column('name').doUpdateSet({ value }))
        .execute();
    });
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await this.#access.database.destroy();
  }
}

/**
 * Opens the catalog in `file`, or makes one; its folder must exist. The file is readable by its owner only, because it may hold
 * secrets. Throws `catalog_too_new`, `catalog_busy` or `catalog_unreadable`.
 */
export async function openCatalog(file: string, options: { readonly clock?: Clock } = {}): Promise<Catalog> {
  const { clock = systemClock } = options;
  const database = new Kysely<CatalogTables>({ dialect: new NodeSqliteDialect(file, clock), log: [] });
  try {
    // SQLite gives its companion files the mode of the main one, so the mode must be right before SQLite sees the file.
    closeSync(openSync(file, 'a', 0o600));
    chmodSync(file, 0o600);
    await migrate(database, { file, clock });
  } catch (error) {
    await database.destroy();
    if (isModeltapError(error)) throw error;
    if (isBusy(error)) throw new ModeltapError('catalog_busy', { file }, { cause: error });
    throw new ModeltapError('catalog_unreadable', { file, detail: errorText(error) }, { cause: error });
  }
  return new Catalog({ file, database, clock });
}
