import { decodeRecord } from '../record/codec.ts';
import { hourOf } from '../record/time.ts';
import type { Destination } from '../record/types.ts';
import type { SpoolReader } from '../spool/types.ts';
import { type CollectionName, type Increment, type LedgerName, UNKNOWN_COLLECTION } from './ledger-table.ts';

const READ_BYTES = 4 * 1024 * 1024;

/** Records found in a stretch of a spool, by collection and hour. */
export class SpooledCounts {
  readonly #counts = new Map<CollectionName, Map<number, number>>();

  add(collection: CollectionName, hourMs: number): void {
    let hours = this.#counts.get(collection);
    if (!hours) {
      hours = new Map();
      this.#counts.set(collection, hours);
    }
    hours.set(hourMs, (hours.get(hourMs) ?? 0) + 1);
  }

  /** The counts as rows of the ledger. */
  *increments(name: LedgerName): Generator<Increment> {
    for (const [collection, hours] of this.#counts) {
      for (const [hourMs, by] of hours) yield { collection, hourMs, name, by };
    }
  }
}

/**
 * Counts the records in `[from, to)` of a spool, a few megabytes at a time, so that late records of many hours need no
 * more memory than one read does. A frame that cannot be decoded counts for the unknown collection and hour 0, as it will when it is dropped.
 */
export async function* spooledCounts(
  reader: SpoolReader,
  span: { readonly from: number; readonly to: number },
  destinations: { get(id: number): Destination | undefined },
): AsyncGenerator<SpooledCounts> {
  for (let from = span.from; from < span.to; ) {
    const { frames, next } = await reader.read(from, span.to, READ_BYTES);
    const counts = new SpooledCounts();
    for (const { payload } of frames) {
      const record = decodeRecord(payload);
      const destination = record && destinations.get(record.destinationId);
      counts.add(destination ?? UNKNOWN_COLLECTION, record ? hourOf(record.timeMs) : 0);
    }
    yield counts;
    if (next <= from) return;
    from = next;
  }
}
