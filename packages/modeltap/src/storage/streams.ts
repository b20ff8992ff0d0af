import { Readable } from 'node:stream';
import { StorageError } from './store.ts';
import type { ObjectBody } from './store.ts';

/** Length of a body, bytes. */
export function bodyBytes(body: ObjectBody): number {
  return body instanceof Uint8Array ? body.length : body.bytes;
}

/**
 * The same bytes in a new stream whose errors are mapped. Destroying it destroys the source, also when it was never
 * read.
 */
export function mapStreamErrors(source: Readable, mapError: (error: unknown) => Error): Readable {
  return streamOf(mappedChunks(source, mapError), () => source.destroy());
}

/** A byte stream of what a generator gives. `close` is called once, when the stream is over or destroyed. */
export function streamOf(chunks: AsyncGenerator<Buffer>, close: () => void): Readable {
  const stream = Readable.from(chunks, { objectMode: false });
  // A generator that was never started does not run its own `finally`.
  stream.once('close', close);
  return stream;
}

async function* mappedChunks(source: Readable, mapError: (error: unknown) => Error): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of source as AsyncIterable<Buffer>) yield chunk;
  } catch (error) {
    throw mapError(error);
  }
}

/** One piece of a body. */
export interface BodyBlock {
  /** Where it begins in the body, bytes. */
  readonly offset: number;
  /** Its bytes: valid until `release`. */
  readonly data: Uint8Array;
  /** Gives its memory back for a later piece. */
  readonly release: () => void;
}

/**
 * Cuts a body into pieces of `blockBytes` (the last is shorter). Pieces of a stream lie in buffers that are used again
 * after `release`, so memory is `blockBytes` times the pieces held at once. A stream of another length than it declared
 * is a `StorageError` of kind `invalid`; a stream that fails is `unreachable`, since the same body may be readable later.
 */
export async function* bodyBlocks(body: ObjectBody, blockBytes: number, what: string): AsyncGenerator<BodyBlock> {
  if (body instanceof Uint8Array) {
    for (let offset = 0; offset < body.length; offset += blockBytes) {
      yield { offset, data: body.subarray(offset, offset + blockBytes), release: () => undefined };
    }
    return;
  }
  const free: Buffer[] = [];
  const take = () => free.pop() ?? Buffer.allocUnsafeSlow(Math.max(1, Math.min(blockBytes, body.bytes)));
  const block = (offset: number, buffer: Buffer, length: number): BodyBlock => ({
    offset,
    data: buffer.subarray(0, length),
    release: () => free.push(buffer),
  });
  let buffer = take();
  let filled = 0;
  let offset = 0;
  for await (const chunk of checkedChunks(body, what)) {
    let from = 0;
    while (from < chunk.length) {
      const copied = chunk.copy(buffer, filled, from, Math.min(chunk.length, from + buffer.length - filled));
      from += copied;
      filled += copied;
      if (filled < buffer.length) continue;
      yield block(offset, buffer, filled);
      offset += filled;
      filled = 0;
      buffer = take();
    }
  }
  if (filled > 0) yield block(offset, buffer, filled);
}

/** The chunks of a body that is a stream, exactly `body.bytes` bytes in all; errors as `bodyBlocks` gives them. */
export async function* checkedChunks(body: Exclude<ObjectBody, Uint8Array>, what: string): AsyncGenerator<Buffer> {
  const source = body.open();
  let seen = 0;
  try {
    for await (const chunk of readChunks(source, what)) {
      seen += chunk.length;
      if (seen > body.bytes) break;
      yield chunk;
    }
  } finally {
    source.destroy();
  }
  if (seen !== body.bytes) {
    throw new StorageError(
      'invalid',
      `${what}: the body has ${seen > body.bytes ? 'more' : 'fewer'} bytes (${seen}) than declared (${body.bytes})`,
      {
        fix: 'This is a defect of the caller: the length of a body must be known before it is sent.',
      },
    );
  }
}

async function* readChunks(source: Readable, what: string): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of source as AsyncIterable<Buffer | string>) {
      yield typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
    }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new StorageError('unreachable', `${what}: reading the body failed: ${reason}`, {
      fix: 'Look at the place the body is read from, usually the spool directory.',
      cause: error,
    });
  }
}

/**
 * Runs `task` for every item, at most `limit` at once, taking an item only when there is room for it. After the first
 * failure no further item is taken; the running ones are waited for, then the failure is thrown.
 */
export async function forEachBounded<T>(
  items: AsyncIterable<T> | Iterable<T>,
  limit: number,
  task: (item: T) => Promise<void>,
): Promise<void> {
  const running = new Set<Promise<void>>();
  const failures: unknown[] = [];
  try {
    for await (const item of items) {
      const run = task(item)
        .catch((error: unknown) => {
          failures.push(error);
        })
        .finally(() => running.delete(run));
      running.add(run);
      if (running.size >= limit) await Promise.race(running);
      if (failures.length > 0) break;
    }
  } finally {
    await Promise.all(running);
  }
  if (failures.length > 0) throw failures[0];
}
