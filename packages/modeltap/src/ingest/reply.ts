import { ModeltapError, toErrorBody } from '../kit/errors.ts';
import type { SpoolRefusal } from '../spool/types.ts';
import type { Exchange } from './exchange.ts';

/** How long a refused sender may go on sending before the connection is cut, so that it can read the answer. */
export const LINGER_MS = 2000;
const RETRY_AFTER_S = '1';

/** The error for a refusal of the spool. */
export function refusalError(refusal: SpoolRefusal, datastore: string): ModeltapError {
  // Senders know the datastore; the path of its spool is for the log.
  const directory = `of datastore "${datastore}"`;
  return new ModeltapError(refusal, { directory, detail: 'see the log of the agent' });
}

/** Answers with a JSON body. `close`: the connection ends with it. */
export function replyJson(exchange: Exchange, status: number, body: unknown, close: boolean): void {
  exchange.reply({ status, headers: {}, body: Buffer.from(JSON.stringify(body)) }, close);
}

/** Answers with an error. `close`: the connection ends with it, as it always does when the body was not wholly read. */
export function replyError(exchange: Exchange, error: ModeltapError, close: boolean): void {
  const headers: Record<string, string> = {};
  if (error.httpStatus === 503) headers['retry-after'] = RETRY_AFTER_S;
  if (error.code === 'method_not_allowed') headers['allow'] = String(error.params['allow']);
  const body = Buffer.from(JSON.stringify(toErrorBody(error)));
  exchange.reply({ status: error.httpStatus, headers, body }, close);
}
