import type { Selectable } from 'kysely';
import type { DeploymentConfig } from '../config/types.ts';
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
import type { DeploymentEntry, ProvisioningState } from './entries.ts';
import { completeEnvironment } from './environments.ts';
import type { CatalogTables } from './schema.ts';

/** Azure ML's limit for one endpoint. */
export const MAX_DEPLOYMENTS_PER_ENDPOINT = 20;

/** What is kept beside the configuration of a deployment. */
export interface DeploymentChange {
  readonly config?: DeploymentConfig;
  readonly sourceYaml?: string;
  readonly provisioningState?: ProvisioningState;
  /** `null` takes the port away. */
  readonly collectorPort?: number | null;
}

/** Deployments of a workspace, by endpoint and name. */
export class DeploymentTable {
  readonly #access: Access;

  constructor(access: Access) {
    this.#access = access;
  }

  /**
   * `provisioningState` is `Creating` by default. Throws `not_found` when the endpoint does not exist, `already_exists`, or
   * `limit_reached` at 20 deployments of the endpoint.
   */
  async create(config: DeploymentConfig, options: Omit<DeploymentChange, 'config'> = {}): Promise<DeploymentEntry> {
    const { clock } = this.#access;
    return write(this.#access, async (trx) => {
      const endpoint = await trx
        .selectFrom('endpoints')
        .select('name')
        .where('name', '=', config.endpointName)
        .executeTakeFirst();
      if (endpoint === undefined) throw notFound(KINDS.endpoint, config.endpointName);
      const siblings = await trx
        .selectFrom('deployments')
        .select('name')
        .where('endpoint_name', '=', config.endpointName)
        .execute();
      if (siblings.some((sibling) => sibling.name === config.name)) {
        throw alreadyExists(KINDS.deployment, `${config.endpointName}/${config.name}`);
      }
      requireRoom(siblings.length, MAX_DEPLOYMENTS_PER_ENDPOINT, `deployments of endpoint "${config.endpointName}"`);
      const row = {
        endpoint_name: config.endpointName,
        name: config.name,
        config_json: JSON.stringify(config),
        source_yaml: options.sourceYaml ?? null,
        provisioning_state: options.provisioningState ?? 'Creating',
        collector_port: options.collectorPort ?? null,
        ...created(clock),
      };
      await trx.insertInto('deployments').values(row).execute();
      return toEntry(row);
    });
  }

  /** Undefined when there is none. */
  async find(endpointName: string, name: string): Promise<DeploymentEntry | undefined> {
    const query = this.#access.database.selectFrom('deployments').selectAll();
    const row = await query.where('endpoint_name', '=', endpointName).where('name', '=', name).executeTakeFirst();
    return row && toEntry(row);
  }

  /** Throws `not_found`. */
  async get(endpointName: string, name: string): Promise<DeploymentEntry> {
    const entry = await this.find(endpointName, name);
    if (entry === undefined) throw notFound(KINDS.deployment, `${endpointName}/${name}`);
    return entry;
  }

  /** Those of one endpoint, or all, by endpoint and name. */
  async list(endpointName?: string): Promise<readonly DeploymentEntry[]> {
    let query = this.#access.database.selectFrom('deployments').selectAll().orderBy('endpoint_name').orderBy('name');
    if (endpointName !== undefined) query = query.where('endpoint_name', '=', endpointName);
    return (await query.execute()).map(toEntry);
  }

  /** Changes what `change` names; the names of a deployment do not change. Throws `not_found` or `revision_conflict`. */
  async update(
    id: { readonly endpointName: string; readonly name: string },
    change: DeploymentChange,
    expected: Expected = {},
  ): Promise<DeploymentEntry> {
    const { endpointName, name } = id;
    return write(this.#access, async (trx) => {
      const old = await trx
        .selectFrom('deployments')
        .selectAll()
        .where('endpoint_name', '=', endpointName)
        .where('name', '=', name)
        .executeTakeFirst();
      if (old === undefined) throw notFound(KINDS.deployment, `${endpointName}/${name}`);
      requireRevision(KINDS.deployment, `${endpointName}/${name}`, old.revision, expected);
      const row = {
        ...old,
        config_json:
          change.config === undefined ? old.config_json : JSON.stringify({ ...change.config, endpointName, name }),
        source_yaml: change.sourceYaml ?? old.source_yaml,
        provisioning_state: change.provisioningState ?? old.provisioning_state,
        collector_port: change.collectorPort === undefined ? old.collector_port : change.collectorPort,
        ...changed(this.#access.clock, old.revision),
      };
      await trx
        .updateTable('deployments')
        .set(row)
        .where('endpoint_name', '=', endpointName)
        .where('name', '=', name)
        .execute();
      return toEntry(row);
    });
  }

  /** Throws `not_found` or `revision_conflict`. */
  async delete(endpointName: string, name: string, expected: Expected = {}): Promise<void> {
    await write(this.#access, async (trx) => {
      const query = trx.selectFrom('deployments').select('revision');
      const old = await query.where('endpoint_name', '=', endpointName).where('name', '=', name).executeTakeFirst();
      if (old === undefined) throw notFound(KINDS.deployment, `${endpointName}/${name}`);
      requireRevision(KINDS.deployment, `${endpointName}/${name}`, old.revision, expected);
      await trx.deleteFrom('deployments').where('endpoint_name', '=', endpointName).where('name', '=', name).execute();
    });
  }
}

function toEntry(row: Selectable<CatalogTables['deployments']>): DeploymentEntry {
  const stored = JSON.parse(row.config_json) as DeploymentConfig;
  const { environment } = stored;
  return {
    // JSON leaves out what is undefined, so the keys that must exist are put back.
    config: {
      ...stored,
      model: stored.model,
      code: stored.code,
      environment:
        environment === undefined || 'reference' in environment ? environment : completeEnvironment(environment),
      dataCollector: stored.dataCollector,
    },
    sourceYaml: row.source_yaml ?? undefined,
    provisioningState: row.provisioning_state as ProvisioningState,
    collectorPort: row.collector_port ?? undefined,
    ...toTimes(row),
  };
}
