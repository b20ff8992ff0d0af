import { quoted } from '../record/json-bytes.ts';
import type { Issues } from './issues.ts';
import { nothing } from './shapes.ts';
import { headsOf, TableBuilder } from './table.ts';
import { LIMITS, type Table } from './types.ts';

/** What pandas reads as a missing value. */
const MISSING: ReadonlySet<string> = new Set(
  '|#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null'.split('|'),
);
/** Longer fields are text: no number needs as much, and patterns are slow on it. */
const NUMBER_CHARS = 400;
const JSON_NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;
const INFINITE = /^[+-]?inf(?:inity)?$/i;
const BOOLEAN = /^(?:true|TRUE|True|false|FALSE|False)$/;

/** Splits RFC 4180 text into records, blank lines left out. Undefined: a quote that does not end. */
class CsvReader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  /** The fields of the next record; at most one more than `LIMITS.columns`. Undefined at the end. */
  next(): string[] | undefined | 'open quote' {
    while (this.#at < this.#text.length && this.#lineBreak()) this.#at += 1;
    if (this.#at >= this.#text.length) return undefined;
    const fields: string[] = [];
    for (;;) {
      const field = this.#text[this.#at] === '"' ? this.#quoted() : this.#plain();
      if (field === undefined) return 'open quote';
      if (fields.length <= LIMITS.columns) fields.push(field);
      if (this.#text[this.#at] !== ',') return fields;
      this.#at += 1;
    }
  }

  #lineBreak(): boolean {
    return this.#text[this.#at] === '\n' || this.#text[this.#at] === '\r';
  }

  #plain(): string {
    const from = this.#at;
    while (this.#at < this.#text.length && this.#text[this.#at] !== ',' && !this.#lineBreak()) this.#at += 1;
    return this.#text.slice(from, this.#at);
  }

  #quoted(): string | undefined {
    const parts: string[] = [];
    for (;;) {
      const end = this.#text.indexOf('"', this.#at + 1);
      if (end < 0) return undefined;
      parts.push(this.#text.slice(this.#at + 1, end));
      this.#at = end + 1;
      if (this.#text[this.#at] !== '"') break;
    }
    // What follows the closing quote belongs to the field, as pandas has it.
    return parts.join('"') + this.#plain();
  }
}

type ColumnType = 'number' | 'boolean' | 'text';

/** As pandas decides it: a column is of numbers or booleans when every value in it that is not missing is one. */
function typesOf(records: readonly (readonly string[])[], width: number): ColumnType[] {
  const numbers = Array.from({ length: width }, () => true);
  const booleans = Array.from({ length: width }, () => true);
  for (const record of records) {
    for (const [column, field] of record.entries()) {
      if (MISSING.has(field)) continue;
      const number = field.length > NUMBER_CHARS ? '' : field.trim();
      numbers[column] &&= JSON_NUMBER.test(number) || INFINITE.test(number);
      booleans[column] &&= BOOLEAN.test(field);
    }
  }
  return numbers.map((isNumber, column) => (isNumber ? 'number' : booleans[column] ? 'boolean' : 'text'));
}

function cellText(field: string, type: ColumnType, issues: Issues): string {
  if (MISSING.has(field)) return 'null';
  if (type === 'text') return quoted(field);
  if (type === 'boolean') return field.toLowerCase();
  const number = field.trim();
  if (JSON_NUMBER.test(number)) return number;
  issues.nonFinite();
  return 'null';
}

function readRecords(reader: CsvReader, width: number, issues: Issues): string[][] | undefined {
  const records: string[][] = [];
  for (let record = reader.next(); record !== undefined; record = reader.next()) {
    if (record === 'open quote') return nothing(issues, `a quote in row ${records.length + 1} does not end`);
    if (record.length > width) {
      return nothing(issues, `row ${records.length + 1} has ${record.length} fields, the header has ${width}`);
    }
    if (records.length === LIMITS.rows) {
      issues.add(`a table is limited to ${LIMITS.rows} rows: the first ${LIMITS.rows} rows are kept`);
      break;
    }
    records.push(record);
  }
  return records;
}

/**
 * A table out of CSV text with a header, read as `pandas.read_csv` reads it by default: columns of numbers or booleans
 * become such, the usual words for a missing value become `null`, a column without a name is `Unnamed: <position>`.
 * Numbers keep their text. Undefined, with an issue, when rows do not fit the header.
 */
export function tableFromCsv(text: string, issues: Issues): Table | undefined {
  const reader = new CsvReader(text.startsWith('\uFEFF') ? text.slice(1) : text);
  const header = reader.next();
  if (header === undefined) return nothing(issues, 'the CSV text has no header');
  if (header === 'open quote') return nothing(issues, 'a quote in the header does not end');
  const names = header.map((name, at) => (name === '' ? `Unnamed: ${at}` : name));
  const builder = new TableBuilder(issues);
  if (!builder.declare(names)) return undefined;
  const records = readRecords(reader, names.length, issues);
  if (records === undefined) return undefined;
  const types = typesOf(records, names.length);
  const heads = headsOf(names);
  for (const record of records) {
    if (!builder.hasRoom()) break;
    builder.addCells(
      heads,
      types.map((type, column) => cellText(record[column] ?? '', type, issues)),
    );
  }
  return builder.finish();
}
