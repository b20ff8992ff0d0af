import { join } from 'node:path';
import type { DeploymentConfig } from '../config/types.ts';
import { instanceEnvironment } from './environment.ts';
import { Instance, type InstanceEffects, type StartFailure } from './instance.ts';
import type { InstanceLog } from './instance-log.ts';
import { planProcess } from './launcher.ts';

/** What to run: a checked deployment file and what the workspace adds to it. */
export interface DeploymentSpec {
  readonly config: DeploymentConfig;
  /** Given to the script as `AZUREML_MODEL_DIR`; absolute. */
  readonly modelDirectory?: string;
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
  /** Call when the request is over, once or more. The instance is not stopped before, within its drain time. */
  release(): void;
}

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
  #turn = 0;

  /** Throws `launcher_missing` when nothing here runs it. */
  constructor(spec: DeploymentSpec, options: VersionOptions) {
    const { config } = spec;
    const plan = planProcess(config, {
      stopDeadlineMs: options.killDeadlineMs,
      ...(spec.modelDirectory === undefined ? {} : { modelDirectory: spec.modelDirectory }),
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

  /** A ready instance with the fewest requests in flight, in turn among equals; `avoid` only when there is no other. */
  acquire(avoid?: Pick<Lease, 'port'>): Lease | undefined {
    let best: Instance | undefined;
    let bestCost = Number.POSITIVE_INFINITY;
    const count = this.instances.length;
    this.#turn += 1;
    for (let step = 0; step < count; step += 1) {
      const instance = this.instances[(this.#turn + step) % count];
      const port = instance?.readyPort;
      if (instance === undefined || port === undefined) continue;
      const cost = port === avoid?.port ? Number.MAX_SAFE_INTEGER : instance.inFlight;
      if (cost < bestCost) {
        best = instance;
        bestCost = cost;
      }
    }
    return best === undefined ? undefined : this.#lease(best);
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
      release: () => {
        if (released) return;
        released = true;
        instance.inFlight -= 1;
        const waiting = [...this.#released];
        this.#released.clear();
        for (const tell of waiting) tell();
      },
    };
  }
}
