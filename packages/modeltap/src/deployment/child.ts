import { type ChildProcess, spawn } from 'node:child_process';
import { type Clock, systemClock } from '../kit/clock.ts';
import { errorText, systemCode } from '../kit/errors.ts';
import type { InstanceLog } from './instance-log.ts';

/** Starts a process; an effect, so `child_process.spawn` by default. */
export type Spawn = typeof spawn;

/** How a process ended. `code` and `signal` are both null when it could not be started. */
export interface ProcessExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** For people: `exit code 1`, `signal SIGKILL`, `cannot be started: …`. */
  readonly text: string;
}

/** What to start. */
export interface ChildOptions {
  readonly command: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly log: InstanceLog;
  readonly spawn?: Spawn;
  readonly clock?: Clock;
}

/** How long output may keep arriving after a process has ended. */
const LAST_OUTPUT_MS = 1000;

/** A running instance process, the leader of a process group of its own, with its output going to a log. */
export class Child {
  /** Undefined when it could not be started. */
  readonly pid: number | undefined;
  /** Resolves with the port the process listens on; stays pending when it never tells. */
  readonly listening: Promise<number>;
  /** Resolves when the process has ended, its group is gone and its output is in the log. Never rejects. */
  readonly exited: Promise<ProcessExit>;
  readonly #clock: Clock;
  #ended = false;

  constructor(options: ChildOptions) {
    const start = options.spawn ?? spawn;
    const process = start(options.command, [...options.args], {
      cwd: options.cwd,
      env: options.environment,
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      // A group of its own: Ctrl-C reaches the parent only, and a kill reaches what the script itself has started.
      detached: true,
    });
    this.pid = process.pid;
    this.#clock = options.clock ?? systemClock;
    const closed = this.#capture(process, options.log);
    this.listening = new Promise((resolve) => {
      process.on('message', (message) => {
        const port = listeningPort(message);
        if (port !== undefined) resolve(port);
      });
    });
    this.exited = this.#exit(process, closed);
  }

  /**
   * SIGTERM to the process; after `deadlineMs`, or at once when it is 0, SIGKILL to its whole group. Resolves when it
   * has ended. Calling it again with a shorter deadline shortens the wait.
   */
  async stop(deadlineMs: number): Promise<ProcessExit> {
    if (!this.#ended && this.pid !== undefined) {
      if (deadlineMs > 0) {
        signal(this.pid, 'SIGTERM');
        const done = new AbortController();
        const late = this.#clock.sleep(deadlineMs, { signal: done.signal }).then(() => 'late' as const);
        await Promise.race([this.exited, late]);
        done.abort();
      }
      if (!this.#ended) signal(-this.pid, 'SIGKILL');
    }
    return this.exited;
  }

  async #exit(process: ChildProcess, closed: Promise<void>): Promise<ProcessExit> {
    const exit = await new Promise<ProcessExit>((resolve) => {
      process.once('exit', (code, name) => {
        resolve({ code, signal: name, text: name === null ? `exit code ${code}` : `signal ${name}` });
      });
      process.once('error', (error) => {
        if (process.pid !== undefined) return;
        resolve({ code: null, signal: null, text: `cannot be started: ${errorText(error)}` });
      });
    });
    this.#ended = true;
    if (this.pid !== undefined) signal(-this.pid, 'SIGKILL');
    await Promise.race([closed, this.#clock.sleep(LAST_OUTPUT_MS, { unref: true })]);
    return exit;
  }

  #capture(process: ChildProcess, log: InstanceLog): Promise<void> {
    const pid = process.pid ?? 0;
    const ends = (['stdout', 'stderr'] as const).map((name) => {
      const feed = log.stream(pid, name === 'stdout' ? 'out' : 'err');
      const stream = process[name];
      stream?.on('data', feed);
      return new Promise<void>((resolve) => {
        if (stream === null) return resolve();
        stream.once('close', () => {
          feed(undefined);
          resolve();
        });
      });
    });
    return Promise.all(ends).then(() => undefined);
  }
}

/** A process that has ended since is not an error. */
function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if (systemCode(error) !== 'ESRCH') throw error;
  }
}

function listeningPort(message: unknown): number | undefined {
  if (typeof message !== 'object' || message === null || !('type' in message) || !('port' in message)) return undefined;
  const { type, port } = message;
  return type === 'listening' && typeof port === 'number' && port > 0 && port < 65_536 ? port : undefined;
}
