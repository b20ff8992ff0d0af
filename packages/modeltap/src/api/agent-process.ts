import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream, type WriteStream } from 'node:fs';
import { mkdir, rename, stat, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { backoffMs } from '../kit/backoff.ts';
import { type Clock, systemClock } from '../kit/clock.ts';
import { errorText, ModeltapError, systemCode } from '../kit/errors.ts';
import type { Logger } from '../kit/logger.ts';

/** A log of the agent above this size is set aside as `.1` when the agent starts. */
const LOG_BYTES = 20 * 1024 ** 2;
const START_TIMEOUT_MS = 60_000;

/** How the agent is started. */
export interface AgentProcessOptions {
  /** The file that runs the command line: `cli/entry`. */
  readonly entry: string;
  /** The agent YAML; written before `start` and before each `reload`. */
  readonly file: string;
  readonly logFile: string;
  readonly host: string;
  readonly port: number;
  readonly logger: Logger;
  readonly clock?: Clock;
}

/**
 * The workspace's own agent as a process of its own, so that neither can slow or take down the other. It is the same
 * `modeltap agent` that runs as a sidecar. When it ends unasked it is started again, with backoff; what it had
 * acknowledged is in its spool.
 */
export interface AgentProcess {
  readonly url: string;
  readonly pid: number | undefined;
  readonly restarts: number;
  /** Makes the running agent read its file again; resolves when the new settings are in force. */
  reload(text: string): Promise<void>;
  /** SIGTERM, wait for the drain, SIGKILL after the deadline. What is left stays in the spool. */
  stop(deadlineMs: number): Promise<void>;
}

/** Writes a file so that a reader sees the old or the new text, never a part. Only the owner may read it. */
export async function replaceFile(file: string, text: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  await writeFile(`${file}.tmp`, text, { mode: 0o600, flush: true });
  await rename(`${file}.tmp`, file);
}

/** Starts the agent and waits until it is ready. `agent_failed` with the end of its log when it is not within a minute. */
export async function startAgentProcess(options: AgentProcessOptions): Promise<AgentProcess> {
  const clock = options.clock ?? systemClock;
  const url = `http://${options.host.includes(':') ? `[${options.host}]` : options.host}:${options.port}`;
  const log = await openLog(options.logFile);
  const state: Running = { child: undefined, restarts: 0, stopping: false, lastText: '' };
  launch({ options, clock, log, state }, 0);
  try {
    await untilReady(url, clock, () => state.child === undefined);
  } catch (cause) {
    state.stopping = true;
    state.child?.kill('SIGKILL');
    throw new ModeltapError(
      'agent_failed',
      { log: options.logFile, detail: state.lastText.trim() || errorText(cause) },
      { cause },
    );
  }
  return {
    url,
    get pid() {
      return state.child?.pid;
    },
    get restarts() {
      return state.restarts;
    },
    async reload(text) {
      await replaceFile(options.file, text);
      await reload(url, clock);
    },
    async stop(deadlineMs) {
      state.stopping = true;
      await endProcess(state.child, deadlineMs, clock);
      await new Promise<void>((resolve) => log.end(() => resolve()));
    },
  };
}

/** What is known of the process now. */
interface Running {
  child: ChildProcess | undefined;
  restarts: number;
  stopping: boolean;
  /** The end of what it wrote. */
  lastText: string;
}

interface LaunchParts {
  readonly options: AgentProcessOptions;
  readonly clock: Clock;
  readonly log: WriteStream;
  readonly state: Running;
}

/** Starts the process, and again with backoff whenever it ends unasked. */
function launch(parts: LaunchParts, attempt: number): void {
  const { options, clock, log, state } = parts;
  const child = spawn(process.execPath, [options.entry, 'agent', '-f', options.file], {
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    // A group of its own: Ctrl-C goes to the workspace, which stops its parts in order. The channel ends it with the workspace.
    detached: true,
  });
  const started = clock.monotonic();
  state.child = child;
  const keep = (chunk: Buffer) => {
    log.write(chunk);
    state.lastText = (state.lastText + chunk.toString()).slice(-4_000);
  };
  child.stdout?.on('data', keep);
  child.stderr?.on('data', keep);
  child.on('error', (error) => options.logger.error({ error: errorText(error) }, 'the agent cannot be started'));
  child.on('close', (code, signal) => {
    state.child = undefined;
    if (state.stopping) return;
    const next = clock.monotonic() - started > 30_000 ? 0 : attempt + 1;
    const delayMs = backoffMs(next, { minMs: 100, maxMs: 5_000 });
    options.logger.error(
      { code, signal, delayMs: Math.round(delayMs), log: options.logFile },
      'the agent ended, starting it again',
    );
    void clock.sleep(delayMs, { unref: true }).then(() => {
      if (state.stopping) return;
      state.restarts += 1;
      launch(parts, next);
    });
  });
}

async function openLog(file: string): Promise<WriteStream> {
  await mkdir(dirname(file), { recursive: true });
  try {
    if ((await stat(file)).size > LOG_BYTES) await rename(file, `${file}.1`);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
  }
  return createWriteStream(file, { flags: 'a', mode: 0o600 });
}

/** Polls `/readyz`; gives up after a minute, or at once when the process has ended before it was ever ready. */
async function untilReady(url: string, clock: Clock, ended: () => boolean): Promise<void> {
  const until = clock.monotonic() + START_TIMEOUT_MS;
  for (;;) {
    try {
      const answer = await fetch(`${url}/readyz`, { signal: AbortSignal.timeout(2_000) });
      if (answer.ok) return;
    } catch (error) {
      if (clock.monotonic() > until) throw error;
    }
    if (ended()) throw new ModeltapError('agent_unreachable', { url });
    if (clock.monotonic() > until) throw new ModeltapError('agent_unreachable', { url });
    await clock.sleep(50);
  }
}

/** Asks for the reload until the agent answers: it may be restarting at this moment, and then reads the new file by itself. */
async function reload(url: string, clock: Clock): Promise<void> {
  const until = clock.monotonic() + START_TIMEOUT_MS;
  for (;;) {
    try {
      const answer = await fetch(`${url}/v1/reload`, { method: 'POST', signal: AbortSignal.timeout(30_000) });
      if (answer.ok) return;
      throw new ModeltapError('agent_refused_config', { detail: (await answer.text()).slice(0, 2_000) });
    } catch (error) {
      if (error instanceof ModeltapError || clock.monotonic() > until) throw error;
      await clock.sleep(200);
    }
  }
}

async function endProcess(child: ChildProcess | undefined, deadlineMs: number, clock: Clock): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const closed = new Promise<void>((resolve) => {
    child.once('close', () => resolve());
  });
  child.kill('SIGTERM');
  const abort = new AbortController();
  await Promise.race([closed, clock.sleep(deadlineMs, { signal: abort.signal })]);
  abort.abort();
  if (child.exitCode === null && child.signalCode === null) {
    child.kill('SIGKILL');
    await closed;
  }
}
