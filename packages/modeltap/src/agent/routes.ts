import { parseDatastoreUri } from '../config/azureml-uri.ts';
import type { AgentConfig, AgentDeploymentConfig } from '../config/types.ts';
import type { IngestCounts, Route } from '../ingest/types.ts';
import type { DestinationSettings } from '../record/destinations.ts';
import type { Destination } from '../record/types.ts';
import type { SpoolWriter } from '../spool/types.ts';

/** The settings under which records of one collection are accepted. */
export function destinationSettings(
  deployment: AgentDeploymentConfig,
  collection: string,
): DestinationSettings | undefined {
  const { dataCollector } = deployment;
  const settings = dataCollector.collections[collection];
  if (settings?.enabled !== true) return undefined;
  const uri = parseDatastoreUri(settings.data.path);
  return {
    endpoint: deployment.endpointName,
    deployment: deployment.deploymentName,
    collection,
    source: deployment.source,
    datastore: uri.datastore,
    path: uri.path.replace(/^\/+|\/+$/g, ''),
    rollingRate: dataCollector.rollingRate,
    batch: dataCollector.batch,
    batchWindowMs: dataCollector.batchWindowMs,
  };
}

/** Every enabled collection of the file with its settings. */
export function allSettings(
  config: AgentConfig,
): readonly { deployment: AgentDeploymentConfig; settings: DestinationSettings }[] {
  return config.deployments.flatMap((deployment) =>
    Object.keys(deployment.dataCollector.collections).flatMap((collection) => {
      const settings = destinationSettings(deployment, collection);
      return settings === undefined ? [] : [{ deployment, settings }];
    }),
  );
}

/** A collection that may be written to. */
export interface RouteTarget {
  readonly deployment: AgentDeploymentConfig;
  readonly destination: Destination;
  readonly spool: SpoolWriter;
  readonly counts: IngestCounts;
}

const TYPE_PREFIX = 'azureml.inference.';

/**
 * Finds the destination of a record. A deployment's own port decides; on the shared port the event's `source`, when it is
 * the ARM id of a deployment, and else the collection, when just one deployment has it enabled.
 */
export function routeTable(config: AgentConfig, targets: readonly RouteTarget[]): Route {
  const byPort = new Map(
    config.deployments.flatMap((one) => (one.port === undefined ? [] : [[one.port, one] as const])),
  );
  const bySource = new Map(config.deployments.map((one) => [one.source.toLowerCase(), one] as const));
  return ({ port, type, source }) => {
    const collection = (type.startsWith(TYPE_PREFIX) ? type.slice(TYPE_PREFIX.length) : type).toLowerCase();
    const deployment = byPort.get(port) ?? bySource.get(source.toLowerCase());
    const here = deployment === undefined ? targets : targets.filter((target) => target.deployment === deployment);
    const found = here.filter((target) => target.destination.collection === collection);
    const [first] = found;
    if (first !== undefined && found.length === 1) {
      const { spool, destination, counts } = first;
      return { spool, destination, counts };
    }
    const among = deployment === undefined ? config.deployments : [deployment];
    const known = among.some((one) => collection in one.dataCollector.collections);
    if (found.length > 1) {
      const ports = found.map(
        ({ deployment: one }) => `${one.endpointName}/${one.deploymentName} on port ${one.port ?? config.port}`,
      );
      return { refusal: 'deployment_ambiguous', collection, enabled: ports };
    }
    const enabled = [...new Set(here.map((target) => target.destination.collection))];
    return { refusal: known ? 'collection_disabled' : 'collection_unknown', collection, enabled };
  };
}
