import type { DatabaseSync } from 'node:sqlite';
import { errorText, ModeltapError } from '../kit/errors.ts';
import type { Logger } from '../kit/logger.ts';
import type { Destination } from '../record/types.ts';
import type { DatastoreOptions } from '../storage/store.ts';
import { CountsBuffer, type LedgerCounts } from './counts.ts';
import type { LaneState } from './lane.ts';
import type { LedgerLane } from './ledger.ts';
import type { Increment } from './ledger-table.ts';
import type { SharedPositions, ToWorker, WorkerLane } from './messages.ts';
import type { DeliveryLane, DeliveryState } from './types.ts';

/** What a link ties together: `index` is the lane's place in `positions` and in every message. */
export interface LaneLinkOptions {
  readonly lane: DeliveryLane;
  readonly index: number;
  readonly positions: SharedPositions;
  readonly post: (message: ToWorker) => void;
  readonly logger: Logger;
}

/** The main thread's side of one lane: tells it of commits and counts, releases what it has shipped. */
export class LaneLink implements LedgerLane {
  readonly index: number;
  readonly spoolDirectory: string;
  /** Settings the thread is started with. */
  datastore: DatastoreOptions;
  readonly #options: LaneLinkOptions;
  readonly #buffer: CountsBuffer;
  #database: DatabaseSync | undefined;
  #state: LaneState;
  /** Counts handed over and not known to be in the database, in order. */
  #underway: { readonly sequence: number; readonly increments: readonly Increment[] }[] = [];
  #sequence = 0;
  #holds = 0;
  #releasable = 0;
  #releasing: Promise<void> = Promise.resolve();

  constructor(options: LaneLinkOptions) {
    const { lane, index, positions, post } = options;
    this.#options = options;
    this.index = index;
    this.spoolDirectory = lane.spoolDirectory;
    this.datastore = lane.datastore;
    this.#buffer = new CountsBuffer(
      (id) => lane.destinations.get(id),
      () => this.flush(),
    );
    this.#state = {
      datastore: lane.datastore.name,
      status: 'ok',
      cursor: lane.writer.released,
      oldestUnsentMs: undefined,
      conflicts: 0,
    };
    positions.commit(index, lane.writer.committed);
    lane.writer.onCommit((committed) => {
      if (positions.commit(index, committed)) post({ type: 'wake', lane: index });
    });
  }

  get counts(): LedgerCounts {
    return this.#buffer;
  }

  get state(): DeliveryState {
    return { ...this.#state, pendingBytes: Math.max(0, this.committed() - this.#state.cursor) };
  }

  get database(): DatabaseSync {
    if (!this.#database) throw new ModeltapError('delivery_failed', { detail: 'the ledger is not open' });
    return this.#database;
  }

  set database(database: DatabaseSync) {
    this.#database = database;
  }

  /** What the thread needs to open this lane. */
  setup(): WorkerLane {
    const { writer } = this.#options.lane;
    return {
      datastore: this.datastore,
      spoolDirectory: this.spoolDirectory,
      spoolId: writer.spoolId,
      recoveredEnd: writer.recovery.end,
      damaged: writer.recovery.damaged,
    };
  }

  committed(): number {
    return this.#options.lane.writer.committed;
  }

  destination(id: number): Destination | undefined {
    return this.#options.lane.destinations.get(id);
  }

  takeTotals() {
    return this.#buffer.takeTotals();
  }

  /** Hands gathered counts to the thread. */
  flush(): void {
    const increments = this.#buffer.take();
    if (increments.length === 0) return;
    this.#sequence += 1;
    this.#underway.push({ sequence: this.#sequence, increments });
    this.#options.post({ type: 'counts', lane: this.index, sequence: this.#sequence, increments });
  }

  counted(sequence: number): void {
    this.#underway = this.#underway.filter((batch) => batch.sequence > sequence);
  }

  *pending(sequence: number): Generator<Increment> {
    for (const batch of this.#underway) if (batch.sequence > sequence) yield* batch.increments;
    yield* this.#buffer.increments();
  }

  /** The thread has opened the lane: sends what one before it may not have taken. */
  ready(cursor: number, sequence: number): void {
    this.counted(sequence);
    this.#state = { ...this.#state, cursor };
    for (const batch of this.#underway) this.#options.post({ type: 'counts', lane: this.index, ...batch });
    this.release(cursor);
  }

  noteState(state: LaneState): void {
    this.#state = state;
  }

  /** The thread died. */
  failed(message: string): void {
    const before = this.#state.trouble;
    const trouble = {
      kind: 'internal' as const,
      message,
      fix: '',
      sinceMs: before?.sinceMs ?? Date.now(),
      attempts: (before?.attempts ?? 0) + 1,
    };
    this.#state = { ...this.#state, status: 'retrying', trouble };
  }

  release(position: number): void {
    this.#state = { ...this.#state, cursor: Math.max(position, this.#state.cursor) };
    this.#releasable = Math.max(this.#releasable, position);
    if (this.#holds === 0) this.#release();
  }

  #release(): void {
    const { writer } = this.#options.lane;
    if (this.#releasable <= writer.released) return;
    const position = this.#releasable;
    this.#releasing = this.#releasing
      .then(() => writer.release(position))
      .catch((error: unknown) => {
        const fields = { datastore: this.datastore.name, error: errorText(error) };
        this.#options.logger.warn(
          fields,
          'Shipped segments could not be released; it is tried again with the next ones.',
        );
      });
  }

  hold(): () => void {
    this.#holds += 1;
    return () => {
      this.#holds -= 1;
      if (this.#holds === 0) this.#release();
    };
  }

  async close(): Promise<void> {
    await this.#releasing;
    this.#database?.close();
    this.#database = undefined;
  }
}
