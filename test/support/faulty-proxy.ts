import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';

/** What the proxy does to a request instead of passing it on. */
export type Fault =
  /** Answers itself, with Azure's error body when `code` is given. `retryAfter` is the header's text: seconds or a date. */
  | { readonly kind: 'status'; readonly status: number; readonly code?: string; readonly retryAfter?: string }
  /** Cuts the connection when the first bytes of the request have come; the target never hears of it. */
  | { readonly kind: 'reset_request' }
  /** The target gets and does everything, then the connection is cut before (0) or in the middle of the answer's body. */
  | { readonly kind: 'reset_answer'; readonly afterBytes?: number }
  /** Takes the request and never answers. */
  | { readonly kind: 'hang' }
  /** Passes everything on after a delay. */
  | { readonly kind: 'slow'; readonly delayMs: number };

/** Which requests a fault meets. */
export interface FaultScope {
  /** Only requests this is true for. Default: all. */
  readonly matches?: (method: string, url: string) => boolean;
  /** Passes everything again after this many faults. Default: until `setFault(undefined)`. */
  readonly times?: number;
}

/** A running proxy. */
export interface FaultyProxy {
  /** Address to use instead of the target's, path included. */
  readonly url: string;
  /** Undefined: pass. Requests that hang meanwhile are cut. */
  setFault(fault: Fault | undefined, scope?: FaultScope): void;
  /** Requests seen, passed on whole, and met by the fault. */
  readonly counts: { seen: number; passed: number; faulted: number };
  stop(): Promise<void>;
}

/**
 * A loopback HTTP proxy in front of `targetUrl`. Method, path, headers (`Host` too) and bodies are passed on unchanged,
 * so signed requests stay valid.
 */
export async function startFaultyProxy(targetUrl: string): Promise<FaultyProxy> {
  const target = new URL(targetUrl);
  const counts = { seen: 0, passed: 0, faulted: 0 };
  const hanging = new Set<IncomingMessage>();
  let fault: Fault | undefined;
  let scope: FaultScope = {};
  let left = 0;
  const server = createServer((incoming, outgoing) => {
    counts.seen += 1;
    const { method = '', url = '' } = incoming;
    const active = left > 0 && (scope.matches?.(method, url) ?? true) ? fault : undefined;
    if (!active) {
      counts.passed += 1;
      forward(target, incoming, outgoing);
      return;
    }
    left -= 1;
    counts.faulted += 1;
    meet(active, { target, incoming, outgoing, hanging });
  });
  // A body that is cut off, or a client that goes away, is what this is for.
  server.on('clientError', (_error, socket) => socket.destroy());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const release = () => {
    for (const incoming of hanging) incoming.socket.destroy();
    hanging.clear();
  };
  return {
    url: `http://127.0.0.1:${port}${target.pathname.replace(/\/$/, '')}`,
    counts,
    setFault: (next, nextScope = {}) => {
      fault = next;
      scope = nextScope;
      left = next ? (nextScope.times ?? Number.POSITIVE_INFINITY) : 0;
      release();
    },
    stop: () =>
      new Promise((resolve) => {
        release();
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

interface Exchange {
  readonly target: URL;
  readonly incoming: IncomingMessage;
  readonly outgoing: ServerResponse;
  readonly hanging: Set<IncomingMessage>;
}

function meet(fault: Fault, exchange: Exchange): void {
  const { target, incoming, outgoing, hanging } = exchange;
  switch (fault.kind) {
    case 'status':
      incoming.resume();
      incoming.once('end', () => answer(fault, outgoing));
      return;
    case 'reset_request':
      incoming.socket.resetAndDestroy();
      return;
    case 'reset_answer':
      forward(target, incoming, outgoing, fault.afterBytes ?? 0);
      return;
    case 'hang':
      hanging.add(incoming);
      incoming.resume();
      incoming.once('close', () => hanging.delete(incoming));
      return;
    case 'slow':
      setTimeout(() => forward(target, incoming, outgoing), fault.delayMs);
  }
}

function answer(fault: Extract<Fault, { kind: 'status' }>, outgoing: ServerResponse): void {
  const { status, code, retryAfter } = fault;
  const body = code
    ? `<?xml version="1.0" encoding="utf-8"?><Error><Code>${code}</Code><Message>${code} on purpose.\nRequestId:0\nTime:0</Message></Error>`
    : '';
  outgoing.writeHead(status, {
    'content-type': 'application/xml',
    'content-length': Buffer.byteLength(body),
    ...(code ? { 'x-ms-error-code': code } : {}),
    ...(retryAfter === undefined ? {} : { 'retry-after': retryAfter }),
  });
  outgoing.end(body);
}

/** Passes a request on and its answer back; with `cutAfter` the connection is reset after that many bytes of the body. */
function forward(target: URL, incoming: IncomingMessage, outgoing: ServerResponse, cutAfter?: number): void {
  const passed = request(
    {
      host: target.hostname,
      port: target.port,
      method: incoming.method,
      path: incoming.url,
      headers: incoming.headers,
      setHost: false,
    },
    (reply) => {
      if (cutAfter !== undefined) {
        cut(reply, outgoing, cutAfter);
        return;
      }
      outgoing.writeHead(reply.statusCode ?? 502, reply.headers);
      reply.pipe(outgoing);
      reply.once('error', () => outgoing.destroy());
    },
  );
  passed.once('error', () => incoming.socket.destroy());
  outgoing.once('close', () => passed.destroy());
  incoming.pipe(passed);
}

function cut(reply: IncomingMessage, outgoing: ServerResponse, cutAfter: number): void {
  let sent = 0;
  const reset = () => outgoing.socket?.resetAndDestroy();
  if (cutAfter > 0) outgoing.writeHead(reply.statusCode ?? 502, reply.headers);
  reply.on('data', (chunk: Buffer) => {
    const part = chunk.subarray(0, Math.max(0, cutAfter - sent));
    sent += chunk.length;
    if (part.length > 0) outgoing.write(part);
    // Let what was written reach the client before the reset overtakes it.
    if (sent >= cutAfter && cutAfter > 0) setTimeout(reset, 20);
  });
  reply.once('end', () => setTimeout(reset, cutAfter > 0 ? 20 : 0));
}
