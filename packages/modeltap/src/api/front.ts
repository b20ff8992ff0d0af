import {
  createServer as createPlain,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from 'node:http';
import { createServer as createTls, type Server as TlsServer } from 'node:https';
import { ModeltapError, toErrorBody } from '../kit/errors.ts';
import type { TlsFiles } from './tls.ts';

/** What a client may do before it is refused or cut off. */
export interface FrontLimits {
  /** All headers of a request together; more is 431. Default 32 KiB. */
  readonly headerBytes: number;
  /** Headers of a request; more is 431. Default 100. */
  readonly headers: number;
  /** From the first byte of a connection or request to the end of its headers; later is 408. Default 20 000 ms. */
  readonly headersTimeoutMs: number;
  /** From the first byte of a request to its last; later is 408. Default 600 000 ms. */
  readonly requestTimeoutMs: number;
  /** A connection without a request is closed after this. Default 65 000 ms. */
  readonly idleMs: number;
  /** Connections at a time; others are closed at once. Default 8192. */
  readonly connections: number;
  /** How often late clients are looked for. Default 1000 ms. */
  readonly checkEveryMs: number;
}

/** The limits of `modeltap up`. */
export const FRONT_LIMITS: FrontLimits = {
  headerBytes: 32 * 1024,
  headers: 100,
  headersTimeoutMs: 20_000,
  requestTimeoutMs: 600_000,
  idleMs: 65_000,
  connections: 8_192,
  checkEveryMs: 1_000,
};

/** What a front listens with. */
export interface FrontOptions {
  /** Absent: http. */
  readonly tls?: TlsFiles;
  readonly limits?: Partial<FrontLimits>;
}

/** An HTTP server, with TLS if there is a certificate, that holds its clients to limits before anybody sees a request. */
export function createFront(
  options: FrontOptions,
  onRequest: (request: IncomingMessage, response: ServerResponse) => void,
): Server | TlsServer {
  const limits = { ...FRONT_LIMITS, ...options.limits };
  const settings = {
    maxHeaderSize: limits.headerBytes,
    headersTimeout: limits.headersTimeoutMs,
    requestTimeout: limits.requestTimeoutMs,
    keepAliveTimeout: limits.idleMs,
    connectionsCheckingInterval: limits.checkEveryMs,
  };
  const listener = (request: IncomingMessage, response: ServerResponse) => {
    if (request.rawHeaders.length / 2 > limits.headers) refuse(response, limits.headers);
    else onRequest(request, response);
  };
  const server = options.tls === undefined ? createPlain(settings, listener) : secure(options.tls, settings, listener);
  // Node leaves out headers beyond this number without a word, so it must be higher than the limit.
  server.maxHeadersCount = limits.headers + 1;
  server.maxConnections = limits.connections;
  return server;
}

function secure(tls: TlsFiles, settings: ServerOptions, listener: RequestListener): TlsServer {
  const handshake = { minVersion: 'TLSv1.2', handshakeTimeout: settings.headersTimeout ?? 0 } as const;
  const server = createTls({ ...settings, ...handshake, ...tls.secure }, listener);
  tls.follow(server);
  return server;
}

function refuse(response: ServerResponse, limit: number): void {
  const error = new ModeltapError('headers_too_many', { limit });
  response.writeHead(error.httpStatus, { 'content-type': 'application/json', connection: 'close' });
  response.end(JSON.stringify({ message: error.message, ...toErrorBody(error) }));
}
