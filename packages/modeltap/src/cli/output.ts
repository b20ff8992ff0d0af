import { stringify } from 'yaml';

/** Output formats of every command that answers with data, as `az` names them. */
export const FORMATS = ['json', 'table', 'yaml', 'tsv'] as const;
/** One of the formats. */
export type Format = (typeof FORMATS)[number];

/** One column of a table: its heading and what it shows of a row. */
export interface Column<T> {
  readonly title: string;
  readonly value: (row: T) => unknown;
}

/**
 * The text a command prints. `json` and `yaml` show the value whole; `table` and `tsv` show the columns, one line a row.
 * Ends with a line break.
 */
export function render<T>(value: T | readonly T[], format: Format, columns: readonly Column<T>[]): string {
  if (format === 'json') return `${JSON.stringify(value, null, 2)}\n`;
  if (format === 'yaml') return stringify(value, { lineWidth: 0 });
  const rows = (Array.isArray(value) ? (value as readonly T[]) : [value as T]).map((row) =>
    columns.map((column) => cell(column.value(row))),
  );
  if (format === 'tsv') return rows.map((row) => `${row.join('\t')}\n`).join('');
  return table(
    columns.map((column) => column.title),
    rows,
  );
}

/** Text in aligned columns under a heading and a rule. */
export function table(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = titles.map((title, index) => Math.max(title.length, ...rows.map((row) => row[index]?.length ?? 0)));
  const line = (cells: readonly string[]) =>
    cells
      .map((text, index) => text.padEnd(widths[index] ?? 0))
      .join('  ')
      .trimEnd();
  return `${[line(titles), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n')}\n`;
}

/** A value in one line: no line breaks, tabs or control characters of the data reach the terminal. */
function cell(value: unknown): string {
  if (value === undefined || value === null) return '';
  const text = typeof value === 'object' ? JSON.stringify(value) : String(value as string | number | boolean | bigint);
  return printable(text);
}

/** Makes text safe for a terminal: control characters, escape sequences included, become `\xNN`. */
export function printable(text: string): string {
  return text.replace(
    /[\u0000-\u001f\u007f-\u009f]/g,
    (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}
