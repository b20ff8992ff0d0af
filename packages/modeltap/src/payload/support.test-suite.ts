import type { CapturedExchange, CapturedMessage, DecodedExchange, PayloadDecoder, Table } from './types.ts';

/** What a test gives for one side: text of a JSON body, or the whole message. */
export type Side = string | CapturedMessage;

/** A captured message of a JSON body. */
export function message(side: Side, contentType = 'application/json'): CapturedMessage {
  return typeof side === 'string' ? { contentType, body: Buffer.from(side) } : side;
}

/** A POST and its answer. */
export function exchangeOf(path: string, request: Side, response?: Side, status = 200): CapturedExchange {
  return {
    method: 'POST',
    path,
    status: response === undefined ? undefined : status,
    request: message(request),
    response: response === undefined ? undefined : message(response),
  };
}

/** The rows of a table as one JSON array; undefined without a table. */
export function rowsOf(table: Table | undefined): string | undefined {
  return table && `[${table.rows.join(',')}]`;
}

/** The rows a decoder reads from a request body, or the issues when it reads none. */
export function inputsOf(decoder: PayloadDecoder, path: string, request: Side): string | readonly string[] {
  const { inputs, issues } = decoder.decode(exchangeOf(path, request, '[]'));
  return rowsOf(inputs) ?? sideOf(issues, 'request');
}

/** The rows a decoder reads from an answer, or the issues of that side when it reads none. */
export function outputsOf(decoder: PayloadDecoder, path: string, response: Side): string | readonly string[] {
  const { outputs, issues } = decoder.decode(exchangeOf(path, '[]', response));
  return rowsOf(outputs) ?? sideOf(issues, 'response');
}

/** The issues of one side. */
export function sideOf(issues: DecodedExchange['issues'], side: 'request' | 'response'): string[] {
  return issues.filter((issue) => issue.startsWith(side));
}
