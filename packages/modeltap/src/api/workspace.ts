import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type Catalog, openCatalog } from '../catalog/catalog.ts';
import { publicDataAsset, publicDatastore, type PublicObject } from '../catalog/public.ts';
import { resolveSecrets } from '../catalog/secrets.ts';
import { loadWorkspaceKey } from '../catalog/workspace-key.ts';
import { parseDatastoreUri } from '../config/azureml-uri.ts';
import { parseDatastore } from '../config/load.ts';
import { createDeployments, type Deployments } from '../deployment/deployment-set.ts';
import type { TokenIssuer } from '../endpoint/access.ts';
import { createEndpointRouter, type EndpointRouter } from '../endpoint/router.ts';
import type { RoutedEndpoint } from '../endpoint/traffic.ts';
import { systemClock } from '../kit/clock.ts';
import type { Counters } from '../kit/counters.ts';
import { ModeltapError } from '../kit/errors.ts';
import type { Logger } from '../kit/logger.ts';
import { openStore, testStore } from '../storage/stores.ts';
import { type AgentProcess, replaceFile, startAgentProcess } from './agent-process.ts';
import { type Answered, type GivenDeployment, type GivenFile, type ScoringRoute, texts } from './answers.ts';
import { EndpointCredentials } from './endpoint-credentials.ts';
import { OnlineEndpoints } from './endpoints.ts';
import { Environments } from './environment.ts';
import { Models } from './model.ts';
import { PayloadTaps } from './payload-taps.ts';
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
  readonly counters: Counters;
  /** Who makes the tokens of endpoints with `aad_token`; absent: there are no such endpoints. */
  readonly issuer?: TokenIssuer;
  /** Longest body of a request to an endpoint. Default 100 MiB. */
  readonly maxBodyBytes?: number;
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
    const credentials = await openCredentials(join(directory, KEY_FILE), catalog, logger);
    const models = new Models({ catalog, logger });
    await models.removeUnfinished();
    const agentPort = options.agentPort === 0 ? await anyFreePort(host) : options.agentPort;
    if (!(await portIsFree(host, agentPort))) {
      throw new ModeltapError('port_in_use', { port: agentPort, host, option: '--agent-port' });
    }
    const deployments = createDeployments({ logger });
    const taps = new PayloadTaps({ directory, host, catalog, logger });
    await taps.resume();
    const rollout = new Rollout({ directory, host, agentPort, catalog, deployments, taps, logger });
    await rollout.freePorts();
    const file = join(directory, 'agent', 'agent.yml');
    await replaceFile(file, await rollout.agentFile());
    const logFile = join(directory, 'agent', 'agent.log');
    const agent = await startAgentProcess({ entry: options.entry, file, logFile, host, port: agentPort, logger });
    rollout.useAgent(agent);
    const workspace = new Workspace({ ...options, catalog, credentials, deployments, models, rollout, taps, agent });
    await workspace.refreshRoutes();
    return workspace;
  } catch (error) {
    await catalog.close();
    throw error;
  }
}

interface Parts extends Pick<WorkspaceOptions, 'directory' | 'counters' | 'issuer' | 'maxBodyBytes'> {
  readonly catalog: Catalog;
  readonly credentials: EndpointCredentials;
  readonly deployments: Deployments;
  readonly models: Models;
  readonly rollout: Rollout;
  readonly taps: PayloadTaps;
  readonly agent: AgentProcess;
  readonly logger: Logger;
}

/** Name of the file in the workspace directory that keys of endpoints are sealed with. */
const KEY_FILE = 'workspace.key';

/** Sees to it that every endpoint has keys that can be read; those of before there were keys get them here. */
async function openCredentials(file: string, catalog: Catalog, logger: Logger): Promise<EndpointCredentials> {
  const { key, made } = await loadWorkspaceKey(file);
  const credentials = new EndpointCredentials({ catalog, key });
  for (const entry of await catalog.endpoints.list()) {
    const { name } = entry.config;
    if (made && (await catalog.endpointKeys.find(name)) !== undefined) {
      await credentials.renew(name);
      logger.warn({ endpoint: name, file }, 'the endpoint has new keys: the file its keys were sealed with is gone');
    }
    await credentials.access(entry);
  }
  return credentials;
}

/** Everything one directory holds, running. Use `openWorkspace`. */
export class Workspace {
  /** Answers everything below `/endpoints/`. */
  readonly scoring: ScoringRoute;
  readonly endpoints: OnlineEndpoints;
  readonly models: Models;
  readonly environments: Environments;
  readonly #parts: Parts;
  readonly #router: EndpointRouter;
  #publicUrl = '';
  #routes: ReadonlyMap<string, RoutedEndpoint> = new Map();
  #refreshing: Promise<void> = Promise.resolve();

  constructor(parts: Parts) {
    this.#parts = parts;
    this.models = parts.models;
    this.environments = new Environments({ catalog: parts.catalog });
    this.endpoints = new OnlineEndpoints({
      catalog: parts.catalog,
      credentials: parts.credentials,
      hasIssuer: parts.issuer !== undefined,
      onChange: () => this.refreshRoutes(),
      publicUrl: () => this.#publicUrl,
    });
    const mirrored = parts.counters.counter(
      'modeltap_mirrored_total',
      'Copies of requests for mirror_traffic, by what became of them.',
      ['endpoint', 'deployment', 'outcome'],
    );
    this.#router = createEndpointRouter({
      endpoint: (name) => this.#routes.get(name),
      acquire: (endpoint, deployment, options) => parts.deployments.acquire(endpoint, deployment, options),
      onMirrored: (endpoint, deployment, outcome) => mirrored.inc({ endpoint, deployment, outcome }),
      logger: parts.logger,
      ...(parts.issuer === undefined ? {} : { issuer: parts.issuer }),
      ...(parts.maxBodyBytes === undefined ? {} : { maxBodyBytes: parts.maxBodyBytes }),
    });
    this.scoring = (request, response) => this.#router.serve(request, response);
    parts.rollout.onChange(() => this.refreshRoutes());
  }

  get agentUrl(): string {
    return this.#parts.agent.url;
  }

  /** The agent in this process that has what passes scoring URIs; undefined when nothing is collected there. */
  get payloadAgentUrl(): string | undefined {
    return this.#parts.taps.url;
  }

  /** All agents of the workspace. */
  get agentUrls(): readonly string[] {
    return this.payloadAgentUrl === undefined ? [this.agentUrl] : [this.agentUrl, this.payloadAgentUrl];
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
    await Promise.all([this.#parts.taps.stop(left()), this.#parts.agent.stop(left())]);
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
      ...(this.payloadAgentUrl === undefined ? {} : { payload_agent_url: this.payloadAgentUrl }),
    };
  }

  /** The agent's health, and deployments that should serve and do not. */
  async health(): Promise<WorkspaceHealth> {
    const problems: { problem: string; fix: string }[] = [];
    try {
      for (const url of this.agentUrls) {
        const answer = await fetch(`${url}/healthz`, { signal: AbortSignal.timeout(5_000) });
        problems.push(...((await answer.json()) as WorkspaceHealth).problems);
      }
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

  /** Deletes the endpoint with its deployments, as `az ml` does. */
  async deleteEndpoint(name: string): Promise<void> {
    await this.#parts.catalog.endpoints.get(name);
    for (const { config } of await this.#parts.catalog.deployments.list(name))
      await this.#parts.rollout.remove(name, config.name, { withEndpoint: true });
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
    await this.#parts.rollout.remove(endpoint, name, { withEndpoint: false });
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
    await this.#parts.taps.reload();
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

  /** Reads the catalog into what the router asks for each request. In turn, so that the last one asked for counts. */
  refreshRoutes(): Promise<void> {
    const done = this.#refreshing.then(async () => {
      this.#routes = await this.endpoints.routes();
    });
    this.#refreshing = done.catch(() => undefined);
    return done;
  }
}
