import { isMainThread } from 'node:worker_threads';
import { isPayloadCollection, type Settings } from './configuration.ts';
import { CollectorError } from './errors.ts';
import { FailureLog } from './log.ts';
import type { FlushResult } from './options.ts';
import { Transport } from './transport.ts';
import { VERSION } from './version.ts';
import { WorkerHost } from './worker-host.ts';

/** Wait at the end of the process. */
const FLUSH_TIMEOUT_MS = 5000;
/** The same on `process.exit()`, where nothing else can happen meanwhile. */
const EXIT_TIMEOUT_MS = 1000;
const DEFAULT_MAX_COLLECTIONS = 5;
const REGISTRY = Symbol.for('@modeltap/collector');

/** What all collectors of this thread share, also when the package was loaded several times. */
export class Registry {
  readonly log = new FailureLog();
  readonly #host = new WorkerHost();
  readonly #transports = new Map<string, Transport>();
  readonly #customNames = new Set<string>();
  #maxCollections = DEFAULT_MAX_COLLECTIONS;
  /** A flush at the end of the process ran out of time: the records that are left are not waited for again. */
  #gaveUp = false;

  /** The queue for these settings, made when it is new. Throws `too_many_collections`. */
  transport(settings: Settings): Transport {
    this.#admit(settings);
    const { host, port, local } = settings;
    if (settings.debug) this.log.debug = true;
    const key = local ? 'local' : `${host}:${port}`;
    let transport = this.#transports.get(key);
    if (transport === undefined) {
      if (this.#transports.size === 0) this.#watchEnd();
      const id = this.#transports.size;
      transport = new Transport({ host, port, local }, { id, host: this.#host, log: this.log });
      this.#transports.set(key, transport);
    }
    transport.configure(settings.limits);
    return transport;
  }

  /** Flushes every queue; `timeoutMs` holds for all together. */
  async flush(timeoutMs?: number): Promise<FlushResult> {
    await this.#flushAll(timeoutMs, false);
    return sum([...this.#transports.values()].map((each) => each.result()));
  }

  /** The sending thread. */
  get host(): WorkerHost {
    return this.#host;
  }

  #admit({ name, maxCollections }: Settings): void {
    if (maxCollections !== undefined) this.#maxCollections = maxCollections;
    if (isPayloadCollection(name) || this.#customNames.has(name)) return;
    if (this.#customNames.size >= this.#maxCollections) {
      const params = { name, count: this.#customNames.size + 1, limit: this.#maxCollections };
      throw new CollectorError('too_many_collections', params);
    }
    this.#customNames.add(name);
  }

  /** Nothing waits any more, or it was waited for in vain. */
  #settled(): boolean {
    return this.#gaveUp || [...this.#transports.values()].every((each) => each.settled);
  }

  #pending(): number {
    let pending = 0;
    for (const transport of this.#transports.values()) pending += transport.pending;
    return pending;
  }

  async #flushAll(timeoutMs: number | undefined, hurry: boolean): Promise<boolean> {
    const done = await Promise.all(
      [...this.#transports.values()].map((each) =>
        each.flush(timeoutMs ?? each.flushTimeoutMs ?? FLUSH_TIMEOUT_MS, hurry),
      ),
    );
    return done.every(Boolean);
  }

  /** The flush when the process wants to end. Records that come while it runs are not those it gave up. */
  async #lastFlush(): Promise<void> {
    if (!(await this.#flushAll(undefined, true))) this.#gaveUp = true;
  }

  #watchEnd(): void {
    process.on('beforeExit', () => {
      if (!this.#settled()) void this.#lastFlush();
    });
    process.on('exit', () => this.#atExit());
    if (isMainThread) this.#watchSigterm();
  }

  /** The process ends with the last line of this: the thread sends, this one waits. */
  #atExit(): void {
    if (!this.#gaveUp) {
      const started = Date.now();
      for (const transport of this.#transports.values()) {
        const limitMs = transport.flushTimeoutMs ?? EXIT_TIMEOUT_MS;
        transport.flushBlocking(Math.max(0, limitMs - (Date.now() - started)));
      }
    }
    const left = this.#pending();
    if (left > 0) process.stderr.write(`modeltap collector: the process ends with ${left} records not delivered\n`);
  }

  /** Flushes, then lets the signal do what it would have done without this listener. */
  #watchSigterm(): void {
    const listener = () => {
      void this.#lastFlush().then(() => {
        process.off('SIGTERM', listener);
        // Another listener decides how the process ends. Copies of this package take theirs off too: the last one ends it.
        if (process.listenerCount('SIGTERM') === 0) process.kill(process.pid, 'SIGTERM');
      });
    };
    process.on('SIGTERM', listener);
  }
}

/** The registry of this thread. Copies of the same version share it; other versions have their own. */
export function registry(): Registry {
  const store = globalThis as { [REGISTRY]?: Map<string, Registry> };
  store[REGISTRY] ??= new Map();
  let found = store[REGISTRY].get(VERSION);
  if (found === undefined) {
    found = new Registry();
    store[REGISTRY].set(VERSION, found);
  }
  return found;
}

function sum(results: readonly FlushResult[]): FlushResult {
  const total = (read: (result: FlushResult) => number) => results.reduce((all, result) => all + read(result), 0);
  return {
    accepted: total((result) => result.accepted),
    sent: total((result) => result.sent),
    pending: total((result) => result.pending),
    sampled: total((result) => result.sampled),
    dropped: {
      queue_full: total((result) => result.dropped.queue_full),
      rejected: total((result) => result.dropped.rejected),
      deadline: total((result) => result.dropped.deadline),
      too_large: total((result) => result.dropped.too_large),
      worker_failed: total((result) => result.dropped.worker_failed),
    },
  };
}
