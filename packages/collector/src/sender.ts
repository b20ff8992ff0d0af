import { judge, type Verdict } from './answer.ts';
import { errorText } from './errors.ts';
import { type Entry, logHeaders } from './event.ts';
import type { BatchLimits, Inbox, WaitingRecord } from './inbox.ts';
import type { Ledger, Outcome } from './ledger.ts';
import type { AgentAnswer, Post } from './post.ts';
import type { Report } from './protocol.ts';
import { type SampledReport, sampledReport } from './sampled-report.ts';

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

/** An agent that takes batches. */
interface BatchCapability extends BatchLimits {
  /** It takes counts of records left out by sampling. */
  readonly counts: boolean;
}

/** How the agent takes records: in batches with these limits, or one by one. */
type Capability = BatchCapability | 'single';

/** A flush that is waited for. */
interface Waiter {
  readonly token: number;
  /** Done when so many records are. */
  readonly target: number;
  /** The agent is to be told of records left out by sampling before. */
  report: boolean;
}

const OWN_LIMITS: BatchLimits = { maxBytes: 1_048_576, maxEvents: 500 };
const PROBE_AGAIN: ReadonlySet<number> = new Set([408, 429, 502, 503, 504]);
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5000;
const HURRIED_PAUSE_MS = 50;
const REPEAT_REPORT_MS = 60_000;
/** Records that come meanwhile must not wait long for a report of counts. */
const REPORT_TIMEOUT_MS = 2000;
const EVENTS = '/v1/events';
const BATCH = { 'Content-Type': 'application/cloudevents-batch+json' };
const NO_EVENTS = Buffer.from('[]');

/** Sends the records of an inbox to one agent: one request at a time, in order, again and again until the deadline. */
export class Sender {
  readonly #parts: SenderParts;
  #deadlineMs = 60_000;
  #capability: Capability | undefined;
  #running = false;
  #enqueued = 0;
  #done = 0;
  #waiters: Waiter[] = [];
  /** Told to report what sampling left out. */
  #reportDue = false;
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
    this.#start();
  }

  /** Tells the agent of the records left out by sampling, behind all records that wait. Tried once, silently. */
  reportSampled(): void {
    this.#reportDue = true;
    this.#start();
  }

  /** Reports when all records added so far are done and the agent was told of those left out by sampling, or not. */
  flush(token: number, hurry: boolean): void {
    const report = this.#sampled() !== undefined;
    this.#waiters.push({ token, target: this.#enqueued, report });
    this.#hurry ||= hurry;
    if (hurry) this.#wake?.();
    if (report) this.reportSampled();
    this.#settle();
  }

  #start(): void {
    if (this.#running) return;
    this.#running = true;
    // A failure in here is a defect; it must end the thread, which the other side sees, counts and repairs.
    void this.#run().finally(() => {
      this.#running = false;
    });
  }

  async #run(): Promise<void> {
    const { inbox } = this.#parts;
    while (!inbox.empty || this.#reportDue) {
      if (inbox.empty) await this.#report();
      else await this.#deliver(inbox.take(this.#limits(), (record) => this.#expired(record)));
      this.#settle();
    }
  }

  /** An empty batch with the counts. No failure of it matters: the counts stay, and the next request takes them. */
  async #report(): Promise<void> {
    this.#reportDue = false;
    const asked = [...this.#waiters];
    try {
      const capability = this.#sampled() && (this.#capability ?? (await this.#askAgent(REPORT_TIMEOUT_MS)));
      if (typeof capability === 'object' && capability.counts)
        await this.#batch(NO_EVENTS, capability, REPORT_TIMEOUT_MS);
    } catch {
      this.#capability = undefined;
    }
    for (const waiter of asked) waiter.report = false;
  }

  #sampled(): SampledReport | undefined {
    return sampledReport(this.#parts.ledger, this.#parts.inbox.collections);
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
          const { again } = verdict;
          const taken = again === undefined ? part : part.slice(0, again.from);
          this.#taken(taken, verdict);
          open = open.slice(taken.length);
          if (again !== undefined) await this.#pause(again.detail, undefined);
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
      const found = await this.#askAgent();
      if (typeof found !== 'number') return found;
      await this.#pause(`HTTP ${found}`, undefined);
      return undefined;
    } catch (error) {
      await this.#pause(errorText(error), undefined);
      return undefined;
    }
  }

  /** What the agent says it can; the status when it answered that it is not ready. Rejects when it is not there. */
  async #askAgent(timeoutMs?: number): Promise<Capability | number> {
    const { status, headers } = await this.#parts.post({
      method: 'OPTIONS',
      path: EVENTS,
      headers: {},
      body: new Uint8Array(0),
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
    });
    if (PROBE_AGAIN.has(status)) return status;
    const maxBytes = Number(headers['modeltap-batch-max-bytes']);
    const maxEvents = Number(headers['modeltap-batch-max-events']);
    const batches = isTaken(status) && maxBytes > 0 && maxEvents > 0;
    const counts = headers['modeltap-agent'] !== undefined;
    this.#capability = batches ? { maxBytes, maxEvents, counts } : 'single';
    return this.#capability;
  }

  async #send(entries: readonly Entry[], capability: Capability): Promise<Verdict> {
    try {
      const answer = await (capability === 'single' ? this.#log(entries) : this.#events(entries, capability));
      const verdict = judge(answer, entries.length, capability !== 'single');
      if (verdict.kind !== 'retry' && !(verdict.kind === 'taken' && verdict.again?.from === 0)) this.#failures = 0;
      return verdict;
    } catch (error) {
      // Another agent may be there next time, with other abilities.
      this.#capability = undefined;
      return { kind: 'retry', afterMs: undefined, detail: errorText(error) };
    }
  }

  async #events(entries: readonly Entry[], capability: BatchCapability): Promise<AgentAnswer> {
    const { inbox, post } = this.#parts;
    const [first] = entries;
    // A record larger than a batch may be still goes alone: the limit of one record is the agent's to judge.
    if (first !== undefined && entries.length === 1 && batchBytes(first, first) > capability.maxBytes) {
      const headers = { 'Content-Type': 'application/cloudevents+json' };
      return post({ method: 'POST', path: EVENTS, headers, body: inbox.event(first) });
    }
    const batch = inbox.batch(entries);
    try {
      return await this.#batch(batch.body, capability);
    } finally {
      batch.done();
    }
  }

  /** Every batch takes along what sampling left out meanwhile. */
  async #batch(body: Uint8Array, { counts }: BatchCapability, timeoutMs?: number): Promise<AgentAnswer> {
    const report = counts ? this.#sampled() : undefined;
    const answer = await this.#parts.post({
      method: 'POST',
      path: EVENTS,
      headers: report === undefined ? BATCH : { ...BATCH, 'modeltap-sampled-out': report.text },
      body,
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
    });
    if (isTaken(answer.status)) report?.done();
    return answer;
  }

  #log([entry]: readonly Entry[]): Promise<AgentAnswer> {
    const { inbox, post } = this.#parts;
    const one = entry as Entry;
    return post({ method: 'POST', path: '/modeldata/log', headers: logHeaders(one), body: inbox.data(one) });
  }

  #taken(entries: readonly Entry[], { rejected, unlisted }: Extract<Verdict, { kind: 'taken' }>): void {
    const reports = new Map<string, { slot: number; count: number; detail: string }>();
    const sent = new Map<number, { items: number; bytes: number }>();
    /** Events an answer leaves out of its list are of a collection that is on it: it is the collection that is refused. */
    const refused = new Map<number, string>();
    let left = unlisted;
    for (const [index, entry] of entries.entries()) {
      const { slot } = entry.envelope;
      const detail = rejected.get(index) ?? (left > 0 ? refused.get(slot) : undefined);
      if (detail === undefined) {
        const sum = sent.get(slot) ?? { items: 0, bytes: 0 };
        sum.items++;
        sum.bytes += entry.head.bytes;
        sent.set(slot, sum);
        continue;
      }
      if (!rejected.has(index)) left--;
      refused.set(slot, detail);
      this.#leave(entry, 'rejected');
      const report = reports.get(`${slot} ${detail}`) ?? { slot, count: 0, detail };
      report.count++;
      reports.set(`${slot} ${detail}`, report);
    }
    for (const [slot, { items, bytes }] of sent) this.#release(slot, 'sent', items, bytes);
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
    this.#release(record.envelope.slot, outcome, 1, record.head.bytes);
  }

  #release(slot: number, outcome: Outcome, items: number, bytes: number): void {
    this.#parts.ledger.release(slot, outcome, items, bytes);
    this.#done += items;
  }

  #settle(): void {
    this.#reportLate();
    // In their order: a thread that blocks waits for a number or any higher one.
    const open = this.#waiters.findIndex(({ target, report }) => report || target > this.#done);
    const ready = this.#waiters.splice(0, open < 0 ? this.#waiters.length : open);
    if (ready.length === 0) return;
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

function isTaken(status: number): boolean {
  return status >= 200 && status < 300;
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
