import { isUtf8 } from 'node:buffer';
import { Issues } from './issues.ts';
import { type JsonValue, readJson } from './json-text.ts';
import { type CapturedExchange, type CapturedMessage, type DecodedExchange, LIMITS, type Table } from './types.ts';

/** The two halves of a decoder. Each says in its issues why it gives no table. */
export interface TableReaders {
  readonly inputs: (request: CapturedMessage, issues: Issues) => Table | undefined;
  /** Called for answers with a 2xx status only. */
  readonly outputs: (response: CapturedMessage, issues: Issues) => Table | undefined;
}

/** Reads both sides of an exchange; an answer that is an error has no outputs. */
export function decodeSides(exchange: CapturedExchange, readers: TableReaders): DecodedExchange {
  const request = new Issues('request');
  const response = new Issues('response');
  const inputs = fits(exchange.request, request) ? readers.inputs(exchange.request, request) : undefined;
  const outputs = outputsOf(exchange, readers, response);
  return { inputs, outputs, issues: [...request.list(), ...response.list()] };
}

/** Whether a message is short enough to be read; says so when it is not. */
function fits({ body, grpcMessages = [] }: CapturedMessage, issues: Issues): boolean {
  const bytes = grpcMessages.reduce((sum, message) => sum + message.length, body?.length ?? 0);
  if (bytes <= LIMITS.bodyBytes) return true;
  issues.add(`the body has ${bytes} bytes, and ${LIMITS.bodyBytes} are read at most`);
  return false;
}

function outputsOf(exchange: CapturedExchange, readers: TableReaders, issues: Issues): Table | undefined {
  const { status, response } = exchange;
  if (response === undefined || status === undefined) issues.add('there was none');
  else if (status < 200 || status > 299) issues.add(`status ${status}, so there are no outputs`);
  else if (fits(response, issues)) return readers.outputs(response, issues);
  return undefined;
}

/** Path without query and without a slash at its end. */
export function pathOf(exchange: CapturedExchange): string {
  const end = exchange.path.search(/[?#]/);
  const path = end < 0 ? exchange.path : exchange.path.slice(0, end);
  return path.endsWith('/') ? path.slice(0, -1) : path;
}

/** Media type without parameters, lower case; empty when there is none. */
export function mediaType(message: CapturedMessage): string {
  return (message.contentType ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? '';
}

/** The body as text. Undefined, with an issue, when it was not captured or is not UTF-8. */
export function bodyText(message: CapturedMessage, issues: Issues): string | undefined {
  if (message.body === undefined) issues.add('the body was not captured');
  else if (!isUtf8(message.body)) issues.add('the body is not UTF-8');
  else return message.body.toString('utf8');
  return undefined;
}

/** A text as JSON. Undefined, with an issue that names the byte, when it is not. */
export function jsonOf(text: string, issues: Issues): JsonValue | undefined {
  const read = readJson(text);
  if ('value' in read) {
    if (read.nonFinite > 0) issues.nonFinite(read.nonFinite);
    return read.value;
  }
  const byte = Buffer.byteLength(text.slice(0, read.at));
  issues.add(`the body is not valid JSON: ${read.reason}, at byte ${byte}`);
  return undefined;
}

/** Types under which JSON is sent: its own, and what clients say that do not care. */
const LOOSE_JSON = /^(?:|text\/.*|.*[/+]json|application\/x-www-form-urlencoded)$/;

/** The body as JSON. Undefined, with an issue, when it was not captured, has another type or is not JSON. */
export function bodyJson(message: CapturedMessage, issues: Issues): JsonValue | undefined {
  const type = mediaType(message);
  if (!LOOSE_JSON.test(type)) {
    issues.add('the content type is not JSON');
    return undefined;
  }
  const text = bodyText(message, issues);
  return text === undefined ? undefined : jsonOf(text, issues);
}
