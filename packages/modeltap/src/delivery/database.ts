import { DatabaseSync } from 'node:sqlite';

/** Name of the file in the spool directory. */
export const DELIVERY_DB = 'delivery.db';

/** How long a statement waits for the other thread's transaction, milliseconds. */
const BUSY_MS = 10_000;

const PAGE_BYTES = 4096;
/** Pages of the log after which it is written back and used again. */
const CHECKPOINT_PAGES = 128;
/** Pages kept free in the file. */
const ROOM_PAGES = 64;

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
  db.exec(`PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES};`);
  db.exec(SCHEMA);
  takeRoom(db);
  return db;
}

/**
 * Makes the file and its log larger than they need to be, once: free pages and a log that is written from its beginning
 * again let a full disk be emptied, for every delivery writes here first.
 */
function takeRoom(db: DatabaseSync): void {
  const free = db.prepare('PRAGMA freelist_count').get()?.['freelist_count'];
  if (Number(free) >= ROOM_PAGES / 2) return;
  db.exec('CREATE TABLE IF NOT EXISTS room (filler BLOB) STRICT');
  db.prepare('INSERT INTO room (filler) VALUES (zeroblob(?))').run(ROOM_PAGES * PAGE_BYTES);
  db.exec('DELETE FROM room');
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
