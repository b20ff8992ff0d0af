import { CollectorError } from './errors.ts';
import { DATA_TYPES, type DataType } from './format.ts';
import { arrowColumns, isArrowTable } from './arrow.ts';
import { type Columns, describe } from './pack.ts';
import { isPolarsFrame, polarsColumns } from './polars.ts';

/** The data type of an array of rows, which is packed as it is. */
export const ROWS_TYPE = DATA_TYPES.indexOf('js.Array');

/** Data that is no array of rows, as the packer wants it. */
interface Frame {
  readonly type: number;
  readonly columns: Columns;
}

/**
 * Recognises what `collect()` takes besides an array of rows, by its shape and without depending on any library. Throws
 * `unsupported_type`, `uneven_columns`.
 */
export function toFrame(data: unknown): Frame {
  if (typeof data !== 'object' || data === null) throw unsupported(data);
  // A polars frame is a proxy around a plain object.
  if (isPolarsFrame(data)) return { type: typeIndex('nodejs-polars.DataFrame'), columns: polarsColumns(data) };
  if (isObjectLiteral(data)) return columnObject(data as Readonly<Record<string, unknown>>);
  if (isArrowTable(data)) return { type: typeIndex('apache-arrow.Table'), columns: arrowColumns(data) };
  if (isArqueroTable(data)) return { type: typeIndex('arquero.Table'), columns: arqueroColumns(data) };
  if (isDanfoFrame(data)) return { type: typeIndex('danfojs.DataFrame'), columns: danfoColumns(data) };
  throw unsupported(data);
}

/** `{…}`, also one made in another realm (a test runner's, say): its prototype has no prototype. */
function isObjectLiteral(data: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(data);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

function typeIndex(type: DataType): number {
  return DATA_TYPES.indexOf(type);
}

function unsupported(data: unknown): CollectorError {
  return new CollectorError('unsupported_type', { type: describe(data) });
}

function columnObject(data: Readonly<Record<string, unknown>>): Frame {
  const names = Object.keys(data);
  const columns: ArrayLike<unknown>[] = [];
  for (const name of names) {
    const column = data[name];
    if (!isColumn(column)) {
      throw new CollectorError('unsupported_type', {
        type: `object whose "${name}" is ${describe(column)}, no column`,
      });
    }
    columns.push(column);
  }
  return { type: typeIndex('js.Object'), columns: even(names, columns) };
}

function isColumn(value: unknown): value is ArrayLike<unknown> {
  return Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView));
}

function even(names: readonly string[], columns: readonly ArrayLike<unknown>[]): Columns {
  const rows = columns[0]?.length ?? 0;
  if (columns.some((column) => column.length !== rows)) {
    const lengths = names.map((name, index) => `${name} ${columns[index]?.length}`);
    const shown = lengths.length > 20 ? [...lengths.slice(0, 20), '…'] : lengths;
    throw new CollectorError('uneven_columns', { lengths: shown.join(', ') });
  }
  return { names, columns, rows };
}

/** An arquero table: its rows are read in the order and through the filter it has. */
interface ArqueroTable {
  columnNames(): string[];
  numRows(): number;
  indices(): ArrayLike<number>;
  column(name: string): { at(row: number): unknown };
}

function isArqueroTable(data: object): data is ArqueroTable {
  return (
    has(data, 'columnNames', 'function') &&
    has(data, 'numRows', 'function') &&
    has(data, 'indices', 'function') &&
    has(data, 'column', 'function')
  );
}

function arqueroColumns(table: ArqueroTable): Columns {
  const names = table.columnNames();
  const indices = table.indices();
  const columns = names.map((name) => {
    const column = table.column(name);
    return Array.from(indices, (row) => column.at(row));
  });
  return { names, columns, rows: indices.length };
}

/** A danfojs DataFrame: `values` are rows. */
interface DanfoFrame {
  readonly columns: readonly unknown[];
  readonly values: readonly unknown[];
}

function isDanfoFrame(data: object): data is DanfoFrame {
  const { columns, values } = data as { columns?: unknown; values?: unknown };
  return Array.isArray(columns) && Array.isArray(values);
}

function danfoColumns(frame: DanfoFrame): Columns {
  const { values } = frame;
  const columns = frame.columns.map((_, index) =>
    values.map((row) =>
      Array.isArray(row) ? (row as unknown[])[index] : frame.columns.length === 1 ? row : undefined,
    ),
  );
  return { names: frame.columns.map(String), columns, rows: values.length };
}

function has(data: object, name: string, type: 'function' | 'object'): boolean {
  return typeof (data as Record<string, unknown>)[name] === type;
}
