import type { Destination } from '../record/types.ts';
import {
  type CollectionName,
  type DropReason,
  type Increment,
  type LedgerName,
  UNKNOWN_COLLECTION,
} from './ledger-table.ts';

/** Counts of one cycle per collection and hour, bounded by the records of the cycle. */
export class Tallies {
  readonly #counts = new Map<CollectionName, Map<number, Map<LedgerName, number>>>();

  #add(collection: CollectionName, hourMs: number, name: LedgerName, by: number): void {
    let hours = this.#counts.get(collection);
    if (!hours) {
      hours = new Map();
      this.#counts.set(collection, hours);
    }
    let names = hours.get(hourMs);
    if (!names) {
      names = new Map();
      hours.set(hourMs, names);
    }
    names.set(name, (names.get(name) ?? 0) + by);
  }

  /** Counts one stored record. */
  store(destination: Destination, hourMs: number, rows: number, bytes: number): void {
    this.#add(destination, hourMs, 'stored', 1);
    this.#add(destination, hourMs, 'rows', rows);
    this.#add(destination, hourMs, 'bytes', bytes);
  }

  /** Counts dropped records. Without a destination they are those of an unknown collection. */
  drop(reason: DropReason, destination: Destination | undefined, hourMs: number, records: number): void {
    this.#add(destination ?? UNKNOWN_COLLECTION, hourMs, `dropped:${reason}`, records);
  }

  /** Sum of one count. */
  total(name: LedgerName): number {
    let sum = 0;
    for (const increment of this.increments()) if (increment.name === name) sum += increment.by;
    return sum;
  }

  /** The counts as rows for the ledger. */
  *increments(): Generator<Increment> {
    for (const [collection, hours] of this.#counts) {
      for (const [hourMs, names] of hours) {
        for (const [name, by] of names) yield { collection, hourMs, name, by };
      }
    }
  }

  /** The same records, all counted as dropped for `reason` instead of stored. */
  *asDropped(reason: DropReason): Generator<Increment> {
    for (const increment of this.increments()) {
      if (increment.name === 'stored') yield { ...increment, name: `dropped:${reason}` };
    }
  }

  /** Drops by reason, records. */
  drops(): ReadonlyMap<DropReason, number> {
    const drops = new Map<DropReason, number>();
    for (const { name, by } of this.increments()) {
      if (!name.startsWith('dropped:')) continue;
      const reason = name.slice('dropped:'.length) as DropReason;
      drops.set(reason, (drops.get(reason) ?? 0) + by);
    }
    return drops;
  }
}
