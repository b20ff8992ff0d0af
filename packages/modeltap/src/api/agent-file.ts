import { stringify } from 'yaml';
import type { CollectionConfig, DataCollectorConfig, DatastoreConfig } from '../config/types.ts';

/** A deployment as it stands in the agent's file. */
export interface CollectedDeployment {
  readonly endpointName: string;
  readonly deploymentName: string;
  readonly source: string;
  readonly port: number;
  readonly dataCollector: DataCollectorConfig;
}

/** What the file says. */
export interface AgentFileOptions {
  readonly host: string;
  readonly port: number;
  readonly spoolDirectory: string;
  readonly datastores: readonly DatastoreConfig[];
  readonly deployments: readonly CollectedDeployment[];
}

/** The text of the workspace's own agent file: the same format as a user's (docs/agent-yaml.md). */
export function agentFile(options: AgentFileOptions): string {
  const text = stringify(
    {
      host: options.host,
      port: options.port,
      spool: { path: options.spoolDirectory },
      // While a deployment is replaced, the collections of both versions are taken.
      max_collections: 1000,
      datastores: options.datastores.map(datastoreYaml),
      deployments: options.deployments.map((deployment) => ({
        endpoint_name: deployment.endpointName,
        deployment_name: deployment.deploymentName,
        source: deployment.source,
        port: deployment.port,
        data_collector: dataCollectorYaml(deployment.dataCollector),
      })),
    },
    { lineWidth: 0 },
  );
  return `# Written by "modeltap up"; changes made here are lost.\n${text}`;
}

/** What both of two settings take: while a deployment changes, instances of the old and the new version both send. */
export function mergedCollector(
  before: DataCollectorConfig | undefined,
  after: DataCollectorConfig,
): DataCollectorConfig {
  if (before === undefined) return after;
  const enabled = Object.entries(before.collections).filter(
    ([name, collection]) => collection.enabled && after.collections[name]?.enabled !== true,
  );
  return { ...after, collections: { ...after.collections, ...Object.fromEntries(enabled) } };
}

/** True when anything is collected. */
export function collects(config: DataCollectorConfig | undefined): config is DataCollectorConfig {
  return config !== undefined && Object.values(config.collections).some((collection) => collection.enabled);
}

function datastoreYaml(config: DatastoreConfig): Readonly<Record<string, unknown>> {
  if (config.type === 'local') return { name: config.name, type: config.type, path: config.path };
  const { accountKey, sasToken, connectionString } = config.credentials;
  return {
    name: config.name,
    type: config.type,
    account_name: config.accountName,
    container_name: config.containerName,
    endpoint: config.endpoint,
    protocol: config.protocol,
    credentials: {
      ...(accountKey === undefined ? {} : { account_key: accountKey }),
      ...(sasToken === undefined ? {} : { sas_token: sasToken }),
      ...(connectionString === undefined ? {} : { connection_string: connectionString }),
    },
  };
}

function dataCollectorYaml(config: DataCollectorConfig): Readonly<Record<string, unknown>> {
  return {
    collections: Object.fromEntries(
      Object.entries(config.collections)
        .filter(([, collection]) => collection.enabled)
        .map(([name, collection]) => [name, collectionYaml(collection)]),
    ),
    sampling_rate: config.samplingRate,
    rolling_rate: config.rollingRate,
    ...(config.captureHeaders.length === 0 ? {} : { request_logging: { capture_headers: config.captureHeaders } }),
    batch: config.batch,
    batch_window_ms: config.batchWindowMs,
  };
}

function collectionYaml({ data }: CollectionConfig): Readonly<Record<string, unknown>> {
  return { enabled: 'True', data: { name: data.name, version: data.version, path: data.path } };
}
