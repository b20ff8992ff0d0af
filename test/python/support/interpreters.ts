import { globSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { run } from './run.ts';

/** A Python of this machine that can make virtual environments. */
export interface Interpreter {
  /** The interpreter itself, not a shim of it. */
  readonly path: string;
  /** `3.11`. */
  readonly version: string;
  readonly minor: number;
}

/** The oldest and newest Python 3 that is looked for by name on the PATH. */
const MINORS = [9, 10, 11, 12, 13, 14] as const;

const PROBE = [
  'import json, sys',
  'import ensurepip, venv',
  'print(json.dumps([sys.executable, sys.version_info[0], sys.version_info[1]]))',
].join('\n');

let found: Promise<readonly Interpreter[]> | undefined;

/**
 * The interpreters of this machine from 3.9 on, oldest first, one of each minor version: those on the PATH, and those
 * pyenv keeps, whose shims refuse versions that are not selected. Looked for once a process.
 */
export function interpreters(): Promise<readonly Interpreter[]> {
  found ??= findAll();
  return found;
}

async function findAll(): Promise<readonly Interpreter[]> {
  const pyenv = process.env.PYENV_ROOT ?? join(homedir(), '.pyenv');
  const candidates = [
    ...globSync(join(pyenv, 'versions', '3.*', 'bin', 'python')),
    'python3',
    'python',
    ...MINORS.map((minor) => `python3.${minor}`),
  ];
  const best = new Map<number, Interpreter>();
  for (const interpreter of await Promise.all(candidates.map(probe))) {
    if (interpreter !== undefined && !best.has(interpreter.minor)) best.set(interpreter.minor, interpreter);
  }
  return [...best.values()].toSorted((a, b) => a.minor - b.minor);
}

async function probe(command: string): Promise<Interpreter | undefined> {
  const { code, stdout } = await run(command, ['-I', '-c', PROBE], { timeoutMs: 20_000 });
  if (code !== 0) return undefined;
  const [path, major, minor] = JSON.parse(stdout) as [string, number, number];
  return major === 3 && minor >= MINORS[0] ? { path, version: `3.${minor}`, minor } : undefined;
}
