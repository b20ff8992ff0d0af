import type { Selectable } from 'kysely';
import type { EndpointConfig } from '../config/types.ts';
import { ModeltapError } from '../kit/errors.ts';
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
import type { EndpointEntry } from './entries.ts';
import type { CatalogTables } from './schema.ts';

/** Azure ML's limit for a subscription and region. */
export const MAX_ENDPOINTS = 100;

/** Endpoints of a workspace, by name. */
export class EndpointTable {
  readonly #access: Access;

  constructor(access: Access) {
    this.#access = access;
  }

  /** Throws `already_exists`, or `limit_reached` at 100 endpoints. */
  async create(config: EndpointConfig, options: { readonly sourceYaml?: string } = {}): Promise<EndpointEntry> {
    const { clock } = this.#access;
    return write(this.#access, async (trx) => {
      if (await trx.selectFrom('endpoints').select('name').where('name', '=', config.name).executeTakeFirst()) {
        throw alreadyExists(KINDS.endpoint, config.name);
      }
      const { count } = await trx
        .selectFrom('endpoints')
        .select((eb) => eb.fn.countAll().as('count'))
        .executeTakeFirstOrThrow();
      requireRoom(count, MAX_ENDPOINTS, 'endpoints');
      const row = {
        name: config.name,
        config_json: JSON.stringify(config),
        source_yaml: options.sourceYaml ?? null,
        ...created(clock),
      };
      await trx.insertInto('endpoints').values(row).execute();
      return toEntry(row);
    });
  }

  /** Undefined when there is none. */
  async find(name: string): Promise<EndpointEntry | undefined> {
    const row = await this.#access.database
      .selectFrom('endpoints')
      .selectAll()
      .where('name', '=', name)
      .executeTakeFirst();
    return row && toEntry(row);
  }

  /** Throws `not_found`. */
  async get(name: string): Promise<EndpointEntry> {
    const entry = await this.find(name);
    if (entry === undefined) throw notFound(KINDS.endpoint, name);
    return entry;
  }

  /** All, by name. */
  async list(): Promise<readonly EndpointEntry[]> {
    const rows = await this.#access.database.selectFrom('endpoints').selectAll().orderBy('name').execute();
    return rows.map(toEntry);
  }

  /** Replaces the configuration; its name does not change. Throws `not_found` or `revision_conflict`. */
  async update(
    name: string,
    change: { readonly config: Omit<EndpointConfig, 'name'>; readonly sourceYaml?: string },
    expected: Expected = {},
  ): Promise<EndpointEntry> {
    const { clock } = this.#access;
    return write(this.#access, async (trx) => {
      const old = await trx.selectFrom('endpoints').selectAll().where('name', '=', name).executeTakeFirst();
      if (old === undefined) throw notFound(KINDS.endpoint, name);
      requireRevision(KINDS.endpoint, name, old.revision, expected);
      const row = {
        ...old,
        config_json: JSON.stringify({ ...change.config, name }),
        source_yaml: change.sourceYaml ?? old.source_yaml,
        ...changed(clock, old.revision),
      };
      await trx.updateTable('endpoints').set(row).where('name', '=', name).execute();
      return toEntry(row);
    });
  }

  /**
   * Changes the configuration by a function of the present one and the names of the endpoint's deployments that are not
   * being deleted, with nothing in between. Throws `not_found` and what `change` throws.
   */
  async edit(
    name: string,
    change: (config: EndpointConfig, deployments: readonly string[]) => EndpointConfig,
    options: { readonly sourceYaml?: string } = {},
  ): Promise<EndpointEntry> {
    const { clock } = this.#access;
    return write(this.#access, async (trx) => {
      const old = await trx.selectFrom('endpoints').selectAll().where('name', '=', name).executeTakeFirst();
      if (old === undefined) throw notFound(KINDS.endpoint, name);
      const deployments = await trx
        .selectFrom('deployments')
        .select('name')
        .where('endpoint_name', '=', name)
        .where('provisioning_state', '!=', 'Deleting')
        .orderBy('name')
        .execute();
      const config = change(
        JSON.parse(old.config_json),
        deployments.map((row) => row.name),
      );
      const row = {
        ...old,
        config_json: JSON.stringify({ ...config, name }),
        source_yaml: options.sourceYaml ?? old.source_yaml,
        ...changed(clock, old.revision),
      };
      await trx.updateTable('endpoints').set(row).where('name', '=', name).execute();
      return toEntry(row);
    });
  }

  /** Throws `not_found`, `revision_conflict`, or `endpoint_has_deployments`. */
  async delete(name: string, expected: Expected = {}): Promise<void> {
    await write(this.#access, async (trx) => {
      const old = await trx.selectFrom('endpoints').select('revision').where('name', '=', name).executeTakeFirst();
      if (old === undefined) throw notFound(KINDS.endpoint, name);
      requireRevision(KINDS.endpoint, name, old.revision, expected);
      const left = await trx
        .selectFrom('deployments')
        .select('name')
        .where('endpoint_name', '=', name)
        .orderBy('name')
        .execute();
      if (left.length > 0) {
        throw new ModeltapError('endpoint_has_deployments', {
          name,
          deployments: left.map((row) => row.name).join(', '),
        });
      }
      await trx.deleteFrom('endpoints').where('name', '=', name).execute();
    });
  }
}

function toEntry(row: Selectable<CatalogTables['endpoints']>): EndpointEntry {
  return { config: JSON.parse(row.config_json), sourceYaml: row.source_yaml ?? undefined, ...toTimes(row) };
}
