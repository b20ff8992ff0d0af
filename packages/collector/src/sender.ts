import { judge, type Verdict } from './answer.ts';
import { errorText } from './errors.ts';
import { type Entry, logHeaders } from './event.ts';
import type { BatchLimits, Inbox, WaitingRecord } from './inbox.ts';
import type { Ledger, Outcome } from './ledger.ts';
import type { AgentAnswer, Post } from './post.ts';
import type { Report } from './protocol.ts';

/** What a sender acts on. */
export interface SenderParts {
  readonly inbox: Inbox;
  readonly ledger: Ledger;
  /** Talks to the agent. */
  readonly post: Post;
  readonly report: (report: Report) => void;
  /** Called when everything up to a flush is done. */
  readonly flushed: (token: number) => void;
}

/** How the agent takes records: in batches with these limits, or one by one. */
type Capability = BatchLimits | 'single';

const OWN_LIMITS: BatchLimits = { maxBytes: 1_048_576, maxEvents: 500 };
const PROBE_AGAIN: ReadonlySet<number> = new Set([408, 429, 502, 503, 504]);
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5000;
const HURRIED_PAUSE_MS = 50;
const REPEAT_REPORT_MS = 60_000;

/** Sends the records of an inbox to one agent: one request at a time, in order, again and again until the deadline. */
export class Sender {
  readonly #parts: SenderParts;
  #deadlineMs = 60_000;
  #capability: Capability | undefined;
  #running = false;
  #enqueued = 0;
  #done = 0;
  #waiters: { token: number; target: number }[] = [];
  /** Records dropped for their age and not reported yet, by collection. */
  readonly #late = new Map<number, number>();
  #failures = 0;
  #lastFailure = 'not tried yet';
  #reportedMs = 0;
  #hurry = false;
  #wake: (() => void) | undefined;

  constructor(parts: SenderParts) {
    this.#parts = parts;
  }

  /** Records older than this are dropped. */
  set deadlineMs(value: number) {
    this.#deadlineMs = value;
  }

  /** The inbox has more records. */
  added(records: number): void {
    this.#enqueued += records;
    if (this.#running) return;
    this.#running = true;
    // A failure in here is a defect; it must end the thread, which the other side sees, counts and repairs.
    void this.#run().finally(() => {
      this.#running = false;
    });
  }

  /** Reports when all records added so far are done. */
  flush(token: number, hurry: boolean): void {
    this.#waiters.push({ token, target: this.#enqueued });
    this.#hurry ||= hurry;
    if (hurry) this.#wake?.();
    this.#settle();
  }

  async #run(): Promise<void> {
    const { inbox } = this.#parts;
    while (!inbox.empty) {
      const entries = inbox.take(this.#limits(), (record) => this.#expired(record));
      await this.#deliver(entries);
      this.#settle();
    }
  }

  #limits(): BatchLimits {
    const known = this.#capability;
    if (known === undefined || known === 'single') return OWN_LIMITS;
    return {
      maxBytes: Math.min(known.maxBytes, OWN_LIMITS.maxBytes),
      maxEvents: Math.min(known.maxEvents, OWN_LIMITS.maxEvents),
    };
  }

  async #deliver(entries: readonly Entry[]): Promise<void> {
    let open = entries;
    let most = Number.POSITIVE_INFINITY;
    while (open.length > 0) {
      const capability = this.#capability ?? (await this.#probe());
      const part = capability === undefined ? [] : fitting(open, capability, most);
      if (capability !== undefined && part.length > 0) {
        const verdict = await this.#send(part, capability);
        if (verdict.kind === 'taken') {
          this.#taken(part, verdict.rejected);
          open = open.slice(part.length);
        } else if (verdict.kind === 'too_large') {
          if (part.length === 1) open = this.#tooLarge(open, verdict.detail);
          else most = Math.floor(part.length / 2);
        } else if (verdict.kind === 'no_batches') {
          this.#capability = 'single';
        } else {
          await this.#pause(verdict.detail, verdict.afterMs);
        }
      }
      open = this.#dropExpired(open);
    }
  }

  /** Asks once whether the agent takes batches; undefined after a failure and a pause. */
  async #probe(): Promise<Capability | undefined> {
    try {
      const request = { method: 'OPTIONS', path: '/v1/events', headers: {}, body: new Uint8Array(0) } as const;
      const { status, headers } = await this.#parts.post(request);
      if (PROBE_AGAIN.has(status)) {
        await this.#pause(`HTTP ${status}`, undefined);
        return undefined;
      }
      const maxBytes = Number(headers['modeltap-batch-max-bytes']);
      const maxEvents = Number(headers['modeltap-batch-max-events']);
      const batches = status >= 200 && status < 300 && maxBytes > 0 && maxEvents > 0;
      this.#capability = batches ? { maxBytes, maxEvents } : 'single';
      return this.#capability;
    } catch (error) {
      await this.#pause(errorText(error), undefined);
      return undefined;
    }
  }

  async #send(entries: readonly Entry[], capability: Capability): Promise<Verdict> {
    try {
      const answer = await (capability === 'single' ? this.#log(entries) : this.#events(entries, capability));
      const verdict = judge(answer, entries.length, capability !== 'single');
      if (verdict.kind !== 'retry') this.#failures = 0;
      return verdict;
    } catch (error) {
      // Another agent may be there next time, with other abilities.
      this.#capability = undefined;
      return { kind: 'retry', afterMs: undefined, detail: errorText(error) };
    }
  }

  async #events(entries: readonly Entry[], limits: BatchLimits): Promise<AgentAnswer> {
    const { inbox, post } = this.#parts;
    const [first] = entries;
    // A record larger than a batch may be still goes alone: the limit of one record is the agent's to judge.
    if (first !== undefined && entries.length === 1 && batchBytes(first, first) > limits.maxBytes) {
      const headers = { 'Content-Type': 'application/cloudevents+json' };
      return post({ method: 'POST', path: '/v1/events', headers, body: inbox.event(first) });
    }
    const batch = inbox.batch(entries);
    try {
      const headers = { 'Content-Type': 'application/cloudevents-batch+json' };
      return await post({ method: 'POST', path: '/v1/events', headers, body: batch.body });
    } finally {
      batch.done();
    }
  }

  #log([entry]: readonly Entry[]): Promise<AgentAnswer> {
    const { inbox, post } = this.#parts;
    const one = entry as Entry;
    return post({ method: 'POST', path: '/modeldata/log', headers: logHeaders(one), body: inbox.data(one) });
  }

  #taken(entries: readonly Entry[], rejected: ReadonlyMap<number, string>): void {
    const reports = new Map<string, { slot: number; count: number; detail: string }>();
    for (const [index, entry] of entries.entries()) {
      const detail = rejected.get(index);
      this.#leave(entry, detail === undefined ? 'sent' : 'rejected');
      if (detail === undefined) continue;
      const { slot } = entry.envelope;
      const report = reports.get(`${slot} ${detail}`) ?? { slot, count: 0, detail };
      report.count++;
      reports.set(`${slot} ${detail}`, report);
    }
    for (const report of reports.values()) this.#parts.report({ code: 'delivery_rejected', ...report });
  }

  #tooLarge(open: readonly Entry[], detail: string): readonly Entry[] {
    const entry = open[0] as Entry;
    this.#leave(entry, 'too_large');
    this.#parts.report({ code: 'delivery_too_large', slot: entry.envelope.slot, count: 1, detail });
    return open.slice(1);
  }

  /** Only from the front: what is left must lie together in the buffer. */
  #dropExpired(open: readonly Entry[]): readonly Entry[] {
    const alive = open.findIndex((entry) => !this.#expired(entry));
    return alive < 0 ? [] : open.slice(alive);
  }

  #expired(record: WaitingRecord): boolean {
    if (Date.now() - record.collectedMs < this.#deadlineMs) return false;
    this.#leave(record, 'deadline');
    const { slot } = record.envelope;
    this.#late.set(slot, (this.#late.get(slot) ?? 0) + 1);
    return true;
  }

  /** One report for all records that ran out of time together. */
  #reportLate(): void {
    for (const [slot, count] of this.#late) {
      this.#parts.report({ code: 'delivery_deadline', slot, count, detail: this.#lastFailure });
    }
    this.#late.clear();
  }

  #leave(record: WaitingRecord, outcome: Outcome): void {
    this.#parts.ledger.release(record.envelope.slot, outcome, record.head.bytes);
    this.#done++;
  }

  #settle(): void {
    this.#reportLate();
    const ready = this.#waiters.filter((waiter) => waiter.target <= this.#done);
    if (ready.length === 0) return;
    this.#waiters = this.#waiters.filter((waiter) => waiter.target > this.#done);
    if (this.#waiters.length === 0) this.#hurry = false;
    for (const { token } of ready) this.#parts.flushed(token);
  }

  /** Waits after a failure: what the agent asks for, else longer each time, never all senders at once. */
  async #pause(detail: string, afterMs: number | undefined): Promise<void> {
    this.#settle();
    this.#lastFailure = detail;
    const now = Date.now();
    if (this.#failures === 0 || now - this.#reportedMs >= REPEAT_REPORT_MS) {
      this.#reportedMs = now;
      this.#parts.report({ code: 'agent_unreachable', slot: undefined, count: 0, detail });
    }
    const longest = Math.min(FIRST_PAUSE_MS * 2 ** Math.min(this.#failures++, 10), LONGEST_PAUSE_MS);
    const wanted = afterMs ?? longest * (0.5 + Math.random() / 2);
    const pauseMs = this.#hurry ? Math.min(wanted, HURRIED_PAUSE_MS) : Math.min(wanted, this.#deadlineMs);
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, pauseMs);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = undefined;
  }
}

/** The first entries that fit into one request. */
function fitting(open: readonly Entry[], capability: Capability, most: number): readonly Entry[] {
  const [first] = open;
  if (capability === 'single' || first === undefined) return open.slice(0, 1);
  const limit = Math.min(open.length, capability.maxEvents, most);
  let count = 1;
  while (count < limit && batchBytes(first, open[count] as Entry) <= capability.maxBytes) count++;
  return open.slice(0, count);
}

function batchBytes(first: Entry, last: Entry): number {
  return last.end - first.start + 2;
}
