import type { AgentAnswer } from './post.ts';

/** What to do after an answer to `count` records. */
export type Verdict =
  | {
      readonly kind: 'taken';
      readonly rejected: ReadonlyMap<number, string>;
      /** Further refused events that the answer did not list. */
      readonly unlisted: number;
      /** The events from here on are to be sent again: the agent had no room for this one. */
      readonly again: { readonly from: number; readonly detail: string } | undefined;
    }
  /** The agent takes no batches after all. */
  | { readonly kind: 'no_batches' }
  | { readonly kind: 'too_large'; readonly detail: string }
  | { readonly kind: 'retry'; readonly afterMs: number | undefined; readonly detail: string };

const NONE: ReadonlyMap<number, string> = new Map();
const NO_ROUTE: ReadonlySet<number> = new Set([404, 405, 415, 501]);
/** Codes of a Modeltap agent that say what `NO_ROUTE` says; any other names the events as the cause. */
const NO_ROUTE_CODES: ReadonlySet<unknown> = new Set(['not_found', 'method_not_allowed', 'unsupported_content_type']);
/** Why a Modeltap agent refuses an event that it would take later. */
const LATER_CODES: ReadonlySet<unknown> = new Set([
  'ingest_busy',
  'spool_busy',
  'spool_closed',
  'spool_disk_error',
  'spool_full',
]);
const MAX_RETRY_AFTER_MS = 60_000;

/** Reads the answer to a batch of `count` events, or to one event. */
export function judge(answer: AgentAnswer, count: number, batch: boolean): Verdict {
  const { status } = answer;
  const body = parse(answer.body);
  if (status >= 200 && status < 300) return takenInPart(body, count);
  const detail = describeAnswer(status, body, answer.body);
  if (status === 413) return { kind: 'too_large', detail };
  const code = field(field(body, 'error'), 'code');
  if (batch && NO_ROUTE.has(status) && (code === undefined || NO_ROUTE_CODES.has(code))) return { kind: 'no_batches' };
  if (status === 408 || status === 429 || status >= 500) {
    return { kind: 'retry', afterMs: retryAfterMs(answer.headers['retry-after']), detail };
  }
  const named = rejections(body, count);
  return {
    kind: 'taken',
    rejected: new Map(Array.from({ length: count }, (_, index) => [index, named?.get(index) ?? detail])),
    unlisted: 0,
    again: undefined,
  };
}

/** 2xx: all events were taken but those in `rejected`, of which an agent may list the first ones only. */
function takenInPart(body: unknown, count: number): Verdict {
  const rejected = rejections(body, count) ?? NONE;
  const total = field(body, 'rejectedCount');
  const unlisted = typeof total === 'number' ? Math.max(0, Math.min(total, count) - rejected.size) : 0;
  const list = field(body, 'rejected');
  const later = (Array.isArray(list) ? list : []).filter((item) => LATER_CODES.has(field(item, 'code')));
  const places = later.map((item) => field(item, 'index')).filter((index) => rejected.has(index as number)) as number[];
  const from = Math.min(...places);
  const again = places.length === 0 ? undefined : { from, detail: rejected.get(from) ?? '' };
  return { kind: 'taken', rejected, unlisted: again === undefined ? unlisted : 0, again };
}

/** `{"rejected":[{"index","code","message"}]}` as index → reason; undefined when the body is something else. */
function rejections(body: unknown, count: number): ReadonlyMap<number, string> | undefined {
  const list = field(body, 'rejected');
  if (!Array.isArray(list)) return undefined;
  const found = new Map<number, string>();
  for (const item of list) {
    const index = field(item, 'index');
    if (typeof index !== 'number' || !Number.isInteger(index) || index < 0 || index >= count) continue;
    found.set(index, reason(item) ?? 'no reason given');
  }
  return found;
}

function describeAnswer(status: number, body: unknown, text: string): string {
  const named = reason(field(body, 'error')) ?? reason(body);
  const start = text.length > 200 ? `${text.slice(0, 200)}…` : text;
  return `HTTP ${status}${named !== undefined ? `: ${named}` : start === '' ? '' : `: ${start}`}`;
}

function reason(value: unknown): string | undefined {
  const parts = [field(value, 'code'), field(value, 'message')].filter((part) => typeof part === 'string');
  return parts.length > 0 ? parts.join(': ') : undefined;
}

function parse(text: string): unknown {
  if (text === '') return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

/** `Retry-After` in seconds or as a date, at most a minute. */
function retryAfterMs(header: string | undefined): number | undefined {
  if (header === undefined) return undefined;
  const seconds = Number(header);
  const ms = Number.isNaN(seconds) ? Date.parse(header) - Date.now() : seconds * 1000;
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), MAX_RETRY_AFTER_MS);
}
