import type { DeploymentConfig } from '../config/types.ts';

/** The Python a deployment runs in: a built environment. */
export interface PythonEnvironment {
  /** Folder of the environment, absolute. */
  readonly directory: string;
  /** The interpreter in it, absolute. */
  readonly python: string;
}

/** What a launcher knows besides the deployment file. */
export interface LaunchContext {
  /** Folder given to the model server as `AZUREML_MODEL_DIR`; absolute. */
  readonly modelDirectory?: string;
  /** For launchers with `needsPython`. */
  readonly python?: PythonEnvironment;
  /** From SIGTERM to SIGKILL: the process must have ended before. */
  readonly stopDeadlineMs: number;
}

/** How to start one instance process of a deployment. The process reports its port by the IPC message `listening`. */
export interface ProcessSpec {
  readonly command: string;
  readonly args: readonly string[];
  /** Working directory, absolute. */
  readonly cwd: string;
  /** Variables only the launcher can know; they win over the user's. */
  readonly environment: Readonly<Record<string, string>>;
  /** Folder that comes first on the PATH, before the user's and the machine's. */
  readonly pathFirst?: string;
  /** Path the liveness and the readiness probes ask for; any 2xx passes. */
  readonly probePath: string;
  /**
   * Who keeps to `request_settings`: the process itself, or whoever sends it requests. A process that does not know the
   * limits cannot be told either that a client has gone: it finishes what it has begun.
   */
  readonly limits: 'process' | 'front';
  /** Finds in what the process wrote, oldest first, why it ended; undefined when that is not to be seen. */
  readonly cause?: (lines: readonly string[]) => string | undefined;
}

/** Knows how to run one kind of deployment. */
export interface Launcher {
  readonly kind: string;
  /** True: `plan` needs the Python environment of the deployment, built. */
  readonly needsPython: boolean;
  matches(config: DeploymentConfig): boolean;
  plan(config: DeploymentConfig, context: LaunchContext): ProcessSpec;
}
