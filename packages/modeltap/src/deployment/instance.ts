import type { ProbeConfig } from '../config/types.ts';
import { backoffMs } from '../kit/backoff.ts';
import { type Clock, systemClock } from '../kit/clock.ts';
import { errorText } from '../kit/errors.ts';
import { Child, type ProcessExit, type Spawn } from './child.ts';
import type { InstanceLog } from './instance-log.ts';
import type { ProcessSpec } from './process-spec.ts';
import { probe } from './probe.ts';

/**
 * `starting` → `ready`, which may become `unready` (readiness probe) and `ready` again; a process that ends is in
 * `backoff` until it is started again; `failed` never became ready and is not started again.
 */
export type InstanceState = 'starting' | 'ready' | 'unready' | 'backoff' | 'failed' | 'stopping' | 'stopped';

/** One instance as shown to people. Times are ISO 8601, UTC. */
export interface InstanceStatus {
  readonly name: string;
  readonly state: InstanceState;
  /** When the state began. */
  readonly since: string;
  readonly pid?: number;
  readonly port?: number;
  /** Times the process was started again. */
  readonly restarts: number;
  /** Requests in flight. */
  readonly inFlight: number;
  readonly lastExit?: { readonly text: string; readonly at: string };
}

/** Things of the outside world; every one has a real default. */
export interface InstanceEffects {
  readonly spawn?: Spawn;
  readonly clock?: Clock;
  readonly random?: () => number;
}

/** What stands before an instance: requests go to its port, and from there to the instance. */
export interface InstanceFront {
  readonly port: number;
  /** The instance has ended. */
  close(): void;
}

/** What an instance is made of. */
export interface InstanceOptions {
  readonly name: string;
  readonly plan: ProcessSpec;
  readonly environment: Readonly<Record<string, string>>;
  readonly liveness: ProbeConfig;
  readonly readiness: ProbeConfig;
  readonly log: InstanceLog;
  /** From SIGTERM to SIGKILL for a process that a probe has given up on. */
  readonly killDeadlineMs: number;
  readonly effects: InstanceEffects;
  /** Called each time it has become ready. */
  readonly onReady?: () => void;
  /** Opens what requests pass on their way to the process on this port; asked for every process. Absent: nothing. */
  readonly front?: (port: number) => Promise<InstanceFront>;
}

/** Exit code of a model server that cannot load or initialise its model: starting it again would not help. */
const EXIT_INIT = 3;
/** Other deaths before an instance was ever ready. */
const MAX_FAILED_STARTS = 3;
/** A process that has run this long was well: the next restart is quick again. */
const STABLE_MS = 60_000;
/** From SIGTERM to SIGKILL for a process that never became ready, at most. */
const NEVER_READY_STOP_MS = 2000;
/** Lines of output that go with a failure. */
const FAILURE_LINES = 20;
/** Why an instance did not become ready. */
export interface StartFailure {
  readonly reason: string;
  /** Its last lines, oldest first, at most 20. */
  readonly lines: readonly string[];
}

/** Keeps one process of a deployment running: probes it, restarts it with growing delays, stops it. */
export class Instance {
  /** Requests in flight, counted by whoever hands out leases. */
  inFlight = 0;
  readonly #options: InstanceOptions;
  readonly #clock: Clock;
  readonly #stop = new AbortController();
  #state: InstanceState = 'starting';
  #since: number;
  #child: Child | undefined;
  #port: number | undefined;
  #front: InstanceFront | undefined;
  #restarts = 0;
  #everReady = false;
  #lastExit: { text: string; at: string } | undefined;
  /** Set by the probe that asked for the end of the process. */
  #killReason: string | undefined;
  #loop: Promise<void> | undefined;

  constructor(options: InstanceOptions) {
    this.#options = options;
    this.#clock = options.effects.clock ?? systemClock;
    this.#since = this.#clock.now();
  }

  /** The port to send requests to; undefined unless the instance is ready. */
  get readyPort(): number | undefined {
    return this.#state === 'ready' ? (this.#front?.port ?? this.#port) : undefined;
  }

  /** Starts it. Resolves with undefined when it is ready the first time, or with why it will not be. */
  start(): Promise<StartFailure | undefined> {
    return new Promise((resolve) => {
      this.#loop = this.#supervise(resolve).catch((error: unknown) => {
        this.#become('failed');
        resolve({ reason: errorText(error), lines: [] });
      });
    });
  }

  status(): InstanceStatus {
    const pid = this.#child?.pid;
    return {
      name: this.#options.name,
      state: this.#state,
      since: new Date(this.#since).toISOString(),
      ...(pid === undefined ? {} : { pid }),
      ...(this.#port === undefined ? {} : { port: this.#port }),
      restarts: this.#restarts,
      inFlight: this.inFlight,
      ...(this.#lastExit === undefined ? {} : { lastExit: this.#lastExit }),
    };
  }

  /** Stops it for good: SIGTERM, and SIGKILL to its process group after the deadline. */
  async stop(deadlineMs: number): Promise<void> {
    if (this.#state !== 'failed') this.#become('stopping');
    this.#stop.abort();
    await this.#child?.stop(deadlineMs);
    await this.#loop;
    if (this.#state !== 'failed') this.#become('stopped');
  }

  async #supervise(settle: (failure: StartFailure | undefined) => void): Promise<void> {
    const { effects } = this.#options;
    let attempt = 0;
    while (!this.#stop.signal.aborted) {
      const began = this.#clock.monotonic();
      const { pid, exit, reason } = await this.#runOnce(() => settle(undefined));
      if (this.#stop.signal.aborted) break;
      this.#say(pid, reason);
      if (this.#clock.monotonic() - began > STABLE_MS) attempt = 0;
      attempt += 1;
      if (!this.#everReady && isHopeless(exit, this.#killReason !== undefined, attempt)) {
        this.#become('failed');
        settle(this.#explain(pid, reason));
        return;
      }
      this.#become('backoff');
      const delay = backoffMs(attempt - 1, { minMs: 200, maxMs: 30_000, ...pick(effects.random) });
      await this.#clock.sleep(delay, { signal: this.#stop.signal });
      if (!this.#stop.signal.aborted) this.#restarts += 1;
    }
    settle({ reason: 'it was stopped', lines: [] });
  }

  async #runOnce(onReady: () => void): Promise<{ pid: number; exit: ProcessExit; reason: string }> {
    const { plan, environment, log, effects } = this.#options;
    const child = new Child({ ...plan, environment, log, ...effects });
    const pid = child.pid ?? 0;
    const over = new AbortController();
    this.#child = child;
    this.#killReason = undefined;
    this.#become('starting');
    const watches = Promise.all([
      child.listening.then((port) => this.#watch(child, port, { signal: over.signal, onReady })),
      this.#limitStart(child, over.signal),
    ]);
    watches.catch((error: unknown) => this.#say(pid, `its probes have ended: ${errorText(error)}`));
    const exit = await child.exited;
    over.abort();
    this.#child = undefined;
    this.#port = undefined;
    this.#front?.close();
    this.#front = undefined;
    const reason = this.#killReason ?? exit.text;
    this.#lastExit = { text: reason, at: new Date(this.#clock.now()).toISOString() };
    return { pid, exit, reason };
  }

  async #watch(child: Child, port: number, run: { signal: AbortSignal; onReady: () => void }): Promise<void> {
    if (run.signal.aborted) return;
    this.#port = port;
    if (!(await this.#openFront(child, port, run.signal))) return;
    await Promise.all([this.#checkReadiness(child, run), this.#checkLiveness(child, run.signal)]);
  }

  /** False: it cannot serve. A version that never served is given up with the reason, one that did serves without. */
  async #openFront(child: Child, port: number, signal: AbortSignal): Promise<boolean> {
    try {
      const front = await this.#options.front?.(port);
      if (!signal.aborted) this.#front = front;
      else front?.close();
    } catch (error) {
      if (!this.#everReady) {
        await this.#give(child, errorText(error));
        return false;
      }
      this.#say(child.pid ?? 0, `its requests and answers are not collected: ${errorText(error)}`);
    }
    return !signal.aborted;
  }

  /** A process that tells its port is asked at once: `initial_delay` is for servers that cannot tell. */
  async #checkReadiness(child: Child, run: { signal: AbortSignal; onReady: () => void }): Promise<void> {
    const { readiness } = this.#options;
    let passed = 0;
    let failed = 0;
    while (!run.signal.aborted && !this.#stop.signal.aborted) {
      const well = await this.#probe(readiness);
      if (run.signal.aborted || this.#stop.signal.aborted) return;
      passed = well ? passed + 1 : 0;
      failed = well ? 0 : failed + 1;
      if (this.#state !== 'ready' && passed >= readiness.successThreshold) {
        this.#become('ready');
        this.#everReady = true;
        run.onReady();
        this.#options.onReady?.();
      } else if (this.#state === 'ready' && failed >= readiness.failureThreshold) {
        this.#say(child.pid ?? 0, `readiness probe failed ${failed} times: no requests until it passes again`);
        this.#become('unready');
      }
      await this.#clock.sleep(readiness.period * 1000, { signal: run.signal });
    }
  }

  async #checkLiveness(child: Child, signal: AbortSignal): Promise<void> {
    const { liveness } = this.#options;
    let failed = 0;
    await this.#clock.sleep(liveness.initialDelay * 1000, { signal });
    while (!signal.aborted && !this.#stop.signal.aborted) {
      failed = (await this.#probe(liveness)) ? 0 : failed + 1;
      if (failed >= liveness.failureThreshold && !signal.aborted) {
        await this.#give(child, `liveness probe failed ${failed} times`);
        return;
      }
      await this.#clock.sleep(liveness.period * 1000, { signal });
    }
  }

  /** The budget of the readiness probe: its first delay and every failure it allows. */
  async #limitStart(child: Child, signal: AbortSignal): Promise<void> {
    const { initialDelay, period, failureThreshold } = this.#options.readiness;
    const seconds = initialDelay + period * failureThreshold;
    await this.#clock.sleep(seconds * 1000, { signal });
    if (signal.aborted || this.#state !== 'starting') return;
    // It has no request to finish.
    const deadlineMs = Math.min(NEVER_READY_STOP_MS, this.#options.killDeadlineMs);
    await this.#give(child, `not ready within ${seconds} s (readiness_probe)`, deadlineMs);
  }

  async #give(child: Child, reason: string, deadlineMs = this.#options.killDeadlineMs): Promise<void> {
    if (this.#stop.signal.aborted) return;
    this.#killReason = reason;
    await child.stop(deadlineMs);
  }

  #probe(config: ProbeConfig): Promise<boolean> {
    if (this.#port === undefined) return Promise.resolve(false);
    return probe(this.#port, this.#options.plan.probePath, config.timeout * 1000);
  }

  /** Why it did not become ready: what the launcher finds in the output, before how the process ended. */
  #explain(pid: number, reason: string): StartFailure {
    const lines = this.#options.log.recent(pid);
    const cause =
      this.#killReason === undefined
        ? this.#options.plan.cause?.(lines.map((line) => line.split(' ').slice(3).join(' ')))
        : undefined;
    return { reason: cause === undefined ? reason : `${cause} (${reason})`, lines: lines.slice(-FAILURE_LINES) };
  }

  #become(state: InstanceState): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#since = this.#clock.now();
  }

  #say(pid: number, text: string): void {
    this.#options.log.line(pid, 'sup', `${this.#options.name}: ${text}`);
  }
}

/** Before an instance was ever ready, only a death that may have been an accident is worth another start. */
function isHopeless(exit: ProcessExit, killed: boolean, attempt: number): boolean {
  return exit.code === EXIT_INIT || killed || attempt >= MAX_FAILED_STARTS;
}

function pick(random: (() => number) | undefined): { random?: () => number } {
  return random === undefined ? {} : { random };
}
