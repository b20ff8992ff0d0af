import { type Counters, SECONDS_BUCKETS } from '../kit/counters.ts';
import type { CountsBuffer } from './counts.ts';
import type { CycleReport } from './lane.ts';
import type { DeliveryState } from './types.ts';

/** Records what delivery does, for Prometheus. */
export interface DeliveryMetrics {
  accepted(datastore: string, totals: ReturnType<CountsBuffer['takeTotals']>): void;
  cycle(datastore: string, report: CycleReport): void;
  retry(datastore: string): void;
  /** Takes these lanes out of the gauges. */
  close(): void;
}

type ReadState = () => readonly DeliveryState[];

/** The deliveries behind the gauges of one set of metrics: a gauge is declared once, whoever comes and goes. */
const sources = new WeakMap<Counters, Set<ReadState>>();

function declareGauges(counters: Counters, states: ReadonlySet<ReadState>): void {
  const gauge = (name: string, help: string, read: (lane: DeliveryState) => number) =>
    counters.gauge(`modeltap_${name}`, help, ['datastore'], () =>
      [...states].flatMap((state) => state()).map((lane) => [{ datastore: lane.datastore }, read(lane)] as const),
    );
  gauge('spooled_bytes', 'Bytes accepted and not yet stored or dropped.', (lane) => lane.pendingBytes);
  gauge('datastore_up', '1 when the last attempt to store records worked, else 0.', (lane) =>
    lane.status === 'ok' ? 1 : 0,
  );
  gauge('oldest_unsent_seconds', 'Age of the oldest record not yet stored.', (lane) =>
    lane.oldestUnsentMs === undefined ? 0 : Math.max(0, Date.now() - lane.oldestUnsentMs) / 1000,
  );
  gauge('datastore_conflicts', 'Times another writer was found on a collection file.', (lane) => lane.conflicts);
}

/** Declares the metrics; several deliveries may share one set. `state` is asked at scrape time. */
export function declareMetrics(counters: Counters, state: ReadState): DeliveryMetrics {
  const count = (name: string, help: string, ...labels: string[]) =>
    counters.counter(`modeltap_${name}_total`, help, ['datastore', ...labels]);
  const accepted = count('records_accepted', 'Records made durable in the spool.');
  const acceptedRows = count('rows_accepted', 'Rows of the records made durable in the spool.');
  const acceptedBytes = count('bytes_accepted', 'Bytes of body of the records made durable in the spool.');
  const rejected = count('records_rejected', 'Records refused, by error code.', 'code');
  const stored = count('records_stored', 'Records stored in the datastore.');
  const storedRows = count('rows_stored', 'Rows of the records stored.');
  const storedBytes = count('bytes_stored', 'Bytes of body of the records stored.');
  const dropped = count('records_dropped', 'Accepted records that could not be stored, by reason.', 'reason');
  const retries = count('delivery_retries', 'Failed attempts to store records.');
  const batchSeconds = counters.histogram(
    'modeltap_batch_seconds',
    'Time to read a stretch of the spool and make its lines.',
    SECONDS_BUCKETS,
    ['datastore'],
  );
  const uploadSeconds = counters.histogram(
    'modeltap_upload_seconds',
    'Time to write a batch to the datastore.',
    SECONDS_BUCKETS,
    ['datastore'],
  );
  let states = sources.get(counters);
  if (!states) {
    states = new Set();
    sources.set(counters, states);
    declareGauges(counters, states);
  }
  states.add(state);
  return {
    accepted(datastore, { records, rows, bytes, rejections }) {
      if (records > 0) {
        accepted.inc({ datastore }, records);
        acceptedRows.inc({ datastore }, rows);
        acceptedBytes.inc({ datastore }, bytes);
      }
      for (const [code, by] of rejections) rejected.inc({ datastore, code }, by);
    },
    cycle(datastore, report) {
      stored.inc({ datastore }, report.records);
      storedRows.inc({ datastore }, report.rows);
      storedBytes.inc({ datastore }, report.bytes);
      for (const [reason, by] of report.dropped) dropped.inc({ datastore, reason }, by);
      batchSeconds.observe(report.batchMs / 1000, { datastore });
      uploadSeconds.observe(report.uploadMs / 1000, { datastore });
    },
    retry: (datastore) => retries.inc({ datastore }),
    close: () => states.delete(state),
  };
}
