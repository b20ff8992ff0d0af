import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type Agent, startAgent } from '../agent/agent.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { PAYLOAD_COLLECTIONS } from '../config/data-collector.ts';
import type { AgentConfig, AgentDeploymentConfig, DeploymentConfig, TapConfig } from '../config/types.ts';
import type { InstanceFront } from '../deployment/instance.ts';
import { errorText, isModeltapError, ModeltapError } from '../kit/errors.ts';
import type { Logger } from '../kit/logger.ts';
import { anyFreePort } from './ports.ts';

const SPOOL_BYTES = 4 * 1024 ** 3;
const MEGABYTE = 1024 ** 2;
/** The inference server's route; what a deployment is asked besides it (health, swagger) is no inference. */
const PATHS = ['/score'];
/** Times another port is tried when somebody took the first one meanwhile. */
const PORT_TRIES = 3;

/** What the taps of a workspace work on. */
export interface PayloadTapsOptions {
  /** The workspace's. */
  readonly directory: string;
  readonly host: string;
  readonly catalog: Catalog;
  readonly logger: Logger;
}

/** True when a deployment collects the requests or answers that pass its scoring URI. */
export function logsPayloads({ dataCollector }: DeploymentConfig): boolean {
  return PAYLOAD_COLLECTIONS.some((name) => dataCollector?.collections[name]?.enabled === true);
}

interface OpenFront {
  readonly tap: TapConfig;
  readonly deployment: AgentDeploymentConfig;
}

/**
 * Payload logging of a workspace's deployments: a tap before each instance, with a spool and a delivery of their own in
 * this process. Not in the agent's process: a tap stands in the way of every request, so it must not go when the agent
 * does. Nothing runs until a deployment asks for it, or an earlier run left something to ship.
 */
export class PayloadTaps {
  readonly #options: PayloadTapsOptions;
  readonly #fronts = new Map<number, OpenFront>();
  #agent: Agent | undefined;
  #port = 0;
  #stopped = false;
  #work: Promise<unknown> = Promise.resolve();

  constructor(options: PayloadTapsOptions) {
    this.#options = options;
  }

  /** Where the ledger, the health and the metrics of what was tapped are asked; undefined when nothing runs. */
  get url(): string | undefined {
    const { host } = this.#options;
    return this.#agent === undefined ? undefined : `http://${host.includes(':') ? `[${host}]` : host}:${this.#port}`;
  }

  /** Ships what an earlier run has left. */
  async resume(): Promise<void> {
    if (existsSync(this.#spoolDirectory)) await this.#inTurn(() => this.#apply());
  }

  /** Opens a tap before the instance on this port. Rejects when what it captures could not be kept. */
  async open(config: DeploymentConfig, source: string, upstreamPort: number): Promise<InstanceFront> {
    for (let attempt = 1; ; attempt += 1) {
      const taken = new Set([...this.#fronts.keys(), this.#port]);
      const port = await anyFreePort(this.#options.host, taken);
      this.#fronts.set(port, front(config, { source, port, upstream: { host: '127.0.0.1', port: upstreamPort } }));
      try {
        await this.#inTurn(() => this.#apply());
        return { port, close: () => this.#close(port) };
      } catch (error) {
        this.#fronts.delete(port);
        const again = isModeltapError(error) && error.code === 'port_in_use' && attempt < PORT_TRIES;
        if (!again) throw error;
      }
    }
  }

  /** Uses the datastores as they are now. */
  async reload(): Promise<void> {
    if (this.#agent !== undefined) await this.#inTurn(() => this.#apply());
  }

  /** Lets exchanges end and ships what is spooled, until the deadline. The rest ships at the next start. */
  async stop(deadlineMs: number): Promise<void> {
    this.#stopped = true;
    await this.#work.catch(() => undefined);
    await this.#agent?.stop(deadlineMs);
    this.#agent = undefined;
  }

  get #spoolDirectory(): string {
    return join(this.#options.directory, 'payloads', 'spool');
  }

  #close(port: number): void {
    this.#fronts.delete(port);
    if (this.#stopped) return;
    this.#inTurn(() => this.#apply()).catch((error: unknown) => {
      this.#options.logger.warn({ error: errorText(error) }, 'a tap that is not needed any more could not be closed');
    });
  }

  /** One change after the other. */
  #inTurn(work: () => Promise<void>): Promise<void> {
    const next = this.#work.then(work);
    this.#work = next.catch(() => undefined);
    return next;
  }

  async #apply(): Promise<void> {
    if (this.#stopped) throw new ModeltapError('spool_closed');
    if (this.#agent !== undefined) {
      await this.#agent.reload();
      return;
    }
    const { host, logger } = this.#options;
    await mkdir(this.#spoolDirectory, { recursive: true, mode: 0o700 });
    this.#port = await anyFreePort(host, new Set(this.#fronts.keys()));
    const config = await this.#config();
    this.#agent = await startAgent({ config, logger, reload: () => this.#config() });
  }

  async #config(): Promise<AgentConfig> {
    const { host, catalog } = this.#options;
    const fronts = [...this.#fronts.values()];
    const deployments = new Map(
      fronts.map(({ deployment }) => [`${deployment.endpointName}/${deployment.deploymentName}`, deployment]),
    );
    return {
      host,
      port: this.#port,
      spool: { directory: this.#spoolDirectory, maxBytes: SPOOL_BYTES },
      maxRecordBytes: 64 * MEGABYTE,
      inlineBytes: 4 * MEGABYTE,
      maxCollections: 1000,
      datastores: (await catalog.datastores.list()).map((entry) => entry.config),
      deployments: [...deployments.values()],
      taps: fronts.map(({ tap }) => tap),
      maxCaptureBytes: 64 * MEGABYTE,
    };
  }
}

/** A tap with the collections it fills. */
function front(
  config: DeploymentConfig,
  place: { readonly source: string; readonly port: number; readonly upstream: TapConfig['upstream'] },
): OpenFront {
  const { dataCollector } = config;
  if (dataCollector === undefined) throw new ModeltapError('internal', { detail: 'there is no data_collector' });
  const owner = { endpointName: config.endpointName, deploymentName: config.name };
  const payload = Object.entries(dataCollector.collections).filter(([name]) => PAYLOAD_COLLECTIONS.includes(name));
  return {
    tap: {
      ...owner,
      port: place.port,
      upstream: place.upstream,
      paths: PATHS,
      requestId: 'add',
      errorRate: dataCollector.errorRate ?? 1,
      captureSecretHeaders: dataCollector.captureSecretHeaders ?? false,
      memoryBytes: MEGABYTE / 4,
      maxBodyBytes: 1024 * MEGABYTE,
      maxDecodedBytes: 64 * MEGABYTE,
    },
    deployment: {
      ...owner,
      source: place.source,
      dataCollector: { ...dataCollector, collections: Object.fromEntries(payload) },
    },
  };
}
