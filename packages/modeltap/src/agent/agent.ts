import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { resolveSecrets } from '../catalog/secrets.ts';
import type { AgentConfig } from '../config/types.ts';
import { createIngest } from '../ingest/ingest.ts';
import type { Ingest, IngestCounts, ListenAddress, Route } from '../ingest/types.ts';
import { createCounters, type Counters } from '../kit/counters.ts';
import { errorText, ModeltapError } from '../kit/errors.ts';
import type { Logger } from '../kit/logger.ts';
import { version } from '../kit/version.ts';
import type { DestinationSettings } from '../record/destinations.ts';
import type { RecoveryReport } from '../spool/types.ts';
import type { TapSink } from '../tap/types.ts';
import { type AgentView, createAdminRoutes } from './admin.ts';
import { agentHealth } from './health.ts';
import { type AgentLane, openLane } from './lane.ts';
import { allSettings, type RouteTarget, routeTable } from './routes.ts';
import { AgentTaps } from './taps.ts';

/** What an agent runs from. */
export interface AgentOptions {
  readonly config: AgentConfig;
  readonly logger: Logger;
  /** Reads the agent's file again, for a reload. */
  readonly reload: () => Promise<AgentConfig>;
}

/** A running agent: it takes records, keeps them, stores them, and accounts for them. */
export interface Agent {
  readonly addresses: readonly ListenAddress[];
  /** Where its taps listen. */
  readonly taps: AgentTaps['addresses'];
  /** What each spool found at start. */
  readonly recovery: Readonly<Record<string, RecoveryReport>>;
  /** Reads the file again and uses it: collections, ports, datastores and their credentials. Limits and the spool's place need a restart. */
  reload(): Promise<void>;
  /** Stops accepting, answers what is under way, ships what is spooled until the deadline. */
  stop(deadlineMs: number): Promise<{ readonly spooledBytes: number }>;
}

/** Starts an agent. `port_in_use`, `spool_locked`, `secret_unresolved` and errors of the stores' settings stop it. */
export async function startAgent(options: AgentOptions): Promise<Agent> {
  const agent = new RunningAgent(options);
  await agent.start();
  return agent;
}

class RunningAgent implements Agent, AgentView {
  readonly #options: AgentOptions;
  readonly #counters: Counters = createCounters();
  readonly #lanes = new Map<string, AgentLane>();
  readonly #ingest: Ingest;
  readonly #taps: AgentTaps;
  #config: AgentConfig;
  #reloading: Promise<unknown> = Promise.resolve();
  /** Datastores whose lane could not be opened at a reload, and why. */
  readonly #closed = new Map<string, string>();

  constructor(options: AgentOptions) {
    this.#options = options;
    this.#config = options.config;
    const { config } = options;
    const timeReplaced = this.#counters.counter(
      'modeltap_time_replaced_total',
      'Records whose own time could not be read.',
    );
    const refused = this.#counters.counter(
      'modeltap_unrouted_total',
      'Records of no known collection, by error code.',
      ['code'],
    );
    const counts: IngestCounts = {
      accepted: () => undefined,
      duplicate: () => undefined,
      timeReplaced: () => timeReplaced.inc(),
      rejected: (code, destinationId, timeMs) => {
        refused.inc({ code });
        // The ledger of some lane must hold it, so that everything seen is in one.
        const [lane] = this.#lanes.values();
        lane?.delivery.counts(lane.datastore).rejected(code, destinationId, timeMs);
      },
    };
    this.#ingest = createIngest({
      listen: listenAddresses(config),
      route: () => ({ refusal: 'collection_unknown', collection: '', enabled: [] }),
      counts,
      logger: options.logger,
      version,
      limits: { maxRecordBytes: config.maxRecordBytes },
      next: createAdminRoutes(this),
    });
    this.#counters.gauge('modeltap_inflight_bytes', 'Bytes of request bodies in memory.', [], () => [
      [{}, this.#ingest.inflightBytes],
    ]);
    this.#declareSpoolMetrics();
    this.#taps = new AgentTaps({
      config,
      logger: options.logger,
      counters: this.#counters,
      sink: (settings) => this.#sink(settings),
    });
  }

  async start(): Promise<void> {
    try {
      await mkdir(this.#config.spool.directory, { recursive: true, mode: 0o700 });
      for (const { name } of this.#config.datastores)
        if (this.#isNeeded(name, this.#config)) await this.#openLane(name);
      this.#ingest.replaceRoutes(await this.#route(this.#config));
      await this.#taps.apply(this.#config);
      await this.#ingest.listen();
    } catch (error) {
      await this.stop(0);
      throw error;
    }
  }

  get addresses(): readonly ListenAddress[] {
    return this.#ingest.addresses;
  }

  get taps(): AgentTaps['addresses'] {
    return this.#taps.addresses;
  }

  get recovery(): Readonly<Record<string, RecoveryReport>> {
    return Object.fromEntries([...this.#lanes.values()].map((lane) => [lane.datastore, lane.writer.recovery]));
  }

  reload(): Promise<void> {
    const next = this.#reloading.then(() => this.#reload());
    this.#reloading = next.catch(() => undefined);
    return next;
  }

  async stop(deadlineMs: number): Promise<{ readonly spooledBytes: number }> {
    const until = performance.now() + deadlineMs;
    const left = () => Math.max(0, until - performance.now());
    await Promise.all([this.#ingest.close(Math.min(5_000, left())), this.#taps.close(Math.min(5_000, left()))]);
    await Promise.all([...this.#lanes.values()].map((lane) => lane.close(left())));
    const spooledBytes = [...this.#lanes.values()].reduce((sum, lane) => sum + lane.writer.pendingBytes, 0);
    this.#lanes.clear();
    return { spooledBytes };
  }

  health(): ReturnType<AgentView['health']> {
    return agentHealth([...this.#lanes.values()], this.#closed);
  }

  state(): unknown {
    return {
      version,
      addresses: this.addresses,
      taps: this.taps,
      recovery: this.recovery,
      lanes: [...this.#lanes.values()].flatMap(({ delivery, writer }) =>
        delivery.state().map((lane) => ({ ...lane, diskBytes: writer.diskBytes, maxBytes: writer.maxBytes })),
      ),
    };
  }

  ledger(filter: Parameters<AgentView['ledger']>[0]): readonly unknown[] {
    return [...this.#lanes.values()]
      .flatMap((lane) => lane.delivery.ledger.rows(filter))
      .map(({ sampledOut, ...row }) => ({ ...row, sampled_out: sampledOut }))
      .toSorted((a, b) => (a.hour < b.hour ? 1 : a.hour > b.hour ? -1 : a.collection < b.collection ? -1 : 1));
  }

  async metrics(): Promise<{ readonly type: string; readonly text: string }> {
    return { type: this.#counters.contentType, text: await this.#counters.text() };
  }

  tail(filter: Parameters<AgentView['tail']>[0], onLines: Parameters<AgentView['tail']>[1]): () => void {
    const ends = [...this.#lanes.values()].map((lane) => lane.delivery.subscribe(filter, onLines));
    return () => {
      for (const end of ends) end();
    };
  }

  async #reload(): Promise<void> {
    const config = await this.#options.reload();
    for (const { name } of config.datastores) {
      try {
        const lane = this.#lanes.get(name);
        if (lane !== undefined) lane.delivery.updateDatastore(resolveSecrets(datastoreOf(config, name)));
        else if (this.#isNeeded(name, config)) await this.#openLane(name, config);
        this.#closed.delete(name);
      } catch (error) {
        this.#closed.set(name, errorText(error));
        throw error;
      }
    }
    const route = await this.#route(config);
    await this.#taps.apply(config);
    await this.#ingest.setListeners(listenAddresses(config));
    this.#ingest.replaceRoutes(route);
    this.#config = config;
  }

  /** A lane is open for each datastore that a collection goes to, or that has records of an earlier run. */
  #isNeeded(name: string, config: AgentConfig): boolean {
    return (
      allSettings(config).some(({ settings }) => settings.datastore === name) ||
      existsSync(join(this.#options.config.spool.directory, name))
    );
  }

  async #openLane(name: string, config: AgentConfig = this.#config): Promise<void> {
    const { spool, inlineBytes } = this.#options.config;
    const lane = await openLane({
      datastore: resolveSecrets(datastoreOf(config, name)),
      directory: spool.directory,
      maxBytes: spool.maxBytes,
      inlineBytes,
      logger: this.#options.logger,
      counters: this.#counters,
      remember: (writer, record, crc) => this.#ingest.prime(writer, record, crc),
    });
    this.#lanes.set(name, lane);
  }

  /** Gives every enabled collection its number in its spool, and the table that finds it. */
  async #route(config: AgentConfig): Promise<Route> {
    const targets: RouteTarget[] = [];
    for (const { deployment, settings } of allSettings(config)) {
      const lane = this.#lane(settings);
      const destination = await lane.destinations.intern(settings);
      targets.push({ deployment, destination, spool: lane.writer, counts: lane.delivery.counts(lane.datastore) });
    }
    return routeTable(config, targets);
  }

  #lane({ datastore, collection }: DestinationSettings): AgentLane {
    const lane = this.#lanes.get(datastore);
    if (lane === undefined) throw new ModeltapError('datastore_unknown', { datastore, collection });
    return lane;
  }

  async #sink(settings: DestinationSettings): Promise<TapSink> {
    const lane = this.#lane(settings);
    const destination = await lane.destinations.intern(settings);
    const spoolDirectory = join(this.#options.config.spool.directory, lane.datastore);
    return { spool: lane.writer, spoolDirectory, destination, counts: lane.delivery.counts(lane.datastore) };
  }

  #declareSpoolMetrics(): void {
    const gauge = (name: string, help: string, read: (lane: AgentLane) => number) =>
      this.#counters.gauge(name, help, ['datastore'], () =>
        [...this.#lanes.values()].map((lane) => [{ datastore: lane.datastore }, read(lane)] as const),
      );
    gauge(
      'modeltap_spool_disk_bytes',
      'Bytes the spool has on disk, space kept ready included.',
      (lane) => lane.writer.diskBytes,
    );
    gauge('modeltap_spool_limit_bytes', 'Most bytes the spool may have on disk.', (lane) => lane.writer.maxBytes);
  }
}

/** The agent's own port, then those of the deployments. */
function listenAddresses(config: AgentConfig): readonly ListenAddress[] {
  const { host } = config;
  const own = config.deployments.flatMap(({ port }) => (port === undefined ? [] : [{ host, port }]));
  return [{ host, port: config.port }, ...own];
}

function datastoreOf(config: AgentConfig, name: string) {
  const found = config.datastores.find((datastore) => datastore.name === name);
  if (found === undefined) throw new ModeltapError('not_found', { kind: 'datastore', name, command: 'datastore' });
  return found;
}
