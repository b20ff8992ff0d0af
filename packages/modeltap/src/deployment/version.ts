import { join } from 'node:path';
import type { DeploymentConfig } from '../config/types.ts';
import { ModeltapError } from '../kit/errors.ts';
import { instanceEnvironment } from './environment.ts';
import { Instance, type InstanceEffects, type InstanceFront, type StartFailure } from './instance.ts';
import type { InstanceLog } from './instance-log.ts';
import { planProcess } from './launcher.ts';
import type { ProcessSpec, PythonEnvironment } from './process-spec.ts';
import { createQueue, type Queue } from './scoring/gate.ts';

/** What to run: a checked deployment file and what the workspace adds to it. */
export interface DeploymentSpec {
  readonly config: DeploymentConfig;
  /** Given to the script as `AZUREML_MODEL_DIR`; absolute. */
  readonly modelDirectory?: string;
  /** The built environment of a deployment that runs in Python. */
  readonly python?: PythonEnvironment;
  /** Opens what requests pass on their way to an instance that listens on this port; absent: nothing. */
  readonly front?: (port: number) => Promise<InstanceFront>;
  /** Where `instance-<n>.log` goes; made when missing. */
  readonly logDirectory: string;
  /** Variables of the workspace, e.g. `AZUREML_MDC_CONFIG_PATH`, `AZUREML_MDC_HOST`, `AZUREML_MDC_PORT`; the user cannot override them. */
  readonly environment: Readonly<Record<string, string>>;
}

/** The right to send one request to an instance. */
export interface Lease {
  readonly port: number;
  /** Name of the instance. */
  readonly instance: string;
  /**
   * True: the instance does not learn that a client has gone and finishes what it has begun. To know when it has room
   * again, wait for its answer before releasing, though nobody wants it any more.
   */
  readonly finishes: boolean;
  /** Call when the request is over, once or more. The instance is not stopped before, within its drain time. */
  release(): void;
}

/** How to choose an instance for one request. */
export interface AcquireOptions {
  /** Not this one again, unless there is no other. */
  readonly avoid?: Pick<Lease, 'port'>;
  /** Aborts when the request is no longer wanted: it leaves the queue. */
  readonly signal?: AbortSignal;
}

/** Requests that may wait, an instance. */
const MAX_WAITING = 1000;
/** The longest delay a Node timer knows. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** What a version needs from the set it belongs to. */
export interface VersionOptions {
  readonly effects: InstanceEffects;
  readonly killDeadlineMs: number;
  readonly machineEnvironment: Readonly<Record<string, string | undefined>>;
  readonly logAt: (path: string) => InstanceLog;
}

/** Why a version did not become ready: the first instance that failed. */
export interface VersionFailure extends StartFailure {
  readonly instance: string;
  readonly logPath: string;
}

/** The instances of one deployment as of one `apply`. */
export class Version {
  readonly spec: DeploymentSpec;
  readonly instances: readonly Instance[];
  readonly #names: readonly { name: string; logPath: string }[];
  readonly #released = new Set<() => void>();
  readonly #plan: ProcessSpec;
  /** Requests one instance may have at once; those beyond wait in the queue. */
  readonly #maxInFlight: number;
  readonly #queue: Queue;
  #turn = 0;

  /** Throws `launcher_missing` when nothing here runs it. */
  constructor(spec: DeploymentSpec, options: VersionOptions) {
    const { config } = spec;
    const plan = planProcess(config, {
      stopDeadlineMs: options.killDeadlineMs,
      ...(spec.modelDirectory === undefined ? {} : { modelDirectory: spec.modelDirectory }),
      ...(spec.python === undefined ? {} : { python: spec.python }),
    });
    const { maxConcurrentRequestsPerInstance, maxQueueWaitMs } = config.requestSettings;
    this.#plan = plan;
    this.#maxInFlight = plan.limits === 'front' ? maxConcurrentRequestsPerInstance : Number.POSITIVE_INFINITY;
    this.#queue = createQueue({
      hasRoom: () => this.#free() !== undefined,
      maxWaiting: MAX_WAITING * config.instanceCount,
      maxWaitMs: Math.min(maxQueueWaitMs, MAX_TIMER_MS),
    });
    const environment = instanceEnvironment(config, plan, spec.environment, options.machineEnvironment);
    this.spec = spec;
    this.#names = Array.from({ length: config.instanceCount }, (_, slot) => ({
      name: `${config.name}-${slot}`,
      logPath: join(spec.logDirectory, `instance-${slot}.log`),
    }));
    this.instances = this.#names.map(({ name, logPath }) => {
      const log = options.logAt(logPath);
      if (environment.refused.length > 0) {
        log.line(
          0,
          'sup',
          `${name}: not taken from environment_variables, Modeltap sets them: ${environment.refused.join(', ')}`,
        );
      }
      return new Instance({
        name,
        plan,
        environment: environment.variables,
        liveness: config.livenessProbe,
        readiness: config.readinessProbe,
        log,
        killDeadlineMs: options.killDeadlineMs,
        effects: options.effects,
        onReady: () => this.#queue.look(),
        ...(spec.front === undefined ? {} : { front: spec.front }),
      });
    });
  }

  /** Paths of the logs of its instances. */
  get logPaths(): readonly string[] {
    return this.#names.map(({ logPath }) => logPath);
  }

  /** Starts all instances; undefined when all are ready, else the first failure, as soon as there is one. */
  async start(): Promise<VersionFailure | undefined> {
    return new Promise((resolve) => {
      let missing = this.instances.length;
      if (missing === 0) resolve(undefined);
      for (const [index, instance] of this.instances.entries()) {
        void instance.start().then((failure) => {
          missing -= 1;
          const { name = '', logPath = '' } = this.#names[index] ?? {};
          if (failure !== undefined) resolve({ ...failure, instance: name, logPath });
          else if (missing === 0) resolve(undefined);
        });
      }
    });
  }

  /**
   * A ready instance with the fewest requests in flight, in turn among equals; undefined when none is ready. Where the
   * limits of `request_settings` are kept here, a request waits until an instance has room, first come first served:
   * rejects with `too_many_requests` when that takes longer than `max_queue_wait_ms` or too many wait already.
   */
  acquire(options: AcquireOptions = {}): Lease | undefined | Promise<Lease | undefined> {
    const instance = this.#queue.waiting === 0 ? this.#free(options.avoid) : undefined;
    if (instance !== undefined) return this.#lease(instance);
    return this.#anyReady ? this.#wait(options) : undefined;
  }

  /** A ready instance with room for one more request; `avoid` only when there is no other. */
  #free(avoid?: Pick<Lease, 'port'>): Instance | undefined {
    let best: Instance | undefined;
    let bestCost = Number.POSITIVE_INFINITY;
    const count = this.instances.length;
    this.#turn += 1;
    for (let step = 0; step < count; step += 1) {
      const instance = this.instances[(this.#turn + step) % count];
      const port = instance?.readyPort;
      if (instance === undefined || port === undefined || instance.inFlight >= this.#maxInFlight) continue;
      const cost = port === avoid?.port ? Number.MAX_SAFE_INTEGER : instance.inFlight;
      if (cost < bestCost) {
        best = instance;
        bestCost = cost;
      }
    }
    return best;
  }

  get #anyReady(): boolean {
    return this.instances.some((instance) => instance.readyPort !== undefined);
  }

  #wait({ avoid, signal }: AcquireOptions): Promise<Lease | undefined> {
    if (signal?.aborted) return Promise.resolve(undefined);
    return new Promise((resolve, reject) => {
      const leave = this.#queue.enter((entered) => {
        signal?.removeEventListener('abort', onAbort);
        const instance = entered ? this.#free(avoid) : undefined;
        if (instance !== undefined) resolve(this.#lease(instance));
        else if (this.#anyReady) reject(new ModeltapError('too_many_requests'));
        else resolve(undefined);
      });
      function onAbort(): void {
        leave();
        resolve(undefined);
      }
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** Requests in flight over all instances. */
  get inFlight(): number {
    return this.instances.reduce((sum, instance) => sum + instance.inFlight, 0);
  }

  /** Resolves when no lease is out. Nothing may acquire any more. */
  async idle(): Promise<void> {
    while (this.inFlight > 0) await new Promise<void>((resolve) => this.#released.add(resolve));
  }

  async stop(deadlineMs: number): Promise<void> {
    await Promise.all(this.instances.map((instance) => instance.stop(deadlineMs)));
  }

  #lease(instance: Instance): Lease {
    const port = instance.readyPort ?? 0;
    let released = false;
    instance.inFlight += 1;
    return {
      port,
      instance: instance.status().name,
      finishes: this.#plan.limits === 'front',
      release: () => {
        if (released) return;
        released = true;
        instance.inFlight -= 1;
        this.#queue.look();
        const waiting = [...this.#released];
        this.#released.clear();
        for (const tell of waiting) tell();
      },
    };
  }
}
