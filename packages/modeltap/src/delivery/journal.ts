import type { DatabaseSync, SQLOutputValue, StatementSync } from 'node:sqlite';
import { inTransaction } from './database.ts';
import { type Increment, LedgerTable } from './ledger-table.ts';

/** Most rows kept of objects that may still grow; the least recently used go first and begin a new suffix if they return. */
const MAX_OBJECTS = 10_000;
/** Cycles between two prunings. */
const PRUNE_EVERY = 64;

/** The newest file of a folder, as this lane left it. */
export interface ObjectState {
  /** The count in its name. */
  readonly suffix: number;
  readonly bytes: number;
  readonly appends: number;
}

/** What a cycle is about to do to one folder's file. */
export interface IntentObject {
  readonly folder: string;
  readonly suffix: number;
  /** Length of the object before. */
  readonly offset: number;
  /** Appends it took before. */
  readonly appends: number;
  /** Length and CRC-32 of what is appended. */
  readonly bytes: number;
  readonly crc: number;
}

/** A stretch of the spool whose delivery was begun: it is always finished exactly as written here. */
export interface Intent {
  readonly from: number;
  readonly to: number;
  /** The setting the lines were made with. */
  readonly inlineBytes: number;
  /** Positions of records the store never takes. */
  readonly excluded: readonly number[];
  readonly objects: ReadonlyMap<string, IntentObject>;
}

/** What a finished cycle leaves. */
export interface CycleResult {
  readonly to: number;
  readonly objects: readonly (ObjectState & { readonly folder: string })[];
  readonly increments: Iterable<Increment>;
}

const num = (value: SQLOutputValue | undefined): number => Number(value ?? 0);

/** A lane's memory: how far the spool is delivered, what is under way, and where each file stands. One transaction a call. */
export class Journal {
  readonly ledger: LedgerTable;
  readonly #db: DatabaseSync;
  readonly #findObject: StatementSync;
  readonly #putObject: StatementSync;
  readonly #putIntentObject: StatementSync;
  #cursor: number;
  #cycles = 0;

  constructor(db: DatabaseSync) {
    this.#db = db;
    this.ledger = new LedgerTable(db);
    this.#findObject = db.prepare('SELECT suffix, bytes, appends FROM objects WHERE folder = ?');
    this.#putObject = db.prepare(
      'INSERT OR REPLACE INTO objects (folder, suffix, bytes, appends, used) VALUES (?, ?, ?, ?, ?)',
    );
    this.#putIntentObject = db.prepare(
      'INSERT OR REPLACE INTO intent_objects (folder, suffix, offset, appends, bytes, crc) VALUES (?, ?, ?, ?, ?, ?)',
    );
    this.#cursor = num(this.#meta('cursor'));
  }

  #meta(name: string): SQLOutputValue | undefined {
    return this.#db.prepare('SELECT value FROM meta WHERE name = ?').get(name)?.['value'];
  }

  #setMeta(name: string, value: string | number): void {
    this.#db.prepare('INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)').run(name, value);
  }

  /** Everything below this spool position is stored or dropped. */
  get cursor(): number {
    return this.#cursor;
  }

  /** Number of the last counts that are in the ledger; 0 when this process has sent none. */
  get sequence(): number {
    return num(this.#meta('counts_sequence'));
  }

  /**
   * Binds the journal to a spool. When it was kept from another one, its positions mean nothing: cursor, intent and
   * object states are forgotten, the ledger stays. True when that happened.
   */
  bind(spoolId: string): boolean {
    const known = this.#meta('spool_id');
    if (known === spoolId) return false;
    inTransaction(this.#db, () => {
      this.#db.exec('DELETE FROM intent; DELETE FROM intent_objects; DELETE FROM objects; DELETE FROM damaged;');
      this.#setMeta('spool_id', spoolId);
      this.#setMeta('cursor', 0);
    });
    this.#cursor = 0;
    return known !== undefined;
  }

  /** Sets the cursor back to the end of a spool that lost its tail, so that new records are not taken for delivered ones. */
  rewind(position: number): void {
    inTransaction(this.#db, () => {
      this.#db.exec('DELETE FROM intent; DELETE FROM intent_objects;');
      this.#setMeta('cursor', position);
    });
    this.#cursor = position;
  }

  /** The cycle that was begun and not finished, if any. */
  intent(): Intent | undefined {
    const row = this.#db.prepare('SELECT first, next, inline_bytes, excluded FROM intent').get();
    if (!row) return undefined;
    const objects = new Map<string, IntentObject>();
    for (const object of this.#db.prepare('SELECT * FROM intent_objects').iterate()) {
      const folder = String(object['folder']);
      objects.set(folder, {
        folder,
        suffix: num(object['suffix']),
        offset: num(object['offset']),
        appends: num(object['appends']),
        bytes: num(object['bytes']),
        crc: num(object['crc']),
      });
    }
    return {
      from: num(row['first']),
      to: num(row['next']),
      inlineBytes: num(row['inline_bytes']),
      excluded: JSON.parse(String(row['excluded'])) as number[],
      objects,
    };
  }

  /** Writes what is about to be done; durable when it returns. Replaces an intent before it. */
  begin(intent: Intent): void {
    inTransaction(this.#db, () => {
      this.#db.exec('DELETE FROM intent; DELETE FROM intent_objects;');
      this.#db
        .prepare('INSERT INTO intent (id, first, next, inline_bytes, excluded) VALUES (1, ?, ?, ?, ?)')
        .run(intent.from, intent.to, intent.inlineBytes, JSON.stringify(intent.excluded));
      for (const object of intent.objects.values()) this.#writeObject(object);
    });
  }

  #writeObject(object: IntentObject): void {
    const { folder, suffix, offset, appends, bytes, crc } = object;
    this.#putIntentObject.run(folder, suffix, offset, appends, bytes, crc);
  }

  /** Changes where one folder's lines of the present intent go. Durable when it returns. */
  redirect(object: IntentObject): void {
    inTransaction(this.#db, () => this.#writeObject(object));
  }

  /** State of a folder's newest file; undefined when it was never written or has been forgotten. */
  object(folder: string): ObjectState | undefined {
    const row = this.#findObject.get(folder);
    return row && { suffix: num(row['suffix']), bytes: num(row['bytes']), appends: num(row['appends']) };
  }

  /** Ends the present intent: object states, ledger and cursor in one transaction. */
  finish(result: CycleResult): void {
    inTransaction(this.#db, () => {
      for (const { folder, suffix, bytes, appends } of result.objects) {
        this.#putObject.run(folder, suffix, bytes, appends, result.to);
      }
      this.ledger.add(result.increments);
      this.#setMeta('cursor', result.to);
      this.#db.exec('DELETE FROM intent; DELETE FROM intent_objects;');
      this.#cycles += 1;
      if (this.#cycles % PRUNE_EVERY === 0) this.prune(MAX_OBJECTS);
    });
    this.#cursor = result.to;
  }

  /** Forgets all but the `keep` most recently used objects. */
  prune(keep: number): void {
    this.#db
      .prepare('DELETE FROM objects WHERE folder IN (SELECT folder FROM objects ORDER BY used DESC LIMIT -1 OFFSET ?)')
      .run(keep);
  }

  /** Adds counts that ingest made, in order; `sequence` tells readers which of them are in. */
  addCounts(increments: Iterable<Increment>, sequence: number): void {
    inTransaction(this.#db, () => {
      this.ledger.add(increments);
      this.#setMeta('counts_sequence', sequence);
    });
  }

  /** Runs `work` in one transaction: for rebuilding the ledger at start. */
  async rebuild(work: () => Promise<void>): Promise<void> {
    this.#db.exec('BEGIN IMMEDIATE');
    try {
      await work();
      this.#setMeta('counts_sequence', 0);
      this.#db.exec('COMMIT');
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
      throw error;
    }
  }

  close(): void {
    this.#db.close();
  }
}
