/** How often a collection's files roll: the depth of the time folders. Hour is the default and the one Azure ML's monitors can read. */
export type RollingRate = 'minute' | 'hour' | 'day' | 'month' | 'year';

/** Which consecutive records become one event: those of one correlation id, those of any, or none. */
export type BatchMode = 'same_id' | 'across_ids' | 'off';

/**
 * Where the records of one collection go, fixed at the moment they were accepted. Kept in the spool directory under a
 * number (`id`), so that records outlive the deployment that made them and a later change of its settings.
 */
export interface Destination {
  /** 1…2^32-1, given once, never used again for something else. */
  readonly id: number;
  readonly endpoint: string;
  readonly deployment: string;
  readonly collection: string;
  /** CloudEvents `source`: the ARM id of the deployment. */
  readonly source: string;
  /** Name of the datastore. */
  readonly datastore: string;
  /** Folder inside the datastore, without leading or trailing slash: `modelDataCollector/ep/blue/model_inputs`. */
  readonly path: string;
  readonly rollingRate: RollingRate;
  readonly batch: BatchMode;
  /** Longest time between the arrivals of the first and the last record of one event, milliseconds. */
  readonly batchWindowMs: number;
}

/** The envelope attributes that many records share. Stored once per record as JSON text with keys in this order. */
export interface RecordAttributes {
  /** CloudEvents `type`, e.g. `azureml.inference.model_inputs`, as received. */
  readonly type: string;
  readonly datacontenttype: string;
  readonly modelversion?: string;
  readonly collectdatatype?: string;
  readonly agent?: string;
  /** Official CloudEvents sampling extension: one record stands for this many. */
  readonly sampledrate?: number;
  /** Set when it differs from the correlation id. */
  readonly xrequestid?: string;
  /** Of a captured HTTP request: its path with the query. Stands in front of `contentrange`. */
  readonly path?: string;
  /** Of a captured HTTP request, behind `path`. */
  readonly method?: string;
  /** The whole value of `contentrange`, when it is not the one that follows from the length of the body. */
  readonly contentrange?: string;
  /**
   * The body in the spool is a JSON string that holds the text of the message, or it is empty: `datacontenttype` stays as
   * it is, is left out when it is empty, and an empty body makes an event without `data`.
   */
  readonly text?: true;
  /** Any other extension attributes, CloudEvents-legal names (`[a-z0-9]+`), in the order received. */
  readonly extensions?: Readonly<Record<string, string | number | boolean>>;
}

/** One accepted record as it lies in the spool. */
export interface StoredRecord {
  readonly destinationId: number;
  /** Event time, milliseconds since the epoch. Stored events show whole seconds, cut. */
  readonly timeMs: number;
  /** When the agent took it, milliseconds since the epoch. */
  readonly receivedMs: number;
  /** JSON text of `RecordAttributes`. Equal text means records may share an event. */
  readonly attributes: string;
  /** CloudEvents id given by the sender; empty: derived from the spool position. */
  readonly id: string;
  readonly correlationId: string;
  /** The body is valid JSON. Otherwise it is opaque bytes and becomes a raw object. */
  readonly json: boolean;
  /** The body is a JSON array; `rows` counts its elements. */
  readonly array: boolean;
  readonly rows: number;
  /** The body has line breaks outside strings (legal JSON, not legal in a JSONL line). */
  readonly lineBreaks: boolean;
  /** The body has `<`, `>` or `&`, which are written as `\u003c`, `\u003e`, `\u0026`. */
  readonly escapes: boolean;
  /** Length of the body as received, bytes. */
  readonly bodyBytes: number;
  /** The body, or undefined when it lies in a side file of the spool. A view: valid only as long as the chunk it was read from. */
  readonly body: Buffer | undefined;
}
