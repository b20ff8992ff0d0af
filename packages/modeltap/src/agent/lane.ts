import { join } from 'node:path';
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
  /** Given every record of an earlier run that is still on disk and has an id of its sender, before anything is shipped. */
  readonly remember: (writer: SpoolWriter, record: StoredRecord) => void;
}

/** Opens the spool, recovers it, and starts shipping. `spool_locked` when another agent has it. */
export async function openLane(setup: LaneSetup): Promise<AgentLane> {
  const { datastore, logger, counters } = setup;
  const spoolDirectory = join(setup.directory, datastore.name);
  const writer = await openSpool({ directory: spoolDirectory, maxBytes: setup.maxBytes });
  try {
    reportRecovery(datastore.name, writer, logger);
    for await (const { payload } of scanKept(spoolDirectory, writer.committed)) {
      const record = decodeRecord(payload);
      if (record !== undefined && record.id !== '') setup.remember(writer, record);
    }
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

function reportRecovery(datastore: string, { recovery }: SpoolWriter, logger: Logger): void {
  const { frames, tornBytes, damaged, orphanSideFiles } = recovery;
  const fields = { datastore, frames, tornBytes, damaged, orphanSideFiles };
  if (damaged.length > 0)
    logger.error(fields, 'the disk lost part of the spool: the damaged stretches are skipped and counted');
  else if (frames > 0 || tornBytes > 0) logger.info(fields, 'the spool of the last run was read back');
}
