import { type Clock, systemClock } from '../kit/clock.ts';
import { ModeltapError } from '../kit/errors.ts';
import { type Logger, silentLogger } from '../kit/logger.ts';
import type { InstanceEffects, InstanceStatus } from './instance.ts';
import { InstanceLog } from './instance-log.ts';
import { type AcquireOptions, type DeploymentSpec, type Lease, Version, type VersionFailure } from './version.ts';

/**
 * `starting`: the first version is not ready yet. `updating`: one serves and the next is starting. `ready`, `degraded`,
 * `unavailable`: all, some, none of the instances are ready. `failed`: no version ever became ready.
 */
export type DeploymentState = 'starting' | 'updating' | 'ready' | 'degraded' | 'unavailable' | 'failed';

/** A deployment as shown to people. */
export interface DeploymentStatus {
  readonly state: DeploymentState;
  /** Of the version that serves, else of the one that is starting or has failed. */
  readonly instances: readonly InstanceStatus[];
  readonly logDirectory: string;
  /** Why the last `apply` failed; absent when it did not. */
  readonly failure?: string;
}

/** Limits and effects of a set of deployments. */
export interface DeploymentsOptions {
  readonly logger?: Logger;
  readonly effects?: InstanceEffects;
  /** Environment instances inherit a few names from. Default `process.env`. */
  readonly machineEnvironment?: Readonly<Record<string, string | undefined>>;
  /** How long a replaced or removed version may finish its requests. Default 30 000 ms. */
  readonly drainMs?: number;
  /** From SIGTERM to SIGKILL. Default 10 000 ms. */
  readonly stopDeadlineMs?: number;
}

/** The deployments a workspace runs. Names are those of the files: endpoint, then deployment. */
export interface Deployments {
  /**
   * Starts a deployment or replaces the version that runs; resolves when all instances of the new one are ready and
   * serve. Requests in flight finish on the old ones. Errors: `deployment_failed` with the last log lines and the path
   * of the log (the earlier version keeps serving), `launcher_missing`, `deployment_stopped`. Calls for one deployment
   * run one after the other.
   */
  apply(spec: DeploymentSpec): Promise<void>;
  /** Drains and stops a deployment; nothing happens when there is none. Logs stay on disk. */
  remove(endpoint: string, deployment: string): Promise<void>;
  status(endpoint: string, deployment: string): DeploymentStatus | undefined;
  /** The last lines over all instances by time, `[<instance>] <ISO time> <pid> <out|err|sup> <text>`; empty when there is no such deployment. */
  logs(endpoint: string, deployment: string, options?: { readonly lines?: number }): Promise<string[]>;
  /**
   * A ready instance to send one request to; undefined when there is none now. A promise when the request has to wait
   * until an instance has room; it rejects with `too_many_requests` when the wait is over.
   */
  acquire(
    endpoint: string,
    deployment: string,
    options?: AcquireOptions,
  ): Lease | undefined | Promise<Lease | undefined>;
  /** Stops everything: requests in flight may finish until the deadline. Nothing can be applied any more. */
  stop(deadlineMs: number): Promise<void>;
}

interface Entry {
  readonly endpoint: string;
  readonly deployment: string;
  active?: Version;
  starting?: Version;
  failed?: Version;
  failure?: string;
  /** Set when nothing more may start. */
  closed: boolean;
  tail: Promise<unknown>;
  readonly retiring: Set<Promise<void>>;
  readonly logs: Map<string, InstanceLog>;
}

/** Makes an empty set of deployments. */
export function createDeployments(options: DeploymentsOptions = {}): Deployments {
  return new DeploymentSet(options);
}

class DeploymentSet implements Deployments {
  readonly #entries = new Map<string, Entry>();
  readonly #options: DeploymentsOptions;
  readonly #logger: Logger;
  readonly #clock: Clock;
  #stopped = false;

  constructor(options: DeploymentsOptions) {
    this.#options = options;
    this.#logger = options.logger ?? silentLogger;
    this.#clock = options.effects?.clock ?? systemClock;
  }

  apply(spec: DeploymentSpec): Promise<void> {
    const { endpointName: endpoint, name: deployment } = spec.config;
    if (this.#stopped) return Promise.reject(new ModeltapError('deployment_stopped', { endpoint, deployment }));
    const key = keyOf(endpoint, deployment);
    const entry = this.#entries.get(key) ?? newEntry(endpoint, deployment);
    this.#entries.set(key, entry);
    const done = entry.tail.then(() => this.#replace(entry, spec));
    entry.tail = done.catch(() => undefined);
    return done;
  }

  async remove(endpoint: string, deployment: string): Promise<void> {
    const entry = this.#entries.get(keyOf(endpoint, deployment));
    if (entry === undefined) return;
    this.#entries.delete(keyOf(endpoint, deployment));
    await this.#close(entry, this.#options.drainMs ?? 30_000);
  }

  status(endpoint: string, deployment: string): DeploymentStatus | undefined {
    const entry = this.#entries.get(keyOf(endpoint, deployment));
    const version = entry?.active ?? entry?.starting ?? entry?.failed;
    if (entry === undefined || version === undefined) return undefined;
    return {
      state: stateOf(entry),
      instances: version.instances.map((instance) => instance.status()),
      logDirectory: version.spec.logDirectory,
      ...(entry.failure === undefined ? {} : { failure: entry.failure }),
    };
  }

  async logs(endpoint: string, deployment: string, options: { readonly lines?: number } = {}): Promise<string[]> {
    const count = options.lines ?? 50;
    const entry = this.#entries.get(keyOf(endpoint, deployment));
    if (entry === undefined || count <= 0) return [];
    const files = [...entry.logs].map(async ([path, log]) => {
      const name = /instance-\d+(?=\.log$)/.exec(path)?.[0] ?? path;
      return (await log.tail(count)).map((line) => ({ line, name }));
    });
    const lines = (await Promise.all(files)).flat();
    // ISO times of one form sort as text, and the sort keeps the order of lines of one millisecond.
    lines.sort((a, b) => compare(a.line.slice(0, 24), b.line.slice(0, 24)));
    return lines.slice(-count).map(({ line, name }) => `[${name}] ${line}`);
  }

  acquire(
    endpoint: string,
    deployment: string,
    options?: AcquireOptions,
  ): Lease | undefined | Promise<Lease | undefined> {
    return this.#entries.get(keyOf(endpoint, deployment))?.active?.acquire(options);
  }

  async stop(deadlineMs: number): Promise<void> {
    this.#stopped = true;
    const entries = [...this.#entries.values()];
    await Promise.all(entries.map((entry) => this.#close(entry, deadlineMs)));
    this.#entries.clear();
  }

  async #replace(entry: Entry, spec: DeploymentSpec): Promise<void> {
    this.#refuseClosed(entry);
    const version = new Version(spec, {
      effects: this.#options.effects ?? {},
      killDeadlineMs: this.#stopDeadlineMs,
      machineEnvironment: this.#options.machineEnvironment ?? process.env,
      logAt: (path) => logAt(entry, path, this.#clock),
    });
    const { endpoint, deployment } = entry;
    entry.starting = version;
    this.#logger.info({ endpoint, deployment, instances: version.instances.length }, 'starting a deployment');
    const failure = await version.start();
    delete entry.starting;
    if (failure !== undefined) {
      const stopped = version.stop(entry.closed ? 0 : this.#stopDeadlineMs);
      this.#track(entry, stopped);
      await stopped;
      this.#refuseClosed(entry);
      entry.failed = version;
      entry.failure = explain(failure);
      this.#logger.error({ endpoint, deployment, failure: failure.reason }, 'a deployment did not become ready');
      throw new ModeltapError('deployment_failed', { deployment, detail: entry.failure });
    }
    const old = entry.active;
    entry.active = version;
    delete entry.failed;
    delete entry.failure;
    this.#logger.info({ endpoint, deployment }, 'a deployment is ready');
    if (old !== undefined) this.#track(entry, this.#retire(old, this.#options.drainMs ?? 30_000));
  }

  get #stopDeadlineMs(): number {
    return this.#options.stopDeadlineMs ?? 10_000;
  }

  #refuseClosed({ closed, endpoint, deployment }: Entry): void {
    if (closed) throw new ModeltapError('deployment_stopped', { endpoint, deployment });
  }

  /** Lets a version that gets no more requests finish those it has, then stops its processes. */
  async #retire(version: Version, drainMs: number): Promise<void> {
    const done = new AbortController();
    await Promise.race([version.idle(), this.#clock.sleep(drainMs, { signal: done.signal })]);
    done.abort();
    await version.stop(this.#stopDeadlineMs);
  }

  #track(entry: Entry, work: Promise<void>): void {
    entry.retiring.add(work);
    void work
      .finally(() => entry.retiring.delete(work))
      .catch((error: unknown) => {
        this.#logger.error({ err: error, deployment: entry.deployment }, 'a version did not stop as it should');
      });
  }

  /** Ends an entry for good; `deadlineMs` covers draining and stopping. */
  async #close(entry: Entry, deadlineMs: number): Promise<void> {
    entry.closed = true;
    const { active, starting } = entry;
    delete entry.active;
    const until = this.#clock.monotonic() + deadlineMs;
    const left = () => Math.max(0, until - this.#clock.monotonic());
    await Promise.all([
      starting?.stop(Math.min(deadlineMs, this.#stopDeadlineMs)),
      active === undefined ? undefined : this.#drainAndStop(active, left),
      entry.tail,
    ]);
    const late = new AbortController();
    await Promise.race([Promise.allSettled(entry.retiring), this.#clock.sleep(left(), { signal: late.signal })]);
    late.abort();
    await Promise.all([...entry.logs.values()].map((log) => log.close()));
  }

  async #drainAndStop(version: Version, left: () => number): Promise<void> {
    const done = new AbortController();
    await Promise.race([version.idle(), this.#clock.sleep(left(), { signal: done.signal })]);
    done.abort();
    await version.stop(Math.min(left(), this.#stopDeadlineMs));
  }
}

function newEntry(endpoint: string, deployment: string): Entry {
  return { endpoint, deployment, closed: false, tail: Promise.resolve(), retiring: new Set(), logs: new Map() };
}

/** Endpoint and deployment names hold no `/`. */
function keyOf(endpoint: string, deployment: string): string {
  return `${endpoint}/${deployment}`;
}

function logAt(entry: Entry, path: string, clock: Clock): InstanceLog {
  const log = entry.logs.get(path) ?? new InstanceLog({ path, clock });
  entry.logs.set(path, log);
  return log;
}

function stateOf(entry: Entry): DeploymentState {
  if (entry.active === undefined) return entry.starting === undefined ? 'failed' : 'starting';
  if (entry.starting !== undefined) return 'updating';
  const states = entry.active.instances.map((instance) => instance.status().state);
  const ready = states.filter((state) => state === 'ready').length;
  if (ready === states.length) return 'ready';
  return ready === 0 ? 'unavailable' : 'degraded';
}

function explain({ instance, reason, lines, logPath }: VersionFailure): string {
  const text = lines.map((line) => line.split(' ').slice(3).join(' '));
  const last = text.length === 0 ? '' : `\nIts last lines:\n  ${text.join('\n  ')}`;
  return `instance ${instance}: ${reason}. Its log is ${logPath}.${last}`;
}

function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
