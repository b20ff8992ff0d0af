import { Worker } from 'node:worker_threads';
import { errorText } from './errors.ts';
import type { FromWorker, Report, ToWorker } from './protocol.ts';

/** What a transport wants to hear. */
export interface HostListener {
  /** A new thread was started: it must be told everything again. Called before anything else is sent to it. */
  started(): void;
  /** The thread ended: what it had is lost. */
  failed(detail: string): void;
  report(report: Report): void;
  flushed(token: number): void;
}

/** Pause before a thread is started again, after the second failure within a minute; doubled each time. */
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 30_000;
const CALM_MS = 60_000;

/** The one sending thread of this process (of each thread that collects), started when first needed and again after a failure. */
export class WorkerHost {
  readonly #listeners = new Map<number, HostListener>();
  #worker: Worker | undefined;
  #referenced = 0;
  #failures = 0;
  #failedMs = 0;

  /** Adds a transport under the number that its messages carry. */
  add(transport: number, listener: HostListener): void {
    this.#listeners.set(transport, listener);
    if (this.#worker !== undefined) listener.started();
  }

  /** Starts the thread when it does not run; false while it pauses after failures. */
  start(): boolean {
    if (this.#worker !== undefined) return true;
    if (this.#pausing()) return false;
    try {
      this.#worker = this.#spawn();
    } catch (error) {
      this.#ended(undefined, errorText(error));
      return false;
    }
    for (const listener of this.#listeners.values()) listener.started();
    return true;
  }

  /** Sends a message, starting the thread first when it must; false when there is no thread to send it to. */
  send(message: ToWorker, transfer: readonly ArrayBuffer[] = []): boolean {
    if (!this.start()) return false;
    this.#worker?.postMessage(message, transfer);
    return true;
  }

  /** While held, the thread keeps the process alive: someone waits for it. */
  hold(): void {
    if (this.#referenced++ === 0) this.#worker?.ref();
  }

  /** Ends one `hold`. */
  letGo(): void {
    if (--this.#referenced === 0) this.#worker?.unref();
  }

  /** Ends the thread, for tests of what then happens. */
  async terminate(): Promise<void> {
    await this.#worker?.terminate();
  }

  #pausing(): boolean {
    if (this.#failures < 2) return false;
    const pauseMs = Math.min(FIRST_PAUSE_MS * 2 ** Math.min(this.#failures - 2, 10), LONGEST_PAUSE_MS);
    return Date.now() - this.#failedMs < pauseMs;
  }

  #spawn(): Worker {
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
    // No flags, preloaded modules or variables of the host: they are meant for its own code. Output is not piped
    // through the main thread, which may be blocked.
    const worker = new Worker(new URL(`./worker.${extension}`, import.meta.url), {
      name: 'modeltap-collector',
      execArgv: [],
      env: {},
      stdout: true,
      stderr: true,
    });
    let detail = '';
    worker.on('message', (message: FromWorker) => this.#receive(message));
    worker.on('error', (error) => {
      detail = errorText(error);
    });
    worker.on('exit', (code) => this.#ended(worker, detail === '' ? `exit code ${code}` : detail));
    if (this.#referenced === 0) worker.unref();
    return worker;
  }

  #receive(message: FromWorker): void {
    const listener = this.#listeners.get(message.transport);
    if (message.kind === 'report') listener?.report(message.report);
    else listener?.flushed(message.token);
  }

  #ended(worker: Worker | undefined, detail: string): void {
    if (this.#worker !== worker) return;
    this.#worker = undefined;
    const now = Date.now();
    this.#failures = now - this.#failedMs > CALM_MS ? 1 : this.#failures + 1;
    this.#failedMs = now;
    for (const listener of this.#listeners.values()) listener.failed(detail);
  }
}
