import { access, constants, mkdir, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import type { EnvironmentConfig } from '../../config/types.ts';
import { type Clock, systemClock } from '../../kit/clock.ts';
import { errorText, ModeltapError, systemCode } from '../../kit/errors.ts';
import { type Logger, silentLogger } from '../../kit/logger.ts';
import { BUILD_LOG, buildEnvironment, COMPLETE_FILE, environmentPython } from './build.ts';
import { takeLock } from './build-lock.ts';
import type { Spawn } from './command.ts';
import { fingerprint } from './fingerprint.ts';
import { findInterpreters, onPath } from './interpreters.ts';
import { buildVariables } from './machine.ts';
import { planRequirements, type RequirementPlan } from './plan.ts';
import { chooseInterpreter, type Interpreter } from './python-version.ts';

/** Longest a build may take. Default of `buildTimeoutMs`. */
const BUILD_TIMEOUT_MS = 3_600_000;
/** So long the interpreters found before are taken to be those of the machine still. */
const INTERPRETERS_KEPT_MS = 30_000;

/** A Python environment that is ready to run a scoring script. */
export interface PreparedEnvironment {
  /** 16 hex digits of what is in it; the name of its folder. */
  readonly hash: string;
  /** Absolute; the root of the virtual environment (`VIRTUAL_ENV`). */
  readonly directory: string;
  /** Absolute path of the interpreter in it. */
  readonly python: string;
  /** `3.11.7`. */
  readonly pythonVersion: string;
  /** True when it was there already. */
  readonly reused: boolean;
  /** For the user; the same whether it was built or reused. */
  readonly warnings: readonly string[];
  /** Absolute path of the log of its build. */
  readonly logPath: string;
}

/** How to prepare one environment. */
export interface PrepareOptions {
  /** Ends a build under way; what it has made is removed. */
  readonly signal?: AbortSignal;
  /** Short texts for a person, e.g. `installing 12 packages (pip)`; a few a second at most. */
  readonly onProgress?: (text: string) => void;
}

/** The Python environments of a workspace. */
export interface Environments {
  /**
   * Makes the environment, or finds it made. Without one: any Python, with the inference server only. Throws a
   * `ConfigError` for packages that cannot be had from PyPI, `python_missing`, `environment_build_failed`,
   * `environment_build_cancelled`, `environment_unusable`.
   */
  prepare(environment: EnvironmentConfig | undefined, options?: PrepareOptions): Promise<PreparedEnvironment>;
}

/** What the environments of a workspace need. */
export interface EnvironmentsOptions {
  /** `<workspace>/environments`, absolute; made when missing. */
  readonly directory: string;
  /** Variables of the machine; default those of this process. */
  readonly machineEnvironment?: Readonly<Record<string, string | undefined>>;
  readonly logger?: Logger;
  /** Longest a build may take, in ms. Default one hour. */
  readonly buildTimeoutMs?: number;
  readonly spawn?: Spawn;
  readonly clock?: Clock;
  /** Looks for the interpreters of the machine. */
  readonly interpreters?: typeof findInterpreters;
}

/** Keeps environments in a folder, one for each content. */
export function createEnvironments(options: EnvironmentsOptions): Environments {
  return new EnvironmentFolder(options);
}

class EnvironmentFolder implements Environments {
  readonly #options: EnvironmentsOptions;
  readonly #machine: Readonly<Record<string, string | undefined>>;
  readonly #clock: Clock;
  readonly #logger: Logger;
  #found: { readonly at: number; readonly uv: string | undefined; readonly list: readonly Interpreter[] } | undefined;

  constructor(options: EnvironmentsOptions) {
    this.#options = options;
    this.#machine = options.machineEnvironment ?? process.env;
    this.#clock = options.clock ?? systemClock;
    this.#logger = options.logger ?? silentLogger;
  }

  async prepare(
    environment: EnvironmentConfig | undefined,
    options: PrepareOptions = {},
  ): Promise<PreparedEnvironment> {
    const plan = planRequirements(environment);
    const uv = onPath('uv', this.#machine.PATH);
    const { interpreter, warning } = await this.#choose(plan, uv, options.signal);
    const hash = await this.#hash(plan, interpreter.version);
    const directory = join(this.#options.directory, hash);
    const prepared = {
      hash,
      directory,
      python: environmentPython(directory),
      pythonVersion: interpreter.version,
      warnings: [...(warning === undefined ? [] : [warning]), ...plan.warnings],
      logPath: join(directory, BUILD_LOG),
    };
    const release = await this.#lock(hash, options);
    try {
      if (await isComplete(directory)) return { ...prepared, reused: true };
      await this.#build({ directory, plan, interpreter, uv }, options);
      return { ...prepared, reused: false };
    } finally {
      release();
    }
  }

  async #build(
    what: { directory: string; plan: RequirementPlan; interpreter: Interpreter; uv: string | undefined },
    options: PrepareOptions,
  ): Promise<void> {
    const started = this.#clock.monotonic();
    const late = AbortSignal.timeout(this.#options.buildTimeoutMs ?? BUILD_TIMEOUT_MS);
    const { signal, onProgress = () => undefined } = options;
    const fields = { environment: what.directory, python: what.interpreter.version };
    this.#logger.info(fields, `building a Python environment with ${what.uv === undefined ? 'venv and pip' : 'uv'}`);
    try {
      await buildEnvironment({
        ...what,
        variables: buildVariables(this.#machine),
        signal: signal === undefined ? late : AbortSignal.any([late, signal]),
        isLate: () => late.aborted && signal?.aborted !== true,
        onProgress,
        ...(this.#options.spawn === undefined ? {} : { spawn: this.#options.spawn }),
      });
    } catch (error) {
      this.#logger.warn({ ...fields, err: errorText(error) }, 'the Python environment was not built');
      throw systemCode(error) === undefined || error instanceof ModeltapError ? error : unusable(what.directory, error);
    }
    this.#logger.info({ ...fields, ms: Math.round(this.#clock.monotonic() - started) }, 'built a Python environment');
  }

  async #lock(hash: string, { signal, onProgress }: PrepareOptions): Promise<() => void> {
    const { directory } = this.#options;
    await mkdir(directory, { recursive: true }).catch((error: unknown) => {
      throw unusable(directory, error);
    });
    const release = await takeLock(join(directory, `${hash}.lock`), {
      clock: this.#clock,
      ...(signal === undefined ? {} : { signal }),
      onWait: () => onProgress?.('waiting for another build of the same environment'),
    });
    if (release === undefined) throw new ModeltapError('environment_build_cancelled');
    return release;
  }

  async #choose(plan: RequirementPlan, uv: string | undefined, signal: AbortSignal | undefined) {
    const now = this.#clock.monotonic();
    const earlier = this.#found;
    const kept = earlier !== undefined && earlier.uv === uv && now - earlier.at < INTERPRETERS_KEPT_MS;
    const list = kept
      ? earlier.list
      : await (this.#options.interpreters ?? findInterpreters)({
          machine: this.#machine,
          uv,
          ...(signal === undefined ? {} : { signal }),
        });
    if (signal?.aborted) throw new ModeltapError('environment_build_cancelled');
    this.#found = kept ? earlier : { at: now, uv, list };
    const chosen = chooseInterpreter(plan.python, uv === undefined ? list.filter(({ hasVenv }) => hasVenv) : list);
    if (chosen !== undefined) return chosen;
    const seen = list.map(({ path, version, hasVenv }) => `${path} (${version}${hasVenv ? '' : ', without venv'})`);
    throw new ModeltapError('python_missing', { seen: seen.length === 0 ? 'none at all' : seen.join(', ') });
  }

  async #hash(plan: RequirementPlan, pythonVersion: string): Promise<string> {
    try {
      return await fingerprint(plan, pythonVersion);
    } catch (error) {
      throw unusable('the local packages of the pip section', error);
    }
  }
}

/** Whole, and its interpreter still there; then it counts as used now. */
async function isComplete(directory: string): Promise<boolean> {
  try {
    await access(environmentPython(directory), constants.X_OK);
    const now = new Date();
    await utimes(join(directory, COMPLETE_FILE), now, now);
    return true;
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'EACCES') return false;
    throw unusable(directory, error);
  }
}

function unusable(path: string, error: unknown): ModeltapError {
  return new ModeltapError('environment_unusable', { path, detail: errorText(error) }, { cause: error });
}
