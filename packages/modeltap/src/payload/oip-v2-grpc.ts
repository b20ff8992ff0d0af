import { quoted } from '../record/json-bytes.ts';
import { decodeSides, mediaType, pathOf } from './exchange.ts';
import { Issues, named } from './issues.ts';
import { ProtobufReader, WIRE } from './protobuf.ts';
import { nothing } from './shapes.ts';
import { bytesText, doubleText, floatText, rawData, tableFromTensorList, type Tensor } from './tensors.ts';
import { type CapturedMessage, LIMITS, type PayloadDecoder, type Table } from './types.ts';

const FRAME_HEAD_BYTES = 5;

/** Which of the two messages of `ModelInfer`. */
export type InferMessageKind = 'request' | 'response';

/** A tensor as it lies in the message. */
interface WireTensor {
  readonly name: string;
  readonly datatype: string;
  readonly shape: readonly number[];
  readonly parameters: ReadonlyMap<string, string>;
  /** JSON texts of the typed contents; undefined when the tensor has none. */
  readonly cells: readonly string[] | undefined;
}

interface InferMessage {
  readonly strings: { readonly model_name: string; readonly model_version: string; readonly id: string };
  readonly parameters: ReadonlyMap<string, string>;
  readonly tensors: readonly WireTensor[];
  /** Names of outputs asked for; requests only. */
  readonly requested: readonly string[];
  readonly raw: readonly Buffer[];
}

/** Field numbers that differ between the two messages. */
const RAW_FIELD: Readonly<Record<InferMessageKind, number>> = { request: 7, response: 6 };

/** A reader whose problem ends up in the problem of the message around it. */
type Problems = string[];

function each(bytes: Buffer, problems: Problems, visit: (reader: ProtobufReader) => void): void {
  const reader = new ProtobufReader(bytes);
  while (reader.next()) visit(reader);
  if (reader.problem !== undefined) problems.push(reader.problem);
}

function parameterText(bytes: Buffer, problems: Problems): string {
  let text = 'null';
  each(bytes, problems, ({ field, varint, bytes: value, wire }) => {
    if (field === 1 && wire === WIRE.varint) text = varint === 0n ? 'false' : 'true';
    else if (field === 2 && wire === WIRE.varint) text = String(BigInt.asIntN(64, varint));
    else if (field === 3 && wire === WIRE.bytes) text = bytesText(value);
    else if (field === 4 && wire === WIRE.fixed64) text = doubleText(value.readDoubleLE(0), new Issues(''));
    else if (field === 5 && wire === WIRE.varint) text = String(varint);
  });
  return text;
}

/** Adds one entry of a `map<string, InferParameter>`. */
function addParameter(entry: Buffer, into: Map<string, string>, problems: Problems): void {
  let name = '';
  let text = 'null';
  each(entry, problems, ({ field, wire, bytes }) => {
    if (wire !== WIRE.bytes) return;
    if (field === 1) name = bytes.toString('utf8');
    else if (field === 2) text = parameterText(bytes, problems);
  });
  into.set(name, text);
}

/** JSON text of a varint in a field of `InferTensorContents`. */
const VARINT_TEXT: Readonly<Record<number, (value: bigint) => string>> = {
  1: (value) => (value === 0n ? 'false' : 'true'),
  2: (value) => String(BigInt.asIntN(32, value)),
  3: (value) => String(BigInt.asIntN(64, value)),
  4: (value) => String(BigInt.asUintN(32, value)),
  5: String,
};

/** Adds the elements of one field of `InferTensorContents`, packed or not. */
function addContents(reader: ProtobufReader, cells: string[], context: Parsing): void {
  const { field, wire, bytes } = reader;
  const text = VARINT_TEXT[field];
  if (text !== undefined) {
    if (wire === WIRE.varint) cells.push(text(reader.varint));
    else if (wire === WIRE.bytes) {
      const packed = new ProtobufReader(bytes);
      while (packed.more) cells.push(text(packed.readVarint()));
      if (packed.problem !== undefined) context.problems.push(packed.problem);
    }
  } else if (field === 8 && wire === WIRE.bytes) cells.push(bytesText(bytes));
  else if (field === 6 && (wire === WIRE.bytes || wire === WIRE.fixed32)) addFloats(bytes, 4, cells, context);
  else if (field === 7 && (wire === WIRE.bytes || wire === WIRE.fixed64)) addFloats(bytes, 8, cells, context);
}

function addFloats(bytes: Buffer, size: 4 | 8, cells: string[], context: Parsing): void {
  if (bytes.length % size !== 0) context.problems.push('a list of floats is cut off');
  for (let at = 0; at + size <= bytes.length; at += size) {
    cells.push(
      size === 4
        ? floatText(bytes.readFloatLE(at), context.issues)
        : doubleText(bytes.readDoubleLE(at), context.issues),
    );
  }
}

/** What the parts of a message share while it is read. */
interface Parsing {
  readonly problems: Problems;
  readonly issues: Issues;
}

function readTensor(bytes: Buffer, context: Parsing): WireTensor {
  const { problems } = context;
  const strings = ['', ''];
  const shape: number[] = [];
  const parameters = new Map<string, string>();
  let cells: string[] | undefined;
  each(bytes, problems, (reader) => {
    const { field, wire } = reader;
    if (field === 3 && wire === WIRE.varint) shape.push(Number(BigInt.asIntN(64, reader.varint)));
    if (wire !== WIRE.bytes) return;
    if (field === 1 || field === 2) strings[field - 1] = reader.bytes.toString('utf8');
    else if (field === 3) {
      const packed = new ProtobufReader(reader.bytes);
      while (packed.more) shape.push(Number(BigInt.asIntN(64, packed.readVarint())));
      if (packed.problem !== undefined) problems.push(packed.problem);
    } else if (field === 4) addParameter(reader.bytes, parameters, problems);
    else if (field === 5) {
      const own: string[] = cells ?? [];
      cells = own;
      each(reader.bytes, problems, (contents) => addContents(contents, own, context));
    }
  });
  const [name = '', datatype = ''] = strings;
  return { name, datatype, shape, parameters, cells };
}

/** Reads a message. Undefined, with an issue, when it is not protobuf of this kind. */
function readMessage(bytes: Buffer, kind: InferMessageKind, issues: Issues): InferMessage | undefined {
  const context: Parsing = { problems: [], issues };
  const { problems } = context;
  const strings = ['', '', ''];
  const parameters = new Map<string, string>();
  const tensors: WireTensor[] = [];
  const requested: string[] = [];
  const raw: Buffer[] = [];
  each(bytes, problems, ({ field, wire, bytes: value }) => {
    if (wire !== WIRE.bytes) return;
    if (field <= 3) strings[field - 1] = value.toString('utf8');
    else if (field === 4) addParameter(value, parameters, problems);
    else if (field === 5) tensors.push(readTensor(value, context));
    else if (field === RAW_FIELD[kind]) raw.push(value);
    else if (field === 6) {
      each(value, problems, (output) => {
        if (output.field === 1 && output.wire === WIRE.bytes) requested.push(output.bytes.toString('utf8'));
      });
    }
  });
  if (problems.length > 0) return nothing(issues, `the message is not a ModelInfer ${kind}: ${problems[0]}`);
  const [model_name = '', model_version = '', id = ''] = strings;
  return { strings: { model_name, model_version, id }, parameters, tensors, requested, raw };
}

/** The tensors with their data. Raw contents, when there are any, are those of the tensors in order. */
function tensorsOf(message: InferMessage, issues: Issues): Tensor[] {
  return message.tensors.map(({ name, datatype, shape, cells }, at) => {
    const raw = message.raw[at];
    if (cells !== undefined) {
      return { name, datatype, shape, data: { count: cells.length, cell: (index) => cells[index] ?? 'null' } };
    }
    if (raw !== undefined) return { name, datatype, shape, data: rawData(raw, datatype, name, issues) };
    const empty = shape.some((size) => size === 0);
    if (!empty) issues.add(`tensor ${named(name)} has no contents`);
    return { name, datatype, shape, data: empty ? { count: 0, cell: () => 'null' } : undefined };
  });
}

function parametersJson(parameters: ReadonlyMap<string, string>): string {
  return `{${[...parameters].map(([name, text]) => `${quoted(name)}:${text}`).join(',')}}`;
}

/** `data` of a tensor as JSON; undefined when it would be longer than `room` characters. */
function dataJson({ data }: Tensor, room: number): string | undefined {
  const parts: string[] = [];
  let chars = 0;
  for (let at = 0; at < (data?.count ?? 0); at += 1) {
    const cell = data?.cell(at) ?? 'null';
    chars += cell.length + 1;
    if (chars > room) return undefined;
    parts.push(cell);
  }
  return `[${parts.join(',')}]`;
}

function tensorJson(tensor: Tensor, wire: WireTensor | undefined, room: number): string | undefined {
  const parameters = wire === undefined || wire.parameters.size === 0 ? undefined : parametersJson(wire.parameters);
  const data = tensor.data === undefined ? undefined : dataJson(tensor, room);
  if (tensor.data !== undefined && data === undefined) return undefined;
  const members = [
    `"name":${quoted(tensor.name)}`,
    `"datatype":${quoted(tensor.datatype)}`,
    `"shape":[${tensor.shape.join(',')}]`,
    ...(parameters === undefined ? [] : [`"parameters":${parameters}`]),
    ...(data === undefined ? [] : [`"data":${data}`]),
  ];
  return `{${members.join(',')}}`;
}

/** What `modelInferToJson` gives. */
export interface InferJson {
  /** JSON text; undefined when the message cannot be read or is too long. */
  readonly json: string | undefined;
  /** As in `DecodedExchange`. */
  readonly issues: readonly string[];
}

/**
 * A `ModelInferRequest` or `ModelInferResponse` (protobuf bytes) as JSON text, in the form the same message has in the
 * protocol's REST API: `model_name`, `model_version`, `id`, `parameters`, `inputs` or `outputs` with flat `data`, raw
 * contents read. Bytes that are not UTF-8 are `{"b64": …}`. Never throws; limited to `LIMITS.textChars`.
 */
export function modelInferToJson(bytes: Buffer, kind: InferMessageKind): InferJson {
  const issues = new Issues(kind);
  const message = readMessage(bytes, kind, issues);
  const json = message && messageJson(message, kind, issues);
  return { json, issues: issues.list() };
}

function messageJson(message: InferMessage, kind: InferMessageKind, issues: Issues): string | undefined {
  const members: string[] = [];
  for (const [name, text] of Object.entries(message.strings))
    if (text !== '') members.push(`"${name}":${quoted(text)}`);
  if (message.parameters.size > 0) members.push(`"parameters":${parametersJson(message.parameters)}`);
  const texts: string[] = [];
  let room: number = LIMITS.textChars;
  for (const [at, tensor] of tensorsOf(message, issues).entries()) {
    const text = tensorJson(tensor, message.tensors[at], room);
    if (text === undefined) return nothing(issues, `the message is longer than ${LIMITS.textChars} characters as JSON`);
    room -= text.length;
    texts.push(text);
  }
  members.push(`"${kind === 'request' ? 'inputs' : 'outputs'}":[${texts.join(',')}]`);
  if (message.requested.length > 0) {
    members.push(`"outputs":[${message.requested.map((name) => `{"name":${quoted(name)}}`).join(',')}]`);
  }
  return `{${members.join(',')}}`;
}

/**
 * The messages in a body of gRPC frames (one flag byte, four of length). Undefined, with an issue, when a frame is cut
 * off or compressed: what undoes compression is the capture, which knows `grpc-encoding`.
 */
export function grpcMessagesOf(body: Buffer, issues: Issues): Buffer[] | undefined {
  const messages: Buffer[] = [];
  for (let at = 0; at < body.length; ) {
    const end = at + FRAME_HEAD_BYTES <= body.length ? at + FRAME_HEAD_BYTES + body.readUInt32BE(at + 1) : Infinity;
    if (end > body.length) return nothing(issues, `gRPC frame ${messages.length} is cut off`);
    if (body[at] !== 0) return nothing(issues, `gRPC frame ${messages.length} is compressed`);
    messages.push(body.subarray(at + FRAME_HEAD_BYTES, end));
    at = end;
  }
  return messages;
}

function tableFromMessage(captured: CapturedMessage, kind: InferMessageKind, issues: Issues): Table | undefined {
  const { grpcMessages, body } = captured;
  if (grpcMessages === undefined && body === undefined) return nothing(issues, 'the body was not captured');
  const messages = grpcMessages ?? (body && grpcMessagesOf(body, issues));
  if (messages === undefined) return undefined;
  const [first] = messages;
  if (first === undefined || messages.length !== 1) {
    return nothing(issues, `expected one message, found ${messages.length}`);
  }
  const message = readMessage(first, kind, issues);
  return message && tableFromTensorList(tensorsOf(message, issues), issues);
}

/** `ModelInfer` of the Open Inference Protocol v2 over gRPC: KServe, Triton, MLServer. */
export const oipV2Grpc: PayloadDecoder = {
  protocol: 'oip-v2-grpc',
  matches: (exchange) =>
    mediaType(exchange.request).startsWith('application/grpc') &&
    pathOf(exchange) === '/inference.GRPCInferenceService/ModelInfer',
  decode: (exchange) =>
    decodeSides(exchange, {
      inputs: (request, issues) => tableFromMessage(request, 'request', issues),
      outputs: (response, issues) => tableFromMessage(response, 'response', issues),
    }),
};
