import { type ChildProcess, spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';
import { errorText, systemCode } from '../../kit/errors.ts';

/** Starts a process; an effect, so `child_process.spawn` by default. */
export type Spawn = typeof spawn;

/** A command to run to its end. */
export interface Command {
  readonly command: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly environment: Readonly<Record<string, string>>;
  /** A Python that watches over it: when this process dies, however it dies, the command and its children end too. */
  readonly watchedBy?: string;
  /** SIGKILL to the command and everything it has started, when it aborts. */
  readonly signal?: AbortSignal;
  /** Each line of stdout and stderr as it comes, without its end. */
  readonly onLine?: (line: string) => void;
  readonly spawn?: Spawn;
}

/** How a command ended. */
export interface CommandEnd {
  /** 0 to 255; undefined when a signal ended it or it could not be started. */
  readonly code: number | undefined;
  /** For people: `exit code 1`, `signal SIGKILL`, `cannot be started: …`. */
  readonly text: string;
}

/** A line longer than this is given in pieces. */
const MAX_LINE_CHARS = 16_384;
/** How long output may keep arriving after the process group was ended. */
const LAST_OUTPUT_MS = 2000;

/**
 * Stands between this process and the command. Its stdin is a pipe that nobody writes to: it closes when this process is
 * gone, also by SIGKILL, and then the whole group ends. Without it an orphaned pip would go on writing into a folder that
 * the next process clears and fills again.
 */
const WATCH = `
import os, signal, subprocess, sys, threading

def watch():
    while os.read(0, 1):
        pass
    os.killpg(os.getpid(), signal.SIGKILL)

threading.Thread(target=watch, daemon=True).start()
code = subprocess.call(sys.argv[1:], stdin=subprocess.DEVNULL)
os._exit(code if code >= 0 else 128 - code)
`;

/** Runs a command to its end, in a process group of its own. Never rejects; resolves when no process of it is left. */
export async function runCommand(options: Command): Promise<CommandEnd> {
  if (options.signal?.aborted) return { code: undefined, text: 'not started' };
  const { watchedBy } = options;
  const [command, args] =
    watchedBy === undefined
      ? [options.command, options.args]
      : [watchedBy, ['-I', '-S', '-c', WATCH, options.command, ...options.args]];
  const process = (options.spawn ?? spawn)(command, [...args], {
    cwd: options.cwd,
    env: options.environment,
    stdio: [watchedBy === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    detached: true,
  });
  // It breaks when the command ends first, which its exit tells better.
  process.stdin?.on('error', () => undefined);
  const closed = capture(process, options.onLine ?? (() => undefined));
  const kill = () => killGroup(process.pid);
  options.signal?.addEventListener('abort', kill, { once: true });
  const end = await ended(process);
  options.signal?.removeEventListener('abort', kill);
  kill();
  await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, LAST_OUTPUT_MS).unref())]);
  return end;
}

function ended(process: ChildProcess): Promise<CommandEnd> {
  return new Promise((resolve) => {
    process.once('exit', (code, name) => {
      const ending = name === null ? `exit code ${code}` : `signal ${name}`;
      resolve({ code: code ?? undefined, text: ending });
    });
    process.once('error', (error) => {
      if (process.pid !== undefined) return;
      resolve({ code: undefined, text: `cannot be started: ${errorText(error)}` });
    });
  });
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if (systemCode(error) !== 'ESRCH') throw error;
  }
}

/** Resolves when both streams are closed. */
function capture(process: ChildProcess, onLine: (line: string) => void): Promise<unknown> {
  return Promise.all([process.stdout, process.stderr].map((stream) => readLines(stream, onLine)));
}

function readLines(stream: Readable | null, onLine: (line: string) => void): Promise<void> {
  const decoder = new StringDecoder('utf8');
  let open = '';
  stream?.on('data', (chunk: Buffer) => {
    const lines = (open + decoder.write(chunk)).split(/\r\n|\n|\r/);
    open = lines.pop() ?? '';
    for (const line of lines) onLine(line);
    while (open.length > MAX_LINE_CHARS) {
      onLine(open.slice(0, MAX_LINE_CHARS));
      open = open.slice(MAX_LINE_CHARS);
    }
  });
  return new Promise((resolve) => {
    if (stream === null) return resolve();
    stream.once('close', () => {
      if (open !== '') onLine(open);
      resolve();
    });
  });
}
