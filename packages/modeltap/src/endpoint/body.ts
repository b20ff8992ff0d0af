import type { IncomingMessage } from 'node:http';
import { type Readable, Transform } from 'node:stream';
import { ModeltapError } from '../kit/errors.ts';

/** True when the head of a request announces a body. */
export function hasBody(request: IncomingMessage): boolean {
  const { 'content-length': length, 'transfer-encoding': encoding } = request.headers;
  return encoding !== undefined || (length !== undefined && length !== '0');
}

/** The whole body of a request whose length is known to be small; node:http holds it to that length. */
export function readWhole(request: IncomingMessage): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.once('end', () => {
      const [only] = chunks;
      resolve(chunks.length === 1 && only !== undefined ? only : Buffer.concat(chunks));
    });
    request.once('error', reject);
    request.once('close', () => reject(new ModeltapError('internal', { detail: 'the client has gone' })));
  });
}

/**
 * The body of a request of unknown length, at most `maxBytes` of it. Then it breaks, after `onTooLong`; the request stays
 * as it is, so that it can be answered.
 */
export function limitedBody(
  request: IncomingMessage,
  limit: { readonly maxBytes: number; readonly onChunk: (chunk: Buffer) => void; readonly onTooLong: () => void },
): Readable {
  let bytes = 0;
  const body = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      bytes += chunk.length;
      if (bytes > limit.maxBytes) {
        request.unpipe(body);
        limit.onTooLong();
        body.destroy();
        return;
      }
      limit.onChunk(chunk);
      done(null, chunk);
    },
  });
  // Broken off by its reader or by its writer: either is told elsewhere.
  body.on('error', () => undefined);
  request.once('close', () => {
    if (!request.readableEnded) body.destroy(new ModeltapError('internal', { detail: 'the client has gone' }));
  });
  return request.pipe(body);
}

/**
 * Goes on reading what is left of a request that has its answer, for a moment, then calls `then`. A connection that is
 * closed on a client in the middle of its sentence is reset, and takes the answer with it.
 */
export function linger(request: IncomingMessage, then: () => void): void {
  let over = false;
  const end = () => {
    if (over) return;
    over = true;
    clearTimeout(timer);
    then();
  };
  const timer = setTimeout(end, LINGER_MS);
  request.once('end', end).once('close', end).once('error', end);
  request.resume();
}

const LINGER_MS = 500;
