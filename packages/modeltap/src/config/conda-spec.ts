import type { Reading } from './azureml-uri.ts';
import { shown } from './fields.ts';

/** One dependency line of a conda specification, taken apart; see `CondaPackage`. */
export interface CondaSpec {
  readonly name: string;
  /** Without blanks; empty for any version. */
  readonly version: string;
  readonly build?: string;
  readonly channel?: string;
}

const NAME = /[A-Za-z0-9_][A-Za-z0-9_.-]*/y;
const OPERATOR = String.raw`(?:==|!=|<=|>=|~=|=|<|>)`;
const NUMBER = String.raw`(?:v?(?:\d+!)?\d|\*)[\w.*+]*`;
const CONDITION = String.raw`${OPERATOR}?\s*${NUMBER}`;
const CONDITIONS = new RegExp(String.raw`${CONDITION}(?:\s*[,|]\s*${CONDITION})*`, 'y');
const BUILD = /(?:\s*=\s*|\s+)([A-Za-z0-9_*][\w.*]*)/y;
const BRACKET = 'the form in brackets is not read here; write the version behind the name, e.g. numpy>=1.20,<2';

/**
 * Reads `numpy`, `numpy=1.26`, `numpy >=1.20,<2`, `numpy=1.26.4=py310h…`, `conda-forge::numpy` and the like, with or
 * without a comment. Never throws; `at` of a problem is the character it begins at.
 */
export function readCondaSpec(text: string): Reading<CondaSpec> {
  const comment = /(?:^|\s)#/.exec(text);
  const spec = (comment === null ? text : text.slice(0, comment.index)).trimEnd();
  const start = spec.length - spec.trimStart().length;
  const colons = spec.indexOf('::', start);
  const channel = colons < 0 ? undefined : spec.slice(start, colons);
  if (channel !== undefined && !/^[^\s=<>!~[\]]+$/.test(channel)) {
    return failed(start, 'the channel before "::" is missing or is not one word');
  }
  const nameAt = colons < 0 ? start : colons + 2;
  const name = match(NAME, spec, nameAt);
  if (name === undefined || /^[\d.]+$/.test(name)) {
    return failed(nameAt, 'must begin with the name of a package, e.g. numpy=1.26');
  }
  const reading = readVersion(spec, nameAt + name.length);
  if (!reading.ok) return reading;
  return {
    ok: true,
    value: { name: name.toLowerCase(), ...reading.value, ...(channel === undefined ? {} : { channel }) },
  };
}

/** The text of a line, so that `readCondaSpec` gives the same back. */
export function formatCondaSpec(spec: CondaSpec): string {
  const channel = spec.channel === undefined ? '' : `${spec.channel}::`;
  const build = spec.build === undefined ? '' : `${/^[=<>!~]/.test(spec.version) ? '=' : ' '}${spec.build}`;
  const space = /^[\dv*]/.test(spec.version) ? ' ' : '';
  return `${channel}${spec.name}${space}${spec.version}${build}`;
}

function readVersion(spec: string, end: number): Reading<{ readonly version: string; readonly build?: string }> {
  const rest = spec.slice(end);
  if (rest === '') return { ok: true, value: { version: '' } };
  const at = end + rest.length - rest.trimStart().length;
  if (spec[at] === '[') return failed(at, BRACKET);
  if (!/^[\s=<>!~]/.test(rest)) return failed(end, `${shown(rest.slice(0, 1))} cannot stand in the name of a package`);
  const conditions = match(CONDITIONS, spec, at);
  if (conditions === undefined) {
    return failed(at, 'a version is expected here, such as =1.26 or >=1.20,<2');
  }
  const version = conditions.replace(/\s+/g, '');
  const behind = at + conditions.length;
  if (behind === spec.length) return { ok: true, value: { version } };
  const build = match(BUILD, spec, behind);
  if (build === undefined || behind + build.length < spec.length)
    return failed(behind, tailProblem(spec.slice(behind)));
  return { ok: true, value: { version, build: build.replace(/^[\s=]+/, '') } };
}

function tailProblem(tail: string): string {
  const text = tail.trimStart();
  if (text.startsWith('[')) return BRACKET;
  if (/^[=<>!~]/.test(text) && !/^=\s*\w/.test(text)) return 'several conditions need a comma between them: >=1.20,<2';
  return `${shown(text)} cannot stand behind a version`;
}

function match(pattern: RegExp, text: string, at: number): string | undefined {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0];
}

function failed(at: number, problem: string): Reading<never> {
  return { ok: false, at, problem };
}
