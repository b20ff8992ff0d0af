import { join } from 'node:path';
import type { Catalog } from '../catalog/catalog.ts';
import type { DeploymentEntry, EndpointEntry } from '../catalog/entries.ts';
import { publicDeployment, type PublicObject } from '../catalog/public.ts';
import { DEFAULT_WORKSPACE, formatAssetReference, parseDatastoreUri } from '../config/azureml-uri.ts';
import { parseDeployment } from '../config/load.ts';
import type { DataCollectorConfig, DeploymentConfig } from '../config/types.ts';
import type { Deployments } from '../deployment/deployment-set.ts';
import { createEnvironments, type Environments } from '../deployment/environments/environments.ts';
import { pruneEnvironments } from '../deployment/environments/prune.ts';
import { needsPython } from '../deployment/launcher.ts';
import type { InstanceStatus } from '../deployment/instance.ts';
import { mdcConfigFile } from '../deployment/mdc-config.ts';
import type { PythonEnvironment } from '../deployment/process-spec.ts';
import { systemClock } from '../kit/clock.ts';
import { errorText, ModeltapError, toErrorBody, toModeltapError, type ErrorBody } from '../kit/errors.ts';
import type { Logger } from '../kit/logger.ts';
import { sourceOf } from '../record/source.ts';
import { agentFile, collects, mergedCollector } from './agent-file.ts';
import { type AgentProcess, replaceFile } from './agent-process.ts';
import { type Answered, type GivenDeployment, texts } from './answers.ts';
import { environmentOf } from './environment.ts';
import { modelDirectory } from './model.ts';
import { logsPayloads, type PayloadTaps } from './payload-taps.ts';
import { anyFreePort, portIsFree } from './ports.ts';

/** Replaced instances may still hand over what their SDKs hold; until then the agent takes the old collections too. */
const OVERLAP_MS = 45_000;

/** What a rollout works on. */
export interface RolloutOptions {
  readonly directory: string;
  readonly host: string;
  readonly agentPort: number;
  readonly catalog: Catalog;
  readonly deployments: Deployments;
  /** Stand before the instances of deployments that collect requests or answers. */
  readonly taps: PayloadTaps;
  readonly logger: Logger;
  /** Default: built below `environments` of the directory. */
  readonly environments?: Environments;
}

/** A change of a deployment that goes on. */
interface Change {
  readonly abort: AbortController;
  /** What it is doing, for people. */
  detail: string;
  /** Never rejects. */
  done: Promise<void>;
}

/** The Python environment a deployment was prepared with, as the API shows it. */
interface PreparedView {
  readonly hash: string;
  readonly warnings: readonly string[];
  readonly python: PublicObject;
}

/**
 * Brings deployments from YAML to instances that serve: collector port, data assets, the agent's settings, the SDK's
 * settings file, the Python environment, instances, traffic, in this order, so that the first request is collected
 * already. One change of a deployment at a time; what fails leaves the version before it serving and in the catalog.
 */
export class Rollout {
  readonly #options: RolloutOptions;
  #agent: AgentProcess | undefined;
  #changed: () => Promise<void> = () => Promise.resolve();
  /** What the last change of a deployment failed with. */
  readonly #failures = new Map<string, ErrorBody['error']>();
  /** Collections of a version that is being replaced, or comes. */
  readonly #overlap = new Map<string, DataCollectorConfig>();
  readonly #busy = new Set<string>();
  readonly #changes = new Map<string, Change>();
  readonly #prepared = new Map<string, PreparedView>();
  readonly #environments: Environments;
  readonly #over = new AbortController();
  #reloads: Promise<unknown> = Promise.resolve();

  constructor(options: RolloutOptions) {
    this.#options = options;
    const { directory, logger } = options;
    this.#environments =
      options.environments ?? createEnvironments({ directory: join(directory, 'environments'), logger });
  }

  useAgent(agent: AgentProcess): void {
    this.#agent = agent;
  }

  /** Called after each change of endpoints or deployments. */
  onChange(listener: () => Promise<void>): void {
    this.#changed = listener;
  }

  /** Nothing more is begun; environments that are being built are given up. Resolves when all changes have ended. */
  async close(): Promise<void> {
    this.#over.abort();
    await Promise.all([...this.#changes.values()].map(({ done }) => done));
  }

  /** Gives another collector port to deployments whose port somebody else has taken meanwhile. */
  async freePorts(): Promise<void> {
    const { catalog, host } = this.#options;
    for (const entry of await catalog.deployments.list()) {
      if (entry.collectorPort === undefined || (await portIsFree(host, entry.collectorPort))) continue;
      const { endpointName, name } = entry.config;
      await catalog.deployments.update({ endpointName, name }, { collectorPort: await this.#newPort() });
    }
  }

  /** The text of the agent's file for the catalog as it is. */
  async agentFile(): Promise<string> {
    const { catalog, directory, host, agentPort } = this.#options;
    const collected = (await catalog.deployments.list()).flatMap((entry) => {
      const { config, collectorPort } = entry;
      const coming = this.#overlap.get(keyOf(config));
      const dataCollector = coming === undefined ? config.dataCollector : mergedCollector(config.dataCollector, coming);
      if (!collects(dataCollector) || collectorPort === undefined) return [];
      const source = armId(config);
      return [
        { endpointName: config.endpointName, deploymentName: config.name, source, port: collectorPort, dataCollector },
      ];
    });
    return agentFile({
      host,
      port: agentPort,
      spoolDirectory: join(directory, 'agent', 'spool'),
      datastores: (await catalog.datastores.list()).map((entry) => entry.config),
      deployments: collected,
    });
  }

  /** Writes the agent's file and waits until the agent has taken it. One after the other, each with the newest settings. */
  reloadAgent(): Promise<void> {
    const next = this.#reloads.then(async () => this.#agent?.reload(await this.agentFile()));
    this.#reloads = next.catch(() => undefined);
    return next.then(() => undefined);
  }

  /**
   * Checks the file and begins the change; the answer comes before the instances are ready (`provisioning_state`
   * `Creating` or `Updating`). `create` also replaces a deployment whose last change failed.
   */
  async apply(given: GivenDeployment, verb: 'create' | 'update'): Promise<Answered<PublicObject>> {
    const { catalog } = this.#options;
    const overrides = { name: given.name, endpoint_name: given.endpoint_name };
    const loaded = parseDeployment(given.text, { file: given.file, overrides });
    const key = keyOf(loaded.value);
    if (this.#busy.has(key)) throw new ModeltapError('deployment_busy', { deployment: key });
    this.#busy.add(key);
    try {
      await catalog.endpoints.get(loaded.value.endpointName);
      const config = await this.#pin(loaded.value);
      const known = await catalog.deployments.find(config.endpointName, config.name);
      if (verb === 'create' && known !== undefined && known.provisioningState !== 'Failed') {
        throw new ModeltapError('already_exists', { kind: 'deployment', name: key, command: 'online-deployment' });
      }
      if (verb === 'update' && known === undefined) {
        throw new ModeltapError('not_found', { kind: 'deployment', name: key, command: 'online-deployment' });
      }
      await this.#checkDatastores(config);
      await modelDirectory(config.model, catalog);
      await this.#registerAssets(config);
      const entry = await this.#begin(config, given.text, known);
      this.#failures.delete(key);
      this.#prepared.delete(key);
      this.#track(config, (change) => this.#finish(config, given, change));
      return { value: this.view(entry), warnings: texts(loaded.warnings) };
    } catch (error) {
      this.#busy.delete(key);
      throw error;
    }
  }

  /** Starts what the catalog has. A deployment that does not start is `Failed`; the others go on. */
  async resume(): Promise<void> {
    for (const { config } of await this.#options.catalog.deployments.list()) {
      this.#busy.add(keyOf(config));
      this.#track(config, (change) =>
        this.#run(config, change)
          .then(() => this.#settle(config, 'Succeeded'))
          .catch((error: unknown) => this.#failed(config, error, change)),
      );
    }
    void this.#prune();
    await this.#changed();
  }

  /**
   * Stops and forgets a deployment. A change of it that goes on is given up. One that gets traffic or copies of it is
   * refused unless its whole endpoint goes. Throws `not_found`, `deployment_busy`, `deployment_has_traffic`.
   */
  async remove(endpointName: string, name: string, options: { readonly withEndpoint: boolean }): Promise<void> {
    const { catalog, deployments } = this.#options;
    const key = `${endpointName}/${name}`;
    const { config } = await catalog.deployments.get(endpointName, name);
    const change = this.#changes.get(key);
    if (change === undefined ? this.#busy.has(key) : change.abort.signal.aborted) {
      throw new ModeltapError('deployment_busy', { deployment: key });
    }
    if (!options.withEndpoint) refuseTraffic(await catalog.endpoints.get(endpointName), name);
    this.#busy.add(key);
    change?.abort.abort();
    try {
      await this.#takeOut(config, options);
      await deployments.remove(endpointName, name);
      if (change !== undefined) {
        await change.done;
        this.#busy.add(key);
        await this.#takeOut(config, { withEndpoint: true });
      }
      await catalog.deployments.delete(endpointName, name);
      this.#failures.delete(key);
      this.#prepared.delete(key);
      await this.reloadAgent();
      await this.#changed();
    } finally {
      this.#busy.delete(key);
    }
  }

  /** A deployment with its instances, as the API shows it. */
  view(entry: DeploymentEntry): PublicObject {
    const { config } = entry;
    const status = this.#options.deployments.status(config.endpointName, config.name);
    const error = this.#failures.get(keyOf(config));
    const change = this.#changes.get(keyOf(config));
    const prepared = this.#prepared.get(keyOf(config));
    return {
      ...publicDeployment(entry),
      collector_port: entry.collectorPort,
      state: status?.state,
      instances: (status?.instances ?? []).map(publicInstance),
      log_directory: status?.logDirectory,
      ...(change === undefined ? {} : { provisioning_detail: change.detail }),
      ...(prepared === undefined ? {} : { python: prepared.python }),
      ...(prepared === undefined || prepared.warnings.length === 0 ? {} : { provisioning_warnings: prepared.warnings }),
      ...(error === undefined ? {} : { provisioning_error: error }),
    };
  }

  async #begin(
    config: DeploymentConfig,
    sourceYaml: string,
    known: DeploymentEntry | undefined,
  ): Promise<DeploymentEntry> {
    const { catalog } = this.#options;
    const wanted = collects(config.dataCollector);
    const port = known?.collectorPort ?? (wanted ? await this.#newPort() : undefined);
    const collectorPort = port === undefined ? {} : { collectorPort: port };
    // A version that never served is replaced at once; one that does stays in the catalog until the new one is ready.
    const entry =
      known === undefined
        ? await catalog.deployments.create(config, { sourceYaml, ...collectorPort })
        : await catalog.deployments.update(config, { provisioningState: 'Updating', ...collectorPort });
    if (config.dataCollector !== undefined) this.#overlap.set(keyOf(config), config.dataCollector);
    await this.reloadAgent();
    await this.#changed();
    return entry;
  }

  /** Keeps a change where `view` and `remove` find it while it goes on. `work` does not reject. */
  #track(config: DeploymentConfig, work: (change: Change) => Promise<void>): void {
    const key = keyOf(config);
    const change = { abort: new AbortController(), detail: 'beginning', done: Promise.resolve() };
    this.#changes.set(key, change);
    change.done = work(change)
      .catch((cause: unknown) => {
        this.#options.logger.error(
          { deployment: key, error: errorText(cause) },
          'the state of a deployment could not be kept',
        );
      })
      .finally(() => {
        this.#changes.delete(key);
        this.#busy.delete(key);
      });
  }

  /** Everything after the answer: what goes wrong is the deployment's state. */
  async #finish(config: DeploymentConfig, given: GivenDeployment, change: Change): Promise<void> {
    const { catalog } = this.#options;
    try {
      await this.#run(config, change);
      await catalog.deployments.update(config, { config, sourceYaml: given.text });
      if (given.all_traffic) await this.#allTraffic(config);
      await this.#settle(config, 'Succeeded');
    } catch (error) {
      await this.#failed(config, error, change);
    } finally {
      this.#endOverlap(config);
    }
  }

  async #run(config: DeploymentConfig, change: Change): Promise<void> {
    const { directory, host, deployments, catalog, taps } = this.#options;
    const folder = join(directory, 'deployments', config.endpointName, config.name);
    const mdcFile = join(folder, 'mdc-config.json');
    await replaceFile(mdcFile, mdcConfigFile(config.dataCollector ?? NO_COLLECTION));
    const entry = await catalog.deployments.get(config.endpointName, config.name);
    const model = await modelDirectory(config.model, catalog);
    const python = await this.#prepare(config, change);
    this.#refuseGivenUp(config, change);
    change.detail = `starting ${config.instanceCount} instance(s)`;
    await deployments.apply({
      config,
      ...(model === undefined ? {} : { modelDirectory: model }),
      ...(python === undefined ? {} : { python }),
      ...(logsPayloads(config) ? { front: (port: number) => taps.open(config, armId(config), port) } : {}),
      logDirectory: join(folder, 'logs'),
      environment: {
        AZUREML_MDC_CONFIG_PATH: mdcFile,
        AZUREML_MDC_HOST: host,
        AZUREML_MDC_PORT: String(entry.collectorPort ?? this.#options.agentPort),
      },
    });
  }

  /** Builds the Python environment, or finds the one built before; undefined for a deployment that needs none. */
  async #prepare(config: DeploymentConfig, change: Change): Promise<PythonEnvironment | undefined> {
    if (!needsPython(config)) return undefined;
    const { catalog, logger } = this.#options;
    const environment = await environmentOf(config.environment, catalog);
    change.detail = 'preparing the Python environment';
    try {
      const prepared = await this.#environments.prepare(environment, {
        signal: AbortSignal.any([this.#over.signal, change.abort.signal]),
        onProgress: (text: string) => {
          change.detail = `preparing the Python environment: ${text}`;
        },
      });
      const { hash, warnings, directory, python, pythonVersion, logPath } = prepared;
      for (const warning of warnings) logger.warn({ deployment: keyOf(config) }, warning);
      this.#prepared.set(keyOf(config), {
        hash,
        warnings,
        python: { version: pythonVersion, environment_directory: directory, build_log: logPath },
      });
      return { directory, python };
    } catch (error) {
      this.#refuseGivenUp(config, change);
      throw error;
    }
  }

  /** Once all deployments have theirs, environments that nobody has used for long go. Never rejects. */
  async #prune(): Promise<void> {
    const { directory, logger } = this.#options;
    await Promise.all([...this.#changes.values()].map(({ done }) => done));
    if (this.#over.signal.aborted) return;
    const kept = [...this.#prepared.values()].map(({ hash }) => hash);
    await pruneEnvironments(join(directory, 'environments'), kept).then(
      (removed) => {
        if (removed.length > 0) logger.info({ environments: removed }, 'removed unused Python environments');
      },
      (error: unknown) => logger.warn({ error: errorText(error) }, 'unused Python environments could not be removed'),
    );
  }

  #refuseGivenUp({ endpointName: endpoint, name: deployment }: DeploymentConfig, change: Change): void {
    if (!change.abort.signal.aborted && !this.#over.signal.aborted) return;
    throw new ModeltapError('deployment_stopped', { endpoint, deployment });
  }

  async #settle(config: DeploymentConfig, provisioningState: 'Succeeded' | 'Failed'): Promise<void> {
    if (this.#over.signal.aborted) return;
    await this.#options.catalog.deployments.update(config, { provisioningState });
    await this.#changed();
  }

  async #failed(config: DeploymentConfig, error: unknown, change: Change): Promise<void> {
    if (this.#over.signal.aborted || change.abort.signal.aborted) return;
    const known = toModeltapError(error);
    this.#failures.set(keyOf(config), toErrorBody(known).error);
    this.#options.logger.error(
      { deployment: keyOf(config), code: known.code, error: known.message },
      'a deployment failed',
    );
    await this.#settle(config, 'Failed');
  }

  /** No traffic goes to a deployment any more. */
  async #takeOut(config: DeploymentConfig, options: { readonly withEndpoint: boolean }): Promise<void> {
    const { catalog } = this.#options;
    const { name } = config;
    await catalog.endpoints.edit(config.endpointName, (endpoint) => {
      if (!options.withEndpoint) refuseTraffic({ config: endpoint }, name);
      const { [name]: _traffic, ...traffic } = endpoint.traffic;
      const { [name]: _mirror, ...mirrorTraffic } = endpoint.mirrorTraffic;
      return { ...endpoint, traffic, mirrorTraffic };
    });
    await catalog.deployments.update(config, { provisioningState: 'Deleting' });
    await this.#changed();
  }

  async #allTraffic({ endpointName, name }: DeploymentConfig): Promise<void> {
    await this.#options.catalog.endpoints.edit(endpointName, (endpoint) => {
      const { [name]: _mirror, ...mirrorTraffic } = endpoint.mirrorTraffic;
      return { ...endpoint, traffic: { [name]: 100 }, mirrorTraffic };
    });
  }

  #endOverlap(config: DeploymentConfig): void {
    const key = keyOf(config);
    void systemClock.sleep(OVERLAP_MS, { unref: true, signal: this.#over.signal }).then(async () => {
      if (this.#over.signal.aborted || this.#busy.has(key)) return;
      this.#overlap.delete(key);
      await this.reloadAgent().catch((error: unknown) => {
        this.#options.logger.warn(
          { error: errorText(error) },
          'the agent still takes collections of a replaced version',
        );
      });
    });
  }

  async #newPort(): Promise<number> {
    const { catalog, agentPort, host } = this.#options;
    const taken = (await catalog.deployments.list()).map((entry) => entry.collectorPort ?? 0);
    return anyFreePort(host, new Set([agentPort, ...taken]));
  }

  /** Puts the version in place of `@latest`: a deployment keeps what it was made with until it is changed. */
  async #pin(config: DeploymentConfig): Promise<DeploymentConfig> {
    const { models, environments } = this.#options.catalog;
    const { model, environment } = config;
    const pinned: { -readonly [K in 'model' | 'environment']?: DeploymentConfig[K] } = {};
    if (model !== undefined && 'reference' in model) {
      const { name, version } = await models.resolve(model.reference);
      pinned.model = { reference: formatAssetReference({ name, version }) };
    }
    if (environment !== undefined && 'reference' in environment && needsPython(config)) {
      const { name = '', version = '' } = (await environments.resolve(environment.reference)).config;
      pinned.environment = { reference: formatAssetReference({ name, version }) };
    }
    return { ...config, ...pinned };
  }

  async #checkDatastores(config: DeploymentConfig): Promise<void> {
    for (const [collection, { enabled, data }] of Object.entries(config.dataCollector?.collections ?? {})) {
      if (!enabled) continue;
      const { datastore } = parseDatastoreUri(data.path);
      if ((await this.#options.catalog.datastores.find(datastore)) === undefined) {
        throw new ModeltapError('datastore_unknown', { datastore, collection });
      }
    }
  }

  async #registerAssets(config: DeploymentConfig): Promise<void> {
    for (const { enabled, data } of Object.values(config.dataCollector?.collections ?? {})) {
      if (enabled) await this.#options.catalog.dataAssets.register({ ...data, type: 'uri_folder' });
    }
  }
}

/** Throws `deployment_has_traffic`, as Azure ML refuses it. */
function refuseTraffic({ config }: Pick<EndpointEntry, 'config'>, deployment: string): void {
  const { traffic, mirrorTraffic, name: endpoint } = config;
  const live = traffic[deployment] ?? 0;
  const copies = mirrorTraffic[deployment] ?? 0;
  if (live === 0 && copies === 0) return;
  const other = Object.keys(traffic).find((name) => name !== deployment);
  const flags =
    live > 0
      ? `--traffic "${deployment}=0${live === 100 && other === undefined ? '' : ` ${other ?? 'OTHER'}=100`}"`
      : `--mirror-traffic "${deployment}=0"`;
  const what = live > 0 ? `${live} % of the traffic` : `copies of ${copies} % of the requests`;
  throw new ModeltapError('deployment_has_traffic', { deployment, endpoint, traffic: what, flags });
}

const NO_COLLECTION: DataCollectorConfig = {
  collections: {},
  samplingRate: 1,
  rollingRate: 'hour',
  captureHeaders: [],
  batch: 'same_id',
  batchWindowMs: 500,
};

const WORKSPACE = {
  subscription: DEFAULT_WORKSPACE.subscriptionId,
  resourceGroup: DEFAULT_WORKSPACE.resourceGroup,
  workspace: DEFAULT_WORKSPACE.name,
};

/** As the API names things. */
const publicInstance = ({ inFlight, lastExit, ...shown }: InstanceStatus): PublicObject => ({
  ...shown,
  in_flight: inFlight,
  ...(lastExit === undefined ? {} : { last_exit: lastExit }),
});

/** What events say they come from. */
const armId = (config: Pick<DeploymentConfig, 'endpointName' | 'name'>) =>
  sourceOf({ ...WORKSPACE, endpoint: config.endpointName, deployment: config.name });

const keyOf = (config: Pick<DeploymentConfig, 'endpointName' | 'name'>) => `${config.endpointName}/${config.name}`;
