import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { ModeltapError, systemCode, type ErrorBody } from '../kit/errors.ts';
import { ERRORS } from '../kit/error-codes.ts';
import { trustingFetch } from './trust.ts';

/** What `modeltap up` leaves in its workspace directory while it runs. */
export interface RunningWorkspace {
  readonly url: string;
  readonly pid: number;
  /** PEM of the certificate it serves; absent without TLS. */
  readonly certificate?: string;
}

/** Name of the file in the workspace directory that says where the running `modeltap up` listens. */
export const RUNNING_FILE = 'up.json';

/** Talks to the API of a running workspace. */
export interface Client {
  readonly url: string;
  get<T>(path: string): Promise<T>;
  send<T>(method: 'POST' | 'PUT' | 'DELETE', path: string, body?: unknown): Promise<T>;
  /** The raw answer, for streams and for scoring. Connection errors are errors of the registry. */
  raw(path: string, init?: RequestInit): Promise<Response>;
}

/** An error that the API answered with, carried to the exit code and the message a person reads. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly code: string;
  readonly fix: string;
  readonly status: number;
  readonly exitCode: number;

  constructor(status: number, body: ErrorBody['error']) {
    super(body.message);
    this.status = status;
    this.code = body.code;
    this.fix = body.fix;
    this.exitCode = body.code in ERRORS ? ERRORS[body.code].exit : 1;
  }
}

/** Finds the running workspace: `MODELTAP_URL`, else the file that `modeltap up` left in the directory. */
export async function connect(directory: string, env: NodeJS.ProcessEnv = process.env): Promise<Client> {
  const running = env.MODELTAP_URL === undefined ? await readRunningFile(directory) : { url: env.MODELTAP_URL, pid: 0 };
  return createClient({ ...running, url: running.url.replace(/\/+$/, '') }, directory);
}

async function readRunningFile(directory: string): Promise<RunningWorkspace> {
  try {
    return JSON.parse(await readFile(join(directory, RUNNING_FILE), 'utf8')) as RunningWorkspace;
  } catch (error) {
    if (systemCode(error) !== 'ENOENT' && !(error instanceof SyntaxError)) throw error;
    throw new ModeltapError('workspace_not_running', { directory: resolve(directory) });
  }
}

function createClient(running: RunningWorkspace, directory: string): Client {
  const { url } = running;
  const ask = trustingFetch(running);
  const raw = async (path: string, init: RequestInit = {}) => {
    try {
      return await ask(path.startsWith('http') ? path : `${url}${path}`, init);
    } catch (cause) {
      if (init.signal?.aborted) throw cause;
      throw new ModeltapError('workspace_not_running', { directory: resolve(directory) }, { cause });
    }
  };
  const answer = async <T>(response: Response): Promise<T> => {
    const text = await response.text();
    if (response.ok) return (text === '' ? undefined : JSON.parse(text)) as T;
    throw apiError(response, text);
  };
  return {
    url,
    raw,
    get: async (path) => answer(await raw(path)),
    send: async (method, path, body) =>
      answer(
        await raw(path, {
          method,
          ...(body === undefined
            ? {}
            : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
        }),
      ),
  };
}

function apiError(response: Response, text: string): ApiError {
  try {
    const body = JSON.parse(text) as ErrorBody;
    if (typeof body.error?.message === 'string') return new ApiError(response.status, body.error);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  return new ApiError(response.status, {
    code: 'internal',
    message: `the workspace answered ${response.status}: ${text.slice(0, 500)}`,
    fix: 'Look at the log of "modeltap up".',
  });
}
