import type { IncomingMessage, ServerResponse } from 'node:http';
import { ModeltapError, toErrorBody } from '../kit/errors.ts';
import type { SpoolRefusal } from '../spool/types.ts';

/** How long a refused sender may go on sending before the connection is cut, so that it can read the answer. */
const LINGER_MS = 2000;
const RETRY_AFTER_S = '1';

/** The error for a refusal of the spool. */
export function refusalError(refusal: SpoolRefusal, datastore: string): ModeltapError {
  // Senders know the datastore; the path of its spool is for the log.
  const directory = `of datastore "${datastore}"`;
  return new ModeltapError(refusal, { directory, detail: 'see the log of the agent' });
}

/** Answers 204 without a body. */
export function replyAccepted(response: ServerResponse): void {
  response.statusCode = 204;
  response.end();
}

/** Answers with a JSON body. */
export function replyJson(response: ServerResponse, status: number, body: unknown): void {
  const bytes = Buffer.from(JSON.stringify(body));
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': bytes.length });
  response.end(bytes);
}

/** Answers with an error. With the request's body not wholly read, the connection is closed, but not before the sender could read the answer. */
export function replyError(request: IncomingMessage, response: ServerResponse, error: ModeltapError): void {
  if (response.headersSent || response.destroyed) return;
  const bytes = Buffer.from(JSON.stringify(toErrorBody(error)));
  const headers: Record<string, string | number> = {
    'content-type': 'application/json',
    'content-length': bytes.length,
  };
  if (error.httpStatus === 503) headers['retry-after'] = RETRY_AFTER_S;
  if (error.code === 'method_not_allowed') headers['allow'] = String(error.params['allow']);
  if (request.complete) {
    response.writeHead(error.httpStatus, headers);
    response.end(bytes);
    return;
  }
  headers['connection'] = 'close';
  response.writeHead(error.httpStatus, headers);
  // The answer is complete on the wire; ending it would close the socket under a sender that still writes.
  response.write(bytes);
  const timer = setTimeout(() => response.end(), LINGER_MS);
  const finish = () => {
    clearTimeout(timer);
    response.end();
  };
  request.once('end', finish);
  request.once('close', finish);
  request.resume();
}
