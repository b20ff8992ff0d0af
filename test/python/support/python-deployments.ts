import {
  cpSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { type CliResult, keyHeader, startWorkspace, type TestWorkspace } from '../../support/workspace.ts';

/** Environments built for these tests, kept between runs. */
const ENVIRONMENTS = resolve(
  process.env.MODELTAP_PYTHON_CACHE ?? join(import.meta.dirname, '../../../.cache/python'),
  'environments',
);

/** What all scripts of these tests need. */
export const PACKAGES = ['azureml-ai-monitoring', 'azureml-inference-server-http', 'inference-schema', 'pandas'];

/** The text of a conda file with these pip packages. */
export function condaFile(packages: readonly string[] = PACKAGES): string {
  const pip = packages.map((name) => `      - ${name}\n`).join('');
  return `name: scoring\nchannels: [conda-forge]\ndependencies:\n  - python=3.10\n  - pip\n  - pip:\n${pip}`;
}

/** An answer of a scoring URI. */
export interface Scored {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

/** One line of a collected file. */
export interface Collected {
  readonly data: readonly Readonly<Record<string, unknown>>[];
  readonly correlationid: string;
}

/** A workspace with the endpoint `scoring`, and a folder with `scripts/`, `model/` and `conda.yaml` for its deployments. */
export interface PythonWorkspace {
  readonly root: string;
  readonly directory: string;
  /** The running `modeltap up`; another one after `restart`. */
  readonly up: () => TestWorkspace;
  /** Writes `<name>.yml`; `extra` is YAML added to it. */
  yaml(name: string, script: string, extra?: string): string;
  /** Runs `online-deployment create` or `update` to its end. */
  apply(verb: 'create' | 'update', file: string): Promise<CliResult>;
  score(deployment: string, body: string, init?: RequestInit & { path?: string }): Promise<Scored>;
  /** Waits until that many rows are stored. */
  collected(deployment: string, collection: string, rows: number): Promise<Collected[]>;
  logs(deployment: string): Promise<string>;
  restart(signal: NodeJS.Signals): Promise<void>;
  close(): Promise<void>;
}

/** Starts one. Environments come from the cache and go there. */
export async function startPythonWorkspace(): Promise<PythonWorkspace> {
  const root = mkdtempSync(join(tmpdir(), 'modeltap-scoring-'));
  const directory = join(root, 'ws');
  mkdirSync(directory);
  mkdirSync(ENVIRONMENTS, { recursive: true });
  symlinkSync(ENVIRONMENTS, join(directory, 'environments'));
  cpSync(join(import.meta.dirname, '../scripts'), join(root, 'scripts'), { recursive: true });
  mkdirSync(join(root, 'model'));
  writeFileSync(join(root, 'model/weights.json'), '{"factor": 3}');
  writeFileSync(join(root, 'conda.yaml'), condaFile());
  let up = await startWorkspace(directory);
  await up.run('online-endpoint', 'create', '-n', 'scoring').catch(async (error: unknown) => {
    await up.stop();
    throw error;
  });
  const uri = async () =>
    (await up.json<{ scoring_uri: string }>('online-endpoint', 'show', '-n', 'scoring')).scoring_uri;
  let scoringUri = await uri();
  const key = await keyHeader(up, 'scoring');
  return {
    root,
    directory,
    up: () => up,
    yaml(name, script, extra = '') {
      const file = join(root, `${name}.yml`);
      writeFileSync(file, deploymentYaml(name, script, extra));
      return file;
    },
    apply: (verb, file) => up.attempt('online-deployment', verb, '-f', file, '-o', 'json'),
    async score(deployment, body, { path = '/score', ...init } = {}) {
      const headers = {
        'content-type': 'application/json',
        ...key,
        ...(init.headers as Record<string, string>),
        'azureml-model-deployment': deployment,
      };
      const url = scoringUri.replace(/\/score$/, path);
      const answer = await fetch(url, { method: 'POST', ...(init.method === 'GET' ? {} : { body }), ...init, headers });
      return { status: answer.status, headers: answer.headers, text: await answer.text() };
    },
    collected: (deployment, collection, rows) =>
      untilRows(join(directory, `**/modelDataCollector/scoring/${deployment}/${collection}/**/*.jsonl`), rows),
    logs: (deployment) => up.run('online-deployment', 'get-logs', '-n', deployment, '-e', 'scoring', '--lines', '2000'),
    async restart(signal) {
      await up.stop(signal);
      up = await startWorkspace(directory);
      scoringUri = await uri();
    },
    async close() {
      await up.stop();
      rmSync(root, { recursive: true, force: true });
    },
  };
}

function deploymentYaml(name: string, script: string, extra: string): string {
  const environment = extra.includes('environment:')
    ? ''
    : 'environment:\n  image: mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04\n  conda_file: conda.yaml\n';
  return `$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineDeployment.schema.json
name: ${name}
endpoint_name: scoring
code_configuration:
  code: scripts
  scoring_script: ${script}
instance_type: Standard_F2s_v2
${environment}${extra.includes('instance_count:') ? '' : 'instance_count: 1\n'}data_collector:
  collections:
    model_inputs:
      enabled: 'True'
    model_outputs:
      enabled: 'True'
${extra}`;
}

async function untilRows(pattern: string, rows: number): Promise<Collected[]> {
  const until = Date.now() + 15_000;
  for (;;) {
    const lines = globSync(pattern).flatMap((file) => readFileSync(file, 'utf8').split('\n').filter(Boolean));
    const records = lines.map((line) => JSON.parse(line) as Collected);
    const found = records.reduce((sum, record) => sum + record.data.length, 0);
    if (found >= rows) return records;
    if (Date.now() > until) throw new Error(`${found} rows instead of ${rows} in ${pattern}`);
    await wait(100);
  }
}

/** Ids of the processes of a process group. */
export function groupOf(leader: number): number[] {
  return readdirSync('/proc').flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      // After the name in parentheses: state, parent, group.
      const [state, , group] = readFileSync(`/proc/${name}/stat`, 'utf8')
        .replace(/^.*\) /s, '')
        .split(' ');
      // One that has ended and is not yet collected by its parent does nothing any more.
      return Number(group) === leader && state !== 'Z' && state !== 'X' ? [Number(name)] : [];
    } catch {
      return [];
    }
  });
}

/** Addresses that processes listen on over IPv4 and IPv6, as `/proc/net/tcp` writes them: `0100007F` is 127.0.0.1. */
export function listeningOn(pids: readonly number[]): string[] {
  const sockets = new Set(
    pids.flatMap((pid) =>
      readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
        try {
          return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? [];
        } catch {
          return [];
        }
      }),
    ),
  );
  const lines = ['tcp', 'tcp6'].flatMap((name) => readFileSync(`/proc/net/${name}`, 'utf8').split('\n').slice(1));
  return lines.flatMap((line) => {
    const [, local = '', , state, , , , , , inode = ''] = line.trim().split(/\s+/);
    return state === '0A' && sockets.has(inode) ? [local.split(':')[0] ?? ''] : [];
  });
}
