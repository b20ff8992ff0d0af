import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';

/** Headers of one connection, not of the message (RFC 9110 §7.6.1); `expect` is answered by this server itself. */
const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'expect',
]);

/** Header names `Connection` declares to be of this connection. */
function connectionNames(value: string | string[] | undefined): ReadonlySet<string> | undefined {
  if (value === undefined) return undefined;
  const names = String(value)
    .toLowerCase()
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== 'keep-alive' && name !== 'close' && name !== '');
  return names.length === 0 ? undefined : new Set(names);
}

/** What else is done to the headers of a request. */
export interface ForwardedHeaderOptions {
  /** Leaves out `authorization`: it was for the endpoint, and the model has no use for its keys. */
  readonly withoutAuthorization: boolean;
}

/**
 * Headers to send to an instance, as a flat name, value list in the client's order and spelling: without those of the
 * connection, without `host` (the instance has its own) and `x-modeltap-mirror-of`, and with `x-request-id`.
 */
export function forwardedRequestHeaders(
  request: IncomingMessage,
  requestId: string,
  options: ForwardedHeaderOptions = { withoutAuthorization: false },
): string[] {
  const raw = request.rawHeaders;
  const named = connectionNames(request.headers.connection);
  const headers: string[] = [];
  for (let index = 0; index + 1 < raw.length; index += 2) {
    const name = raw[index] ?? '';
    const lower = name.toLowerCase();
    if (HOP_BY_HOP.has(lower) || REPLACED.has(lower) || named?.has(lower)) continue;
    if (options.withoutAuthorization && lower === 'authorization') continue;
    headers.push(name, raw[index + 1] ?? '');
  }
  headers.push('x-request-id', requestId);
  return headers;
}

/** Headers of an instance's answer for the client, plus which deployment answered and the request id. */
export function forwardedResponseHeaders(
  headers: IncomingHttpHeaders,
  deployment: string,
  requestId: string,
): string[] {
  const named = connectionNames(headers.connection);
  const out: string[] = [];
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined || HOP_BY_HOP.has(name) || name === DEPLOYMENT_HEADER || named?.has(name)) continue;
    if (typeof value === 'string') out.push(name, value);
    else for (const one of value) out.push(name, one);
  }
  if (headers['x-request-id'] === undefined) out.push('x-request-id', requestId);
  out.push(DEPLOYMENT_HEADER, deployment);
  return out;
}

/** Only copies have it: the deployment that answers the client. */
export const MIRROR_HEADER = 'x-modeltap-mirror-of';

/** Never passed on as the client sent them. */
const REPLACED = new Set(['host', 'x-request-id', MIRROR_HEADER]);

/** In a request it forces a deployment, as in Azure ML; in an answer it names the one that answered. */
export const DEPLOYMENT_HEADER = 'azureml-model-deployment';
