import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type Catalog, openCatalog } from '../catalog/catalog.ts';
import { publicDataAsset, publicDatastore, publicEndpoint, type PublicObject } from '../catalog/public.ts';
import { resolveSecrets } from '../catalog/secrets.ts';
import { parseDatastoreUri } from '../config/azureml-uri.ts';
import { parseDatastore, parseEndpoint } from '../config/load.ts';
import { createDeployments, type Deployments } from '../deployment/deployment-set.ts';
import { createEndpointRouter, type EndpointRouter } from '../endpoint/router.ts';
import type { RoutedEndpoint } from '../endpoint/traffic.ts';
import { systemClock } from '../kit/clock.ts';
import { ModeltapError } from '../kit/errors.ts';
import type { Logger } from '../kit/logger.ts';
import { openStore, testStore } from '../storage/stores.ts';
import { type AgentProcess, replaceFile, startAgentProcess } from './agent-process.ts';
import {
  type Answered,
  type GivenDeployment,
  type GivenEndpoint,
  type GivenFile,
  type ScoringRoute,
  texts,
} from './answers.ts';
import { Environments } from './environment.ts';
import { Models } from './model.ts';
import { anyFreePort, portIsFree } from './ports.ts';
import { Rollout } from './rollout.ts';

/** Name of the datastore every workspace has; where collections go that name no other. */
export const DEFAULT_DATASTORE = 'workspaceblobstore';

/** Where a workspace lies and listens. */
export interface WorkspaceOptions {
  /** Made if missing. Holds catalog, spool, logs and the default datastore. */
  readonly directory: string;
  readonly host: string;
  /** 0: any free port. */
  readonly agentPort: number;
  /** The file that runs the command line, for the agent's process. */
  readonly entry: string;
  readonly logger: Logger;
}

/** How the workspace is. */
export interface WorkspaceHealth {
  readonly status: 'ok' | 'degraded';
  readonly problems: readonly { readonly problem: string; readonly fix: string }[];
}

/** Opens the catalog and starts the agent. Deployments start with `resume`, once the public address is known. */
export async function openWorkspace(options: WorkspaceOptions): Promise<Workspace> {
  const { directory, host, logger } = options;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const catalog = await openCatalog(join(directory, 'catalog.db'));
  try {
    if ((await catalog.datastores.find(DEFAULT_DATASTORE)) === undefined) {
      const path = join(directory, 'datastores', DEFAULT_DATASTORE);
      await catalog.datastores.create({ name: DEFAULT_DATASTORE, type: 'local', path });
    }
    const models = new Models({ catalog, logger });
    await models.removeUnfinished();
    const agentPort = options.agentPort === 0 ? await anyFreePort(host) : options.agentPort;
    if (!(await portIsFree(host, agentPort))) {
      throw new ModeltapError('port_in_use', { port: agentPort, host, option: '--agent-port' });
    }
    const deployments = createDeployments({ logger });
    const rollout = new Rollout({ directory, host, agentPort, catalog, deployments, logger });
    await rollout.freePorts();
    const file = join(directory, 'agent', 'agent.yml');
    await replaceFile(file, await rollout.agentFile());
    const logFile = join(directory, 'agent', 'agent.log');
    const agent = await startAgentProcess({ entry: options.entry, file, logFile, host, port: agentPort, logger });
    rollout.useAgent(agent);
    const workspace = new Workspace({ directory, catalog, deployments, models, rollout, agent, logger });
    await workspace.refreshRoutes();
    return workspace;
  } catch (error) {
    await catalog.close();
    throw error;
  }
}

interface Parts {
  readonly directory: string;
  readonly catalog: Catalog;
  readonly deployments: Deployments;
  readonly models: Models;
  readonly rollout: Rollout;
  readonly agent: AgentProcess;
  readonly logger: Logger;
}

/** Everything one directory holds, running. Use `openWorkspace`. */
export class Workspace {
  /** Answers everything below `/endpoints/`. */
  readonly scoring: ScoringRoute;
  readonly models: Models;
  readonly environments: Environments;
  readonly #parts: Parts;
  readonly #router: EndpointRouter;
  #publicUrl = '';
  #routes: ReadonlyMap<string, RoutedEndpoint> = new Map();

  constructor(parts: Parts) {
    this.#parts = parts;
    this.models = parts.models;
    this.environments = new Environments({ catalog: parts.catalog });
    this.#router = createEndpointRouter({
      endpoint: (name) => this.#routes.get(name),
      acquire: (endpoint, deployment, options) => parts.deployments.acquire(endpoint, deployment, options),
      logger: parts.logger,
    });
    this.scoring = (request, response) => this.#router.serve(request, response);
    parts.rollout.onChange(() => this.refreshRoutes());
  }

  get agentUrl(): string {
    return this.#parts.agent.url;
  }

  /** Says where the API listens, for scoring URIs. */
  setPublicUrl(url: string): void {
    this.#publicUrl = url;
  }

  /** Starts the deployments of the catalog. Does not wait until they are ready; a failing one is `Failed`. */
  async resume(): Promise<void> {
    await this.#parts.rollout.resume();
  }

  /** Stops in order: scoring, instances (whose SDKs hand over what they hold), then the agent, which drains. */
  async stop(deadlineMs: number): Promise<void> {
    const until = performance.now() + deadlineMs;
    const left = () => Math.max(1_000, until - performance.now());
    const changes = this.#parts.rollout.close();
    await this.models.close();
    await this.#router.stop(Math.min(10_000, left()));
    await this.#parts.deployments.stop(Math.min(10_000, left()));
    await Promise.race([changes, systemClock.sleep(Math.min(10_000, left()), { unref: true })]);
    await this.#parts.agent.stop(left());
    await this.#parts.catalog.close();
  }

  info(): PublicObject {
    const { directory, agent } = this.#parts;
    return {
      directory,
      pid: process.pid,
      url: this.#publicUrl,
      agent_url: agent.url,
      agent_pid: agent.pid,
      agent_restarts: agent.restarts,
    };
  }

  /** The agent's health, and deployments that should serve and do not. */
  async health(): Promise<WorkspaceHealth> {
    const problems: { problem: string; fix: string }[] = [];
    try {
      const answer = await fetch(`${this.agentUrl}/healthz`, { signal: AbortSignal.timeout(5_000) });
      problems.push(...((await answer.json()) as WorkspaceHealth).problems);
    } catch {
      const error = new ModeltapError('agent_unreachable', { url: this.agentUrl });
      problems.push({ problem: error.message, fix: error.fix });
    }
    for (const { config } of await this.#parts.catalog.deployments.list()) {
      const status = this.#parts.deployments.status(config.endpointName, config.name);
      if (status === undefined || !['degraded', 'unavailable', 'failed'].includes(status.state)) continue;
      problems.push({
        problem: `deployment ${config.endpointName}/${config.name} is ${status.state}`,
        fix: `Look at "modeltap online-deployment get-logs -e ${config.endpointName} -n ${config.name}".`,
      });
    }
    return { status: problems.length === 0 ? 'ok' : 'degraded', problems };
  }

  async createEndpoint(given: GivenEndpoint): Promise<Answered<PublicObject>> {
    const { file = 'endpoint', text = '{}', name } = given;
    const loaded = parseEndpoint(text, { file, ...(name === undefined ? {} : { overrides: { name } }) });
    const entry = await this.#parts.catalog.endpoints.create(loaded.value, { sourceYaml: text });
    await this.refreshRoutes();
    return { value: this.#endpointView(publicEndpoint(entry)), warnings: texts(loaded.warnings) };
  }

  async endpoint(name: string): Promise<PublicObject> {
    return this.#endpointView(publicEndpoint(await this.#parts.catalog.endpoints.get(name)));
  }

  async endpoints(): Promise<readonly PublicObject[]> {
    return (await this.#parts.catalog.endpoints.list()).map((entry) => this.#endpointView(publicEndpoint(entry)));
  }

  /** Deletes the endpoint with its deployments, as `az ml` does. */
  async deleteEndpoint(name: string): Promise<void> {
    await this.#parts.catalog.endpoints.get(name);
    for (const { config } of await this.#parts.catalog.deployments.list(name))
      await this.deleteDeployment(name, config.name);
    await this.#parts.catalog.endpoints.delete(name);
    await this.refreshRoutes();
  }

  applyDeployment(given: GivenDeployment, verb: 'create' | 'update'): Promise<Answered<PublicObject>> {
    return this.#parts.rollout.apply(given, verb);
  }

  async deployment(endpoint: string, name: string): Promise<PublicObject> {
    return this.#parts.rollout.view(await this.#parts.catalog.deployments.get(endpoint, name));
  }

  async deployments(endpoint: string): Promise<readonly PublicObject[]> {
    await this.#parts.catalog.endpoints.get(endpoint);
    return (await this.#parts.catalog.deployments.list(endpoint)).map((entry) => this.#parts.rollout.view(entry));
  }

  async deleteDeployment(endpoint: string, name: string): Promise<void> {
    await this.#parts.rollout.remove(endpoint, name);
  }

  async logs(endpoint: string, name: string, lines: number): Promise<string> {
    await this.#parts.catalog.deployments.get(endpoint, name);
    return (await this.#parts.deployments.logs(endpoint, name, { lines })).map((line) => `${line}\n`).join('');
  }

  /** Adds a datastore or replaces the one of that name, once a probe object could be written to it. */
  async createDatastore(given: GivenFile): Promise<Answered<PublicObject>> {
    const { file, text, name } = given;
    const loaded = parseDatastore(text, { file, ...(name === undefined ? {} : { overrides: { name } }) });
    const store = await openStore(resolveSecrets(loaded.value));
    const problem = await testStore(store);
    if (problem !== undefined) {
      const params = { name: loaded.value.name, detail: problem.message, hint: problem.fix };
      throw new ModeltapError('datastore_not_writable', params, { cause: problem });
    }
    const { datastores } = this.#parts.catalog;
    const known = await datastores.find(loaded.value.name);
    const entry = known === undefined ? await datastores.create(loaded.value) : await datastores.update(loaded.value);
    await this.#parts.rollout.reloadAgent();
    return { value: publicDatastore(entry), warnings: texts(loaded.warnings) };
  }

  async datastore(name: string): Promise<PublicObject> {
    return publicDatastore(await this.#parts.catalog.datastores.get(name));
  }

  async datastores(): Promise<readonly PublicObject[]> {
    return (await this.#parts.catalog.datastores.list()).map(publicDatastore);
  }

  async dataAssets(name: string | undefined): Promise<readonly PublicObject[]> {
    const entries = await this.#parts.catalog.dataAssets.list(name === undefined ? {} : { name });
    return entries.map(publicDataAsset);
  }

  /** `version` may be `latest`. For a datastore on local disk the answer also has `local_path`. */
  async dataAsset(name: string, version: string): Promise<PublicObject> {
    const entry = await this.#parts.catalog.dataAssets.get(name, version === 'latest' ? undefined : version);
    return { ...publicDataAsset(entry), ...(await this.#localPath(entry.path)) };
  }

  async #localPath(path: string): Promise<{ local_path?: string }> {
    if (!path.startsWith('azureml://')) return {};
    const uri = parseDatastoreUri(path);
    const entry = await this.#parts.catalog.datastores.find(uri.datastore);
    return entry?.config.type === 'local' ? { local_path: join(entry.config.path, uri.path) } : {};
  }

  /** Reads the catalog into what the router asks for each request. */
  async refreshRoutes(): Promise<void> {
    const { catalog } = this.#parts;
    const all = await catalog.deployments.list();
    const routes = (await catalog.endpoints.list()).map(({ config }): RoutedEndpoint => {
      const own = all.filter((entry) => entry.config.endpointName === config.name);
      const deployments = Object.fromEntries(
        own.map((entry) => [entry.config.name, { requestTimeoutMs: entry.config.requestSettings.requestTimeoutMs }]),
      );
      return { name: config.name, traffic: config.traffic, deployments };
    });
    this.#routes = new Map(routes.map((route) => [route.name, route]));
  }

  #endpointView(endpoint: PublicObject): PublicObject {
    return {
      ...endpoint,
      scoring_uri: `${this.#publicUrl}/endpoints/${encodeURIComponent(String(endpoint.name))}/score`,
    };
  }
}
