import { isUtf8 } from 'node:buffer';
import type { IncomingMessage } from 'node:http';

/** A body read, or the status and text to refuse it with. */
export type ReadBody =
  | { readonly text: string; readonly bytes: number }
  | { readonly refuse: number; readonly message: string };

/** Bytes of bodies in memory over all requests of this process. */
export interface BodyBudget {
  used: number;
  readonly maxBytes: number;
}

/**
 * Reads a whole body as UTF-8 text and calls `done` once; not at all when the client goes away first. More than
 * `maxBytes` is 413, more than the budget over all requests 429, bytes that are not UTF-8 400. What is refused is read
 * to its end (up to `maxBytes` more) and thrown away, so that a client that is still sending gets the answer.
 * The bytes of a body that was read stay charged to the budget: the caller takes them off when the request is over.
 */
export function readBody(
  request: IncomingMessage,
  budget: BodyBudget,
  maxBytes: number,
  done: (body: ReadBody) => void,
): void {
  let chunks: Buffer[] = [];
  let total = 0;
  let held = 0;
  let refused: { refuse: number; message: string } | undefined;
  const giveBack = () => {
    budget.used -= held;
    held = 0;
    chunks = [];
  };
  const finish = (body: ReadBody) => {
    request.off('data', onData);
    request.off('end', onEnd);
    request.off('close', giveBack);
    done(body);
  };
  const refuse = (status: number, message: string) => {
    refused = { refuse: status, message };
    giveBack();
  };
  const onData = (chunk: Buffer) => {
    total += chunk.length;
    if (refused !== undefined) {
      if (total > maxBytes * 2) finish(refused);
      return;
    }
    if (total > maxBytes) return refuse(413, `The request body is larger than ${maxBytes} bytes`);
    if (budget.used + chunk.length > budget.maxBytes) {
      return refuse(429, 'Too many large requests at once for this instance; try again later');
    }
    budget.used += chunk.length;
    held += chunk.length;
    chunks.push(chunk);
  };
  const onEnd = () => {
    if (refused !== undefined) return finish(refused);
    const [only] = chunks;
    const bytes = chunks.length === 1 && only !== undefined ? only : Buffer.concat(chunks, total);
    finish(
      isUtf8(bytes)
        ? { text: bytes.toString('utf8'), bytes: total }
        : { refuse: 400, message: 'The request body is not valid UTF-8' },
    );
  };
  if (Number(request.headers['content-length'] ?? 0) > maxBytes * 2) {
    done({ refuse: 413, message: `The request body is larger than ${maxBytes} bytes` });
    return;
  }
  request.on('data', onData);
  request.on('end', onEnd);
  request.on('close', giveBack);
}
