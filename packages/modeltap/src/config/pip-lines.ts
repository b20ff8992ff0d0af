import { readFileSync, realpathSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { errorText, systemCode } from '../kit/errors.ts';
import { type Problem, shown } from './fields.ts';
import type { ConfigIssue, PipLine, SourcePlace } from './types.ts';
import { MAX_CONFIG_BYTES } from './yaml.ts';

/** Most lines of a pip section with all files it names. */
const MAX_LINES = 5_000;
/** Files naming files. */
const MAX_DEPTH = 16;

const FILE_OPTION = /^(-r|-c|--requirement|--constraint)(?:\s*=\s*|\s+|(?<=^-[rc]))(.*)$/;
const FILE_OPTION_ALONE = /^(?:-r|-c|--requirement|--constraint)$/;
const REQUIREMENT = /^([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[^\]]*\])?\s*/;

/** A line of a pip section as it is written, before the files it names are read. */
export interface WrittenLine {
  readonly text: string;
  readonly place: SourcePlace;
}

/** What is being read: where relative paths begin, and which files led here. */
interface Frame {
  readonly directory: string;
  readonly files: readonly string[];
  readonly constraint: boolean;
}

/** Turns the written lines of a pip section into those that count, with the lines of the files they name. */
export class PipSection {
  readonly #key: string;
  readonly #lines: PipLine[] = [];
  readonly #issues: ConfigIssue[] = [];

  /** `key` is the name of the section in error texts. */
  constructor(key: string) {
    this.#key = key;
  }

  /** Everything found wrong so far, each at its own line and file. */
  get issues(): readonly ConfigIssue[] {
    return this.#issues;
  }

  /** Checks and keeps `written`. Relative paths of `-r` and `-c` begin at `directory`; inside such a file, at its folder. */
  read(written: readonly WrittenLine[], directory: string): readonly PipLine[] {
    this.#take(written, { directory, files: [], constraint: false });
    return this.#lines;
  }

  #take(written: readonly WrittenLine[], frame: Frame): void {
    for (const { text, place } of written) {
      const line = withoutComment(text);
      if (line === '') continue;
      if (this.#lines.length >= MAX_LINES) {
        this.#report(
          place,
          `is one too many: a pip section may have ${MAX_LINES} lines with those of the files it names`,
        );
        return;
      }
      const [, option, name = ''] = FILE_OPTION.exec(line) ?? [];
      if (FILE_OPTION_ALONE.test(line)) this.#report(place, `${line} needs the name of a file`);
      else if (option !== undefined)
        this.#takeFile(unquoted(name), /^-c|^--c/.test(option), { place, text: line }, frame);
      else this.#keep({ text: line, place }, frame.constraint);
    }
  }

  #keep(line: WrittenLine, constraint: boolean): void {
    const wrong = pipProblem(line.text);
    if (wrong === undefined) this.#lines.push(constraint ? { ...line, constraint } : line);
    else this.#report({ ...line.place, column: line.place.column + (Number(wrong.at) || 0) }, wrong.problem);
  }

  #takeFile(name: string, constraint: boolean, line: WrittenLine, frame: Frame): void {
    const { place } = line;
    if (/^[a-z][a-z0-9+.-]*:\/\//i.test(name)) {
      this.#lines.push(line);
      this.#report(place, 'is fetched whenever the environment is built, so its packages may change', 'warning');
      return;
    }
    const file = resolve(frame.directory, name);
    const real = realFile(file);
    if (real === undefined) {
      this.#report(place, `there is no file ${file}`);
    } else if (frame.files.includes(real)) {
      this.#report(place, `includes ${file}, which is being read already`);
    } else if (frame.files.length >= MAX_DEPTH) {
      this.#report(place, `is nested more than ${MAX_DEPTH} files deep`);
    } else {
      const text = this.#textOf(real, place);
      const inner = {
        directory: dirname(file),
        files: [...frame.files, real],
        constraint: constraint || frame.constraint,
      };
      if (text !== undefined) this.#take(linesOf(text, file), inner);
    }
  }

  #textOf(file: string, place: SourcePlace): string | undefined {
    try {
      if (statSync(file).size <= MAX_CONFIG_BYTES) return readFileSync(file, 'utf8');
      this.#report(place, `names ${file}, which is larger than ${MAX_CONFIG_BYTES / 1024 ** 2} MiB`);
    } catch (error) {
      this.#report(place, `names ${file}, which cannot be read: ${systemCode(error) ?? errorText(error)}`);
    }
    return undefined;
  }

  #report(place: SourcePlace, message: string, severity: ConfigIssue['severity'] = 'error'): void {
    this.#issues.push({ severity, place, key: this.#key, message });
  }
}

/** What is wrong with a line that pip would certainly refuse; undefined for options, URLs, paths and good requirements. */
export function pipProblem(line: string): Problem | undefined {
  // Not repeated in a text: options and URLs may hold a password.
  if (/^[-.$/~]|:\/\/|[\\/]|\.(?:whl|zip|tar\.\w+)$/.test(line.split(/[;@]/)[0] ?? '')) return undefined;
  const head = REQUIREMENT.exec(line);
  if (head === null) return { problem: 'must begin with the name of a package, e.g. pandas==2.2.3' };
  const at = head[0].length;
  const rest = line.slice(at);
  if (rest === '' || /^(?:===|==|~=|!=|<=|>=|<|>)\s*[^\s=<>!~]|^[(;@]|^--/.test(rest)) return undefined;
  if (/^=(?!=)/.test(rest)) {
    return { problem: `pip takes two equals signs: ${head[0].trim()}=${rest.replace(/^=\s*/, '=')}`, at };
  }
  return { problem: `${shown(rest)} cannot stand behind the name of a package`, at };
}

/** The lines of a requirements file; one that ends in a backslash goes on in the next. */
function linesOf(text: string, file: string): readonly WrittenLine[] {
  const found: WrittenLine[] = [];
  let open: WrittenLine | undefined;
  for (const [index, raw] of text
    .replace(/^\uFEFF/, '')
    .split(/\r?\n/)
    .entries()) {
    const column = raw.length - raw.trimStart().length + 1;
    const goesOn = raw.endsWith('\\');
    const part = goesOn ? raw.slice(0, -1) : raw;
    open =
      open === undefined
        ? { text: part, place: { file, line: index + 1, column } }
        : { ...open, text: open.text + part };
    if (goesOn) continue;
    found.push(open);
    open = undefined;
  }
  return open === undefined ? found : [...found, open];
}

function withoutComment(text: string): string {
  return text.replace(/(?:^|\s)#.*$/s, '').trim();
}

function unquoted(name: string): string {
  return name.trim().replace(/^(['"])(.*)\1$/, '$2');
}

function realFile(path: string): string | undefined {
  if (path.includes('\0')) return undefined;
  try {
    const real = realpathSync(path);
    return statSync(real).isFile() ? real : undefined;
  } catch {
    // Missing, a broken link, or a folder nobody may look into: it cannot be read in any case.
    return undefined;
  }
}
