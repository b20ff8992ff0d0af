import type { CollectorError } from './errors.ts';

/** What one collection is set to. */
export interface CollectionOptions {
  /** Default true. */
  readonly enabled?: boolean | undefined;
  /** Part of the correlation ids that is kept, 0…1. Default 1. */
  readonly samplingRate?: number | undefined;
}

/** What `new Collector()` takes. Inside a deployment only `name` and `onError` are needed: the rest comes from the environment. */
export interface CollectorOptions {
  /** The collection: `model_inputs`, `model_outputs`, or a name of your own. Compared without regard to case. */
  readonly name: string;
  /**
   * Takes every failure. Without it the constructor and `collect()` throw for what the caller did, and delivery
   * failures are only logged. With it nothing is thrown.
   */
  readonly onError?: ((error: CollectorError) => void) | undefined;
  /** Turns this collection on or off whatever the environment says. */
  readonly enabled?: boolean | undefined;
  /** The collections of a deployment, instead of the configuration file. */
  readonly collections?: Readonly<Record<string, boolean | CollectionOptions>> | undefined;
  /** Part of the correlation ids that is kept, 0…1. */
  readonly samplingRate?: number | undefined;
  /** Address of the agent. Default: AZUREML_MDC_HOST, else 127.0.0.1. */
  readonly host?: string | undefined;
  /** Port of the agent. Default: AZUREML_MDC_PORT, else 50011. */
  readonly port?: number | undefined;
  /** Most bytes waiting to be sent, in packed form. Default 64 MiB, at most 1 GiB. */
  readonly maxQueueBytes?: number | undefined;
  /** Most records waiting to be sent. Default 100 000. */
  readonly maxQueueItems?: number | undefined;
  /** A record that cannot be delivered for this long is dropped. Default 60 000. */
  readonly deliveryDeadlineMs?: number | undefined;
  /** Longest wait for queued records when the process ends. Default 5 000; 1 000 on a plain `process.exit()`. */
  readonly flushTimeoutMs?: number | undefined;
  /** Most distinct custom collections in this process; `request` and `response` do not count. Default 5, at most 250. */
  readonly maxCollections?: number | undefined;
  /** Stored as `modelversion`. Default `default`. */
  readonly modelVersion?: string | undefined;
  /** CloudEvents `source`. Default `/modeltap/collector`; an agent that knows the deployment replaces it. */
  readonly source?: string | undefined;
  /** The environment read. Default `process.env`. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
}

/** Records dropped, by reason. */
export interface DroppedRecords {
  /** Refused at the call, because the queue was full. Not part of `accepted`. */
  readonly queue_full: number;
  /** Refused by the agent. */
  readonly rejected: number;
  /** Not delivered in time. */
  readonly deadline: number;
  /** Larger than the agent takes. */
  readonly too_large: number;
  /** Lost with the sending thread. */
  readonly worker_failed: number;
}

/**
 * What became of the records since the process started:
 * `accepted = sent + pending + dropped.rejected + dropped.deadline + dropped.too_large + dropped.worker_failed`.
 */
export interface FlushResult {
  /** Taken by `collect()` into the queue. */
  readonly accepted: number;
  /** Acknowledged by the agent. */
  readonly sent: number;
  /** Still waiting: more than 0 only when the time ran out. */
  readonly pending: number;
  /** Left out by sampling. Not part of `accepted`. */
  readonly sampled: number;
  readonly dropped: DroppedRecords;
}

/** What `flush()` takes. */
export interface FlushOptions {
  /** Longest wait. Default: the `flushTimeoutMs` of the collector. */
  readonly timeoutMs?: number | undefined;
}
