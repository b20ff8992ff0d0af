import type { DeploymentConfig } from '../config/types.ts';

/** What a launcher knows besides the deployment file. */
export interface LaunchContext {
  /** Folder given to the model server as `AZUREML_MODEL_DIR`; absolute. */
  readonly modelDirectory?: string;
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
  /** Path the liveness and the readiness probes ask for; any 2xx passes. */
  readonly probePath: string;
}

/** Knows how to run one kind of deployment. */
export interface Launcher {
  readonly kind: string;
  matches(config: DeploymentConfig): boolean;
  plan(config: DeploymentConfig, context: LaunchContext): ProcessSpec;
}
