import type { DatabaseSync, StatementSync } from 'node:sqlite';
import type { RecoveryReport } from '../spool/types.ts';

/** Why a record that was accepted is not stored. */
export type DropReason =
  /** The spool's frame cannot be decoded, or the disk lost it. */
  | 'corrupt'
  /** The body's side file is gone or has another length. */
  | 'side_file_missing'
  /** The frame names a destination that `destinations.json` does not have. */
  | 'destination_unknown'
  /** The store takes other objects but never this one: its key or content is wrong. */
  | 'store_invalid';

/** What is counted per collection and hour. */
export type LedgerName =
  | 'accepted'
  | 'stored'
  | 'rows'
  | 'bytes'
  | 'duplicate'
  | 'sampled_out'
  | `dropped:${DropReason}`
  | `rejected:${string}`;

/** The three names of a collection; all empty when a record's collection is not known. */
export interface CollectionName {
  readonly endpoint: string;
  readonly deployment: string;
  readonly collection: string;
}

/** Stands for the collection of records that nothing is known of. */
export const UNKNOWN_COLLECTION: CollectionName = { endpoint: '', deployment: '', collection: '' };

/** One count to add. `hourMs` is `hourOf` the record's time. */
export interface Increment {
  readonly collection: CollectionName;
  readonly hourMs: number;
  readonly name: LedgerName;
  readonly by: number;
}

/** The writing side of a lane's ledger, in the delivery thread. Callers hold the transaction. */
export class LedgerTable {
  readonly #db: DatabaseSync;
  readonly #add: StatementSync;

  constructor(db: DatabaseSync) {
    this.#db = db;
    this.#add = db.prepare(
      `INSERT INTO ledger (hour_ms, endpoint, deployment, collection, name, value) VALUES (?, ?, ?, ?, ?, ?)
       ON CONFLICT DO UPDATE SET value = value + excluded.value`,
    );
  }

  /** Adds counts to the rows. */
  add(increments: Iterable<Increment>): void {
    for (const { collection, hourMs, name, by } of increments) {
      if (by !== 0) {
        this.#add.run(hourMs, collection.endpoint, collection.deployment, collection.collection, name, by);
      }
    }
  }

  /**
   * Sets `accepted` to `stored + dropped`, the start of rebuilding it after a crash; what lies in the spool is added
   * behind it, in the same transaction.
   */
  resetAccepted(): void {
    this.#db.exec(`
      DELETE FROM ledger WHERE name = 'accepted';
      INSERT INTO ledger (hour_ms, endpoint, deployment, collection, name, value)
        SELECT hour_ms, endpoint, deployment, collection, 'accepted', SUM(value) FROM ledger
        WHERE name = 'stored' OR name LIKE 'dropped:%' GROUP BY hour_ms, endpoint, deployment, collection;
    `);
  }

  /**
   * Counts the damaged stretches that recovery found, each once however often recovery finds it again: one dropped
   * record of an unknown collection per stretch, since how many it held is not known.
   */
  addDamaged(damaged: RecoveryReport['damaged'], hourMs: number): void {
    const note = this.#db.prepare('INSERT OR IGNORE INTO damaged (segment, first) VALUES (?, ?)');
    for (const { segment, from } of damaged) {
      if (note.run(segment, from).changes > 0) {
        this.add([{ collection: UNKNOWN_COLLECTION, hourMs, name: 'dropped:corrupt', by: 1 }]);
      }
    }
  }
}
