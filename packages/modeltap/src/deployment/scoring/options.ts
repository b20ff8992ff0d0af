/** What an instance process is told through its environment. */
export interface ScoringOptions {
  /** Folder of the scoring script, absolute. `AML_APP_ROOT`, default the working directory. */
  readonly appRoot: string;
  /** Script relative to it. `AZUREML_ENTRY_SCRIPT`, default `main.js`. */
  readonly entryScript: string;
  /** `run()` calls at once. `MODELTAP_MAX_CONCURRENT_REQUESTS`, default 1. */
  readonly maxConcurrent: number;
  /** Longest wait for one of them before status 429. `MODELTAP_MAX_QUEUE_WAIT_MS`, default 500. */
  readonly maxQueueWaitMs: number;
  /** Requests that may wait. `MODELTAP_MAX_QUEUED_REQUESTS`, default 1000. */
  readonly maxQueued: number;
  /** From the head of the request to the head of the answer, else status 408. `MODELTAP_REQUEST_TIMEOUT_MS`, default 5000. */
  readonly requestTimeoutMs: number;
  /** Longest `run()`, else status 500. `SCORING_TIMEOUT_MS`, default 3 600 000. */
  readonly scoringTimeoutMs: number;
  /** Largest request body, else status 413. `MODELTAP_MAX_BODY_BYTES`, default 100 MiB. */
  readonly maxBodyBytes: number;
  /** Bytes of all bodies held at once, else status 429. `MODELTAP_MAX_BUFFERED_BYTES`, default 512 MiB. */
  readonly maxBufferedBytes: number;
  /** Time to finish what is in flight after SIGTERM. `MODELTAP_STOP_DEADLINE_MS`, default 25 000. */
  readonly stopDeadlineMs: number;
}

/** Reads the options; a variable that is not a whole number ≥ 0 counts as absent. */
export function readScoringOptions(env: Readonly<Record<string, string | undefined>>, cwd: string): ScoringOptions {
  const number = (name: string, otherwise: number): number => {
    const text = env[name];
    return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : otherwise;
  };
  return {
    appRoot: env.AML_APP_ROOT || cwd,
    entryScript: env.AZUREML_ENTRY_SCRIPT || 'main.js',
    maxConcurrent: Math.max(1, number('MODELTAP_MAX_CONCURRENT_REQUESTS', 1)),
    maxQueueWaitMs: number('MODELTAP_MAX_QUEUE_WAIT_MS', 500),
    maxQueued: number('MODELTAP_MAX_QUEUED_REQUESTS', 1000),
    requestTimeoutMs: number('MODELTAP_REQUEST_TIMEOUT_MS', 5000),
    scoringTimeoutMs: number('SCORING_TIMEOUT_MS', 3_600_000),
    maxBodyBytes: number('MODELTAP_MAX_BODY_BYTES', 100 * 1024 ** 2),
    maxBufferedBytes: number('MODELTAP_MAX_BUFFERED_BYTES', 512 * 1024 ** 2),
    stopDeadlineMs: number('MODELTAP_STOP_DEADLINE_MS', 25_000),
  };
}
