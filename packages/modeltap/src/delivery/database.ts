import { DatabaseSync } from 'node:sqlite';

/** Name of the file in the spool directory. */
export const DELIVERY_DB = 'delivery.db';

/** How long a statement waits for the other thread's transaction, milliseconds. */
const BUSY_MS = 10_000;

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value ANY) WITHOUT ROWID, STRICT;
  CREATE TABLE IF NOT EXISTS objects (
    folder TEXT PRIMARY KEY, suffix INTEGER NOT NULL, bytes INTEGER NOT NULL, appends INTEGER NOT NULL,
    used INTEGER NOT NULL
  ) WITHOUT ROWID, STRICT;
  CREATE INDEX IF NOT EXISTS objects_by_use ON objects (used);
  CREATE TABLE IF NOT EXISTS intent (
    id INTEGER PRIMARY KEY CHECK (id = 1), first INTEGER NOT NULL, next INTEGER NOT NULL,
    inline_bytes INTEGER NOT NULL, excluded TEXT NOT NULL
  ) STRICT;
  CREATE TABLE IF NOT EXISTS intent_objects (
    folder TEXT PRIMARY KEY, suffix INTEGER NOT NULL, offset INTEGER NOT NULL, appends INTEGER NOT NULL,
    bytes INTEGER NOT NULL, crc INTEGER NOT NULL
  ) WITHOUT ROWID, STRICT;
  CREATE TABLE IF NOT EXISTS ledger (
    hour_ms INTEGER NOT NULL, endpoint TEXT NOT NULL, deployment TEXT NOT NULL, collection TEXT NOT NULL,
    name TEXT NOT NULL, value INTEGER NOT NULL,
    PRIMARY KEY (hour_ms, endpoint, deployment, collection, name)
  ) WITHOUT ROWID, STRICT;
  CREATE TABLE IF NOT EXISTS damaged (segment TEXT NOT NULL, first INTEGER NOT NULL, PRIMARY KEY (segment, first)) STRICT;
`;

/**
 * Opens a lane's `delivery.db` for the delivery thread, its only writer. Every commit is fsynced: what it holds decides
 * whether a batch is written again after a crash.
 */
export function openDeliveryDatabase(path: string): DatabaseSync {
  const db = new DatabaseSync(path);
  db.exec(`PRAGMA busy_timeout = ${BUSY_MS}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;`);
  db.exec(SCHEMA);
  return db;
}

/** Opens the same file to read only, from any thread. */
export function openDeliveryReader(path: string): DatabaseSync {
  const db = new DatabaseSync(path, { readOnly: true });
  db.exec(`PRAGMA busy_timeout = ${BUSY_MS};`);
  return db;
}

/** Runs `work` in one transaction; whatever it throws rolls everything back. */
export function inTransaction<T>(db: DatabaseSync, work: () => T, begin: 'IMMEDIATE' | 'DEFERRED' = 'IMMEDIATE'): T {
  db.exec(`BEGIN ${begin}`);
  try {
    const result = work();
    db.exec('COMMIT');
    return result;
  } catch (error) {
    if (db.isTransaction) db.exec('ROLLBACK');
    throw error;
  }
}
