import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { DeploymentConfig } from '../../config/types.ts';
import { ModeltapError } from '../../kit/errors.ts';
import type { LaunchContext, Launcher, ProcessSpec } from '../process-spec.ts';

/** Beside the sources and the compiled files alike. */
const SERVER = fileURLToPath(new URL('../../../python/serve.py', import.meta.url));

/** Runs scoring scripts in Python with the environment's own azureml-inference-server-http. */
export const pythonLauncher: Launcher = {
  kind: 'python',
  needsPython: true,
  matches: (config) => config.code?.scoringScript.endsWith('.py') ?? false,
  plan: (config, context) => plan(config, context),
};

function plan(config: DeploymentConfig, context: LaunchContext): ProcessSpec {
  const { code } = config;
  const { python, modelDirectory, stopDeadlineMs } = context;
  if (code === undefined || python === undefined) {
    const detail = code === undefined ? 'it has no code_configuration' : 'its Python environment was not built';
    throw new ModeltapError('launcher_missing', { deployment: config.name, detail });
  }
  return {
    command: python.python,
    // Unbuffered, so that what the script prints is in the log at once.
    args: ['-u', SERVER],
    cwd: code.directory,
    environment: {
      AML_APP_ROOT: code.directory,
      AZUREML_ENTRY_SCRIPT: code.scoringScript,
      ...(modelDirectory === undefined ? {} : { AZUREML_MODEL_DIR: modelDirectory }),
      VIRTUAL_ENV: python.directory,
      // A little less, so that it is the server that ends, in order.
      MODELTAP_STOP_DEADLINE_MS: String(Math.floor(stopDeadlineMs * 0.9)),
    },
    pathFirst: join(python.directory, 'bin'),
    probePath: '/',
    limits: 'front',
    cause: pythonCause,
  };
}

/** What the server wraps the script's own error in. */
const WRAPPED = /^The above exception was the direct cause of the following exception:/;
/** The server's own errors, whose text says it all. */
const SERVER_ERROR = /^[\w.]*\bUserScript\w*: (.*)$/;
/** What `serve.py` says. */
const OWN_LINE = /^modeltap: (.*)$/;

/**
 * The error that ended a Python server, from its last lines: that of the scoring script, not the server's that wraps it
 * (`ModuleNotFoundError: No module named 'nope'`), else the server's (`User script at … does not have a run() …`).
 */
export function pythonCause(lines: readonly string[]): string | undefined {
  const wrapped = lines.findLastIndex((line) => WRAPPED.test(line));
  const own = wrapped < 0 ? undefined : tracebackEnd(lines.slice(0, wrapped));
  const error = own ?? tracebackEnd(lines);
  if (error !== undefined) return SERVER_ERROR.exec(error)?.[1] ?? error;
  const said = lines.findLast((line) => OWN_LINE.test(line));
  return said === undefined ? undefined : OWN_LINE.exec(said)?.[1];
}

/** The first line of the last traceback that is not indented: the error itself. */
function tracebackEnd(lines: readonly string[]): string | undefined {
  const start = lines.findLastIndex((line) => line.includes('Traceback (most recent call last):'));
  return start < 0 ? undefined : lines.slice(start + 1).find((line) => /^\S/.test(line));
}
