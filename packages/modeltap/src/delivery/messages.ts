import type { RecoveryReport } from '../spool/types.ts';
import type { DatastoreOptions } from '../storage/store.ts';
import type { CycleReport, LaneState } from './lane.ts';
import type { Increment } from './ledger-table.ts';

/** What the delivery thread is started with. Credentials go this way only: in memory, never in a file or a log line. */
export interface DeliveryWorkerData {
  readonly lanes: readonly WorkerLane[];
  readonly inlineBytes: number;
  /** `SharedPositions` of the lanes, in their order. */
  readonly shared: SharedArrayBuffer;
  /** True at the first start of a process: `accepted` is rebuilt from the spool. */
  readonly rebuild: boolean;
}

/** One lane as the thread knows it. */
export interface WorkerLane {
  readonly datastore: DatastoreOptions;
  readonly spoolDirectory: string;
  readonly spoolId: string;
  /** Where the spool ended when this process opened it, and what was damaged in it. */
  readonly recoveredEnd: number;
  readonly damaged: RecoveryReport['damaged'];
}

/** Which collections a subscriber wants; an absent name stands for all. */
export interface CollectionFilter {
  readonly endpoint?: string;
  readonly deployment?: string;
  readonly collection?: string;
}

/** From the main thread. `lane` is an index. */
export type ToWorker =
  | { readonly type: 'wake'; readonly lane: number }
  | {
      readonly type: 'counts';
      readonly lane: number;
      readonly sequence: number;
      readonly increments: readonly Increment[];
    }
  | { readonly type: 'datastore'; readonly lane: number; readonly options: DatastoreOptions }
  | { readonly type: 'follow'; readonly id: number; readonly filter: CollectionFilter }
  | { readonly type: 'unfollow'; readonly id: number }
  | { readonly type: 'took'; readonly id: number; readonly bytes: number }
  | { readonly type: 'drain' }
  | { readonly type: 'stop' };

/** From the delivery thread. */
export type FromWorker =
  | { readonly type: 'ready'; readonly lanes: readonly { readonly cursor: number; readonly sequence: number }[] }
  | { readonly type: 'failed'; readonly message: string }
  | { readonly type: 'released'; readonly lane: number; readonly position: number }
  | { readonly type: 'state'; readonly lane: number; readonly state: LaneState }
  | { readonly type: 'cycle'; readonly lane: number; readonly report: CycleReport }
  | { readonly type: 'retry'; readonly lane: number }
  | { readonly type: 'counted'; readonly lane: number; readonly sequence: number }
  | {
      readonly type: 'lines';
      readonly id: number;
      readonly lines: readonly string[];
      readonly bytes: number;
      readonly missed: number;
    }
  | {
      readonly type: 'log';
      readonly level: 'info' | 'warn' | 'error';
      readonly fields: Readonly<Record<string, unknown>>;
      readonly message: string;
    }
  | { readonly type: 'drained' };

/**
 * How far each spool is committed, in memory both threads see: the writer stores positions at every commit, and sends a
 * message only to a lane that asked to be woken.
 */
export class SharedPositions {
  readonly buffer: SharedArrayBuffer;
  readonly #committed: BigInt64Array;
  readonly #armed: Int32Array;

  constructor(lanes: number, buffer = new SharedArrayBuffer(lanes * 16)) {
    this.buffer = buffer;
    this.#committed = new BigInt64Array(buffer, 0, lanes);
    this.#armed = new Int32Array(buffer, lanes * 8, lanes);
  }

  committed(lane: number): number {
    return Number(Atomics.load(this.#committed, lane));
  }

  /** Stores a position. True when the lane asked to be woken; that is forgotten then. */
  commit(lane: number, position: number): boolean {
    Atomics.store(this.#committed, lane, BigInt(position));
    return Atomics.exchange(this.#armed, lane, 0) === 1;
  }

  /** Asks for a wake-up at the next commit. Read `committed` once more after it. */
  arm(lane: number): void {
    Atomics.store(this.#armed, lane, 1);
  }
}
