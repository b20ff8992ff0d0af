import { isUtf8 } from 'node:buffer';
import { bodyJson, decodeSides, jsonOf, mediaType, pathOf } from './exchange.ts';
import { type Issues, named } from './issues.ts';
import { type JsonValue, objectEnd } from './json-text.ts';
import { nothing } from './shapes.ts';
import { rawData, tableFromTensorList, type Tensor, type TensorData } from './tensors.ts';
import { type CapturedMessage, LIMITS, type PayloadDecoder, type Table } from './types.ts';

const PATH = /\/v2\/models\/[^/]+(?:\/versions\/[^/]+)?\/infer$/;

/** The JSON of a message, and the bytes of the binary tensor data extension that follow it. */
interface Parts {
  readonly json: JsonValue;
  readonly binary: Buffer | undefined;
}

function partsOf(message: CapturedMessage, issues: Issues): Parts | undefined {
  const { body, inferenceHeaderBytes } = message;
  if (body === undefined || (inferenceHeaderBytes === undefined && mediaType(message) !== 'application/octet-stream')) {
    const json = bodyJson(message, issues);
    return json && { json, binary: undefined };
  }
  const length = inferenceHeaderBytes ?? objectEnd(body);
  if (length === undefined || length > body.length || length < 0) {
    return nothing(issues, 'the JSON in front of the binary tensors does not end');
  }
  const head = body.subarray(0, length);
  if (!isUtf8(head)) return nothing(issues, 'the JSON in front of the binary tensors is not UTF-8');
  const json = jsonOf(head.toString('utf8'), issues);
  return json && { json, binary: body.subarray(length) };
}

/** A whole number of a shape or size. */
function wholeNumber(value: JsonValue | undefined): number | undefined {
  return value !== undefined && /^\d{1,15}$/.test(value.text) ? Number(value.text) : undefined;
}

function shapeOf(value: JsonValue | undefined): number[] | undefined {
  if (value?.kind !== 'array') return undefined;
  const shape: number[] = [];
  for (const item of value.items()) {
    const size = wholeNumber(item);
    if (size === undefined) return undefined;
    shape.push(size);
  }
  return shape;
}

/** Adds the values in flat or nested lists, in order; false when there is an object, or more levels than a tensor has. */
function flatten(list: JsonValue, cells: string[], levels: number): boolean {
  for (const item of list.items()) {
    if (item.isScalar) cells.push(item.text);
    else if (item.kind === 'object' || levels === 1 || !flatten(item, cells, levels - 1)) return false;
  }
  return true;
}

/** Binary tensors lie behind the JSON in the order of the tensors. */
class BinaryReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer | undefined) {
    this.#bytes = bytes ?? Buffer.alloc(0);
  }

  take(size: number): Buffer | undefined {
    const from = this.#at;
    this.#at += size;
    return this.#at <= this.#bytes.length ? this.#bytes.subarray(from, this.#at) : undefined;
  }
}

/** One tensor object and where it stands. */
interface TensorObject {
  readonly fields: ReadonlyMap<string, JsonValue>;
  readonly name: string;
  readonly datatype: string;
}

function dataOf(tensor: TensorObject, binary: BinaryReader, issues: Issues): TensorData | undefined {
  const { fields, name, datatype } = tensor;
  const size = fields.get('parameters')?.fields().get('binary_data_size');
  if (size !== undefined) {
    const bytes = wholeNumber(size);
    const raw = bytes === undefined ? undefined : binary.take(bytes);
    if (raw === undefined) return nothing(issues, `tensor ${named(name)}: its binary data is not there`);
    return rawData(raw, datatype, name, issues);
  }
  const data = fields.get('data');
  if (data?.kind !== 'array') return nothing(issues, `tensor ${named(name)}: data is missing or not a list`);
  const cells: string[] = [];
  if (!flatten(data, cells, LIMITS.rank)) {
    return nothing(issues, `tensor ${named(name)}: data is not of values in at most ${LIMITS.rank} levels of lists`);
  }
  return { count: cells.length, cell: (at) => cells[at] ?? 'null' };
}

function tensorsOf(parts: Parts, member: string, issues: Issues): Tensor[] | undefined {
  const list = parts.json.fields().get(member);
  if (list?.kind !== 'array') return nothing(issues, `${member} is missing or not a list`);
  const binary = new BinaryReader(parts.binary);
  const tensors: Tensor[] = [];
  for (const item of list.items()) {
    const fields = item.fields();
    const name = fields.get('name');
    if (name?.kind !== 'string') return nothing(issues, `${member}[${tensors.length}] has no name`);
    const shape = shapeOf(fields.get('shape'));
    if (shape === undefined) return nothing(issues, `tensor ${named(name.string)}: shape is not a list of sizes`);
    const datatype = fields.get('datatype')?.string ?? '';
    const data = dataOf({ fields, name: name.string, datatype }, binary, issues);
    if (data === undefined) return undefined;
    tensors.push({ name: name.string, datatype, shape, data });
  }
  return tensors;
}

function tableFromMessage(message: CapturedMessage, member: string, issues: Issues): Table | undefined {
  const parts = partsOf(message, issues);
  const tensors = parts && tensorsOf(parts, member, issues);
  return tensors && tableFromTensorList(tensors, issues);
}

/** Open Inference Protocol v2 over REST, with its binary tensor data extension: KServe, Triton, MLServer. */
export const oipV2: PayloadDecoder = {
  protocol: 'oip-v2',
  matches: (exchange) => exchange.method === 'POST' && PATH.test(pathOf(exchange)),
  decode: (exchange) =>
    decodeSides(exchange, {
      inputs: (request, issues) => tableFromMessage(request, 'inputs', issues),
      outputs: (response, issues) => tableFromMessage(response, 'outputs', issues),
    }),
};
