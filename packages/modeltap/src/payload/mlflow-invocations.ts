import { tableFromCsv } from './csv.ts';
import { bodyJson, bodyText, decodeSides, mediaType, pathOf } from './exchange.ts';
import type { Issues } from './issues.ts';
import type { JsonValue } from './json-text.ts';
import {
  isCell,
  isSplit,
  nothing,
  tableFromAny,
  tableFromCell,
  tableFromList,
  tableFromRecord,
  tableFromSplit,
  tableFromTensors,
} from './shapes.ts';
import type { CapturedMessage, PayloadDecoder, Table } from './types.ts';

/** Requests of chat, completion and embedding models come without one of MLflow's own keys around them. */
const UNWRAPPED = ['messages', 'prompt', 'input'];

function tableFromTensorInput(value: JsonValue, where: string, issues: Issues): Table | undefined {
  if (isCell(value)) return tableFromCell(value, issues);
  return value.kind === 'array' ? tableFromList(value, where, issues) : tableFromTensors(value, where, issues);
}

function tableFromSplitMember(value: JsonValue, where: string, issues: Issues): Table | undefined {
  if (value.kind !== 'object') return nothing(issues, `${where} is not an object`);
  return tableFromSplit(value.fields(), where, issues);
}

function tableFromRecords(value: JsonValue, where: string, issues: Issues): Table | undefined {
  return value.kind === 'array' ? tableFromList(value, where, issues) : nothing(issues, `${where} is not a list`);
}

const KEYS: Readonly<Record<string, (value: JsonValue, where: string, issues: Issues) => Table | undefined>> = {
  dataframe_split: tableFromSplitMember,
  dataframe_records: tableFromRecords,
  instances: tableFromTensorInput,
  inputs: tableFromTensorInput,
};

function inputs(request: CapturedMessage, issues: Issues): Table | undefined {
  if (mediaType(request) === 'text/csv') {
    const text = bodyText(request, issues);
    return text === undefined ? undefined : tableFromCsv(text, issues);
  }
  const body = bodyJson(request, issues);
  if (body === undefined) return undefined;
  const fields = body.fields();
  const given = Object.keys(KEYS).filter((key) => fields.has(key));
  const [key] = given;
  const value = key === undefined ? undefined : fields.get(key);
  if (key !== undefined && value !== undefined && given.length === 1) return KEYS[key]?.(value, key, issues);
  if (given.length === 0 && UNWRAPPED.some((name) => fields.has(name))) return tableFromRecord(body, issues);
  return nothing(issues, `expected exactly one of ${Object.keys(KEYS).join(', ')}, found ${given.length}`);
}

function outputs(response: CapturedMessage, issues: Issues): Table | undefined {
  const body = bodyJson(response, issues);
  if (body === undefined) return undefined;
  const predictions = body.fields().get('predictions');
  if (predictions !== undefined) return tableFromAny(predictions, 'predictions', issues);
  if (body.kind === 'object' && !isSplit(body.fields())) return tableFromRecord(body, issues);
  return tableFromAny(body, 'the body', issues);
}

/** `POST /invocations` of MLflow's scoring server (also SageMaker's): JSON in its four forms, and CSV. `params` is no column. */
export const mlflowInvocations: PayloadDecoder = {
  protocol: 'mlflow-invocations',
  matches: (exchange) => exchange.method === 'POST' && pathOf(exchange).endsWith('/invocations'),
  decode: (exchange) => decodeSides(exchange, { inputs, outputs }),
};
