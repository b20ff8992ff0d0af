/** One row of the error table: what is wrong and what the reader can do. `{name}` is filled from the parameters. */
interface ErrorRow {
  readonly message: string;
  readonly fix: string;
}

/** Every error of this package, by code. `docs/collector.md` lists the same codes, and a test holds them together. */
export const ERRORS = {
  agent_unreachable: {
    message: 'the agent at {address} does not take records ({detail}); they wait in the queue',
    fix: 'Start the agent, or check AZUREML_MDC_HOST and AZUREML_MDC_PORT. Records older than the delivery deadline are dropped.',
  },
  collection_disabled: {
    message: 'collection "{name}" is not enabled; the data is not recorded',
    fix: 'Enable it under data_collector.collections of the deployment, or pass enabled: true outside a deployment.',
  },
  collection_unknown: {
    message: 'collection "{name}" is not among those of the deployment ({known}); the data is not recorded',
    fix: 'Add it under data_collector.collections of the deployment, or correct the name.',
  },
  collector_closed: {
    message: 'the collector of "{name}" is closed; the data is not recorded',
    fix: 'Do not call collect() after close().',
  },
  configuration_invalid: {
    message: 'the setting {setting} is not valid: {detail}',
    fix: 'Correct the setting; docs/collector.md lists what each one allows.',
  },
  configuration_unreadable: {
    message: 'the configuration file {path} cannot be used: {detail}',
    fix: 'AZUREML_MDC_CONFIG_PATH must name a readable JSON file of the form {"collections":{"model_inputs":{"enabled":true}}}.',
  },
  context_invalid: {
    message: 'the correlation context is not valid: {detail}',
    fix: 'Pass what collect() returned, a BasicCorrelationContext, or an object with getId(), getTimestamp() and getHeaders().',
  },
  cyclic_value: {
    message: 'row {row} holds a value that contains itself; the data is not recorded',
    fix: 'Remove the reference from the value to itself.',
  },
  data_unreadable: {
    message: 'reading the data failed: {detail}; the data is not recorded',
    fix: 'A getter, a toJSON() or an iterator of the data threw. See the cause of this error.',
  },
  delivery_deadline: {
    message: '{count} records of "{name}" were dropped: not delivered within {deadlineMs} ms ({detail})',
    fix: 'See why the agent does not take them, or raise deliveryDeadlineMs and maxQueueBytes.',
  },
  delivery_rejected: {
    message: '{count} records of "{name}" were refused by the agent: {detail}',
    fix: 'Correct what the agent names. Refused records are not sent again.',
  },
  delivery_too_large: {
    message: '{count} records of "{name}" were dropped: larger than the agent takes ({detail})',
    fix: 'Collect fewer rows at a time, or raise the limit of the agent.',
  },
  internal: {
    message: 'unexpected failure of the sending thread: {detail}',
    fix: 'This is a defect of @modeltap/collector. Please report it with the log lines around it.',
  },
  name_missing: {
    message: 'the collection name is not provided',
    fix: "Write new Collector({ name: 'model_inputs' }).",
  },
  nested_collect: {
    message: 'collect() was called while another collect() was reading its data; the data is not recorded',
    fix: 'Do not call collect() from a getter, a toJSON() or an iterator of the data.',
  },
  nested_too_deep: {
    message: 'row {row} holds values nested more than {limit} levels deep; the data is not recorded',
    fix: 'Flatten the value, or collect it as text.',
  },
  not_configured: {
    message: 'data collection is not configured here; the data is not recorded',
    fix: 'Run inside a deployment whose data_collector enables "{name}", or pass enabled: true and the host and port of an agent.',
  },
  on_error_threw: {
    message: 'the onError function of "{name}" threw: {detail}',
    fix: 'Make onError catch its own exceptions.',
  },
  queue_full: {
    message: 'the queue is full ({limit}); the data is not recorded',
    fix: 'See why the agent takes records slower than they come, sample, or raise maxQueueBytes and maxQueueItems.',
  },
  too_many_collections: {
    message: '"{name}" would be custom collection number {count} of this process; the limit is {limit}',
    fix: 'Use fewer collections, or raise maxCollections.',
  },
  uneven_columns: {
    message: 'the columns have different lengths: {lengths}; the data is not recorded',
    fix: 'Give every column as many values as there are rows.',
  },
  unsupported_type: {
    message: 'data type ({type}) not supported; the data is not recorded',
    fix: 'Pass an array of row objects, an object of column arrays, or a data frame of apache-arrow, nodejs-polars, arquero or danfojs.',
  },
  worker_failed: {
    message: 'the sending thread failed ({detail}); {count} records were lost',
    fix: 'It is started again by itself. If this repeats, report it with the log lines around it.',
  },
} as const satisfies Record<string, ErrorRow>;

/** A code of the table. */
export type CollectorErrorCode = keyof typeof ERRORS;

/** Values for the `{name}` slots of a text. */
export type CollectorErrorParams = Readonly<Record<string, string | number>>;

/** The only error class of this package: thrown by `new Collector()` and `collect()`, or passed to `onError`. */
export class CollectorError extends Error {
  override readonly name = 'CollectorError';
  /** What happened, for programs. */
  readonly code: CollectorErrorCode;
  /** What the reader can do about it. */
  readonly fix: string;

  constructor(code: CollectorErrorCode, params: CollectorErrorParams = {}, options: { cause?: unknown } = {}) {
    const row: ErrorRow = ERRORS[code];
    super(fill(row.message, params), options);
    this.code = code;
    this.fix = fill(row.fix, params);
  }
}

/** The text of anything thrown. */
export function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function fill(text: string, params: CollectorErrorParams): string {
  return text.replace(/\{(\w+)\}/g, (slot, name: string) => (name in params ? String(params[name]) : slot));
}
