import type { DatabaseSync } from 'node:sqlite';
import type { Destination } from '../record/types.ts';
import { openSpoolReader } from '../spool/reader.ts';
import { inTransaction } from './database.ts';
import type { DropReason, Increment } from './ledger-table.ts';
import type { CollectionFilter } from './messages.ts';
import { spooledCounts } from './spooled.ts';

/** Most rows one question gives. */
const MAX_ROWS = 10_000;

/** The ledger of one collection and hour (docs/ledger.md). Collection names are empty where they are not known. */
export interface LedgerRow {
  readonly endpoint: string;
  readonly deployment: string;
  readonly collection: string;
  /** Start of the UTC hour of the records' times: `YYYY-MM-DDThh:mm:ssZ`. */
  readonly hour: string;
  /** Records that reached the agent or were reported by a sender: accepted + rejected + duplicate + sampled out. */
  readonly seen: number;
  readonly sampledOut: number;
  /** Always stored + dropped + spooled. */
  readonly accepted: number;
  readonly stored: number;
  readonly dropped: Readonly<Partial<Record<DropReason, number>>>;
  readonly rejected: Readonly<Record<string, number>>;
  readonly duplicate: number;
  /** Accepted and not yet stored or dropped. */
  readonly spooled: number;
  /** Rows and bytes of body of the stored records. */
  readonly rows: number;
  readonly bytes: number;
}

/** Which rows are wanted. */
export interface LedgerFilter extends CollectionFilter {
  /** Hours from this time on, and before this one, milliseconds since the epoch. */
  readonly fromMs?: number;
  readonly toMs?: number;
  /** Most rows, newest hours first. Default and maximum 10 000. */
  readonly limit?: number;
}

/** Where the equation of a row does not hold against what lies in the spool. */
export interface LedgerMismatch {
  readonly row: LedgerRow;
  /** Records of the row that were found in the spool; `row.spooled` is what the other counts leave. */
  readonly found: number;
}

/** What the main thread knows of one lane's ledger. */
export interface LedgerLane {
  readonly spoolDirectory: string;
  readonly database: DatabaseSync;
  committed(): number;
  /** Counts that are not in the database yet, given the number of the last ones that are. */
  pending(sequence: number): Iterable<Increment>;
  destination(id: number): Destination | undefined;
  /** Keeps the spool from deleting what is read, until the function it gives is called. */
  hold(): () => void;
}

/** Reads the ledgers of all lanes as one. */
export interface Ledger {
  /** Newest hours first, then by names. */
  rows(filter?: LedgerFilter): readonly LedgerRow[];
  /** Counts what really lies in the spools and gives the rows whose equation does not hold. Reads the unshipped part of every spool. */
  check(filter?: LedgerFilter): Promise<readonly LedgerMismatch[]>;
}

type Counts = Map<string, number>;
type Rows = Map<string, Counts>;

interface Snapshot {
  readonly cursor: number;
  readonly committed: number;
}

/** The ledger over these lanes. */
export function createLedger(lanes: readonly LedgerLane[]): Ledger {
  return {
    rows(filter = {}) {
      const rows: Rows = new Map();
      for (const lane of lanes) readLane(lane, filter, rows);
      return sorted(rows, filter);
    },
    async check(filter = {}) {
      const found = new Map<string, number>();
      const rows: Rows = new Map();
      const release = lanes.map((lane) => lane.hold());
      try {
        const spans = lanes.map((lane) => ({ lane, span: readLane(lane, filter, rows) }));
        for (const { lane, span } of spans) await countSpooled(lane, span, filter, found);
      } finally {
        for (const done of release) done();
      }
      for (const key of found.keys()) if (!rows.has(key)) rows.set(key, new Map());
      const all = [...rows].map(([key, counts]) => ({ row: toRow(key, counts), found: found.get(key) ?? 0 }));
      return all.filter(({ row, found: there }) => row.spooled !== there);
    },
  };
}

function keyOf(hourMs: number, { endpoint, deployment, collection }: Required<CollectionFilter>): string {
  return JSON.stringify([hourMs, endpoint, deployment, collection]);
}

function add(rows: Rows, key: string, name: string, by: number): void {
  let counts = rows.get(key);
  if (!counts) {
    counts = new Map();
    rows.set(key, counts);
  }
  counts.set(name, (counts.get(name) ?? 0) + by);
}

function passes(filter: LedgerFilter, { collection, hourMs }: Pick<Increment, 'collection' | 'hourMs'>): boolean {
  return (
    (filter.endpoint ?? collection.endpoint) === collection.endpoint &&
    (filter.deployment ?? collection.deployment) === collection.deployment &&
    (filter.collection ?? collection.collection) === collection.collection &&
    hourMs >= (filter.fromMs ?? Number.MIN_SAFE_INTEGER) &&
    hourMs < (filter.toMs ?? Number.POSITIVE_INFINITY)
  );
}

/**
 * Adds a lane's counts to `rows`, all of one moment: nothing else of this thread runs between reading the database, the
 * counts under way and the spool's end, and the delivery thread never ships beyond that end.
 */
function readLane(lane: LedgerLane, filter: LedgerFilter, rows: Rows): Snapshot {
  const { database } = lane;
  const limit = Math.min(filter.limit ?? MAX_ROWS, MAX_ROWS);
  const where =
    '(?1 IS NULL OR endpoint = ?1) AND (?2 IS NULL OR deployment = ?2) AND (?3 IS NULL OR collection = ?3)' +
    ' AND hour_ms >= ?4 AND hour_ms < ?5';
  const { endpoint = null, deployment = null, collection = null } = filter;
  const bounds = [filter.fromMs ?? Number.MIN_SAFE_INTEGER, filter.toMs ?? Number.MAX_SAFE_INTEGER] as const;
  return inTransaction(
    database,
    () => {
      const statement = database.prepare(
        `SELECT hour_ms, endpoint, deployment, collection, name, value FROM ledger
         JOIN (SELECT DISTINCT hour_ms, endpoint, deployment, collection FROM ledger WHERE ${where}
               ORDER BY hour_ms DESC LIMIT ?6) USING (hour_ms, endpoint, deployment, collection)`,
      );
      for (const row of statement.iterate(endpoint, deployment, collection, ...bounds, limit)) {
        const name = {
          endpoint: String(row['endpoint']),
          deployment: String(row['deployment']),
          collection: String(row['collection']),
        };
        add(rows, keyOf(Number(row['hour_ms']), name), String(row['name']), Number(row['value']));
      }
      const meta = database.prepare('SELECT value FROM meta WHERE name = ?');
      const number = (name: string) => Number(meta.get(name)?.['value'] ?? 0);
      for (const increment of lane.pending(number('counts_sequence'))) {
        if (passes(filter, increment)) {
          add(rows, keyOf(increment.hourMs, increment.collection), increment.name, increment.by);
        }
      }
      return { cursor: number('cursor'), committed: lane.committed() };
    },
    'DEFERRED',
  );
}

async function countSpooled(
  lane: LedgerLane,
  span: Snapshot,
  filter: LedgerFilter,
  found: Map<string, number>,
): Promise<void> {
  const reader = await openSpoolReader(lane.spoolDirectory);
  try {
    const stretch = { from: span.cursor, to: span.committed };
    for await (const counts of spooledCounts(reader, stretch, { get: (id) => lane.destination(id) })) {
      for (const increment of counts.increments('accepted')) {
        if (!passes(filter, increment)) continue;
        const key = keyOf(increment.hourMs, increment.collection);
        found.set(key, (found.get(key) ?? 0) + increment.by);
      }
    }
  } finally {
    await reader.close();
  }
}

function sorted(rows: Rows, filter: LedgerFilter): readonly LedgerRow[] {
  const all = [...rows].map(([key, counts]) => toRow(key, counts));
  const names = (row: LedgerRow) => `${row.endpoint}\n${row.deployment}\n${row.collection}`;
  all.sort((a, b) => (a.hour === b.hour ? (names(a) < names(b) ? -1 : 1) : a.hour < b.hour ? 1 : -1));
  return all.slice(0, Math.min(filter.limit ?? MAX_ROWS, MAX_ROWS));
}

function toRow(key: string, counts: Counts): LedgerRow {
  const [hourMs, endpoint, deployment, collection] = JSON.parse(key) as [number, string, string, string];
  const get = (name: string) => counts.get(name) ?? 0;
  const grouped = (prefix: string) =>
    Object.fromEntries(
      [...counts]
        .filter(([name]) => name.startsWith(prefix))
        .map(([name, value]) => [name.slice(prefix.length), value]),
    );
  const sum = (group: Readonly<Record<string, number>>) => Object.values(group).reduce((a, b) => a + b, 0);
  const rejected = grouped('rejected:');
  const dropped = grouped('dropped:');
  const accepted = get('accepted');
  return {
    endpoint,
    deployment,
    collection,
    hour: `${new Date(hourMs).toISOString().slice(0, 19)}Z`,
    seen: accepted + sum(rejected) + get('duplicate') + get('sampled_out'),
    sampledOut: get('sampled_out'),
    accepted,
    stored: get('stored'),
    dropped,
    rejected,
    duplicate: get('duplicate'),
    spooled: accepted - get('stored') - sum(dropped),
    rows: get('rows'),
    bytes: get('bytes'),
  };
}
