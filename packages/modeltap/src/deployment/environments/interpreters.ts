import { globSync, readdirSync, realpathSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, isAbsolute, join } from 'node:path';
import { runCommand } from './command.ts';
import { buildVariables, type Variables } from './machine.ts';
import type { Interpreter } from './python-version.ts';

/** Most files that are asked whether they are a Python. */
const MAX_CANDIDATES = 60;
const ASKED_AT_ONCE = 4;
/** A shim of a version manager on a busy machine takes its time. */
const ANSWER_TIMEOUT_MS = 15_000;

/**
 * Printed as JSON: the interpreter behind a shim or a virtual environment, its version, whether it makes environments.
 * Others than plain CPython have few wheels on PyPI, so they do not count.
 */
const QUESTION = `
import json, os, sys, sysconfig
try:
    import ensurepip, venv
    has_venv = True
except ImportError:
    has_venv = False
plain = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
path = getattr(sys, "_base_executable", None) or sys.executable
print(json.dumps({"path": path, "version": "%d.%d.%d" % sys.version_info[:3], "venv": has_venv, "plain": plain}))
`;

/** Where interpreters are looked for. */
export interface InterpreterSources {
  readonly machine: Readonly<Record<string, string | undefined>>;
  /** uv, when it is there: it keeps interpreters of its own. */
  readonly uv: string | undefined;
  readonly signal?: AbortSignal;
}

/**
 * The interpreters of this machine, in this order: those on the PATH (`python3.X`, `python3`, `python`), uv's, pyenv's,
 * those of `/usr/bin`. Each is asked for its real version; each real interpreter is named once.
 */
export async function findInterpreters(sources: InterpreterSources): Promise<readonly Interpreter[]> {
  const variables = buildVariables(sources.machine);
  const candidates = await candidatesOf(sources, variables);
  const answers: (Interpreter | undefined)[] = [];
  for (let at = 0; at < candidates.length; at += ASKED_AT_ONCE) {
    const some = candidates.slice(at, at + ASKED_AT_ONCE);
    answers.push(...(await Promise.all(some.map((path) => ask(path, variables, sources.signal)))));
  }
  const unique = new Map<string, Interpreter>();
  for (const one of answers) {
    if (one === undefined) continue;
    const real = realPath(one.path) ?? one.path;
    if (!unique.has(real)) unique.set(real, one);
  }
  return [...unique.values()];
}

/** The full path of a program on the PATH, or undefined. Relative parts of the PATH do not count. */
export function onPath(name: string, path: string | undefined): string | undefined {
  return foldersOf(path)
    .map((folder) => join(folder, name))
    .find((file) => realPath(file) !== undefined);
}

function foldersOf(path: string | undefined): readonly string[] {
  return (path ?? '').split(delimiter).filter(isAbsolute);
}

async function candidatesOf(sources: InterpreterSources, variables: Variables): Promise<readonly string[]> {
  const { machine } = sources;
  const pyenv = machine.PYENV_ROOT ?? (machine.HOME === undefined ? undefined : join(machine.HOME, '.pyenv'));
  const uvFolder = await uvPythons(sources, variables);
  const found = [
    // pyenv's shims are slow, and refuse what is not selected; its versions are looked at below.
    ...foldersOf(machine.PATH).flatMap((folder) =>
      folder === join(pyenv ?? '', 'shims') ? [join(folder, 'python3')] : namedPython(folder),
    ),
    ...(uvFolder === undefined ? [] : globSync(join(uvFolder, 'cpython-3*', 'bin', 'python3'))),
    ...(pyenv === undefined ? [] : globSync(join(pyenv, 'versions', '*', 'bin', 'python'))),
    ...namedPython('/usr/bin'),
  ];
  const unique = new Map<string, string>();
  for (const path of found) {
    const real = realPath(path);
    if (real !== undefined && !unique.has(real)) unique.set(real, path);
  }
  return [...unique.values()].slice(0, MAX_CANDIDATES);
}

function namedPython(folder: string): readonly string[] {
  let names: readonly string[];
  try {
    names = readdirSync(folder);
  } catch {
    // A part of the PATH that is not there, or that nobody may look into.
    return [];
  }
  return names
    .filter((name) => /^python(?:3(?:\.\d+)?)?$/.test(name))
    .toSorted((a, b) => b.length - a.length || b.localeCompare(a))
    .map((name) => join(folder, name));
}

async function uvPythons(sources: InterpreterSources, variables: Variables): Promise<string | undefined> {
  if (sources.uv === undefined) return undefined;
  const lines = await output(sources.uv, ['python', 'dir'], variables, sources.signal);
  return lines?.find(isAbsolute);
}

async function ask(path: string, variables: Variables, signal?: AbortSignal): Promise<Interpreter | undefined> {
  const lines = await output(path, ['-I', '-c', QUESTION], variables, signal);
  const answer = lines?.find((line) => line.startsWith('{'));
  if (answer === undefined) return undefined;
  const said = JSON.parse(answer) as { path: string; version: string; venv: boolean; plain: boolean };
  if (!said.plain || !isAbsolute(said.path)) return undefined;
  return { path: said.path, version: said.version, hasVenv: said.venv };
}

/** The lines a command prints, or undefined when it fails or takes too long. */
async function output(
  command: string,
  args: readonly string[],
  environment: Variables,
  signal?: AbortSignal,
): Promise<readonly string[] | undefined> {
  const lines: string[] = [];
  const late = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
  const end = await runCommand({
    command,
    args,
    environment,
    cwd: tmpdir(),
    signal: signal === undefined ? late : AbortSignal.any([late, signal]),
    onLine: (line) => lines.push(line),
  });
  return end.code === 0 ? lines : undefined;
}

function realPath(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    // Not there, or a link to nothing.
    return undefined;
  }
}
