import { join } from 'node:path';
import { formatCondaSpec } from '../config/conda-spec.ts';
import type {
  CollectionConfig,
  CondaConfig,
  DataCollectorConfig,
  DatastoreConfig,
  EnvironmentConfig,
  ProbeConfig,
  RouteConfig,
} from '../config/types.ts';
import type {
  DataAssetEntry,
  DatastoreEntry,
  DeploymentEntry,
  EndpointEntry,
  EntryTimes,
  EnvironmentEntry,
  ModelEntry,
} from './entries.ts';

/*
 * What answers of the API and `show -o json` contain: plain objects with the snake_case keys of `az ml … show -o json`,
 * and no secret.
 */

/** A plain object ready for JSON. */
export type PublicObject = Readonly<Record<string, unknown>>;

/** Names of environment variables whose values are not shown. */
const SECRET_NAME = /key|secret|token|passw|credential|connection_?string|(?:^|_)(?:sas|pwd|dsn)(?:_|$)/i;
const HIDDEN = '***';

/** An endpoint; the API adds `scoring_uri`. */
export function publicEndpoint(entry: EndpointEntry): PublicObject {
  const { config } = entry;
  return {
    name: config.name,
    description: config.description,
    tags: config.tags,
    properties: config.properties,
    auth_mode: config.authMode,
    traffic: config.traffic,
    mirror_traffic: config.mirrorTraffic,
    provisioning_state: 'Succeeded',
    creation_context: times(entry),
  };
}

/** A deployment. Values of environment variables whose names look secret are replaced by `***`. */
export function publicDeployment(entry: DeploymentEntry): PublicObject {
  const { config } = entry;
  const variables = Object.entries(config.environmentVariables);
  return {
    name: config.name,
    endpoint_name: config.endpointName,
    type: config.type,
    description: config.description,
    tags: config.tags,
    properties: config.properties,
    model: config.model && ('path' in config.model ? { path: config.model.path } : config.model.reference),
    code_configuration: config.code && { code: config.code.directory, scoring_script: config.code.scoringScript },
    environment:
      config.environment &&
      ('reference' in config.environment ? config.environment.reference : publicEnvironmentConfig(config.environment)),
    environment_variables: Object.fromEntries(
      variables.map(([name, value]) => [name, SECRET_NAME.test(name) ? HIDDEN : value]),
    ),
    instance_count: config.instanceCount,
    request_settings: {
      request_timeout_ms: config.requestSettings.requestTimeoutMs,
      max_concurrent_requests_per_instance: config.requestSettings.maxConcurrentRequestsPerInstance,
      max_queue_wait_ms: config.requestSettings.maxQueueWaitMs,
    },
    liveness_probe: publicProbe(config.livenessProbe),
    readiness_probe: publicProbe(config.readinessProbe),
    data_collector: config.dataCollector && publicDataCollector(config.dataCollector),
    provisioning_state: entry.provisioningState,
    creation_context: times(entry),
  };
}

/** A datastore; of its credentials only the kind. */
export function publicDatastore(entry: DatastoreEntry): PublicObject {
  return { ...publicDatastoreConfig(entry.config), creation_context: times(entry) };
}

/** A data asset version. */
export function publicDataAsset(entry: DataAssetEntry): PublicObject {
  return {
    name: entry.name,
    version: entry.version,
    type: entry.type,
    path: entry.path,
    description: entry.description,
    tags: entry.tags,
    archived: entry.archived,
    creation_context: times(entry),
  };
}

/** A model version; `path` is where its files lie now. */
export function publicModel(entry: ModelEntry): PublicObject {
  return {
    name: entry.name,
    version: entry.version,
    type: entry.type,
    path: join(entry.directory, entry.file),
    source_path: entry.sourcePath,
    description: entry.description,
    tags: entry.tags,
    properties: entry.properties,
    archived: entry.archived,
    creation_context: times(entry),
  };
}

/** An environment version. Names, passwords and tokens in addresses are replaced by `***`. */
export function publicEnvironment(entry: EnvironmentEntry): PublicObject {
  return { ...publicEnvironmentConfig(entry.config), archived: entry.archived, creation_context: times(entry) };
}

function publicEnvironmentConfig(config: EnvironmentConfig): PublicObject {
  const routes = config.inferenceConfig;
  return {
    name: config.name,
    version: config.version,
    description: config.description,
    tags: config.tags,
    image: config.image,
    conda_file: config.conda && publicConda(config.conda),
    inference_config: routes && {
      liveness_route: publicRoute(routes.liveness),
      readiness_route: publicRoute(routes.readiness),
      scoring_route: publicRoute(routes.scoring),
    },
  };
}

/** As conda writes it, with the lines of requirements files in place. */
function publicConda(conda: CondaConfig): PublicObject {
  const python = conda.python === undefined ? [] : [formatCondaSpec({ name: 'python', version: conda.python })];
  const lines = conda.pip.map(({ text, constraint }) =>
    withoutCredentials(constraint ? `${text}  # constraint` : text),
  );
  return {
    name: conda.name,
    channels: conda.channels.map(withoutCredentials),
    dependencies: [
      ...python,
      ...conda.packages.map((spec) => withoutCredentials(formatCondaSpec(spec))),
      ...(lines.length === 0 ? [] : ['pip', { pip: lines }]),
    ],
  };
}

function publicRoute(route: RouteConfig | undefined): RouteConfig | undefined {
  return route && { path: route.path, port: route.port };
}

function withoutCredentials(text: string): string {
  return text
    .replace(/(:\/\/)[^/@\s]+@/g, `$1${HIDDEN}@`)
    .replace(/(\/t\/)[^/\s]+/g, `$1${HIDDEN}`)
    .replace(/([?&][^=&\s]+=)[^&\s]+/g, `$1${HIDDEN}`);
}

function publicDatastoreConfig(config: DatastoreConfig): PublicObject {
  if (config.type === 'local') return { name: config.name, type: config.type, path: config.path };
  const { accountKey, sasToken } = config.credentials;
  const kind = accountKey !== undefined ? 'account_key' : sasToken !== undefined ? 'sas_token' : 'connection_string';
  return {
    name: config.name,
    type: config.type,
    account_name: config.accountName,
    container_name: config.containerName,
    endpoint: config.endpoint,
    protocol: config.protocol,
    credentials: { type: kind },
  };
}

function publicDataCollector(config: DataCollectorConfig): PublicObject {
  const collections = Object.entries(config.collections);
  return {
    collections: Object.fromEntries(collections.map(([name, collection]) => [name, publicCollection(collection)])),
    sampling_rate: config.samplingRate,
    rolling_rate: config.rollingRate,
    request_logging: {
      capture_headers: config.captureHeaders,
      ...(config.captureSecretHeaders === undefined ? {} : { capture_secret_headers: config.captureSecretHeaders }),
    },
    ...(config.errorRate === undefined ? {} : { sampling: { errors: config.errorRate } }),
    batch: config.batch,
    batch_window_ms: config.batchWindowMs,
  };
}

function publicCollection(collection: CollectionConfig): PublicObject {
  // Text, because Azure ML takes and shows this key as text.
  return { enabled: String(collection.enabled), data: collection.data, client_id: collection.clientId };
}

function publicProbe(probe: ProbeConfig): PublicObject {
  return {
    initial_delay: probe.initialDelay,
    period: probe.period,
    timeout: probe.timeout,
    success_threshold: probe.successThreshold,
    failure_threshold: probe.failureThreshold,
  };
}

function times(entry: EntryTimes): PublicObject {
  return { created_at: entry.createdAt, last_modified_at: entry.updatedAt };
}
