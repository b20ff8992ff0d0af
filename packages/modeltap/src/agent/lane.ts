import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { startDelivery } from '../delivery/start.ts';
import type { Delivery } from '../delivery/types.ts';
import type { Counters } from '../kit/counters.ts';
import type { Logger } from '../kit/logger.ts';
import { decodeRecord } from '../record/codec.ts';
import { openDestinations, type Destinations } from '../record/destinations.ts';
import type { StoredRecord } from '../record/types.ts';
import { openSpool, scanKept } from '../spool/spool.ts';
import type { SpoolWriter } from '../spool/types.ts';
import type { DatastoreOptions } from '../storage/store.ts';

/** Side files read at start to recognise their events when they are sent again: the newest, and so many bytes of them. */
const MAX_SIDE_FILES_READ = 64;
const MAX_SIDE_BYTES_READ = 256 * 1024 * 1024;

/** What a datastore needs to be written to: its spool, the destinations of the records in it, and what ships it. */
export interface AgentLane {
  readonly datastore: string;
  readonly writer: SpoolWriter;
  readonly destinations: Destinations;
  readonly delivery: Delivery;
  /** Ships what is spooled until the deadline, then closes. What is left ships at the next start. */
  close(deadlineMs: number): Promise<void>;
}

/** What a lane is opened with. */
export interface LaneSetup {
  readonly datastore: DatastoreOptions;
  /** Folder of all spools; the lane's is the one named like the datastore. */
  readonly directory: string;
  readonly maxBytes: number;
  readonly inlineBytes: number;
  readonly logger: Logger;
  readonly counters: Counters;
  /**
   * Given every record of an earlier run that is still on disk and has an id of its sender, before anything is shipped;
   * `crc` for one whose body is in a side file. Of those only the newest are given, so that the agent starts soon.
   */
  readonly remember: (writer: SpoolWriter, record: StoredRecord, crc?: number) => void;
}

/** Opens the spool, recovers it, and starts shipping. `spool_locked` when another agent has it. */
export async function openLane(setup: LaneSetup): Promise<AgentLane> {
  const { datastore, logger, counters } = setup;
  const spoolDirectory = join(setup.directory, datastore.name);
  const writer = await openSpool({ directory: spoolDirectory, maxBytes: setup.maxBytes });
  try {
    reportRecovery(datastore.name, writer, logger);
    await rememberKept(setup, writer, spoolDirectory);
    const destinations = await openDestinations(spoolDirectory);
    const delivery = await startDelivery({
      lanes: [{ datastore, spoolDirectory, writer, destinations }],
      inlineBytes: setup.inlineBytes,
      logger,
      counters,
    });
    return {
      datastore: datastore.name,
      writer,
      destinations,
      delivery,
      async close(deadlineMs) {
        await delivery.drain(deadlineMs);
        await delivery.stop();
        await writer.close();
      },
    };
  } catch (error) {
    await writer.close();
    throw error;
  }
}

async function rememberKept(setup: LaneSetup, writer: SpoolWriter, spoolDirectory: string): Promise<void> {
  const beside: { readonly record: StoredRecord; readonly path: string }[] = [];
  for await (const { payload, sideFile, position } of scanKept(spoolDirectory, writer.committed)) {
    const record = decodeRecord(payload);
    if (record === undefined || record.id === '') continue;
    if (sideFile === undefined) setup.remember(writer, record);
    else if (position >= writer.released) {
      beside.push({ record, path: sideFile });
      if (beside.length > MAX_SIDE_FILES_READ) beside.shift();
    }
  }
  let left = MAX_SIDE_BYTES_READ;
  for (const { record, path } of beside.toReversed()) {
    left -= record.bodyBytes;
    if (left < 0) return;
    const crc = await fileCrc(path, record.bodyBytes);
    if (crc !== undefined) setup.remember(writer, record, crc);
  }
}

/** CRC-32 of a file of this length; undefined when it has another or cannot be read. */
async function fileCrc(path: string, bytes: number): Promise<number | undefined> {
  let crc = 0;
  let seen = 0;
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 256 * 1024 }) as AsyncIterable<Buffer>) {
      crc = crc32(chunk, crc);
      seen += chunk.length;
    }
  } catch {
    // Gone when its record was delivered just before a crash; anything else is for delivery to say, not a reason not to start.
    return undefined;
  }
  return seen === bytes ? crc : undefined;
}

function reportRecovery(datastore: string, { recovery }: SpoolWriter, logger: Logger): void {
  const { frames, tornBytes, damaged, orphanSideFiles } = recovery;
  const fields = { datastore, frames, tornBytes, damaged, orphanSideFiles };
  if (damaged.length > 0)
    logger.error(fields, 'the disk lost part of the spool: the damaged stretches are skipped and counted');
  else if (frames > 0 || tornBytes > 0) logger.info(fields, 'the spool of the last run was read back');
}
