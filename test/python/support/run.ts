import { type ChildProcess, spawn } from 'node:child_process';

/** How a command ended. `code` null: it was killed, or could not be started at all. */
export interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  /** Written to the command's stdin. Default: stdin is closed at once. */
  readonly input?: string;
  /** Killed after this. Default 60 s. */
  readonly timeoutMs?: number;
}

const running = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Runs a command to its end. Never throws: a command that is not there has `code` null and says so in `stderr`. */
export function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  return new Promise((done) => {
    const child = spawn(command, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: options.env ?? process.env,
      cwd: options.cwd,
    });
    const text = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const) {
      child[name].setEncoding('utf8').on('data', (piece: string) => {
        text[name] += piece;
      });
    }
    const timeoutMs = options.timeoutMs ?? 60_000;
    const timer = setTimeout(() => {
      text.stderr += `\nkilled after ${timeoutMs} ms`;
      child.kill('SIGKILL');
    }, timeoutMs);
    running.add(child);
    const end = (code: number | null) => {
      clearTimeout(timer);
      running.delete(child);
      done({ code, ...text });
    };
    child.on('error', (error) => {
      text.stderr += error.message;
      end(null);
    });
    child.on('close', end);
    // A command that ends without reading all of it is judged by its exit code.
    child.stdin.on('error', () => undefined);
    child.stdin.end(options.input ?? '');
  });
}

/** The last lines of a command's output, for a message. */
export function lastLines({ stdout, stderr }: Ran, count = 8): string {
  return `${stdout}\n${stderr}`.trim().split('\n').slice(-count).join('\n');
}
