/** What tests of deployments share: HTTP calls that keep headers, scripts in temporary folders, real instance processes. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type Agent, type IncomingHttpHeaders, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DeploymentConfig } from '../config/types.ts';

/** A whole answer. */
export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  json(): unknown;
}

/** A request to loopback on a connection of its own. Rejects when the connection breaks. */
export function call(
  port: number,
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: string | Buffer; agent?: Agent } = {},
): Promise<Answer> {
  const { method = options.body === undefined ? 'GET' : 'POST', headers = {}, body, agent = false } = options;
  return new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, path, method, headers, agent }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: text,
          json: () => JSON.parse(text) as unknown,
        });
      });
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

/** A folder under the system's temporary one, gone when `using` ends. */
export function temporaryFolder(files: Readonly<Record<string, string>> = {}): { path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'modeltap-deployment-'));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text);
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

/** A deployment file as the config folder would give it. */
export function deploymentConfig(
  directory: string,
  scoringScript: string,
  changes: Partial<DeploymentConfig> = {},
): DeploymentConfig {
  const probe = { initialDelay: 10, period: 10, timeout: 2, successThreshold: 1, failureThreshold: 30 };
  return {
    name: 'blue',
    endpointName: 'iris',
    type: 'managed',
    description: '',
    tags: {},
    properties: {},
    model: undefined,
    code: { directory, scoringScript },
    environment: undefined,
    environmentVariables: {},
    instanceCount: 1,
    requestSettings: { requestTimeoutMs: 5000, maxConcurrentRequestsPerInstance: 8, maxQueueWaitMs: 500 },
    livenessProbe: probe,
    readinessProbe: probe,
    dataCollector: undefined,
    ...changes,
  };
}

/** True while a process with that id runs; one that has ended but was not reaped yet does not. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT' && !existsSync('/proc/self');
  }
}

/** Waits for a condition, at most 10 s. */
export async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited too long for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 15));
  }
}

/** A score server of its own, without a supervisor. */
export interface ScoreProcess extends AsyncDisposable {
  readonly child: ChildProcess;
  readonly port: number;
  /** What it wrote to stderr so far. */
  readonly stderr: () => string;
  readonly exit: Promise<number | string>;
}

/** Starts a score server; resolves when it listens or has ended (`port` is 0 then). */
export async function startScoreServer(
  directory: string,
  script: string,
  environment: Record<string, string> = {},
): Promise<ScoreProcess> {
  const server = join(import.meta.dirname, 'score-server.ts');
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', server], {
    cwd: directory,
    env: { PATH: process.env.PATH, AML_APP_ROOT: directory, AZUREML_ENTRY_SCRIPT: script, ...environment },
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  let stderr = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const exit = once(child, 'close').then(([code, signal]) => (code ?? signal) as number | string);
  const port = await Promise.race([
    new Promise<number>((resolve) => child.on('message', (message) => resolve((message as { port: number }).port))),
    exit.then(() => 0),
  ]);
  return {
    child,
    port,
    stderr: () => stderr,
    exit,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await exit;
    },
  };
}
