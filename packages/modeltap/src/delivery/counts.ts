import { hourOf } from '../record/time.ts';
import type { Destination } from '../record/types.ts';
import { type CollectionName, type Increment, type LedgerName, UNKNOWN_COLLECTION } from './ledger-table.ts';

/** Most rows gathered between two flushes; then they are handed over at once. */
const MAX_ROWS = 4096;

/**
 * What ingest reports, per lane. Every call is cheap: it adds to a row in memory, handed to the ledger once a second.
 * `timeMs` is the record's event time. `destinationId` 0: the collection is not known.
 */
export interface LedgerCounts {
  /** A record is durable in the spool. Called in the append's callback, before anything is awaited. */
  accepted(destinationId: number, timeMs: number, rows: number, bytes: number): void;
  /** A record was refused with this code of the error registry. */
  rejected(code: string, destinationId: number, timeMs: number): void;
  /** A record was recognised as taken before, and not taken again. */
  duplicate(destinationId: number, timeMs: number): void;
  /** A sender reported records that it had left out. */
  sampledOut(destinationId: number, timeMs: number, records: number): void;
}

/** Records, rows and bytes accepted since the last `take`, for the metrics. */
export interface AcceptedTotals {
  records: number;
  rows: number;
  bytes: number;
}

/** Gathers the counts of one lane between two flushes. */
export class CountsBuffer implements LedgerCounts {
  readonly #destination: (id: number) => Destination | undefined;
  readonly #onFull: () => void;
  #rows = new Map<number, Map<number, Map<LedgerName, number>>>();
  #size = 0;
  #totals: AcceptedTotals = { records: 0, rows: 0, bytes: 0 };
  readonly #rejections = new Map<string, number>();

  constructor(destination: (id: number) => Destination | undefined, onFull: () => void) {
    this.#destination = destination;
    this.#onFull = onFull;
  }

  #add(destinationId: number, timeMs: number, name: LedgerName, by: number): void {
    const hour = hourOf(timeMs);
    let hours = this.#rows.get(destinationId);
    if (!hours) this.#rows.set(destinationId, (hours = new Map()));
    let names = hours.get(hour);
    if (!names) hours.set(hour, (names = new Map()));
    const before = names.get(name);
    names.set(name, (before ?? 0) + by);
    if (before !== undefined) return;
    this.#size += 1;
    if (this.#size >= MAX_ROWS) this.#onFull();
  }

  accepted(destinationId: number, timeMs: number, rows: number, bytes: number): void {
    this.#totals.records += 1;
    this.#totals.rows += rows;
    this.#totals.bytes += bytes;
    this.#add(destinationId, timeMs, 'accepted', 1);
  }

  rejected(code: string, destinationId: number, timeMs: number): void {
    const name = /^[a-z][a-z0-9_]{0,63}$/.test(code) ? code : 'other';
    this.#rejections.set(name, (this.#rejections.get(name) ?? 0) + 1);
    this.#add(destinationId, timeMs, `rejected:${name}`, 1);
  }

  duplicate(destinationId: number, timeMs: number): void {
    this.#add(destinationId, timeMs, 'duplicate', 1);
  }

  sampledOut(destinationId: number, timeMs: number, records: number): void {
    this.#add(destinationId, timeMs, 'sampled_out', records);
  }

  /** What has gathered, as ledger rows. */
  *increments(): Generator<Increment> {
    for (const [id, hours] of this.#rows) {
      const collection: CollectionName = this.#destination(id) ?? UNKNOWN_COLLECTION;
      const { endpoint, deployment, collection: name } = collection;
      for (const [hourMs, names] of hours) {
        for (const [count, by] of names) {
          yield { collection: { endpoint, deployment, collection: name }, hourMs, name: count, by };
        }
      }
    }
  }

  /** Gives what has gathered and starts anew. */
  take(): readonly Increment[] {
    const taken = [...this.increments()];
    this.#rows = new Map();
    this.#size = 0;
    return taken;
  }

  /** Gives the totals for the metrics and starts them anew. */
  takeTotals(): AcceptedTotals & { readonly rejections: readonly (readonly [string, number])[] } {
    const totals = { ...this.#totals, rejections: [...this.#rejections] };
    this.#totals = { records: 0, rows: 0, bytes: 0 };
    this.#rejections.clear();
    return totals;
  }
}
