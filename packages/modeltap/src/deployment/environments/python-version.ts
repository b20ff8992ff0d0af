/** A Python found on this machine. */
export interface Interpreter {
  /** Absolute path of the real interpreter, not of a shim or of a virtual environment. */
  readonly path: string;
  /** `3.11.7`. */
  readonly version: string;
  /** False when it cannot make virtual environments by itself (Debian without python3-venv). */
  readonly hasVenv: boolean;
}

/** The interpreter taken, and what to tell when it is not what was asked for. */
export interface ChosenInterpreter {
  readonly interpreter: Interpreter;
  readonly warning?: string;
}

/** The oldest that pip and the inference server still serve. */
export const OLDEST_MINOR = 8;
/** The newest minor the inference server names as supported; newer ones are taken only when nothing else is there. */
const NEWEST_TRIED_MINOR = 12;

const CLAUSE = /^(===|==|~=|!=|>=|<=|>|<|=|)v?(\d+)(?:\.(\d+))?((?:\.\d+)*)(?:\.?\*)?(?:(?:a|b|rc)\d+)?$/i;

interface Clause {
  readonly operator: string;
  readonly major: number;
  readonly minor: number | undefined;
  /** It names a patch version, which is not compared: the whole minor stays in. */
  readonly patched: boolean;
}

/** True for what can stand behind `python` in a conda specification: versions, ranges, stars, several with commas. */
export function isPythonVersion(wanted: string): boolean {
  return clausesOf(wanted) !== undefined;
}

/**
 * The interpreter for what the specification asks for (`=3.10`, `>=3.8,<3.11`; undefined or empty: any): one of the asked
 * minor versions, else the nearest newer minor, else the nearest older; the first of equals. Undefined when the list is
 * empty. Patch versions are not compared: packages are built for minor versions.
 */
export function chooseInterpreter(
  wanted: string | undefined,
  found: readonly Interpreter[],
): ChosenInterpreter | undefined {
  const usable = found.filter((one) => minorOf(one) >= OLDEST_MINOR && one.version.startsWith('3.'));
  if (usable.length === 0) return undefined;
  const clauses = clausesOf(wanted ?? '') ?? [];
  const fitting = usable.filter((one) => clauses.every((clause) => meets(minorOf(one), clause)));
  const exact = pick(fitting, newestTried(fitting));
  if (exact !== undefined) return { interpreter: exact };
  const target = targetOf(clauses);
  const newer = usable.filter((one) => minorOf(one) > target);
  const older = usable.filter((one) => minorOf(one) <= target);
  const nearest = pick(newer, Math.min(...newer.map(minorOf))) ?? pick(older, Math.max(...older.map(minorOf)));
  if (nearest === undefined) return undefined;
  const asked = (wanted ?? '').trim().replace(/^=+/, '');
  return {
    interpreter: nearest,
    warning: `Python ${asked} is asked for and not on this machine; Python ${nearest.version} is used`,
  };
}

function newestTried(list: readonly Interpreter[]): number {
  const minors = list.map(minorOf);
  const tried = minors.filter((minor) => minor <= NEWEST_TRIED_MINOR);
  return tried.length > 0 ? Math.max(...tried) : Math.min(...minors);
}

function pick(list: readonly Interpreter[], minor: number): Interpreter | undefined {
  return list.find((one) => minorOf(one) === minor);
}

/** `3.11.7` → 11. */
export function minorOf(interpreter: Interpreter): number {
  return Number(interpreter.version.split('.')[1]);
}

function clausesOf(wanted: string): readonly Clause[] | undefined {
  const clauses: Clause[] = [];
  for (const part of wanted.replace(/\s+/g, '').split(',')) {
    if (part === '' || /^=*\*$/.test(part)) continue;
    const match = CLAUSE.exec(part);
    if (match === null) return undefined;
    const [, operator = '', major = '', minor, patch] = match;
    clauses.push({
      operator,
      major: Number(major),
      minor: minor === undefined ? undefined : Number(minor),
      patched: patch !== undefined && patch !== '',
    });
  }
  return clauses;
}

function meets(minor: number, { operator, major, minor: bound, patched }: Clause): boolean {
  if (major !== 3) return major < 3 === ['>', '>=', '!='].includes(operator);
  if (bound === undefined) return !['<', '>', '!='].includes(operator);
  switch (operator) {
    case '>=':
    case '>':
      return minor >= bound;
    case '~=':
      return patched ? minor === bound : minor >= bound;
    case '<':
      return patched ? minor <= bound : minor < bound;
    case '<=':
      return minor <= bound;
    case '!=':
      return patched || minor !== bound;
    default:
      return minor === bound;
  }
}

/** The minor to be near to when none fits: what is named exactly, else the lower bound, else just below the upper one. */
function targetOf(clauses: readonly Clause[]): number {
  const named = (operators: readonly string[]) => clauses.find((one) => operators.includes(one.operator));
  const exact = named(['', '=', '==', '===', '~=']) ?? named(['>=', '>']);
  if (exact !== undefined) return exact.major === 3 ? (exact.minor ?? 0) : exact.major < 3 ? 0 : NEWEST_TRIED_MINOR;
  const upper = named(['<', '<='])?.minor;
  return upper === undefined ? NEWEST_TRIED_MINOR : upper - 1;
}
