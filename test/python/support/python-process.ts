import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { CACHE, type Venv } from './venv.ts';

/** A client script that works off one job at a time: a JSON line in, a JSON line out. */
export interface PythonProcess {
  readonly pid: number;
  /** What it printed besides answers: the SDK's own log. */
  readonly log: () => string;
  /** Sends a job and gives its answer; fails when the script raised, ended or took more than 60 s. */
  ask<T>(job: Readonly<Record<string, unknown>>): Promise<T>;
  /** Ends it and waits. */
  end(): Promise<void>;
}

const ASK_TIMEOUT_MS = 60_000;
const running = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Starts `test/python/clients/<script>` in an environment. Variables of the SDK and of Python that this process has are not passed on. */
export function startPython(venv: Venv, script: string): PythonProcess {
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^AZUREML_|^PYTHON|_proxy$/i.test(name)),
  );
  const path = join(import.meta.dirname, '../clients', script);
  const child = spawn(venv.python, ['-u', path], {
    stdio: ['pipe', 'pipe', 'pipe'],
    // Compiled modules go to the cache: pandas takes a second without them, and none may lie beside the scripts.
    env: { ...env, PYTHONIOENCODING: 'utf-8', PYTHONPYCACHEPREFIX: join(CACHE, 'compiled') },
  });
  running.add(child);
  let log = '';
  let waiting: { done: (text: string) => void; fail: (error: Error) => void } | undefined;
  child.stderr.setEncoding('utf8').on('data', (piece: string) => {
    log = (log + piece).slice(-20_000);
  });
  createInterface({ input: child.stdout }).on('line', (line) => {
    waiting?.done(line);
    waiting = undefined;
  });
  child.stdin.on('error', () => undefined);
  const closed = new Promise<void>((done) => {
    const end = (why: string) => {
      running.delete(child);
      waiting?.fail(new Error(`${script} ended (${why}): ${log}`));
      waiting = undefined;
      done();
    };
    child.once('error', (error) => end(error.message));
    child.once('close', (code, signal) => end(`${code ?? signal}`));
  });
  return {
    pid: child.pid ?? 0,
    log: () => log,
    ask: async <T>(job: Readonly<Record<string, unknown>>) => {
      const line = await new Promise<string>((done, fail) => {
        const timer = setTimeout(
          () => fail(new Error(`${script} gave no answer to ${JSON.stringify(job)}: ${log}`)),
          ASK_TIMEOUT_MS,
        );
        waiting = {
          done: (text) => {
            clearTimeout(timer);
            done(text);
          },
          fail: (error) => {
            clearTimeout(timer);
            fail(error);
          },
        };
        if (child.exitCode === null) child.stdin.write(`${JSON.stringify(job)}\n`);
        else waiting.fail(new Error(`${script} had ended: ${log}`));
      });
      const answer = JSON.parse(line) as { readonly result?: T; readonly raised?: string };
      if (answer.raised !== undefined) throw new Error(`${script} raised at ${JSON.stringify(job)}: ${answer.raised}`);
      return answer.result as T;
    },
    end: () => {
      child.stdin.end();
      const timer = setTimeout(() => child.kill('SIGKILL'), 5_000);
      return closed.finally(() => clearTimeout(timer));
    },
  };
}
