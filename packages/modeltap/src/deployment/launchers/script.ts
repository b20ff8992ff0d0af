import { fileURLToPath } from 'node:url';
import type { DeploymentConfig } from '../../config/types.ts';
import { ModeltapError } from '../../kit/errors.ts';
import type { LaunchContext, Launcher, ProcessSpec } from '../process-spec.ts';

const SCRIPT = /\.(?:ts|mts|js|mjs|cjs)$/;

/** This file is TypeScript in the sources and JavaScript in the package; the server beside it has the same ending. */
const SERVER = fileURLToPath(
  new URL(`../score-server${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url),
);

/** Runs scoring scripts in TypeScript (types stripped) and JavaScript with this very Node. */
export const scriptLauncher: Launcher = {
  kind: 'script',
  needsPython: false,
  matches: (config) => config.code !== undefined && SCRIPT.test(config.code.scoringScript),
  plan: (config, context) => plan(config, context),
};

function plan(config: DeploymentConfig, context: LaunchContext): ProcessSpec {
  const { code, requestSettings } = config;
  if (code === undefined) {
    throw new ModeltapError('launcher_missing', { deployment: config.name, detail: 'it has no code_configuration' });
  }
  return {
    command: process.execPath,
    args: ['--disable-warning=ExperimentalWarning', '--disable-warning=MODULE_TYPELESS_PACKAGE_JSON', SERVER],
    cwd: code.directory,
    environment: {
      AML_APP_ROOT: code.directory,
      AZUREML_ENTRY_SCRIPT: code.scoringScript,
      ...(context.modelDirectory === undefined ? {} : { AZUREML_MODEL_DIR: context.modelDirectory }),
      MODELTAP_MAX_CONCURRENT_REQUESTS: String(requestSettings.maxConcurrentRequestsPerInstance),
      MODELTAP_MAX_QUEUE_WAIT_MS: String(requestSettings.maxQueueWaitMs),
      MODELTAP_REQUEST_TIMEOUT_MS: String(requestSettings.requestTimeoutMs),
      // A little less, so that it is the process that ends, in order.
      MODELTAP_STOP_DEADLINE_MS: String(Math.floor(context.stopDeadlineMs * 0.9)),
    },
    probePath: '/',
    limits: 'process',
  };
}
