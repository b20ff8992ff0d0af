import { createHash } from 'node:crypto';
import { existsSync, globSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { lockDirectory } from '../../../packages/modeltap/src/spool/lock.ts';
import type { Interpreter } from './interpreters.ts';
import { lastLines, type Ran, run } from './run.ts';

/** Where virtual environments are kept between runs. It may be removed at any time. */
export const CACHE = resolve(
  process.env.MODELTAP_PYTHON_CACHE ?? join(import.meta.dirname, '../../../.cache/python'),
  'test-venvs',
);

/** Part of every hash: raised when environments are made in another way. */
const FORMAT = 1;
/** Longest wait for another process that builds the same environment. */
const LOCK_TIMEOUT_MS = 300_000;
const INSTALL_TIMEOUT_MS = 300_000;
/** Test environments come from wheels: a package that would have to be compiled counts as one that does not install. */
const INSTALL_OPTIONS = ['--only-binary=:all:'];

/** What an environment is made of. */
export interface VenvPlan {
  readonly interpreter: Interpreter;
  /** Requirements as pip reads them. */
  readonly requirements: readonly string[];
  /** An environment of the same interpreter whose packages this one sees too. Saves unpacking pandas for every SDK. */
  readonly base?: Venv;
}

/** An environment that is ready. */
export interface Venv {
  readonly plan: VenvPlan;
  /** The interpreter in it. */
  readonly python: string;
  readonly reused: boolean;
}

/** An environment, or why its packages do not install. */
export type VenvResult = { readonly venv: Venv } | { readonly problem: string };

let uv: Promise<boolean> | undefined;

function hasUv(): Promise<boolean> {
  uv ??= run('uv', ['--version'], { timeoutMs: 10_000 }).then(({ code }) => code === 0);
  return uv;
}

/** Makes an environment, or takes it from the cache. Two processes that want the same one build it once. */
export async function makeVenv(plan: VenvPlan): Promise<VenvResult> {
  const directory = join(CACHE, hashOf(plan));
  const python = join(directory, process.platform === 'win32' ? 'Scripts/python.exe' : 'bin/python');
  const complete = join(directory, 'complete');
  if (existsSync(complete)) return { venv: { plan, python, reused: true } };
  const unlock = await lock(`${directory}.lock`);
  try {
    if (existsSync(complete)) return { venv: { plan, python, reused: true } };
    rmSync(directory, { recursive: true, force: true });
    const made = (await hasUv())
      ? await buildWithUv(plan, directory, python)
      : await buildWithPip(plan, directory, python);
    if (made.code !== 0) {
      rmSync(directory, { recursive: true, force: true });
      return { problem: problemOf(made) };
    }
    writeFileSync(complete, `${plan.requirements.join('\n')}\n`);
    return { venv: { plan, python, reused: false } };
  } finally {
    unlock();
  }
}

function hashOf({ interpreter, requirements, base }: VenvPlan): string {
  const parts = [FORMAT, interpreter.path, interpreter.version, ...requirements, base ? hashOf(base.plan) : ''];
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 16);
}

/** The kernel lets the lock go when its holder dies, so no lock is ever stale. */
async function lock(directory: string): Promise<() => void> {
  mkdirSync(directory, { recursive: true });
  const until = Date.now() + LOCK_TIMEOUT_MS;
  for (;;) {
    try {
      return lockDirectory(directory);
    } catch (error) {
      if (Date.now() > until) throw error;
      await wait(250);
    }
  }
}

async function buildWithUv(plan: VenvPlan, directory: string, python: string): Promise<Ran> {
  const made = await run('uv', ['venv', '--quiet', '--python', plan.interpreter.path, directory]);
  if (made.code !== 0) return made;
  // uv links files out of its cache, so a base would save nothing.
  const requirements = [...(plan.base?.plan.requirements ?? []), ...plan.requirements];
  const install = ['pip', 'install', '--python', python, ...INSTALL_OPTIONS, ...requirements];
  return run('uv', install, { timeoutMs: INSTALL_TIMEOUT_MS });
}

async function buildWithPip(plan: VenvPlan, directory: string, python: string): Promise<Ran> {
  const { interpreter, requirements, base } = plan;
  const made = await run(interpreter.path, ['-I', '-m', 'venv', '--without-pip', directory]);
  if (made.code !== 0) return made;
  if (base) {
    const [site] = globSync(join(directory, 'lib', '*', 'site-packages'));
    const [seen] = globSync(join(base.python, '..', '..', 'lib', '*', 'site-packages'));
    if (site !== undefined && seen !== undefined) writeFileSync(join(site, 'base.pth'), `${seen}\n`);
  }
  // --no-compile: what is never imported need not be compiled.
  const install = ['install', '--no-compile', '--no-warn-script-location', ...INSTALL_OPTIONS, ...requirements];
  return run(interpreter.path, ['-I', '-m', 'pip', '--python', python, ...install], { timeoutMs: INSTALL_TIMEOUT_MS });
}

/** The installer's own reason, in one line. */
function problemOf(ran: Ran): string {
  const errors = `${ran.stderr}\n${ran.stdout}`.split('\n').filter((line) => /^\s*(?:ERROR|error|×|╰─▶)/.test(line));
  return errors.length === 0 ? lastLines(ran, 3) : errors.slice(0, 2).join(' ');
}
