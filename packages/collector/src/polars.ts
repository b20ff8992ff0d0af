import type { Columns } from './pack.ts';

/** As much of a nodejs-polars DataFrame as is read here. */
interface PolarsFrame {
  readonly columns: readonly string[];
  readonly height: number;
  getColumn(name: string): PolarsSeries;
  select(...names: string[]): PolarsFrame;
  writeCSV(options: { includeHeader: boolean }): { toString(): string };
}

interface PolarsSeries {
  readonly dtype: unknown;
  toArray(): unknown[];
}

/** True for a DataFrame of nodejs-polars. */
export function isPolarsFrame(data: object): data is PolarsFrame {
  const { columns, height, getColumn, writeCSV } = data as Partial<Record<keyof PolarsFrame, unknown>>;
  return (
    Array.isArray(columns) &&
    typeof height === 'number' &&
    typeof getColumn === 'function' &&
    typeof writeCSV === 'function'
  );
}

/** The columns of a polars frame. */
export function polarsColumns(frame: PolarsFrame): Columns {
  const { columns: names, height } = frame;
  return { names, columns: names.map((name) => column(frame, name)), rows: height };
}

function column(frame: PolarsFrame, name: string): unknown[] {
  const values = frame.getColumn(name).toArray();
  const inexact = values.some((value) => Number.isInteger(value) && !Number.isSafeInteger(value));
  if (!inexact || !String(frame.getColumn(name).dtype).includes('Int64')) return values;
  return digitsOf(frame, name, values);
}

/** polars gives an Int64 as a JavaScript number, which has lost digits beyond 2^53; its CSV text still has them. */
function digitsOf(frame: PolarsFrame, name: string, values: readonly unknown[]): unknown[] {
  const lines = frame.select(name).writeCSV({ includeHeader: false }).toString().split('\n');
  return values.map((value, index) => {
    const text = lines[index] ?? '';
    return /^-?\d+$/.test(text) ? BigInt(text) : value;
  });
}
