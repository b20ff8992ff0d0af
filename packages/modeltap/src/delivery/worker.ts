import { join } from 'node:path';
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { systemClock } from '../kit/clock.ts';
import { errorText } from '../kit/errors.ts';
import { readDestinations } from '../record/destinations.ts';
import { hourOf } from '../record/time.ts';
import type { Destination } from '../record/types.ts';
import { openSpoolReader } from '../spool/reader.ts';
import { openStore } from '../storage/stores.ts';
import { DELIVERY_DB, openDeliveryDatabase } from './database.ts';
import { Followers } from './followers.ts';
import { Journal } from './journal.ts';
import { Lane, type LaneEvents } from './lane.ts';
import {
  type DeliveryWorkerData,
  type FromWorker,
  SharedPositions,
  type ToWorker,
  type WorkerLane,
} from './messages.ts';
import { spooledCounts } from './spooled.ts';

/* The delivery thread: opens the lanes, runs them, and turns messages into calls. */

interface OpenLane {
  readonly lane: Lane;
  readonly journal: Journal;
}

interface Context {
  readonly data: DeliveryWorkerData;
  readonly positions: SharedPositions;
  readonly followers: Followers;
  readonly send: (message: FromWorker) => void;
  /** Resolves when every lane has ended. */
  readonly ended: Promise<void>;
  /** Ends the thread. */
  readonly close: () => void;
}

/** Keeps the destinations of a spool directory, read again when a record names one that is not known yet. */
function rememberDestinations(directory: string) {
  const rows = new Map<number, Destination>();
  return {
    get: (id: number) => rows.get(id),
    async reload() {
      // Kept rows stay the same objects: a batch compares destinations by identity.
      for (const row of await readDestinations(directory)) if (!rows.has(row.id)) rows.set(row.id, row);
    },
  };
}

function eventsOf(context: Context, index: number): LaneEvents {
  const { send, followers } = context;
  return {
    released: (position) => send({ type: 'released', lane: index, position }),
    state: (state) => send({ type: 'state', lane: index, state }),
    cycle: (report) => send({ type: 'cycle', lane: index, report }),
    retry: () => send({ type: 'retry', lane: index }),
    line: (destination, line) => followers.line(destination, line),
    followed: () => followers.flush(),
    log: (level, fields, message) => send({ type: 'log', level, fields, message }),
  };
}

async function openLane(context: Context, setup: WorkerLane, index: number): Promise<OpenLane> {
  const { data, positions, send } = context;
  const journal = new Journal(openDeliveryDatabase(join(setup.spoolDirectory, DELIVERY_DB)));
  const datastore = setup.datastore.name;
  if (journal.bind(setup.spoolId)) {
    const fields = { datastore, spoolDirectory: setup.spoolDirectory };
    send({ type: 'log', level: 'error', fields, message: 'delivery.db is from another spool; delivery starts anew.' });
  }
  if (data.rebuild && journal.cursor > setup.recoveredEnd) {
    const fields = { datastore, cursor: journal.cursor, end: setup.recoveredEnd };
    send({ type: 'log', level: 'error', fields, message: 'The spool lost its end, which was delivered already.' });
    journal.rewind(setup.recoveredEnd);
  }
  const reader = await openSpoolReader(setup.spoolDirectory);
  const destinations = rememberDestinations(setup.spoolDirectory);
  await destinations.reload();
  if (data.rebuild) {
    await journal.rebuild(async () => {
      journal.ledger.addDamaged(setup.damaged, hourOf(systemClock.now()));
      journal.ledger.resetAccepted();
      const span = { from: journal.cursor, to: setup.recoveredEnd };
      for await (const counts of spooledCounts(reader, span, destinations))
        journal.ledger.add(counts.increments('accepted'));
    });
  }
  const lane = new Lane({
    datastore,
    store: await openStore(setup.datastore),
    reader,
    journal,
    spoolId: setup.spoolId,
    inlineBytes: data.inlineBytes,
    source: { committed: () => positions.committed(index), arm: () => positions.arm(index) },
    destinations,
    events: eventsOf(context, index),
    clock: systemClock,
    followed: () => context.followers.some,
  });
  return { lane, journal };
}

async function receive(context: Context, lanes: readonly OpenLane[], message: ToWorker): Promise<void> {
  const { followers, send } = context;
  switch (message.type) {
    case 'wake':
      lanes[message.lane]?.lane.wake();
      return;
    case 'counts':
      lanes[message.lane]?.journal.addCounts(message.increments, message.sequence);
      send({ type: 'counted', lane: message.lane, sequence: message.sequence });
      return;
    case 'datastore':
      lanes[message.lane]?.lane.useStore(await openStore(message.options));
      return;
    case 'follow':
      followers.add(message.id, message.filter);
      return;
    case 'unfollow':
      followers.remove(message.id);
      return;
    case 'took':
      followers.took(message.id, message.bytes);
      return;
    case 'drain':
      for (const { lane } of lanes) lane.drain();
      return;
    case 'stop':
      for (const { lane } of lanes) lane.stop();
      await context.ended;
      for (const { journal } of lanes) journal.close();
      context.close();
  }
}

async function work(port: MessagePort, data: DeliveryWorkerData): Promise<void> {
  const send = (message: FromWorker) => port.postMessage(message);
  let end = () => {};
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  const context: Context = {
    ended,
    close: () => port.close(),
    data,
    positions: new SharedPositions(data.lanes.length, data.shared),
    followers: new Followers((id, lines, bytes, missed) => send({ type: 'lines', id, lines, bytes, missed })),
    send,
  };
  const lanes: OpenLane[] = [];
  for (const [index, setup] of data.lanes.entries()) lanes.push(await openLane(context, setup, index));
  send({ type: 'ready', lanes: lanes.map(({ journal }) => ({ cursor: journal.cursor, sequence: journal.sequence })) });
  port.on('message', (message: ToWorker) => {
    receive(context, lanes, message).catch((error: unknown) => {
      send({
        type: 'log',
        level: 'error',
        fields: { error: errorText(error) },
        message: 'A message to delivery failed.',
      });
    });
  });
  await Promise.all(lanes.map(({ lane }) => lane.run()));
  end();
  send({ type: 'drained' });
}

if (parentPort) {
  const port = parentPort;
  try {
    await work(port, workerData as DeliveryWorkerData);
  } catch (error) {
    port.postMessage({ type: 'failed', message: errorText(error) } satisfies FromWorker);
    port.close();
  }
}
