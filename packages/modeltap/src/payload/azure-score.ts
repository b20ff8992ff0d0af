import { bodyJson, decodeSides, pathOf } from './exchange.ts';
import type { Issues } from './issues.ts';
import { type JsonValue, readJson } from './json-text.ts';
import { commonLength, isCell, isSplit, tableFromAny, tableFromColumns } from './shapes.ts';
import type { CapturedMessage, PayloadDecoder, Table } from './types.ts';

/** Names under which scoring scripts and Azure's generated ones take the rows. */
const REQUEST_KEYS = ['input_data', 'data', 'Inputs'];
/** Names under which they give them back: hand-written scripts, MLflow, AutoML and the designer. */
const ANSWER_KEYS = ['result', 'results', 'predictions', 'Results'];

/** What is inside `{"Inputs": {"data": …}}` and the designer's `{"Inputs": {"<port>": […]}}`; else the value itself. */
function inside(value: JsonValue): JsonValue {
  if (value.kind !== 'object' || isSplit(value.fields())) return value;
  const fields = value.fields();
  const only = fields.size === 1 ? [...fields.values()][0] : fields.get('data');
  return only?.kind === 'array' && holdsRows(only) ? only : value;
}

/** Whether a list has rows in it, rather than being one column. */
function holdsRows(list: JsonValue): boolean {
  const first = list.items().next().value;
  return first !== undefined && !isCell(first);
}

function tableFromBody(body: JsonValue, keys: readonly string[], issues: Issues): Table | undefined {
  if (body.kind !== 'object') return tableFromAny(body, 'the body', issues);
  const fields = body.fields();
  if (isSplit(fields)) return tableFromAny(body, 'the body', issues);
  // Several lists of one length are columns, even if one of them has a name that wraps rows elsewhere.
  if (fields.size > 1 && commonLength(fields) !== undefined) {
    const columns = tableFromColumns(fields, issues);
    if (columns !== undefined) return columns.table;
  }
  for (const key of keys) {
    const value = fields.get(key);
    if (value === undefined || isCell(value)) continue;
    return tableFromAny(key === 'Inputs' || key === 'Results' ? inside(value) : value, key, issues);
  }
  // What is left are the named arguments of promptflow and of hand-written scripts: columns, or one row.
  return tableFromAny(body, 'the body', issues);
}

/** Scripts that return JSON text get it quoted once more by the server. */
function unquoted(value: JsonValue): JsonValue {
  if (value.kind !== 'string') return value;
  const text = value.string;
  if (!/^\s*[[{]/.test(text)) return value;
  const read = readJson(text);
  return 'value' in read ? read.value : value;
}

function inputs(request: CapturedMessage, issues: Issues): Table | undefined {
  const body = bodyJson(request, issues);
  return body && tableFromBody(body, REQUEST_KEYS, issues);
}

function outputs(response: CapturedMessage, issues: Issues): Table | undefined {
  const body = bodyJson(response, issues);
  return body && tableFromBody(unquoted(body), ANSWER_KEYS, issues);
}

/** `POST /score` of Azure ML's inference server: scoring scripts, no-code MLflow models, AutoML, promptflow. */
export const azureScore: PayloadDecoder = {
  protocol: 'azure-score',
  matches: (exchange) => exchange.method === 'POST' && pathOf(exchange).endsWith('/score'),
  decode: (exchange) => decodeSides(exchange, { inputs, outputs }),
};
