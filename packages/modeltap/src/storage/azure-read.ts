import type { Readable } from 'node:stream';
import type { AzureContainer } from './azure-client.ts';
import { streamOf } from './streams.ts';

/** How often the reading of one object is taken up again where the connection broke. */
const MOST_RESUMES = 3;

interface Source {
  readonly stream: Readable;
  readonly etag: string | undefined;
  /** Offset behind the last byte this answer carries. */
  readonly end: number;
  /** Makes the stream fail. */
  readonly abort: () => void;
}

interface ByteRange {
  readonly start: number;
  readonly end: number | undefined;
}

/**
 * Streams an object. When the connection breaks or falls silent the reading goes on at the same byte of the same version
 * of the object; after three times that, or when the object was changed meanwhile, the stream fails with a
 * `StorageError`. (The SDK's own resuming does not cover a reset connection.)
 */
export async function openRead(container: AzureContainer, key: string, range: ByteRange): Promise<Readable> {
  const open = (at: ByteRange, etag?: string) => request(container, key, { ...at, etag });
  const current = { source: await open(range) };
  const chunks = async function* (): AsyncGenerator<Buffer> {
    let at = range.start;
    for (let resumes = 0; ; resumes += 1) {
      try {
        for await (const chunk of untilSilent(current.source, container.timeoutMs)) {
          at += chunk.length;
          yield chunk;
        }
        if (at >= current.source.end) return;
        throw container.error({ action: 'get', key }, new DOMException('the answer ended early', 'NetworkError'));
      } catch (error) {
        const failure = container.error({ action: 'get', key }, error);
        if (failure.kind !== 'unreachable' || resumes === MOST_RESUMES) throw failure;
        current.source = await open({ start: at, end: current.source.end }, current.source.etag);
      }
    }
  };
  return streamOf(chunks(), () => current.source.stream.destroy());
}

async function request(
  container: AzureContainer,
  key: string,
  range: ByteRange & { etag: string | undefined },
): Promise<Source> {
  const { start, end, etag } = range;
  let abort: () => void = () => undefined;
  const answer = await container.call({ action: 'get', key }, (abortSignal, abortRequest) => {
    abort = abortRequest;
    return container.blob(key).download(start, end === undefined ? undefined : end - start, {
      abortSignal,
      maxRetryRequests: 0,
      ...(etag === undefined ? {} : { conditions: { ifMatch: etag } }),
    });
  });
  // In Node the SDK always gives a Node stream.
  const stream = answer.readableStreamBody as Readable;
  return { stream, etag: answer.etag, end: start + (answer.contentLength ?? 0), abort };
}

/** The chunks of a stream; one that stays silent for `idleMs` is aborted. A slow reader does not count as silence. */
async function* untilSilent(source: Source, idleMs: number): AsyncGenerator<Buffer> {
  const chunks: AsyncIterator<Buffer> = source.stream[Symbol.asyncIterator]();
  for (;;) {
    const timer = setTimeout(source.abort, idleMs);
    const step = await chunks.next().finally(() => clearTimeout(timer));
    if (step.done) return;
    yield step.value;
  }
}
