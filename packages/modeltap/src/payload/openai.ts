import { mergeChatStream } from './chat-stream.ts';
import { bodyJson, bodyText, decodeSides, jsonOf, mediaType, pathOf } from './exchange.ts';
import type { Issues } from './issues.ts';
import type { JsonValue } from './json-text.ts';
import { nothing } from './shapes.ts';
import { TableBuilder } from './table.ts';
import type { CapturedExchange, CapturedMessage, PayloadDecoder, Table } from './types.ts';

const PATH = /\/(?:v1|openai|openai\/deployments\/[^/]+)\/(chat\/completions|completions|embeddings|responses)$/;

type Operation = 'chat/completions' | 'completions' | 'embeddings' | 'responses';

function operationOf(exchange: CapturedExchange): Operation | undefined {
  return exchange.method === 'POST' ? (PATH.exec(pathOf(exchange))?.[1] as Operation | undefined) : undefined;
}

type Cells = Map<string, string>;

/** A cell of one type whatever is in it: a scalar as it is, a list or object as a string that holds its JSON text. */
function flatText(value: JsonValue): string {
  return value.isScalar ? value.text : JSON.stringify(value.text);
}

function set(cells: Cells, name: string, value: JsonValue | undefined): void {
  if (value !== undefined) cells.set(name, flatText(value));
}

const USAGE_LEVELS = 3;

/** Members as `<prefix>.<name>`, also of objects in them. */
function addUsage(cells: Cells, prefix: string, value: JsonValue, levels = USAGE_LEVELS): void {
  for (const [name, member] of value.fields()) {
    if (member.kind === 'object' && levels > 1) addUsage(cells, `${prefix}.${name}`, member, levels - 1);
    else set(cells, `${prefix}.${name}`, member);
  }
}

function tableFromRows(rows: readonly Cells[], issues: Issues): Table | undefined {
  const builder = new TableBuilder(issues);
  for (const row of rows) if (!builder.hasRoom() || !builder.add(row)) break;
  return builder.finish();
}

/** Whether the input of an embedding is a list of inputs; a list of numbers is one input, as tokens. */
function isInputList(input: JsonValue): boolean {
  const first = input.items().next().value;
  return first !== undefined && first.kind !== 'number';
}

function readInputs(operation: Operation, request: CapturedMessage, issues: Issues): Table | undefined {
  const body = bodyJson(request, issues);
  if (body === undefined) return undefined;
  if (body.kind !== 'object') return nothing(issues, 'the body is not an object');
  const cells: Cells = new Map();
  const fields = body.fields();
  set(cells, 'model', fields.get('model'));
  for (const [name, value] of fields) set(cells, name, value);
  const input = fields.get('input');
  if (operation !== 'embeddings' || input?.kind !== 'array' || !isInputList(input)) {
    return tableFromRows([cells], issues);
  }
  const builder = new TableBuilder(issues);
  for (const item of input.items()) {
    if (!builder.hasRoom() || !builder.add(cells.set('input', flatText(item)))) break;
  }
  return builder.finish();
}

function choiceCells(choice: JsonValue, cells: Cells): void {
  const fields = choice.fields();
  const message = fields.get('message')?.fields();
  set(cells, 'index', fields.get('index'));
  for (const name of ['role', 'content', 'refusal', 'reasoning_content', 'tool_calls', 'function_call']) {
    set(cells, name, message?.get(name));
  }
  set(cells, 'content', fields.get('text'));
  set(cells, 'finish_reason', fields.get('finish_reason'));
}

/** Id and model of the answer, which all of its rows have. */
function answerCells(fields: ReadonlyMap<string, JsonValue>): Cells {
  const cells: Cells = new Map();
  set(cells, 'id', fields.get('id'));
  set(cells, 'model', fields.get('model'));
  return cells;
}

/** One row for each element of a list of the answer; the first one has the usage, so that sums are right. */
function tableFromElements(
  body: JsonValue,
  member: string,
  addCells: (element: JsonValue, cells: Cells) => void,
  issues: Issues,
): Table | undefined {
  const fields = body.fields();
  const list = fields.get(member);
  if (list?.kind !== 'array') return nothing(issues, `${member} is missing or not a list`);
  const builder = new TableBuilder(issues);
  let usage = fields.get('usage');
  for (const element of list.items()) {
    if (!builder.hasRoom()) break;
    const cells = answerCells(fields);
    addCells(element, cells);
    if (usage !== undefined) addUsage(cells, 'usage', usage);
    usage = undefined;
    if (!builder.add(cells)) break;
  }
  return builder.finish();
}

/** A vector stays a list: it is one value. */
function embeddingCells(element: JsonValue, cells: Cells): void {
  const fields = element.fields();
  set(cells, 'index', fields.get('index'));
  const embedding = fields.get('embedding');
  if (embedding !== undefined) cells.set('embedding', embedding.text);
}

/** Texts inside the `content` of an output message, joined as JSON text. */
function outputText(item: JsonValue, member: string): string {
  const parts: string[] = [];
  for (const part of item.fields().get('content')?.items() ?? []) {
    const text = part.fields().get(member);
    if (text?.kind === 'string') parts.push(text.inner);
  }
  return parts.join('');
}

/** An answer of the Responses API is one row, however many items it is made of. */
function tableFromResponse(body: JsonValue, issues: Issues): Table | undefined {
  const fields = body.fields();
  const output = fields.get('output');
  if (output?.kind !== 'array') return nothing(issues, 'output is missing or not a list');
  const cells = answerCells(fields);
  const contents: string[] = [];
  const refusals: string[] = [];
  const calls: string[] = [];
  for (const item of output.items()) {
    const own = item.fields();
    const type = own.get('type')?.string ?? '';
    set(cells, 'role', own.get('role'));
    if (type === 'message') {
      contents.push(outputText(item, 'text'));
      refusals.push(outputText(item, 'refusal'));
    } else if (type.endsWith('_call')) calls.push(item.text);
  }
  const refusal = refusals.join('');
  cells.set('content', contents.length === 0 ? 'null' : `"${contents.join('')}"`);
  if (refusal !== '') cells.set('refusal', `"${refusal}"`);
  if (calls.length > 0) cells.set('tool_calls', JSON.stringify(`[${calls.join(',')}]`));
  set(cells, 'status', fields.get('status'));
  set(cells, 'finish_reason', fields.get('incomplete_details')?.fields().get('reason'));
  const usage = fields.get('usage');
  if (usage !== undefined) addUsage(cells, 'usage', usage);
  return tableFromRows([cells], issues);
}

/** The answer, merged when it was streamed. */
function answerOf(response: CapturedMessage, issues: Issues): JsonValue | undefined {
  if (mediaType(response) !== 'text/event-stream') return bodyJson(response, issues);
  const text = bodyText(response, issues);
  if (text === undefined) return undefined;
  const merged = mergeChatStream(text);
  issues.addAll(merged.issues);
  return merged.message === undefined ? undefined : jsonOf(merged.message, issues);
}

function readOutputs(operation: Operation, response: CapturedMessage, issues: Issues): Table | undefined {
  const body = answerOf(response, issues);
  if (body === undefined) return undefined;
  if (operation === 'responses') return tableFromResponse(body, issues);
  if (operation === 'embeddings') return tableFromElements(body, 'data', embeddingCells, issues);
  return tableFromElements(body, 'choices', choiceCells, issues);
}

/** OpenAI's API and the many servers that speak it (Azure OpenAI, vLLM, …): chat, completions, embeddings, responses. */
export const openai: PayloadDecoder = {
  protocol: 'openai',
  matches: (exchange) => operationOf(exchange) !== undefined,
  decode: (exchange) => {
    const operation = operationOf(exchange) ?? 'chat/completions';
    return decodeSides(exchange, {
      inputs: (request, issues) => readInputs(operation, request, issues),
      outputs: (response, issues) => readOutputs(operation, response, issues),
    });
  },
};
