import { type ChildProcess, spawn } from 'node:child_process';
import { ENTRY } from './agent.ts';

/** What a command of the command line did. */
export interface CliResult {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs one command of the command line to its end. */
export function cli(
  argv: readonly string[],
  options: { cwd?: string; env?: Record<string, string> } = {},
): Promise<CliResult> {
  return new Promise((done, fail) => {
    const child = spawn(process.execPath, [ENTRY, ...argv], {
      stdio: ['ignore', 'pipe', 'pipe'],
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      env: { ...process.env, ...options.env },
    });
    let out = '';
    let err = '';
    child.stdout.on('data', (chunk: Buffer) => {
      out += chunk.toString();
    });
    child.stderr.on('data', (chunk: Buffer) => {
      err += chunk.toString();
    });
    child.on('error', fail);
    child.on('close', (code) => done({ code, out, err }));
  });
}

/** A running `modeltap up`. */
export interface TestWorkspace {
  readonly directory: string;
  readonly child: ChildProcess;
  readonly output: () => string;
  /** Runs a command in this workspace; fails the test when it fails. */
  run(...argv: string[]): Promise<string>;
  /** The same with `-o json`, parsed. */
  json<T>(...argv: string[]): Promise<T>;
  /** The same, whatever the outcome. */
  attempt(...argv: string[]): Promise<CliResult>;
  stop(signal?: NodeJS.Signals): Promise<number | null>;
}

/** The header that lets requests in at an endpoint of the workspace. */
export async function keyHeader(workspace: TestWorkspace, endpoint: string): Promise<{ authorization: string }> {
  const keys = await workspace.json<{ primaryKey: string }>('online-endpoint', 'get-credentials', '-n', endpoint);
  return { authorization: `Bearer ${keys.primaryKey}` };
}

/** Starts `modeltap up` on free ports and waits until it says that it is up. */
export async function startWorkspace(directory: string, extra: readonly string[] = []): Promise<TestWorkspace> {
  const child = spawn(
    process.execPath,
    [ENTRY, 'up', '--workspace', directory, '--port', '0', '--agent-port', '0', '--log-level', 'warn', ...extra],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let text = '';
  const orphan = () => child.kill('SIGKILL');
  process.once('exit', orphan);
  const closed = new Promise<number | null>((done) => {
    child.once('close', (code) => {
      process.off('exit', orphan);
      done(code);
    });
  });
  await new Promise<void>((done, fail) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        text = (text + chunk.toString()).slice(-50_000);
        if (text.includes('Modeltap is up')) done();
      });
    }
    child.once('exit', (code) => fail(new Error(`modeltap up ended with ${code}: ${text}`)));
  });
  child.removeAllListeners('exit');
  const attempt = (...argv: string[]) => cli([...argv, '--workspace', directory]);
  const run = async (...argv: string[]) => {
    const { code, out, err } = await attempt(...argv);
    if (code !== 0) throw new Error(`modeltap ${argv.join(' ')} ended with ${code}: ${err}${out}`);
    return out;
  };
  return {
    directory,
    child,
    output: () => text,
    attempt,
    run,
    json: async <T>(...argv: string[]) => JSON.parse(await run(...argv, '-o', 'json')) as T,
    stop(signal = 'SIGTERM') {
      child.kill(signal);
      return closed;
    },
  };
}
