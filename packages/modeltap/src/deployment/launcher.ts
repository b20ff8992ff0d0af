import type { DeploymentConfig } from '../config/types.ts';
import { ModeltapError } from '../kit/errors.ts';
import { pythonLauncher } from './launchers/python.ts';
import { scriptLauncher } from './launchers/script.ts';
import type { LaunchContext, Launcher, ProcessSpec } from './process-spec.ts';

/** Every launcher of this version; the first that matches is taken. */
const LAUNCHERS: readonly Launcher[] = [scriptLauncher, pythonLauncher];

/** The process to start for a deployment; `launcher_missing` says what this version runs and what was asked for. */
export function planProcess(config: DeploymentConfig, context: LaunchContext): ProcessSpec {
  const launcher = LAUNCHERS.find((one) => one.matches(config));
  if (launcher === undefined) {
    throw new ModeltapError('launcher_missing', { deployment: config.name, detail: whatWasAsked(config) });
  }
  return launcher.plan(config, context);
}

/** True when the deployment runs in Python, so that its environment has to be built before it is planned. */
export function needsPython(config: DeploymentConfig): boolean {
  return LAUNCHERS.find((one) => one.matches(config))?.needsPython ?? false;
}

function whatWasAsked(config: DeploymentConfig): string {
  const script = config.code?.scoringScript;
  if (script !== undefined) return `nothing here runs the scoring script ${script}`;
  const { environment } = config;
  if (environment !== undefined && 'image' in environment && environment.image !== undefined) {
    return 'it is a custom container: an image without code_configuration';
  }
  return 'it has no code_configuration, and models without a scoring script are not served';
}
