import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { backoffMs } from '../kit/backoff.ts';
import { errorText, ModeltapError } from '../kit/errors.ts';
import type { DatastoreOptions } from '../storage/store.ts';
import type { LedgerCounts } from './counts.ts';
import { DELIVERY_DB, openDeliveryReader } from './database.ts';
import { MAX_FOLLOWERS } from './followers.ts';
import { createLedger, type Ledger } from './ledger.ts';
import { LaneLink } from './link.ts';
import {
  type CollectionFilter,
  type DeliveryWorkerData,
  type FromWorker,
  SharedPositions,
  type ToWorker,
} from './messages.ts';
import { declareMetrics, type DeliveryMetrics } from './metrics.ts';
import type { Delivery, DeliveryOptions, DeliveryState, OnLines } from './types.ts';

const FLUSH_EVERY_MS = 1000;
/** How long a stopping thread may finish the request under way; being cut off is safe, it is only repeated. */
const STOP_GRACE_MS = 2000;

/**
 * Starts delivery. Resolves when every lane is open and the ledger agrees with the spools; rejects with `delivery_failed`
 * when a lane cannot be opened. Records may be appended to the spools meanwhile.
 */
export async function startDelivery(options: DeliveryOptions): Promise<Delivery> {
  const delivery = new DeliveryThread(options);
  await delivery.open();
  return delivery;
}

class DeliveryThread implements Delivery {
  readonly ledger: Ledger;
  readonly #options: DeliveryOptions;
  readonly #positions: SharedPositions;
  readonly #links: readonly LaneLink[];
  readonly #metrics: DeliveryMetrics;
  readonly #followers = new Map<number, { readonly filter: CollectionFilter; readonly onLines: OnLines }>();
  readonly #flushing: NodeJS.Timeout;
  #nextFollower = 1;
  #worker: Worker | undefined;
  #stopping = false;
  #drained: (() => void) | undefined;
  #crashes = 0;

  constructor(options: DeliveryOptions) {
    this.#options = options;
    this.#positions = new SharedPositions(options.lanes.length);
    this.#links = options.lanes.map(
      (lane, index) =>
        new LaneLink({
          lane,
          index,
          positions: this.#positions,
          post: (message) => this.#post(message),
          logger: options.logger,
        }),
    );
    this.#metrics = declareMetrics(options.counters, () => this.state());
    this.ledger = createLedger(this.#links);
    this.#flushing = setInterval(() => this.#flush(), FLUSH_EVERY_MS).unref();
  }

  async open(): Promise<void> {
    try {
      await this.#spawn(true);
    } catch (error) {
      clearInterval(this.#flushing);
      this.#metrics.close();
      throw error;
    }
    for (const link of this.#links) {
      link.database = openDeliveryReader(join(link.spoolDirectory, DELIVERY_DB));
    }
  }

  state(): readonly DeliveryState[] {
    return this.#links.map((link) => link.state);
  }

  counts(datastore: string): LedgerCounts {
    return this.#link(datastore).counts;
  }

  updateDatastore(options: DatastoreOptions): void {
    const link = this.#link(options.name);
    link.datastore = options;
    this.#post({ type: 'datastore', lane: link.index, options });
  }

  subscribe(filter: CollectionFilter, onLines: OnLines): () => void {
    if (this.#followers.size >= MAX_FOLLOWERS) throw new ModeltapError('too_many_followers', { limit: MAX_FOLLOWERS });
    const id = this.#nextFollower;
    this.#nextFollower += 1;
    this.#followers.set(id, { filter, onLines });
    this.#post({ type: 'follow', id, filter });
    return () => {
      if (this.#followers.delete(id)) this.#post({ type: 'unfollow', id });
    };
  }

  async drain(deadlineMs: number): Promise<boolean> {
    this.#flush();
    const cut = new AbortController();
    const drained = new Promise<void>((resolve) => {
      this.#drained = resolve;
    });
    this.#post({ type: 'drain' });
    await Promise.race([drained, delay(deadlineMs, undefined, { signal: cut.signal }).catch(() => undefined)]);
    cut.abort();
    this.#flush();
    return this.state().every((lane) => lane.pendingBytes === 0);
  }

  async stop(): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    clearInterval(this.#flushing);
    this.#flush();
    const worker = this.#worker;
    if (worker) {
      const exited = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
      this.#post({ type: 'stop' });
      const cut = new AbortController();
      await Promise.race([exited, delay(STOP_GRACE_MS, undefined, { signal: cut.signal }).catch(() => undefined)]);
      cut.abort();
      await worker.terminate();
    }
    this.#metrics.close();
    for (const link of this.#links) await link.close();
  }

  #link(datastore: string): LaneLink {
    const link = this.#links.find((one) => one.datastore.name === datastore);
    if (!link) throw new ModeltapError('not_found', { kind: 'datastore', name: datastore, command: 'datastore' });
    return link;
  }

  #post(message: ToWorker): void {
    this.#worker?.postMessage(message);
  }

  #flush(): void {
    for (const link of this.#links) {
      this.#metrics.accepted(link.datastore.name, link.takeTotals());
      link.flush();
    }
  }

  /** Starts the thread and waits until its lanes are open. */
  async #spawn(rebuild: boolean): Promise<void> {
    const file = import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js';
    const workerData: DeliveryWorkerData = {
      lanes: this.#links.map((link) => link.setup()),
      inlineBytes: this.#options.inlineBytes ?? 4 * 1024 * 1024,
      shared: this.#positions.buffer,
      rebuild,
    };
    const worker = new Worker(new URL(file, import.meta.url), { workerData, name: 'delivery' });
    await new Promise<void>((resolve, reject) => {
      let opened = false;
      let cause: unknown;
      worker.on('message', (message: FromWorker) => {
        if (message.type === 'failed') cause = message.message;
        else if (message.type === 'ready') {
          opened = true;
          this.#worker = worker;
          this.#ready(message.lanes);
          resolve();
        } else this.#receive(message);
      });
      worker.on('error', (error) => {
        cause = error;
      });
      worker.on('exit', (code) => {
        if (this.#worker === worker) this.#worker = undefined;
        const detail = cause === undefined ? `the delivery thread ended with code ${code}` : errorText(cause);
        if (!opened) reject(new ModeltapError('delivery_failed', { detail }));
        else if (!this.#stopping) void this.#respawn(detail);
      });
    });
  }

  /** Starts the thread again after it died: everything it needs to go on is in files. */
  async #respawn(detail: string): Promise<void> {
    for (let why = detail; !this.#stopping; ) {
      this.#crashes += 1;
      this.#options.logger.error(
        { detail: why, crashes: this.#crashes },
        'The delivery thread ended; starting it again.',
      );
      for (const link of this.#links) link.failed(why);
      await delay(backoffMs(this.#crashes, { minMs: 500 }), undefined, { ref: false });
      try {
        if (!this.#stopping) await this.#spawn(false);
        return;
      } catch (error) {
        why = errorText(error);
      }
    }
  }

  #ready(lanes: readonly { readonly cursor: number; readonly sequence: number }[]): void {
    for (const [index, { cursor, sequence }] of lanes.entries()) this.#links[index]?.ready(cursor, sequence);
    for (const [id, { filter }] of this.#followers) this.#post({ type: 'follow', id, filter });
  }

  #receive(message: Exclude<FromWorker, { type: 'ready' | 'failed' }>): void {
    switch (message.type) {
      case 'released':
        this.#links[message.lane]?.release(message.position);
        return;
      case 'state':
        if (message.state.status === 'ok') this.#crashes = 0;
        this.#links[message.lane]?.noteState(message.state);
        return;
      case 'cycle':
        this.#metrics.cycle(this.#links[message.lane]?.datastore.name ?? '', message.report);
        return;
      case 'retry':
        this.#metrics.retry(this.#links[message.lane]?.datastore.name ?? '');
        return;
      case 'counted':
        this.#links[message.lane]?.counted(message.sequence);
        return;
      case 'lines':
        this.#lines(message);
        return;
      case 'log':
        this.#options.logger[message.level](message.fields, message.message);
        return;
      case 'drained':
        this.#drained?.();
    }
  }

  #lines(message: Extract<FromWorker, { type: 'lines' }>): void {
    const follower = this.#followers.get(message.id);
    if (!follower) return;
    try {
      follower.onLines(message.lines, message.missed);
    } catch (error) {
      this.#options.logger.warn({ error: errorText(error) }, 'A follower of a collection failed.');
    }
    this.#post({ type: 'took', id: message.id, bytes: message.bytes });
  }
}
