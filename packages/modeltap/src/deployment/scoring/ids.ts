import type { IncomingHttpHeaders } from 'node:http';

/** Longest request id in characters; longer ones are refused with status 431. */
export const MAX_ID_LENGTH = 100;

/** The ids of one request, by the rules of the Azure ML inference server 1.5.1. */
export interface RequestIds {
  /** `x-request-id` as received, else a new GUID. */
  readonly requestId: string;
  /** `x-ms-client-request-id`, else the deprecated `x-ms-request-id`; undefined when neither came in. */
  readonly clientRequestId: string | undefined;
  /** What is answered as `x-ms-request-id`: the deprecated id, else the client id, else the request id. */
  readonly legacyRequestId: string;
  /** `TraceId` as received; it is echoed. */
  readonly traceId: string | undefined;
}

/** Reads the ids of a request, or says which header is too long. `newId` makes a GUID. */
export function readIds(headers: IncomingHttpHeaders, newId: () => string): RequestIds | { readonly tooLong: string } {
  const requestId = text(headers['x-request-id']) ?? newId();
  if (requestId.length > MAX_ID_LENGTH) {
    return { tooLong: `x-request-id must not be longer than ${MAX_ID_LENGTH} characters` };
  }
  const legacy = text(headers['x-ms-request-id']);
  const clientRequestId = text(headers['x-ms-client-request-id']) ?? legacy;
  const legacyRequestId = legacy ?? clientRequestId ?? requestId;
  if (legacyRequestId.length > MAX_ID_LENGTH || (clientRequestId?.length ?? 0) > MAX_ID_LENGTH) {
    return {
      tooLong: `x-ms-request-id and x-ms-client-request-id must not be longer than ${MAX_ID_LENGTH} characters`,
    };
  }
  return { requestId, clientRequestId, legacyRequestId, traceId: text(headers.traceid) };
}

/** The answer headers that carry the ids, as a flat name, value list for `writeHead`. */
export function idHeaders(ids: RequestIds): string[] {
  const headers = ['x-request-id', ids.requestId, 'x-ms-request-id', ids.legacyRequestId];
  if (ids.clientRequestId !== undefined) headers.push('x-ms-client-request-id', ids.clientRequestId);
  if (ids.traceId !== undefined) headers.push('TraceId', ids.traceId);
  return headers;
}

/** An empty header counts as absent; a repeated one is already joined by node:http. */
function text(value: string | string[] | undefined): string | undefined {
  const one = Array.isArray(value) ? value.join(', ') : value;
  return one === '' ? undefined : one;
}
