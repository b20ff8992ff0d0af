import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite';
import {
  CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type Driver,
  type Kysely,
  type QueryResult,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
  type TransactionSettings,
} from 'kysely';
import type { Clock } from '../kit/clock.ts';
import { ModeltapError } from '../kit/errors.ts';

/** How long a statement waits for another process's lock. The wait blocks this thread, so it is short. */
const BUSY_TIMEOUT_MS = 2000;
const OPEN_RETRY_MS = 20;

/** Result code, https://www.sqlite.org/rescode.html. */
const BUSY = 5;

/** True when another process held the lock for longer than the busy timeout. */
export function isBusy(error: unknown): boolean {
  const code = resultCode(error);
  // The low byte is the primary code; BUSY_SNAPSHOT and BUSY_RECOVERY are kinds of it.
  return code !== undefined && (code & 0xff) === BUSY;
}

/**
 * kysely on Node's own SQLite. One connection; kysely hands it out to one query or transaction at a time. Write-ahead log
 * with full sync: a committed change survives a power cut. Transactions take the write lock at their beginning, so
 * that two processes wait for each other and never fail in the middle.
 */
export class NodeSqliteDialect implements Dialect {
  readonly #file: string;
  readonly #clock: Clock;

  constructor(file: string, clock: Clock) {
    this.#file = file;
    this.#clock = clock;
  }

  createDriver(): Driver {
    return new NodeSqliteDriver(this.#file, this.#clock);
  }

  createQueryCompiler(): SqliteQueryCompiler {
    return new SqliteQueryCompiler();
  }

  createAdapter(): SqliteAdapter {
    return new SqliteAdapter();
  }

  createIntrospector(database: Kysely<unknown>): SqliteIntrospector {
    return new SqliteIntrospector(database);
  }
}

class NodeSqliteDriver implements Driver {
  readonly #file: string;
  readonly #clock: Clock;
  #database: DatabaseSync | undefined;

  constructor(file: string, clock: Clock) {
    this.#file = file;
    this.#clock = clock;
  }

  async init(): Promise<void> {
    const database = new DatabaseSync(this.#file, { timeout: BUSY_TIMEOUT_MS, enableForeignKeyConstraints: true });
    try {
      await this.#useWriteAheadLog(database);
      database.exec('pragma synchronous = full');
    } catch (error) {
      database.close();
      throw error;
    }
    this.#database = database;
  }

  /** SQLite does not wait for the lock here, so two processes that open a new file at once would fail. */
  async #useWriteAheadLog(database: DatabaseSync): Promise<void> {
    const until = this.#clock.monotonic() + BUSY_TIMEOUT_MS;
    for (;;) {
      try {
        database.exec('pragma journal_mode = wal');
        return;
      } catch (error) {
        if (!isBusy(error) || this.#clock.monotonic() > until) throw error;
        await this.#clock.sleep(OPEN_RETRY_MS);
      }
    }
  }

  async acquireConnection(): Promise<DatabaseConnection> {
    if (this.#database === undefined) throw new ModeltapError('internal', { detail: 'the catalog is not open' });
    return new NodeSqliteConnection(this.#database);
  }

  async beginTransaction(connection: DatabaseConnection, settings: TransactionSettings): Promise<void> {
    const begin = settings.accessMode === 'read only' ? 'begin' : 'begin immediate';
    await connection.executeQuery(CompiledQuery.raw(begin));
  }

  async commitTransaction(connection: DatabaseConnection): Promise<void> {
    await connection.executeQuery(CompiledQuery.raw('commit'));
  }

  async rollbackTransaction(connection: DatabaseConnection): Promise<void> {
    await connection.executeQuery(CompiledQuery.raw('rollback'));
  }

  async releaseConnection(): Promise<void> {}

  async destroy(): Promise<void> {
    this.#database?.close();
    this.#database = undefined;
  }
}

class NodeSqliteConnection implements DatabaseConnection {
  readonly #database: DatabaseSync;

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  async executeQuery<R>(query: CompiledQuery): Promise<QueryResult<R>> {
    const statement = this.#database.prepare(query.sql);
    const parameters = query.parameters as readonly SQLInputValue[];
    if (returnsRows(statement)) return { rows: statement.all(...parameters) as R[] };
    const { changes, lastInsertRowid } = statement.run(...parameters);
    return { rows: [], numAffectedRows: BigInt(changes), insertId: BigInt(lastInsertRowid) };
  }

  async *streamQuery<R>(query: CompiledQuery): AsyncIterableIterator<QueryResult<R>> {
    for (const row of this.#database.prepare(query.sql).iterate(...(query.parameters as readonly SQLInputValue[]))) {
      yield { rows: [row as R] };
    }
  }
}

function returnsRows(statement: StatementSync): boolean {
  return statement.columns().length > 0;
}

function resultCode(error: unknown): number | undefined {
  if (typeof error !== 'object' || error === null || !('errcode' in error)) return undefined;
  return typeof error.errcode === 'number' ? error.errcode : undefined;
}
