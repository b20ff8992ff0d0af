import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { normalName } from './conda-names.ts';

/** One line of a pip section, understood as far as it matters here. */
export interface PipRequirement {
  /** As written to pip, with local paths made absolute. */
  readonly line: string;
  /** Normal name of the package, or undefined: an option, or a path or URL that does not tell. */
  readonly name: string | undefined;
  /** The option at its beginning in its long form (`--pre`, `--index-url`), and what stands behind it. */
  readonly option: { readonly name: string; readonly value: string } | undefined;
  /** Absolute path of a local file or folder it installs or reads, and whether it is installed in place (`-e`). */
  readonly local: { readonly path: string; readonly editable: boolean } | undefined;
  readonly hashed: boolean;
  /** It limits the version of a package and does not ask for it. */
  readonly constraint: boolean;
}

const LONG: Readonly<Record<string, string>> = {
  '-e': '--editable',
  '-r': '--requirement',
  '-c': '--constraint',
  '-i': '--index-url',
  '-f': '--find-links',
};
/** Options whose value may be a path. */
const PATH_OPTIONS = new Set(['--editable', '--requirement', '--constraint', '--find-links']);
const NAMED = /^([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[^\]]*\]\s*)?(?=$|[<>=!~;@(\s])/;

/** Reads one line of a pip section. Undefined for an empty line and for a comment. Relative paths begin at `directory`. */
export function readPipLine(text: string, directory: string, constraint = false): PipRequirement | undefined {
  const line = text.replace(/(^|\s)#.*$/s, '').trim();
  if (line === '') return undefined;
  const hashed = /(?:^|\s)--hash[=\s]/.test(line);
  if (line.startsWith('-')) return { ...readOption(line, directory), constraint };
  const name = NAMED.exec(line)?.[1];
  if (name !== undefined && !/\.(?:whl|zip|tar\.gz|tgz|tar\.bz2)$/i.test(name)) {
    return { line, name: normalName(name), option: undefined, local: undefined, hashed, constraint };
  }
  const place = readPlace(line, directory);
  const local = place.path === undefined ? undefined : { path: place.path, editable: false };
  return { line: place.line, name: place.name, option: undefined, local, hashed, constraint };
}

function readOption(line: string, directory: string): Omit<PipRequirement, 'constraint'> {
  const [, flag = '', rest = ''] = /^(--[\w-]+|-\w)(?:=|\s*)(.*)$/s.exec(line) ?? [];
  const name = LONG[flag] ?? flag;
  const plain = { name: undefined, hashed: false, option: { name, value: rest } };
  if (!PATH_OPTIONS.has(name)) return { ...plain, line, local: undefined };
  const place = readPlace(rest, directory);
  if (place.path === undefined) return { ...plain, name: place.name, line, local: undefined };
  return {
    ...plain,
    line: `${name} ${place.line}`,
    option: { name, value: place.line },
    local: { path: place.path, editable: name === '--editable' },
  };
}

/** A URL or a path at the beginning of `text`; what stands behind it (extras, markers, options) is kept. */
function readPlace(
  text: string,
  directory: string,
): { line: string; path: string | undefined; name: string | undefined } {
  const egg = /[#&]egg=([\w.-]+)/.exec(text)?.[1];
  const name = egg === undefined ? undefined : normalName(egg);
  const [, path = '', behind = ''] = /^("[^"]+"|'[^']+'|[^\s[;]+)(.*)$/s.exec(text) ?? [];
  const bare = path.replace(/^(["'])(.*)\1$/, '$2');
  if (/^[a-z][a-z0-9+.-]*:/i.test(bare)) return { line: text, path: undefined, name };
  const absolute = resolve(directory, bare);
  return { line: `${absolute}${behind}`, path: absolute, name };
}

/** True when a local path a line names is there, so that a missing one can be named with its line. */
export function isThere(requirement: PipRequirement): boolean {
  return requirement.local === undefined || existsSync(requirement.local.path);
}

/** Options of requirement files that uv takes on its command line only. */
const UV_ARGUMENTS: Readonly<Record<string, (value: string) => readonly string[]>> = {
  '--pre': () => ['--prerelease=allow'],
  '--trusted-host': (value) => ['--allow-insecure-host', value],
};
/** Options that change how pip works and not what it installs. */
const PIP_ONLY = new Set(['--prefer-binary', '--use-feature', '--use-deprecated', '--use-pep517', '--no-use-pep517']);

/** The same lines for uv: what it does not know in a file becomes an argument, or is left out with a note. */
export function forUv(lines: readonly PipRequirement[]): {
  readonly lines: readonly PipRequirement[];
  readonly args: readonly string[];
  readonly notes: readonly string[];
} {
  const args: string[] = [];
  const notes: string[] = [];
  const kept = lines.filter(({ option, line }) => {
    const argument = UV_ARGUMENTS[option?.name ?? ''];
    if (argument !== undefined) args.push(...argument(option?.value ?? ''));
    else if (PIP_ONLY.has(option?.name ?? '')) notes.push(`uv has no ${line}`);
    else return true;
    return false;
  });
  return { lines: kept, args, notes };
}
