import { ModeltapError } from '../kit/errors.ts';
import { isLoopbackHostHeader } from '../kit/loopback.ts';
import { encodeHead, FLAG, MAX_FIELD_BYTES, maxHeadBytes, type RecordHead } from '../record/codec.ts';
import type { Destination } from '../record/types.ts';
import type { SideFile, SpoolRefusal, SpoolWriter } from '../spool/types.ts';
import { BoundedMap, SDK_SOURCE } from './attributes.ts';
import type { BodyFlow } from './body.ts';
import type { DedupeWindow } from './dedupe.ts';
import type { Exchange } from './exchange.ts';
import { refusalError, replyError } from './reply.ts';
import type { JsonFacts } from './scan.ts';
import type { IngestCounts, IngestLimits, Route } from './types.ts';

/** Answers of the route function kept. */
const MAX_ROUTES = 4096;
/** Longest piece of a sender's text repeated in an error message. */
const QUOTE_CHARS = 128;

/** A destination with all that belongs to it. */
export interface KnownRoute {
  readonly spool: SpoolWriter;
  readonly destination: Destination;
  readonly counts: IngestCounts;
  /** The destination's number in the dedupe window. */
  readonly salt: number;
}

/** Told when a record is durable, or why it never will be; `refusal` when it was the spool that did not take it. */
export interface AppendListener {
  appended(error: ModeltapError | undefined, refusal: SpoolRefusal | undefined): void;
}

/** What the receivers share. */
export interface ContextParts {
  readonly limits: IngestLimits;
  readonly counts: IngestCounts;
  readonly flow: BodyFlow;
  readonly dedupe: DedupeWindow;
  readonly now: () => number;
  readonly uuid: () => string;
}

/** Flag bits for what the scan found; none for an opaque body. */
export function flagsOf(facts: JsonFacts | undefined): number {
  if (facts === undefined) return 0;
  return (
    FLAG.json |
    (facts.array ? FLAG.array : 0) |
    (facts.lineBreaks ? FLAG.lineBreaks : 0) |
    (facts.escapes ? FLAG.escapes : 0)
  );
}

/** A sender's text, cut for a message. */
export function quoted(text: string): string {
  return text.length <= QUOTE_CHARS ? text : `${text.slice(0, QUOTE_CHARS)}…`;
}

/** Routing, appending and answering, shared by the receivers of one ingest. */
export class IngestContext {
  readonly limits: IngestLimits;
  readonly counts: IngestCounts;
  readonly flow: BodyFlow;
  readonly dedupe: DedupeWindow;
  readonly now: () => number;
  readonly uuid: () => string;
  #route: Route;
  readonly #routes = new BoundedMap<KnownRoute | ModeltapError>(MAX_ROUTES);
  #host = '';
  #scratch = Buffer.allocUnsafeSlow(4096);
  /** Set while the agent stops: answers ask senders to open a new connection. */
  closing = false;

  constructor(parts: ContextParts, route: Route) {
    this.limits = parts.limits;
    this.counts = parts.counts;
    this.flow = parts.flow;
    this.dedupe = parts.dedupe;
    this.now = parts.now;
    this.uuid = parts.uuid;
    this.#route = route;
  }

  /** Changes whenever answers of `route` may have changed. */
  generation = 0;

  replaceRoute(route: Route): void {
    this.#route = route;
    this.generation += 1;
    this.#routes.clear();
  }

  /** The destination for a type on a port, or the error that answers it. */
  route(port: number, type: string, source: string): KnownRoute | ModeltapError {
    const key = `${port} ${type}\n${source}`;
    return this.#routes.get(key) ?? this.#routes.set(key, this.#ask(port, type, source));
  }

  #ask(port: number, type: string, source: string): KnownRoute | ModeltapError {
    const answer = this.#route({ port, type, source });
    if ('refusal' in answer) {
      const enabled = answer.enabled.length === 0 ? 'none' : answer.enabled.join(', ');
      return new ModeltapError(answer.refusal, { collection: quoted(answer.collection), enabled });
    }
    const { spool, destination } = answer;
    const salt = this.dedupe.saltOf(spool, destination.id);
    return { spool, destination, counts: answer.counts ?? this.counts, salt };
  }

  /** What forbids taking this request before its body is looked at. */
  gate(host: string, encoding: string): ModeltapError | undefined {
    if (host !== this.#host) {
      if (host !== '' && !isLoopbackHostHeader(host)) return new ModeltapError('host_refused', { host: quoted(host) });
      this.#host = host;
    }
    if (encoding === '' || encoding.toLowerCase() === 'identity') return undefined;
    return new ModeltapError('unsupported_encoding', { encoding: quoted(encoding) });
  }

  /**
   * Appends one record and tells when it is durable, or why it never will be. Counts what was accepted; what was
   * refused is for the caller to count.
   */
  append(
    route: KnownRoute,
    head: RecordHead,
    body: { readonly parts: readonly Uint8Array[]; readonly sideFile: SideFile | undefined },
    listener: AppendListener,
  ): void {
    const { spool, destination, counts } = route;
    const tooLong = longField(head);
    const need = maxHeadBytes(head);
    if (need > this.#scratch.length && tooLong === undefined) this.#scratch = Buffer.allocUnsafeSlow(need);
    if (tooLong !== undefined) {
      this.drop(body.sideFile);
      listener.appended(tooLong, undefined);
      return;
    }
    const bytes = encodeHead(this.#scratch, 0, head);
    const [only] = body.parts;
    const first = this.#scratch.subarray(0, bytes);
    const parts = body.parts.length === 1 && only ? [first, only] : [first, ...body.parts];
    const taken = spool.append(
      parts,
      (refusal) => {
        if (refusal !== undefined) {
          listener.appended(refusalError(refusal, destination.datastore), refusal);
          return;
        }
        counts.accepted(destination.id, head.timeMs, head.rows, head.bodyBytes);
        listener.appended(undefined, undefined);
      },
      body.sideFile,
    );
    if (taken) return;
    this.drop(body.sideFile);
    listener.appended(refusalError(spool.refusal, destination.datastore), spool.refusal);
  }

  /** Removes a side file that is not needed. */
  drop(sideFile: SideFile | undefined): void {
    // What cannot be removed is an orphan that the next start removes.
    sideFile?.abort().catch(() => undefined);
  }

  /** The error for a refusal of the spool of this route. */
  refusal(refusal: SpoolRefusal, route: KnownRoute): ModeltapError {
    return refusalError(refusal, route.destination.datastore);
  }

  /** Counts what a sender left out, for a collection that is known on this port. */
  sampledOut(port: number, collection: string, told: { readonly timeMs: number; readonly records: number }): void {
    const route = this.route(port, `azureml.inference.${collection}`, SDK_SOURCE);
    if (route instanceof ModeltapError) return;
    route.counts.sampledOut?.(route.destination.id, told.timeMs, told.records);
  }

  /** Counts that the time of arrival took the place of an accepted record's own. */
  timeReplaced({ counts, destination }: KnownRoute): void {
    if (counts.timeReplaced) counts.timeReplaced(destination.id);
    else this.counts.timeReplaced?.(destination.id);
  }

  /** Answers 204. */
  accepted(exchange: Exchange): void {
    exchange.accept(this.closing);
  }

  /** Counts a refused record and answers with the error; without an error the sender is gone and nothing is counted. */
  refuse(exchange: Exchange, error: ModeltapError | undefined, route: KnownRoute | undefined, timeMs: number): void {
    if (error === undefined) return;
    (route?.counts ?? this.counts).rejected(error.code, route?.destination.id ?? 0, timeMs);
    replyError(exchange, error, this.closing);
  }
}

function longField(head: RecordHead): ModeltapError | undefined {
  const { id, correlationId, attributes } = head;
  if (attributes.length + 3 * (id.length + correlationId.length) <= MAX_FIELD_BYTES) return undefined;
  for (const [attribute, bytes] of [
    ['id', Buffer.byteLength(id)],
    ['correlationid', Buffer.byteLength(correlationId)],
    ['attributes', attributes.length],
  ] as const) {
    if (bytes > MAX_FIELD_BYTES) {
      return new ModeltapError('event_invalid', {
        event: 'the record',
        attribute,
        problem: `is longer than ${MAX_FIELD_BYTES} bytes`,
      });
    }
  }
  return undefined;
}
