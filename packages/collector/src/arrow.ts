import type { Columns } from './pack.ts';
import { Digits } from './writer.ts';

/** As much of an apache-arrow Table as is read here. */
interface ArrowTable {
  readonly numRows: number;
  readonly schema: { readonly fields: readonly { readonly name: string }[] };
  getChildAt(index: number): ArrowVector | null;
}

interface ArrowVector {
  readonly length: number;
  readonly nullCount: number;
  readonly type: ArrowType;
  get(index: number): unknown;
  toArray(): unknown;
}

interface ArrowType {
  readonly typeId: number;
  readonly unit?: number;
  readonly scale?: number;
  readonly precision?: number;
  readonly children?: readonly { readonly name: string; readonly type: ArrowType }[] | null;
  readonly dictionary?: ArrowType;
}

/** `Type` of the Arrow format (Schema.fbs), as far as a value needs more than reading. */
const TYPE = { INT: 2, FLOAT: 3, DECIMAL: 7, DATE: 8, TIMESTAMP: 10, DURATION: 18, DICTIONARY: -1 } as const;
/** Values of one millisecond, by `TimeUnit`: second, millisecond, microsecond, nanosecond. */
const PER_SECOND = [1n, 1000n, 1_000_000n, 1_000_000_000n] as const;
const HALF_PRECISION = 0;

/** True for a Table (or RecordBatch) of apache-arrow. */
export function isArrowTable(data: object): data is ArrowTable {
  const { schema, numRows, getChildAt } = data as Partial<Record<keyof ArrowTable, unknown>>;
  return (
    typeof numRows === 'number' &&
    typeof getChildAt === 'function' &&
    typeof schema === 'object' &&
    schema !== null &&
    Array.isArray((schema as { fields?: unknown }).fields)
  );
}

/** The columns of an Arrow table; dates, timestamps and durations as whole milliseconds, decimals as digits. */
export function arrowColumns(table: ArrowTable): Columns {
  const { fields } = table.schema;
  const columns = fields.map((_, index) => {
    const vector = table.getChildAt(index);
    return vector === null ? Array.from({ length: table.numRows }, () => null) : column(vector);
  });
  return { names: fields.map((field) => field.name), columns, rows: table.numRows };
}

function column(vector: ArrowVector): ArrayLike<unknown> {
  const { type } = vector;
  const plain = type.typeId === TYPE.INT || (type.typeId === TYPE.FLOAT && type.precision !== HALF_PRECISION);
  if (plain && vector.nullCount === 0) return vector.toArray() as ArrayLike<unknown>;
  const read = reader(type);
  return Array.from({ length: vector.length }, (_, index) => read(vector.get(index)));
}

function reader(type: ArrowType): (value: unknown) => unknown {
  const { typeId } = type;
  if (typeId === TYPE.DICTIONARY && type.dictionary !== undefined) return reader(type.dictionary);
  if (typeId === TYPE.DATE || typeId === TYPE.TIMESTAMP) return milliseconds;
  if (typeId === TYPE.DURATION) return (value) => duration(value, type.unit ?? 1);
  if (typeId === TYPE.DECIMAL) return (value) => decimal(value, type.scale ?? 0);
  const children = type.children ?? [];
  if (children.length === 0) return (value) => value;
  const inner = children.map((child) => reader(child.type));
  if (children.length === 1 && children[0]?.name !== undefined) {
    const only = inner[0] as (value: unknown) => unknown;
    return (value) => nested(value, () => only);
  }
  const byName = new Map(children.map((child, index) => [child.name, inner[index] as (value: unknown) => unknown]));
  return (value) => nested(value, (key) => byName.get(key));
}

type Read = (value: unknown) => unknown;

/** A struct row, list or map row of Arrow as plain values. */
function nested(value: unknown, read: (key: string) => Read | undefined): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const toJson = (value as { toJSON?: unknown }).toJSON;
  const plain: unknown = typeof toJson === 'function' ? (toJson as () => unknown).call(value) : value;
  if (Array.isArray(plain)) return plain.map((item) => (read('') ?? same)(item));
  if (typeof plain !== 'object' || plain === null) return plain;
  return Object.fromEntries(Object.entries(plain).map(([key, item]) => [key, (read(key) ?? same)(item)]));
}

function same(value: unknown): unknown {
  return value;
}

/** Arrow gives milliseconds with a fraction for finer units; the fraction is cut, as pandas does. */
function milliseconds(value: unknown): unknown {
  return typeof value === 'number' ? Math.floor(value) : value;
}

function duration(value: unknown, unit: number): unknown {
  if (typeof value !== 'bigint' && typeof value !== 'number') return value;
  return (BigInt(value) * 1000n) / (PER_SECOND[unit] ?? 1000n);
}

/** A decimal is given as little-endian 32-bit words in two's complement. */
function decimal(value: unknown, scale: number): unknown {
  if (!(value instanceof Uint32Array)) return value;
  let whole = 0n;
  for (let i = value.length - 1; i >= 0; i--) whole = (whole << 32n) | BigInt(value[i] as number);
  whole = BigInt.asIntN(value.length * 32, whole);
  const digits = (whole < 0n ? -whole : whole).toString().padStart(scale + 1, '0');
  const cut = digits.length - scale;
  const text = scale > 0 ? `${digits.slice(0, cut)}.${digits.slice(cut)}` : digits;
  return new Digits(whole < 0n ? `-${text}` : text);
}
