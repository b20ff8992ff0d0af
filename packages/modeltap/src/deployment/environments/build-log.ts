import { closeSync, openSync, writeSync } from 'node:fs';
import { redact } from './redact.ts';

/** Most that is kept of a build's output; what comes after is not written. */
const MAX_LOG_CHARS = 32 * 1024 * 1024;
const LAST_LINES = 15;
/** Progress texts are at least this far apart. */
const PROGRESS_MS = 300;

/** The log of one build: a file with every line, without passwords. */
export class BuildLog {
  readonly path: string;
  readonly #file: number;
  #written = 0;
  #tail: string[] = [];

  /** Makes the file at `path` anew. */
  constructor(path: string) {
    this.path = path;
    this.#file = openSync(path, 'w');
  }

  /** Writes one line and returns it as written, without passwords. Blocking: builds are rare and their lines few. */
  line(text: string): string {
    const safe = redact(text.trimEnd());
    if (safe !== '') this.#tail = [...this.#tail, safe].slice(-LAST_LINES);
    if (this.#written > MAX_LOG_CHARS) return safe;
    this.#written += safe.length + 1;
    writeSync(this.#file, this.#written > MAX_LOG_CHARS ? `the log ends here: it is too long\n` : `${safe}\n`);
    return safe;
  }

  /** Begins a new command: `tail` tells of its lines only. */
  begin(title: string): void {
    this.line(`$ ${title}`);
    this.#tail = [];
  }

  /** The last lines of the current command that are not empty, about 15. */
  tail(): string {
    return this.#tail.join('\n');
  }

  close(): void {
    closeSync(this.#file);
  }
}

/** Tells a person how a build goes: short texts, a few a second, the last one always. */
export class Progress {
  readonly #tell: (text: string) => void;
  #next: string | undefined;
  #last: string | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(tell: (text: string) => void) {
    this.#tell = tell;
  }

  /** Says it now, or in a moment when something was said just before; what comes in between is passed over. */
  say(text: string): void {
    this.#next = text;
    if (this.#timer === undefined) this.#flush();
  }

  /** Says what was held back. Nothing is said afterwards. */
  end(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#next !== undefined && this.#next !== this.#last) this.#tell(this.#next);
    this.#next = undefined;
  }

  #flush(): void {
    this.#timer = undefined;
    const text = this.#next;
    this.#next = undefined;
    if (text === undefined || text === this.#last) return;
    this.#last = text;
    this.#tell(text);
    this.#timer = setTimeout(() => this.#flush(), PROGRESS_MS);
    this.#timer.unref();
  }
}

/** What a line of pip or uv says to a person, or undefined. */
export function progressOf(line: string): string | undefined {
  const patterns: readonly (readonly [RegExp, (...found: string[]) => string])[] = [
    [/^Collecting ([^\s<>=!~;[(]+)/, (name) => `collecting ${name}`],
    [
      /^\s*Downloading (?:\S*\/)?([\w.]+-[\w.!+]+?)(?:-\S+|\.tar\.gz|\.zip) \((.+)\)/,
      (name, size) => `downloading ${name}, ${size}`,
    ],
    [/^Downloading (\S+) \((.+)\)/, (name, size) => `downloading ${name}, ${size}`],
    [/^\s*(?:Building wheel for|Building) (\S+)/, (name) => `building ${name}`],
    [/^Installing collected packages: (.+)/, (list) => `installing ${packages(list.split(',').length)}`],
    [/^Resolved (\d+) packages?/, (count) => `resolved ${packages(Number(count))}`],
    [/^Prepared (\d+) packages?/, (count) => `installing ${packages(Number(count))}`],
  ];
  for (const [pattern, text] of patterns) {
    const match = pattern.exec(line);
    if (match !== null) return text(...match.slice(1));
  }
  return undefined;
}

function packages(count: number): string {
  return count === 1 ? '1 package' : `${count} packages`;
}
