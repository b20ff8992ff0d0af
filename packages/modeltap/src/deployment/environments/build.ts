import { mkdir, open, readdir, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { ModeltapError } from '../../kit/errors.ts';
import { BuildLog, Progress, progressOf } from './build-log.ts';
import { type CommandEnd, runCommand, type Spawn } from './command.ts';
import { type PipSettings, readPipSettings, uvVariables, type Variables } from './machine.ts';
import { forUv, type PipRequirement } from './pip-lines.ts';
import { INFERENCE_SERVER, type RequirementPlan } from './plan.ts';
import { type Interpreter, minorOf } from './python-version.ts';

/** Written last: a folder that has it is whole. Its time of change is when the environment was last prepared. */
export const COMPLETE_FILE = 'complete';
/** Every line of the build, also of a failed one. */
export const BUILD_LOG = 'build.log';

/** From here on `venv` brings no setuptools, which conda's environments have. */
const FIRST_MINOR_WITHOUT_SETUPTOOLS = 12;
/** Later ones have no `pkg_resources`, which older Azure ML packages import. */
const SETUPTOOLS = 'setuptools<81';
/** What pip and uv say when the packages cannot be had together, in one installation. */
const CONFLICT = /ResolutionImpossible|No solution found/;
const NOT_FOUND = /was not found in|No matching distribution found/;

/** One environment to build. */
export interface BuildOptions {
  /** Absolute folder of the environment. What is in it is removed. */
  readonly directory: string;
  readonly plan: RequirementPlan;
  readonly interpreter: Interpreter;
  /** Absolute path of uv; undefined: venv and pip. */
  readonly uv: string | undefined;
  readonly variables: Variables;
  /** Aborts the build: its processes are ended and the folder is removed. */
  readonly signal: AbortSignal;
  /** True when `signal` tells that the time is up, false when somebody wants no environment any more. */
  readonly isLate: () => boolean;
  readonly onProgress: (text: string) => void;
  readonly spawn?: Spawn;
}

/** Absolute path of the interpreter in an environment. */
export function environmentPython(directory: string): string {
  return join(directory, 'bin', 'python');
}

/**
 * Builds an environment in its place (environments cannot be moved). Throws `environment_build_failed` with the last lines
 * of what failed, of which nothing but the log stays, or `environment_build_cancelled`, of which nothing stays.
 */
export async function buildEnvironment(options: BuildOptions): Promise<void> {
  const { directory, signal } = options;
  await rm(directory, { recursive: true, force: true, maxRetries: 3 });
  await mkdir(directory, { recursive: true });
  const log = new BuildLog(join(directory, BUILD_LOG));
  const progress = new Progress(options.onProgress);
  try {
    await new Build(options, log, progress).run();
    if (signal.aborted && !options.isLate()) throw new ModeltapError('environment_build_cancelled');
    await complete(directory, options);
  } catch (error) {
    if (signal.aborted && !options.isLate()) {
      await rm(directory, { recursive: true, force: true, maxRetries: 3 });
      throw new ModeltapError('environment_build_cancelled', {}, { cause: error });
    }
    await removeAllBut(directory, BUILD_LOG);
    throw error;
  } finally {
    progress.end();
    log.close();
  }
}

/** One installation: what pip is given in one file. */
interface Installation {
  readonly title: string;
  readonly packages: readonly string[];
  readonly pip: readonly PipRequirement[];
}

/** A build under way. */
class Build {
  readonly #options: BuildOptions;
  readonly #log: BuildLog;
  readonly #progress: Progress;
  readonly #tool: 'uv' | 'pip';
  readonly #python: string;
  #variables: Variables;

  constructor(options: BuildOptions, log: BuildLog, progress: Progress) {
    this.#options = options;
    this.#log = log;
    this.#progress = progress;
    this.#tool = options.uv === undefined ? 'pip' : 'uv';
    this.#python = environmentPython(options.directory);
    this.#variables = options.variables;
  }

  async run(): Promise<void> {
    const { plan, interpreter, uv, directory } = this.#options;
    this.#log.line(`Python ${interpreter.version} at ${interpreter.path}`);
    for (const text of [...plan.warnings, ...plan.notes]) this.#log.line(`note: ${text}`);
    this.#progress.say(`creating the environment with Python ${interpreter.version}`);
    if (uv === undefined) await this.#must(interpreter.path, ['-I', '-m', 'venv', directory]);
    else {
      this.#variables = uvVariables(this.#variables, await this.#pipSettings());
      await this.#must(uv, ['venv', '--allow-existing', '--python', interpreter.path, directory]);
    }
    await this.#seed();
    await this.#installAll();
    await this.#ensureServer();
  }

  /** pip, and setuptools as conda brings it. Packages do without in most cases, so only a pip that was asked for must be. */
  async #seed(): Promise<void> {
    const { plan, interpreter, uv } = this.#options;
    const asked = plan.pipVersion === undefined ? [] : [`pip${plan.pipVersion}`];
    if (asked.length > 0) await this.#install({ title: 'the pip asked for', packages: asked, pip: sources(plan) });
    const seeds = uv === undefined ? [] : asked.length > 0 ? [] : ['pip'];
    if (uv !== undefined || minorOf(interpreter) >= FIRST_MINOR_WITHOUT_SETUPTOOLS) seeds.push(SETUPTOOLS);
    if (seeds.length === 0) return;
    const end = await this.#tryInstall({ title: 'what conda brings along', packages: seeds, pip: sources(plan) });
    if (this.#options.signal.aborted) throw this.#failure(end);
    if (end.code !== 0) this.#log.line(`note: goes on without ${seeds.join(' and ')}`);
  }

  /** All in one installation, so that all fits together; else conda's list and then pip's on top, as conda does it. */
  async #installAll(): Promise<void> {
    const { plan } = this.#options;
    const conda = { title: 'the list of conda', packages: plan.packages, pip: sources(plan) };
    const pip = { title: 'the pip section', packages: [], pip: plan.pip };
    if (plan.hashed) {
      await this.#install(pip);
      if (plan.packages.length > 0) await this.#install(conda);
      return;
    }
    const end = await this.#tryInstall({ title: 'all packages', packages: plan.packages, pip: plan.pip });
    if (end.code === 0) return;
    const tail = this.#log.tail();
    const two = plan.packages.length > 0 && plan.pip.some(({ option }) => option === undefined);
    if (!two || !CONFLICT.test(tail) || NOT_FOUND.test(tail)) throw this.#failure(end);
    this.#log.line('note: they do not go together; as conda does it, pip installs its section over the list of conda');
    await this.#install(conda);
    await this.#install(pip);
  }

  /** Old versions of `azureml-defaults` bring another server, or none. */
  async #ensureServer(): Promise<void> {
    const look = "import importlib.util as u, sys; sys.exit(u.find_spec('azureml_inference_server_http') is None)";
    const there = await this.#run(this.#python, ['-I', '-c', look]);
    if (there.code === 0) return;
    if (there.code !== 1 || this.#options.signal.aborted) throw this.#failure(there);
    this.#log.line(`note: no package has brought ${INFERENCE_SERVER}; it is added`);
    await this.#install({ title: 'the server', packages: [INFERENCE_SERVER], pip: sources(this.#options.plan) });
  }

  async #install(installation: Installation): Promise<void> {
    const end = await this.#tryInstall(installation);
    if (end.code !== 0) throw this.#failure(end);
  }

  async #tryInstall({ title, packages, pip }: Installation): Promise<CommandEnd> {
    const { uv } = this.#options;
    const rewritten = uv === undefined ? { lines: pip, args: [], notes: [] } : forUv(pip);
    this.#log.line(`installing ${title}:`);
    const lines = [...packages, ...rewritten.lines.filter((one) => !one.constraint).map(({ line }) => line)];
    const constraints = rewritten.lines.filter((one) => one.constraint).map(({ line }) => line);
    for (const text of [...lines, ...constraints.map((one) => `constraint ${one}`)]) this.#log.line(`  ${text}`);
    for (const note of rewritten.notes) this.#log.line(`note: ${note}`);
    const files = [
      { option: '-r', path: join(this.#options.directory, 'requirements.txt'), lines },
      { option: '-c', path: join(this.#options.directory, 'constraints.txt'), lines: constraints },
    ].filter((file) => file.lines.length > 0);
    if (files[0]?.option !== '-r') return { code: 0, text: 'nothing to install' };
    // Only for the time of the command, and only for this user: an index may be named with its password.
    for (const file of files) await writeFile(file.path, `${file.lines.join('\n')}\n`, { mode: 0o600 });
    const inputs = [...rewritten.args, ...files.flatMap(({ option, path }) => [option, path])];
    const end =
      uv === undefined
        ? await this.#run(this.#python, ['-I', '-u', '-m', 'pip', 'install', '--progress-bar', 'off', ...inputs])
        : await this.#run(uv, ['pip', 'install', '--python', this.#python, ...inputs]);
    for (const file of files) await rm(file.path, { force: true });
    return end;
  }

  /** What pip is told by files that uv does not read. The environment has no pip yet, so the interpreter's own is asked. */
  async #pipSettings(): Promise<PipSettings> {
    const lines: string[] = [];
    await runCommand({
      command: this.#options.interpreter.path,
      args: ['-I', '-m', 'pip', 'config', 'list'],
      cwd: this.#options.directory,
      environment: this.#variables,
      signal: this.#options.signal,
      onLine: (line) => lines.push(line),
    });
    return readPipSettings(lines.join('\n'));
  }

  async #must(command: string, args: readonly string[]): Promise<void> {
    const end = await this.#run(command, args);
    if (end.code !== 0) throw this.#failure(end);
  }

  async #run(command: string, args: readonly string[]): Promise<CommandEnd> {
    this.#log.begin([basename(command), ...args].join(' '));
    const { spawn, interpreter, directory, signal } = this.#options;
    return runCommand({
      command,
      args,
      cwd: directory,
      environment: this.#variables,
      watchedBy: interpreter.path,
      signal,
      onLine: (line) => {
        const text = progressOf(this.#log.line(line));
        if (text !== undefined) this.#progress.say(`${text} (${this.#tool})`);
      },
      ...(spawn === undefined ? {} : { spawn }),
    });
  }

  #failure(end: CommandEnd): ModeltapError {
    const why = this.#options.isLate() ? 'it took too long' : `${this.#tool} ended with ${end.text}`;
    return new ModeltapError('environment_build_failed', {
      detail: `${why}:\n${this.#log.tail()}`,
      log: this.#log.path,
    });
  }
}

/** The options that say where packages come from, for an installation beside the pip section. */
function sources(plan: RequirementPlan): readonly PipRequirement[] {
  return plan.pip.filter((one) => one.constraint || (one.option !== undefined && SOURCE_OPTIONS.has(one.option.name)));
}

const SOURCE_OPTIONS = new Set([
  '--index-url',
  '--extra-index-url',
  '--find-links',
  '--no-index',
  '--trusted-host',
  '--only-binary',
  '--no-binary',
]);

async function complete(directory: string, { plan, interpreter }: BuildOptions): Promise<void> {
  const file = await open(join(directory, COMPLETE_FILE), 'w');
  try {
    await file.writeFile(`${JSON.stringify({ python: interpreter.version, packages: plan.packages.length })}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  const folder = await open(directory, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

async function removeAllBut(directory: string, kept: string): Promise<void> {
  for (const name of await readdir(directory)) {
    if (name !== kept) await rm(join(directory, name), { recursive: true, force: true, maxRetries: 3 });
  }
}
