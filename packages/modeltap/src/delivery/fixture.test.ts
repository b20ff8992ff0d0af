import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Clock } from '../kit/clock.ts';
import { encodeHead, FLAG, maxHeadBytes } from '../record/codec.ts';
import { type DestinationSettings, openDestinations } from '../record/destinations.ts';
import type { Destination } from '../record/types.ts';
import { openSpool, openSpoolReader } from '../spool/spool.ts';
import type { ObjectStore } from '../storage/store.ts';
import { openStore } from '../storage/stores.ts';
import type { CycleStep } from './apply.ts';
import { CountsBuffer } from './counts.ts';
import { DELIVERY_DB, openDeliveryDatabase, openDeliveryReader } from './database.ts';
import { Journal } from './journal.ts';
import { Lane, type LaneState } from './lane.ts';
import { createLedger, type Ledger } from './ledger.ts';

/* What the tests of this folder share: a real spool, a real local disk store and lanes over them. No tests in here. */

export const HOUR = Date.parse('2024-03-05T18:00:00Z');
const ATTRIBUTES = '{"type":"azureml.inference.model_inputs","datacontenttype":"application/json"}';

/** A record to append; what is left out has a plain value. */
export interface TestRecord {
  readonly body?: string | Buffer;
  readonly id?: string;
  readonly correlationId?: string;
  readonly timeMs?: number;
  readonly receivedMs?: number;
  readonly attributes?: string;
  readonly destinationId?: number;
  /** Puts the body into a side file. */
  readonly beside?: boolean;
}

export function settings(changes: Partial<DestinationSettings> = {}): DestinationSettings {
  return {
    endpoint: 'ep',
    deployment: 'blue',
    collection: 'model_inputs',
    source: 'urn:test',
    datastore: 'disk',
    path: 'mdc/ep/blue/model_inputs',
    rollingRate: 'hour',
    batch: 'off',
    batchWindowMs: 500,
    ...changes,
  };
}

/** The parts of a frame: head and body, as ingest writes them. */
export function encode(record: TestRecord): { readonly head: Buffer; readonly body: Buffer; readonly rows: number } {
  const body = Buffer.from(record.body ?? '[{"a":1}]');
  let value: unknown;
  let json = true;
  try {
    value = JSON.parse(body.toString());
  } catch {
    json = false;
  }
  const array = Array.isArray(value);
  const flags =
    (json ? FLAG.json : 0) |
    (array ? FLAG.array : 0) |
    (/[\r\n]/.test(body.toString('latin1')) ? FLAG.lineBreaks : 0) |
    (/[<>&]/.test(body.toString('latin1')) ? FLAG.escapes : 0) |
    (record.beside ? FLAG.sideFile : 0);
  const rows = array ? (value as unknown[]).length : 0;
  const fields = {
    destinationId: record.destinationId ?? 1,
    timeMs: record.timeMs ?? HOUR,
    receivedMs: record.receivedMs ?? HOUR,
    attributes: Buffer.from(record.attributes ?? ATTRIBUTES),
    id: record.id ?? '',
    correlationId: record.correlationId ?? 'c',
    flags,
    rows,
    bodyBytes: body.length,
  };
  const head = Buffer.alloc(maxHeadBytes(fields));
  return { head: head.subarray(0, encodeHead(head, 0, fields)), body, rows };
}

/** A clock that does not wait; `slept` says what was asked for. */
export function hastyClock(): Clock & { readonly slept: number[] } {
  const slept: number[] = [];
  return {
    slept,
    now: () => HOUR,
    monotonic: () => performance.now(),
    sleep: async (ms) => {
      slept.push(ms);
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
}

export interface LaneChanges {
  readonly store?: ObjectStore;
  readonly onStep?: (step: CycleStep) => void;
  readonly clock?: Clock;
  readonly maxFolders?: number;
  readonly onReleased?: (position: number) => void;
}

export interface TestLane {
  readonly lane: Lane;
  readonly journal: Journal;
  readonly states: LaneState[];
  readonly logs: string[];
  /** Ends it as a crash would: nothing is finished. */
  readonly kill: () => Promise<void>;
}

export type Fixture = Awaited<ReturnType<typeof openFixture>>;

/** A spool with one destination (number 1) and a local disk store, removed after the test. */
export async function openFixture(t: TestContext, changes: Partial<DestinationSettings> = {}) {
  const root = await mkdtemp(join(tmpdir(), 'modeltap-delivery-'));
  const spoolDirectory = join(root, 'spool');
  const blobs = join(root, 'blobs');
  await mkdir(blobs);
  const writer = await openSpool({ directory: spoolDirectory, maxBytes: 256 * 1024 * 1024 });
  const destinations = await openDestinations(spoolDirectory);
  await destinations.intern(settings(changes));
  const store = await openStore({ type: 'local', name: 'disk', path: blobs });
  const counts = new CountsBuffer(
    (id) => destinations.get(id),
    () => undefined,
  );
  const closers: (() => Promise<void>)[] = [];
  t.after(async () => {
    for (const close of closers.toReversed()) await close();
    await writer.close();
    await rm(root, { recursive: true });
  });

  const append = async (record: TestRecord = {}): Promise<void> => {
    const { head, body, rows } = encode(record);
    let side: Awaited<ReturnType<typeof writer.openSideFile>> | undefined;
    if (record.beside) {
      side = await writer.openSideFile();
      await side.write(body);
      await side.seal();
    }
    await new Promise<void>((resolve, reject) => {
      const done = (refusal: string | undefined) => (refusal === undefined ? resolve() : reject(new Error(refusal)));
      if (!writer.append(side ? [head] : [head, body], done, side)) reject(new Error(writer.refusal));
    });
    counts.accepted(record.destinationId ?? 1, record.timeMs ?? HOUR, rows, body.length);
  };

  const lane = async (changes: LaneChanges = {}): Promise<TestLane> => {
    const journal = new Journal(openDeliveryDatabase(join(spoolDirectory, DELIVERY_DB)));
    journal.bind(writer.spoolId);
    const reader = await openSpoolReader(spoolDirectory);
    const states: LaneState[] = [];
    const logs: string[] = [];
    const known = new Map<number, Destination>();
    const made = new Lane({
      datastore: 'disk',
      store: changes.store ?? store,
      reader,
      journal,
      spoolId: writer.spoolId,
      inlineBytes: 4 * 1024 * 1024,
      source: { committed: () => writer.committed, arm: () => undefined },
      destinations: {
        get: (id) => known.get(id),
        reload: async () => {
          for (const row of destinations.all()) known.set(row.id, row);
        },
      },
      events: {
        released: (position) => changes.onReleased?.(position),
        state: (state) => states.push(state),
        cycle: () => undefined,
        retry: () => undefined,
        line: () => undefined,
        followed: () => undefined,
        log: (level, _fields, message) => logs.push(`${level} ${message}`),
      },
      followed: () => false,
      clock: changes.clock ?? hastyClock(),
      ...(changes.onStep && { onStep: changes.onStep }),
      ...(changes.maxFolders !== undefined && { maxFolders: changes.maxFolders }),
    });
    let open = true;
    const kill = async () => {
      if (!open) return;
      open = false;
      journal.close();
      await reader.close();
    };
    closers.push(kill);
    return { lane: made, journal, states, logs, kill };
  };

  /** A ledger over the same files. Open a lane first. */
  const ledger = (): Ledger => {
    const database = openDeliveryReader(join(spoolDirectory, DELIVERY_DB));
    closers.push(async () => database.close());
    return createLedger([
      {
        spoolDirectory,
        database,
        committed: () => writer.committed,
        pending: () => counts.increments(),
        destination: (id) => destinations.get(id),
        hold: () => () => undefined,
      },
    ]);
  };

  return { root, blobs, spoolDirectory, writer, destinations, store, counts, append, lane, ledger };
}

/** Every file below a folder: path → bytes. */
export async function files(folder: string): Promise<ReadonlyMap<string, Buffer>> {
  const found = new Map<string, Buffer>();
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || entry.parentPath.includes('.modeltap')) continue;
    const path = join(entry.parentPath, entry.name);
    found.set(path.slice(folder.length + 1), await readFile(path));
  }
  return found;
}

export interface StoredEvent {
  readonly id: string;
  readonly time: string;
  readonly data: unknown;
  readonly dataref?: string;
  readonly contentrange: string;
  readonly correlationid: string;
}

/** The events of every collection file below a folder, each line parsed. */
export async function events(folder: string): Promise<readonly StoredEvent[]> {
  const found: StoredEvent[] = [];
  for (const [path, bytes] of await files(folder)) {
    if (!path.endsWith('.jsonl')) continue;
    const lines = bytes.toString().split('\n');
    if (lines.pop() !== '') throw new Error(`${path} ends in half a line`);
    for (const line of lines) found.push(JSON.parse(line) as StoredEvent);
  }
  return found;
}
