import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { RequestIds } from './ids.ts';

/** Query of a request: a key that came more than once has a list. */
export type ScoringQuery = Readonly<Record<string, string | string[]>>;

/** Second argument of a scoring script's `run(data, request)`. */
export interface ScoringRequest {
  /** As received, names in lower case. */
  readonly headers: IncomingHttpHeaders;
  /** The id of this request, also when the client sent none: pass it to the collector to find records by request. */
  readonly requestId: string;
  readonly clientRequestId: string | undefined;
  readonly method: string;
  readonly query: ScoringQuery;
  /** Aborts when the client has gone or the request has timed out. */
  readonly signal: AbortSignal;
}

/** One call of `run()`. The query and the signal are made when first asked for: most scripts never do. */
export class ScoringCall implements ScoringRequest {
  readonly headers: IncomingHttpHeaders;
  readonly requestId: string;
  readonly clientRequestId: string | undefined;
  readonly method: string;
  readonly #queryText: string;
  #query: ScoringQuery | undefined;
  #abort: AbortController | undefined;
  #aborted = false;

  constructor(request: IncomingMessage, ids: RequestIds, queryText: string) {
    this.headers = request.headers;
    this.requestId = ids.requestId;
    this.clientRequestId = ids.clientRequestId;
    this.method = request.method ?? 'POST';
    this.#queryText = queryText;
  }

  get query(): ScoringQuery {
    this.#query ??= parseQuery(this.#queryText);
    return this.#query;
  }

  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController();
      if (this.#aborted) this.#abort.abort();
    }
    return this.#abort.signal;
  }

  /** Aborts the signal; nothing happens the second time. */
  abort(): void {
    this.#aborted = true;
    this.#abort?.abort();
  }
}

/** Reads a query string (without `?`). */
export function parseQuery(text: string): ScoringQuery {
  const query: Record<string, string | string[]> = Object.create(null) as Record<string, string | string[]>;
  for (const [key, value] of new URLSearchParams(text)) {
    const before = query[key];
    if (before === undefined) query[key] = value;
    else if (Array.isArray(before)) before.push(value);
    else query[key] = [before, value];
  }
  return query;
}
