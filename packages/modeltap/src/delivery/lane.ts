import { backoffMs } from '../kit/backoff.ts';
import type { Clock } from '../kit/clock.ts';
import { errorText, ModeltapError } from '../kit/errors.ts';
import { decodeRecord } from '../record/codec.ts';
import { clampTimeMs } from '../record/time.ts';
import type { Destination } from '../record/types.ts';
import type { SpoolFrame, SpoolReader } from '../spool/types.ts';
import { type ObjectStore, StorageError, type StorageErrorKind } from '../storage/store.ts';
import {
  type ApplyOptions,
  applyBatch,
  type CycleProgress,
  type CycleStep,
  placeTargets,
  progressOf,
  statesAfter,
} from './apply.ts';
import { type Batch, type BatchItem, createBatcher } from './batch.ts';
import type { Intent, Journal } from './journal.ts';
import type { DropReason, Increment } from './ledger-table.ts';
import { inParallel } from './parallel.ts';
import { embeddedBytes, sideBody } from './side-body.ts';

/** Most of the spool taken in one cycle. */
const CYCLE_BYTES = 8 * 1024 * 1024;
const CYCLE_RECORDS = 20_000;
/** Most folders written in one cycle, about: late records of many hours make many. */
const CYCLE_FOLDERS = 1000;
/** Most bytes of side files read into memory in one cycle, but for a single larger one. */
const CYCLE_EMBEDDED_BYTES = 8 * 1024 * 1024;
/** So much waiting is shipped at once, without a window. */
const BUSY_BYTES = 4 * 1024 * 1024;
/** How long records gather before a cycle, and on stores that cannot append, where each cycle makes an object. */
const FLUSH_MS = 500;
const SEAL_MS = 15_000;
const WINDOW_SLICES = 5;
/** A lane looks at the spool at least this often, should a wake-up be lost. */
const IDLE_MS = 5_000;
const LOG_EVERY_MS = 60_000;
const MAX_RETRY_AFTER_MS = 10 * 60_000;
const DRAIN_RETRY_MS = 1_000;
const RETRY = { minMs: 250, maxMs: 30_000 };

/** How one lane is doing. */
export interface LaneState {
  readonly datastore: string;
  readonly status: 'ok' | 'retrying';
  /** Everything below this spool position is stored or dropped. */
  readonly cursor: number;
  /** When the oldest record that is neither was taken, as far as it is known; undefined when there is none. */
  readonly oldestUnsentMs: number | undefined;
  /** Times another writer was found on a file of this lane. */
  readonly conflicts: number;
  /** Set while retrying. `internal` is a failure that is not the store's. */
  readonly trouble?: {
    readonly kind: StorageErrorKind | 'internal';
    readonly message: string;
    /** What an operator can do. */
    readonly fix: string;
    readonly sinceMs: number;
    readonly attempts: number;
  };
}

/** What one finished cycle did. */
export interface CycleReport {
  readonly records: number;
  readonly rows: number;
  readonly bytes: number;
  readonly dropped: readonly (readonly [DropReason, number])[];
  /** Reading and making the lines; writing them. Milliseconds. */
  readonly batchMs: number;
  readonly uploadMs: number;
}

/** What a lane tells whoever runs it. */
export interface LaneEvents {
  /** Everything below the position is done with, durably. */
  released(position: number): void;
  state(state: LaneState): void;
  cycle(report: CycleReport): void;
  retry(): void;
  /** An event was stored. Only called while `followed` says so. */
  line(destination: Destination, line: Buffer): void;
  /** The lines of one cycle have been told. */
  followed(): void;
  log(level: 'info' | 'warn' | 'error', fields: Readonly<Record<string, unknown>>, message: string): void;
}

/** What a lane works with; all of it stays its own until the lane has ended. */
export interface LaneOptions {
  readonly datastore: string;
  readonly store: ObjectStore;
  readonly reader: SpoolReader;
  readonly journal: Journal;
  readonly spoolId: string;
  readonly inlineBytes: number;
  /** `arm` asks for `wake()` at the next commit. */
  readonly source: { committed(): number; arm(): void };
  readonly destinations: { get(id: number): Destination | undefined; reload(): Promise<void> };
  readonly events: LaneEvents;
  readonly followed: () => boolean;
  readonly clock: Clock;
  readonly random?: () => number;
  /** Most folders written in one cycle. Default 1 000. */
  readonly maxFolders?: number;
  readonly onStep?: (step: CycleStep) => void;
}

interface Span {
  readonly items: readonly BatchItem[];
  readonly to: number;
}

/** Ships one spool to one store: reads, batches, writes each record exactly once, and never gives up. */
export class Lane {
  readonly #options: LaneOptions;
  #store: ObjectStore;
  #batcher: { readonly inlineBytes: number; plan(items: Iterable<BatchItem>): Batch } | undefined;
  #progress: CycleProgress | undefined;
  #trouble: LaneState['trouble'];
  #loggedMs = Number.NEGATIVE_INFINITY;
  #oldestUnsentMs: number | undefined;
  #conflicts = 0;
  #draining = false;
  /** The last cycle took less than was read: what is left need not gather. */
  #cut = false;
  #stopping = false;
  #nap = new AbortController();

  constructor(options: LaneOptions) {
    this.#options = options;
    this.#store = options.store;
    const intent = options.journal.intent();
    if (intent) this.#progress = progressOf(intent);
  }

  get state(): LaneState {
    return {
      datastore: this.#options.datastore,
      status: this.#trouble ? 'retrying' : 'ok',
      cursor: this.#options.journal.cursor,
      oldestUnsentMs: this.#oldestUnsentMs,
      conflicts: this.#conflicts,
      ...(this.#trouble && { trouble: this.#trouble }),
    };
  }

  /** Ends the present wait. */
  wake(): void {
    this.#nap.abort();
  }

  /** Puts another store in the place of the present one, for new credentials. Takes effect at the next attempt. */
  useStore(store: ObjectStore): void {
    this.#store = store;
    this.wake();
  }

  /** Asks for everything to be shipped without waiting; `run` resolves when nothing is left. */
  drain(): void {
    this.#draining = true;
    this.wake();
  }

  /** Makes `run` resolve after the attempt under way. */
  stop(): void {
    this.#stopping = true;
    this.wake();
  }

  /** Works until `stop`, or until a drain is complete. Never throws. */
  async run(): Promise<void> {
    while (!this.#stopping) {
      if (!this.#progress && this.#waiting() <= 0) {
        if (this.#draining) return;
        await this.#idle();
      } else {
        if (!this.#progress) await this.#window();
        await this.attempt();
      }
    }
  }

  /** One cycle; when it fails, notes why and waits as long as a retry should. */
  async attempt(): Promise<void> {
    try {
      await this.cycle();
      this.#recovered();
    } catch (error) {
      this.#failed(error);
      const asked = error instanceof StorageError ? Math.min(error.retryAfterMs ?? 0, MAX_RETRY_AFTER_MS) : 0;
      const { random } = this.#options;
      const delay = backoffMs((this.#trouble?.attempts ?? 1) - 1, { ...RETRY, ...(random && { random }) });
      const wait = Math.max(delay, asked);
      this.#options.events.retry();
      await this.#sleep(this.#draining ? Math.min(wait, DRAIN_RETRY_MS) : wait);
    }
  }

  /**
   * Ships the next stretch of the spool, or finishes the one that was begun. False when there is nothing. Throws what
   * the store or the disk said; calling it again goes on where it stopped.
   */
  async cycle(): Promise<boolean> {
    const { journal, clock, events } = this.#options;
    const started = clock.monotonic();
    const inlineBytes = this.#progress?.intent.inlineBytes ?? this.#options.inlineBytes;
    const span = await this.#read(this.#progress?.intent, inlineBytes);
    if (!span) return false;
    const batch = this.#planner(inlineBytes).plan(span.items);
    const planned = clock.monotonic();
    const store = this.#store;
    const progress = this.#progress ?? (await this.#begin(batch, { to: span.to, inlineBytes }));
    if ((await applyBatch(this.#applyOptions(store), batch, progress)) === 'replan') return true;
    this.#step('finish');
    journal.finish({
      to: span.to,
      objects: statesAfter(store, batch, progress),
      increments: increments(batch, progress),
    });
    this.#progress = undefined;
    this.#oldestUnsentMs = undefined;
    events.released(span.to);
    events.cycle({ ...totals(batch, progress), batchMs: planned - started, uploadMs: clock.monotonic() - planned });
    this.#reportDrops(batch, progress);
    events.state(this.state);
    if (this.#options.followed()) this.#follow(batch, progress);
    return true;
  }

  #waiting(): number {
    return this.#options.source.committed() - this.#options.journal.cursor;
  }

  #step(step: CycleStep): void {
    this.#options.onStep?.(step);
  }

  async #sleep(ms: number): Promise<void> {
    this.#nap = new AbortController();
    if (!this.#stopping) await this.#options.clock.sleep(ms, { signal: this.#nap.signal });
  }

  async #idle(): Promise<void> {
    this.#options.source.arm();
    if (this.#waiting() <= 0) await this.#sleep(IDLE_MS);
  }

  /** Lets records gather, in slices, so that a rush is noticed. */
  async #window(): Promise<void> {
    this.#oldestUnsentMs ??= this.#options.clock.now();
    const slice = (this.#store.limits.appends === 0 ? SEAL_MS : FLUSH_MS) / WINDOW_SLICES;
    for (let n = 0; n < WINDOW_SLICES; n += 1) {
      if (this.#draining || this.#stopping || this.#cut || this.#waiting() >= BUSY_BYTES) return;
      await this.#sleep(slice);
    }
  }

  /** The frames of the intent, or the next ones. */
  async #read(intent: Intent | undefined, inlineBytes: number): Promise<Span | undefined> {
    const { reader, journal, source, maxFolders = CYCLE_FOLDERS } = this.#options;
    const from = intent?.from ?? journal.cursor;
    const until = intent?.to ?? source.committed();
    if (until <= from) return undefined;
    const { frames, next } = intent
      ? await readAgain(reader, from, until)
      : await reader.read(from, until, CYCLE_BYTES);
    if (next <= from) throw unreadable(from, until);
    const decoded = frames.map(({ position, payload, sideFile }) => ({
      position,
      sideFile,
      record: decodeRecord(payload),
      fault: undefined,
    }));
    // What was begun is finished as it was cut then.
    const end = intent ? decoded.length : cycleEnd(decoded, { maxFolders, inlineBytes });
    const items = await this.#judge(decoded.slice(0, end), { excluded: intent?.excluded ?? [], inlineBytes });
    this.#cut = end < decoded.length;
    return { items, to: intent?.to ?? decoded[end]?.position ?? next };
  }

  /** Finds out which of the records cannot be stored, and reads the bodies beside the spool that go into lines. */
  async #judge(
    decoded: readonly BatchItem[],
    by: { readonly excluded: readonly number[]; readonly inlineBytes: number },
  ): Promise<readonly BatchItem[]> {
    const { destinations } = this.#options;
    const barred = new Set(by.excluded);
    const items = decoded.map((item): { -readonly [K in keyof BatchItem]: BatchItem[K] } => ({
      ...item,
      fault: barred.has(item.position) ? 'store_invalid' : undefined,
    }));
    if (items.some(({ record }) => record && !destinations.get(record.destinationId))) await destinations.reload();
    const beside = items.filter(({ record }) => record && !record.body);
    const failures = await inParallel(beside, 4, async (item) => {
      if (item.fault !== undefined || !item.record) return;
      const body = await sideBody(item, by.inlineBytes);
      if (typeof body === 'string') item.fault = body;
      else if (body !== undefined) item.record = { ...item.record, body };
    });
    if (failures.length > 0) throw failures[0];
    this.#oldestUnsentMs = items[0]?.record?.receivedMs ?? this.#oldestUnsentMs;
    return items;
  }

  #planner(inlineBytes: number) {
    if (this.#batcher?.inlineBytes !== inlineBytes) {
      const { spoolId, destinations } = this.#options;
      const url = (key: string) => this.#store.url(key);
      const batcher = createBatcher({ spoolId, inlineBytes, url, destination: (id) => destinations.get(id) });
      this.#batcher = { inlineBytes, plan: (items) => batcher.plan(items) };
    }
    return this.#batcher;
  }

  async #begin(batch: Batch, cycle: { readonly to: number; readonly inlineBytes: number }): Promise<CycleProgress> {
    const { journal } = this.#options;
    const objects = await placeTargets(this.#applyOptions(this.#store), batch.targets);
    const intent = { from: journal.cursor, ...cycle, excluded: [], objects };
    const progress = progressOf(intent);
    // A stretch of dropped records alone writes nothing, so there is nothing to write twice.
    if (batch.targets.length > 0) {
      journal.begin(intent);
      this.#progress = progress;
    }
    this.#step('intent');
    return progress;
  }

  #applyOptions(store: ObjectStore): ApplyOptions {
    return {
      store,
      journal: this.#options.journal,
      spoolId: this.#options.spoolId,
      onStep: (step) => this.#step(step),
      onConflict: (key, error) => {
        this.#conflicts += 1;
        const fields = { datastore: this.#options.datastore, key, error: error.message };
        this.#options.events.log(
          'error',
          fields,
          'Another writer changed a collection file; going on in the next one.',
        );
      },
    };
  }

  #failed(error: unknown): void {
    const { clock, events, datastore } = this.#options;
    const kind = error instanceof StorageError ? error.kind : 'internal';
    const changed = this.#trouble?.kind !== kind;
    const fix = error instanceof StorageError || error instanceof ModeltapError ? error.fix : '';
    this.#trouble = {
      kind,
      message: errorText(error),
      fix,
      sinceMs: this.#trouble?.sinceMs ?? clock.now(),
      attempts: (this.#trouble?.attempts ?? 0) + 1,
    };
    if (changed || clock.monotonic() - this.#loggedMs >= LOG_EVERY_MS) {
      this.#loggedMs = clock.monotonic();
      events.log('warn', { datastore, ...this.#trouble }, 'Records cannot be stored now; they stay in the spool.');
    }
    events.state(this.state);
  }

  #recovered(): void {
    const { events, datastore, clock } = this.#options;
    if (!this.#trouble) return;
    const forMs = clock.now() - this.#trouble.sinceMs;
    events.log('info', { datastore, kind: this.#trouble.kind, forMs }, 'Records are being stored again.');
    this.#trouble = undefined;
    events.state(this.state);
  }

  #reportDrops(batch: Batch, progress: CycleProgress): void {
    const dropped = totals(batch, progress).dropped;
    if (dropped.length === 0) return;
    const fields = { datastore: this.#options.datastore, dropped: Object.fromEntries(dropped) };
    this.#options.events.log('error', fields, 'Accepted records could not be stored and were dropped.');
  }

  #follow(batch: Batch, progress: CycleProgress): void {
    for (const target of batch.targets) {
      if (progress.poisoned.has(target.folder)) continue;
      for (const { destination, start, end } of target.marks) {
        this.#options.events.line(destination, target.lines.subarray(start, end));
      }
    }
    this.#options.events.followed();
  }
}

/** How many of the records one cycle takes, at least one: bounded in number, in the folders they go to and in what is read into memory for them. */
function cycleEnd(
  items: readonly BatchItem[],
  { maxFolders, inlineBytes }: { readonly maxFolders: number; readonly inlineBytes: number },
): number {
  const most = Math.min(items.length, CYCLE_RECORDS);
  const folders = new Set<number>();
  let embedded = 0;
  for (let n = 0; n < most; n += 1) {
    const record = items[n]?.record;
    // One number for destination and minute, the finest a folder can be: minutes of the years 1 to 9999 fit in 33 bits.
    if (record) folders.add(record.destinationId * 2 ** 33 + Math.floor(clampTimeMs(record.timeMs) / 60_000));
    embedded += embeddedBytes(record, inlineBytes);
    if (folders.size > maxFolders || embedded > CYCLE_EMBEDDED_BYTES) return Math.max(n, 1);
  }
  return most;
}

/**
 * All frames of a stretch whose delivery was begun. It may have been damaged since: then it takes several reads, and
 * what one gave is copied before the next overwrites it.
 */
async function readAgain(
  reader: SpoolReader,
  from: number,
  until: number,
): Promise<{ readonly frames: readonly SpoolFrame[]; readonly next: number }> {
  let { frames, next } = await reader.read(from, until, until - from);
  while (next < until) {
    const kept = frames.map((frame) => ({ ...frame, payload: Buffer.from(frame.payload) }));
    const more = await reader.read(next, until, until - next);
    if (more.next <= next) throw unreadable(next, until);
    frames = [...kept, ...more.frames.map((frame) => ({ ...frame, payload: Buffer.from(frame.payload) }))];
    next = more.next;
  }
  return { frames, next: until };
}

function unreadable(from: number, until: number): ModeltapError {
  return new ModeltapError('internal', { detail: `the spool gave nothing from ${from} to ${until}` });
}

function* increments(batch: Batch, progress: CycleProgress): Generator<Increment> {
  yield* batch.drops.increments();
  for (const { folder, tallies } of batch.targets) {
    yield* progress.poisoned.has(folder) ? tallies.asDropped('store_invalid') : tallies.increments();
  }
}

function totals(batch: Batch, progress: CycleProgress): Omit<CycleReport, 'batchMs' | 'uploadMs'> {
  const sums = { records: 0, rows: 0, bytes: 0 };
  const dropped = new Map(batch.drops.drops());
  for (const { folder, tallies } of batch.targets) {
    const records = tallies.total('stored');
    if (progress.poisoned.has(folder)) {
      dropped.set('store_invalid', (dropped.get('store_invalid') ?? 0) + records);
    } else {
      sums.records += records;
      sums.rows += tallies.total('rows');
      sums.bytes += tallies.total('bytes');
    }
  }
  return { ...sums, dropped: [...dropped] };
}
