import { quoted } from '../record/json-bytes.ts';
import { type Issues, named } from './issues.ts';
import type { JsonValue } from './json-text.ts';
import { LIMITS, type Table } from './types.ts';

/** Puts rows together and holds the limits of a table. Every method that adds a row says whether more are wanted. */
export class TableBuilder {
  readonly #issues: Issues;
  /** Name → number of the last row that had it. */
  readonly #columns = new Map<string, number>();
  readonly #rows: string[] = [];
  #chars = 0;
  #failed = false;

  constructor(issues: Issues) {
    this.#issues = issues;
  }

  /** Whether one more row fits; says so once when it does not. Ask before the row is made. */
  hasRoom(): boolean {
    if (this.#failed) return false;
    if (this.#rows.length < LIMITS.rows && this.#chars < LIMITS.textChars) return true;
    const limit = this.#rows.length < LIMITS.rows ? `${LIMITS.textChars} characters` : `${LIMITS.rows} rows`;
    this.#issues.add(`a table is limited to ${limit}: the first ${this.#rows.length} rows are kept`);
    return false;
  }

  /** Says what is wrong: there will be no table. */
  fail(issue: string): false {
    if (!this.#failed) this.#issues.add(issue);
    this.#failed = true;
    return false;
  }

  /** Declares the columns of all rows at once; false when there are too many or one is there twice. */
  declare(names: readonly string[]): boolean {
    if (names.length > LIMITS.columns) return this.fail(tooWide(names.length));
    for (const name of names) {
      if (this.#columns.has(name)) return this.fail(`the column ${named(name)} is there twice`);
      this.#columns.set(name, -1);
    }
    return true;
  }

  /** Adds a row of members given as name and JSON text; names must differ. */
  add(members: Iterable<readonly [string, string]>): boolean {
    const parts: string[] = [];
    for (const [name, text] of members) {
      if (!this.#see(name)) return false;
      parts.push(`${quoted(name)}:${text}`);
    }
    return this.#push(`{${parts.join(',')}}`);
  }

  /** Adds a row under declared columns: `heads` from `headsOf`, one JSON text each. */
  addCells(heads: readonly string[], texts: readonly string[]): boolean {
    return this.#push(`{${texts.map((text, at) => `${heads[at]}${text}`).join(',')}}`);
  }

  /** Adds an object as a row; of repeated names the last value is kept. */
  addObject(value: JsonValue): boolean {
    const row = this.#rows.length;
    let repeated = false;
    for (const [name] of value.members()) {
      repeated ||= this.#columns.get(name) === row;
      if (!this.#see(name)) return false;
    }
    if (!repeated) return this.#push(value.text);
    return this.add([...value.fields()].map(([name, member]) => [name, member.text] as const));
  }

  /** The table; undefined after a failure. */
  finish(): Table | undefined {
    return this.#failed ? undefined : { columns: [...this.#columns.keys()], rows: this.#rows };
  }

  #see(name: string): boolean {
    this.#columns.set(name, this.#rows.length);
    return this.#columns.size <= LIMITS.columns || this.fail(tooWide(undefined));
  }

  #push(row: string): boolean {
    this.#rows.push(row);
    this.#chars += row.length;
    return true;
  }
}

function tooWide(count: number | undefined): string {
  return `a table is limited to ${LIMITS.columns} columns, and this one has ${count ?? 'more'}`;
}

/** What stands before each cell of a row: the quoted name and a colon. */
export function headsOf(names: readonly string[]): string[] {
  return names.map((name) => `${quoted(name)}:`);
}

/** The JSON array of all rows: what the `data` of an event holds. */
export function tableJson(table: Table): string {
  return `[${table.rows.join(',')}]`;
}
