import { isUtf8 } from 'node:buffer';
import { type Issues, named } from './issues.ts';
import { nothing } from './shapes.ts';
import { headsOf, TableBuilder } from './table.ts';
import { LIMITS, type Table } from './types.ts';

/** The elements of a tensor, flattened, row by row. */
export interface TensorData {
  readonly count: number;
  /** JSON text of an element. Called in any order, `0 ≤ at < count`. */
  readonly cell: (at: number) => string;
}

/** A named tensor of the Open Inference Protocol. */
export interface Tensor {
  readonly name: string;
  /** `FP32`, `INT64`, `BYTES`, … */
  readonly datatype: string;
  readonly shape: readonly number[];
  /** Undefined when it could not be read; an issue said why. */
  readonly data: TensorData | undefined;
}

/** JSON text of bytes: a string when they are UTF-8, else `{"b64": …}`. */
export function bytesText(bytes: Buffer): string {
  return isUtf8(bytes) ? JSON.stringify(bytes.toString('utf8')) : `{"b64":"${bytes.toString('base64')}"}`;
}

/** JSON text of a double; NaN and infinite values are `null` and counted. */
export function doubleText(value: number, issues: Issues): string {
  if (Number.isFinite(value)) return Object.is(value, -0) ? '-0' : String(value);
  issues.nonFinite();
  return 'null';
}

/** Whole numbers up to here are exact in single precision, digit by digit. */
const EXACT_INTEGERS = 2 ** 24;

/** JSON text of a single-precision value: at most 9 digits, fewer if they read back to the same one. */
export function floatText(value: number, issues: Issues): string {
  const exact = Number.isInteger(value) && Math.abs(value) <= EXACT_INTEGERS;
  if (exact || !Number.isFinite(value)) return doubleText(value, issues);
  for (let digits = 6; digits < 9; digits += 1) {
    const shorter = Number(value.toPrecision(digits));
    if (Math.fround(shorter) === value) return String(shorter);
  }
  return String(Number(value.toPrecision(9)));
}

/** The value of a half-precision float. */
function halfOf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

const scratch = Buffer.alloc(4);

/** The value of a bfloat16: the upper half of a single-precision float. */
function bfloatOf(bits: number): number {
  scratch.writeUInt32LE(bits * 0x1_0000, 0);
  return scratch.readFloatLE(0);
}

interface FixedType {
  readonly bytes: number;
  readonly read: (raw: Buffer, offset: number, issues: Issues) => string;
}

const integer = (read: (raw: Buffer, offset: number) => number | bigint) => (raw: Buffer, offset: number) =>
  String(read(raw, offset));

/** Datatypes of elements of one size, little-endian. */
const FIXED: Readonly<Record<string, FixedType>> = {
  BOOL: { bytes: 1, read: (raw, offset) => (raw[offset] === 0 ? 'false' : 'true') },
  UINT8: { bytes: 1, read: integer((raw, offset) => raw.readUInt8(offset)) },
  UINT16: { bytes: 2, read: integer((raw, offset) => raw.readUInt16LE(offset)) },
  UINT32: { bytes: 4, read: integer((raw, offset) => raw.readUInt32LE(offset)) },
  UINT64: { bytes: 8, read: integer((raw, offset) => raw.readBigUInt64LE(offset)) },
  INT8: { bytes: 1, read: integer((raw, offset) => raw.readInt8(offset)) },
  INT16: { bytes: 2, read: integer((raw, offset) => raw.readInt16LE(offset)) },
  INT32: { bytes: 4, read: integer((raw, offset) => raw.readInt32LE(offset)) },
  INT64: { bytes: 8, read: integer((raw, offset) => raw.readBigInt64LE(offset)) },
  FP16: { bytes: 2, read: (raw, offset, issues) => doubleText(halfOf(raw.readUInt16LE(offset)), issues) },
  BF16: { bytes: 2, read: (raw, offset, issues) => floatText(bfloatOf(raw.readUInt16LE(offset)), issues) },
  FP32: { bytes: 4, read: (raw, offset, issues) => floatText(raw.readFloatLE(offset), issues) },
  FP64: { bytes: 8, read: (raw, offset, issues) => doubleText(raw.readDoubleLE(offset), issues) },
};

/** Elements of `BYTES`: each with its length in four bytes before it. */
function lengthPrefixed(raw: Buffer, name: string, issues: Issues): TensorData | undefined {
  const starts: number[] = [];
  for (let at = 0; at < raw.length; ) {
    const end = at + 4 <= raw.length ? at + 4 + raw.readUInt32LE(at) : raw.length + 1;
    if (end > raw.length) return nothing(issues, `tensor ${named(name)}: element ${starts.length} is cut off`);
    starts.push(at);
    at = end;
  }
  return {
    count: starts.length,
    cell: (at) => {
      const start = (starts[at] ?? 0) + 4;
      return bytesText(raw.subarray(start, starts[at + 1] ?? raw.length));
    },
  };
}

/** Reads the raw form of a tensor. Undefined, with an issue, for an unknown datatype and for bytes that do not fit it. */
export function rawData(raw: Buffer, datatype: string, name: string, issues: Issues): TensorData | undefined {
  if (datatype === 'BYTES') return lengthPrefixed(raw, name, issues);
  const type = Object.hasOwn(FIXED, datatype) ? FIXED[datatype] : undefined;
  if (type === undefined) return nothing(issues, `tensor ${named(name)}: unknown datatype ${named(datatype)}`);
  if (raw.length % type.bytes !== 0) {
    return nothing(issues, `tensor ${named(name)}: ${raw.length} bytes are not a whole number of ${datatype} elements`);
  }
  return { count: raw.length / type.bytes, cell: (at) => type.read(raw, at * type.bytes, issues) };
}

function product(dimensions: readonly number[]): number {
  return dimensions.reduce((size, dimension) => size * dimension, 1);
}

/** JSON text of the part of a tensor that begins at `offset` and has these dimensions. */
function nestedText(data: TensorData, offset: number, dimensions: readonly number[]): string {
  const [size, ...inner] = dimensions;
  if (size === undefined) return data.cell(offset);
  const step = product(inner);
  const parts: string[] = [];
  for (let at = 0; at < size; at += 1) parts.push(nestedText(data, offset + at * step, inner));
  return `[${parts.join(',')}]`;
}

/** Some columns of the table, made of one tensor. */
interface Part {
  readonly names: readonly string[];
  readonly texts: (row: number) => string[];
}

/** `[n]` and `[n, 1]`: one column of the tensor's name; `[n, k]`: `<name>_0` …; more dimensions: one column of nested lists. */
function partOf(tensor: Tensor, data: TensorData): Part {
  const { name, shape } = tensor;
  const inner = shape.slice(1);
  const width = product(inner);
  if (inner.length > 1) return { names: [name], texts: (row) => [nestedText(data, row * width, inner)] };
  if (width === 1) return { names: [name], texts: (row) => [data.cell(row)] };
  // One more than allowed is enough for the builder to refuse.
  const names = Array.from({ length: Math.min(width, LIMITS.columns + 1) }, (_, at) => `${name}_${at}`);
  return { names, texts: (row) => names.map((_, at) => data.cell(row * width + at)) };
}

function checked(tensor: Tensor, rows: number, issues: Issues): TensorData | undefined {
  const { name, shape, data } = tensor;
  if (data === undefined) return undefined;
  const size = product(shape);
  if (shape.length > LIMITS.rank) {
    return nothing(issues, `tensor ${named(name)} has ${shape.length} dimensions, the limit is ${LIMITS.rank}`);
  }
  if (shape.some((dimension) => dimension < 0)) {
    return nothing(issues, `tensor ${named(name)} has a negative dimension`);
  }
  if (size !== data.count) {
    return nothing(issues, `tensor ${named(name)} has ${data.count} elements, its shape says ${size}`);
  }
  const own = shape[0] ?? 1;
  if (own !== rows) return nothing(issues, `tensor ${named(name)} has ${own} rows, the first tensor has ${rows}`);
  return data;
}

/** One table out of all tensors of a message. They must have the same first dimension, which counts the rows. */
export function tableFromTensorList(tensors: readonly Tensor[], issues: Issues): Table | undefined {
  const rows = tensors[0]?.shape[0] ?? 1;
  const parts: Part[] = [];
  for (const tensor of tensors) {
    const data = checked(tensor, rows, issues);
    if (data === undefined) return undefined;
    if (product(tensor.shape) > 0) parts.push(partOf(tensor, data));
  }
  const builder = new TableBuilder(issues);
  const names = parts.flatMap((part) => part.names);
  if (!builder.declare(names)) return undefined;
  const heads = headsOf(names);
  const count = names.length === 0 ? 0 : rows;
  for (let row = 0; row < count && builder.hasRoom(); row += 1) {
    builder.addCells(
      heads,
      parts.flatMap((part) => part.texts(row)),
    );
  }
  return builder.finish();
}
