import type { Counters } from '../kit/counters.ts';
import type { Logger } from '../kit/logger.ts';
import type { Destinations } from '../record/destinations.ts';
import type { SpoolWriter } from '../spool/types.ts';
import type { DatastoreOptions } from '../storage/store.ts';
import type { LedgerCounts } from './counts.ts';
import type { LaneState } from './lane.ts';
import type { Ledger } from './ledger.ts';
import type { CollectionFilter } from './messages.ts';

/** One spool and the datastore it is shipped to. */
export interface DeliveryLane {
  readonly datastore: DatastoreOptions;
  readonly spoolDirectory: string;
  readonly writer: SpoolWriter;
  /** The destinations of the same directory, as ingest interns them. */
  readonly destinations: Destinations;
}

/** What delivery is started with. */
export interface DeliveryOptions {
  /** At least one; names of datastores are distinct. */
  readonly lanes: readonly DeliveryLane[];
  /** Bodies above it go beside the events. Default 4 MiB. */
  readonly inlineBytes?: number;
  readonly logger: Logger;
  readonly counters: Counters;
}

/** A lane's state with what waits in its spool. */
export interface DeliveryState extends LaneState {
  /** Bytes of the spool that are committed and not yet stored or dropped. */
  readonly pendingBytes: number;
}

/** Called with stored events of a followed collection, JSON text without line feed, and how many were left out before them because the follower was slow. */
export type OnLines = (lines: readonly string[], missed: number) => void;

/** Ships spools to datastores, in a thread of its own. */
export interface Delivery {
  /** One entry a lane, in the order given. */
  state(): readonly DeliveryState[];
  readonly ledger: Ledger;
  /** Where ingest counts what goes into the spool of this datastore. `not_found` for another name. */
  counts(datastore: string): LedgerCounts;
  /** Uses these settings (new credentials) for the datastore of the same name from the next attempt on. */
  updateDatastore(options: DatastoreOptions): void;
  /** Follows collections: gives events after they are stored. `too_many_followers` beyond 100. The function it gives ends it. */
  subscribe(filter: CollectionFilter, onLines: OnLines): () => void;
  /**
   * Ships everything committed without waiting for batches to fill, for at most this long. True when nothing is left;
   * what is left stays in the spool. To be called when nothing is appended any more; follow with `stop`.
   */
  drain(deadlineMs: number): Promise<boolean>;
  /** Ends the thread. What is not shipped stays in the spools and ships at the next start. */
  stop(): Promise<void>;
}
