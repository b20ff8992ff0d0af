import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { stringify } from 'yaml';
import type { ObjectStore } from '../../packages/modeltap/src/storage/store.ts';

/** The file that runs the command line from the sources. */
export const ENTRY = resolve(import.meta.dirname, '../../packages/modeltap/src/cli/entry.ts');

/** A loopback port that was free a moment ago. */
export function freePort(): Promise<number> {
  return new Promise((done, fail) => {
    const server = createServer();
    server.on('error', fail);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => done(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}

export interface AgentSetup {
  readonly directory: string;
  readonly port: number;
  /** The YAML of the datastore `store`. */
  readonly datastore: Readonly<Record<string, unknown>>;
  readonly collections?: readonly string[];
  /** Merged over the file. */
  readonly extra?: Readonly<Record<string, unknown>>;
}

/** A real agent process of its own: `modeltap agent -f FILE`. */
export interface TestAgent {
  readonly url: string;
  readonly port: number;
  readonly child: ChildProcess;
  readonly output: () => string;
  get<T>(path: string): Promise<T>;
  /** Ends it with a signal and waits; gives the exit code. */
  end(signal: NodeJS.Signals): Promise<number | null>;
}

/** Writes the agent's file; the spool lies in `<directory>/spool`. */
export function writeAgentFile(setup: AgentSetup): string {
  mkdirSync(setup.directory, { recursive: true });
  const file = join(setup.directory, 'agent.yml');
  const collections = setup.collections ?? ['model_inputs', 'model_outputs'];
  const path = (name: string) => `azureml://datastores/store/paths/modelDataCollector/iris/blue/${name}`;
  writeFileSync(
    file,
    stringify({
      port: setup.port,
      spool: { path: './spool', max_bytes: '256MB' },
      datastores: [{ name: 'store', ...setup.datastore }],
      deployments: [
        {
          endpoint_name: 'iris',
          deployment_name: 'blue',
          data_collector: {
            collections: Object.fromEntries(
              collections.map((name) => [
                name,
                { enabled: 'True', data: { name: `iris-blue-${name}`, path: path(name) } },
              ]),
            ),
          },
        },
      ],
      ...setup.extra,
    }),
  );
  return file;
}

const running = new Set<ChildProcess>();

/** Kills agents that a failed test left behind, so that the run ends. For `after`. */
export function killAgents(): void {
  for (const child of running) child.kill('SIGKILL');
}

/** Starts the agent and waits until it is ready. */
export async function startAgent(file: string, port: number, options: { wait?: boolean } = {}): Promise<TestAgent> {
  const child = spawn(process.execPath, [ENTRY, 'agent', '-f', file, '--log-level', 'warn'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      text = (text + chunk.toString()).slice(-20_000);
    });
  }
  running.add(child);
  const orphan = () => child.kill('SIGKILL');
  process.once('exit', orphan);
  const closed = new Promise<number | null>((done) => {
    child.once('close', (code) => {
      process.off('exit', orphan);
      running.delete(child);
      done(code);
    });
  });
  const url = `http://127.0.0.1:${port}`;
  const agent: TestAgent = {
    url,
    port,
    child,
    output: () => text,
    async get<T>(path: string) {
      const answer = await fetch(`${url}${path}`);
      return (await answer.json()) as T;
    },
    end(signal) {
      child.kill(signal);
      return closed;
    },
  };
  if (options.wait !== false) await untilReady(agent);
  return agent;
}

async function untilReady(agent: TestAgent): Promise<void> {
  for (let tries = 0; tries < 600; tries += 1) {
    if (agent.child.exitCode !== null)
      throw new Error(`the agent ended with ${agent.child.exitCode}: ${agent.output()}`);
    try {
      if ((await fetch(`${agent.url}/readyz`)).ok) return;
    } catch (error) {
      if (tries === 599) throw error;
    }
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error(`the agent did not become ready: ${agent.output()}`);
}

/** One row of the agent's ledger. */
export interface LedgerRow {
  readonly collection: string;
  readonly accepted: number;
  readonly stored: number;
  readonly spooled: number;
  readonly duplicate: number;
  readonly rows: number;
  readonly dropped: Readonly<Record<string, number>>;
  readonly rejected: Readonly<Record<string, number>>;
}

/** The ledger summed over hours and collections, and whether its equation holds in every row. */
export async function ledgerOf(
  agent: TestAgent,
): Promise<{ accepted: number; stored: number; spooled: number; dropped: number; broken: readonly LedgerRow[] }> {
  const { rows } = await agent.get<{ rows: LedgerRow[] }>('/v1/ledger');
  const sum = (set: Readonly<Record<string, number>>) => Object.values(set).reduce((total, count) => total + count, 0);
  const total = { accepted: 0, stored: 0, spooled: 0, dropped: 0 };
  for (const row of rows) {
    total.accepted += row.accepted;
    total.stored += row.stored;
    total.spooled += row.spooled;
    total.dropped += sum(row.dropped);
  }
  return { ...total, broken: rows.filter((row) => row.accepted !== row.stored + row.spooled + sum(row.dropped)) };
}

/** Waits until nothing is left in the spool. */
export async function untilDelivered(agent: TestAgent, timeoutMs = 60_000): Promise<void> {
  const until = Date.now() + timeoutMs;
  for (;;) {
    const { spooled } = await ledgerOf(agent);
    if (spooled === 0) return;
    if (Date.now() > until) throw new Error(`${spooled} records are still spooled: ${agent.output()}`);
    await new Promise((done) => setTimeout(done, 100));
  }
}

/** Every stored line below a prefix, parsed; a line that is not JSON fails. `dataref` targets are read in place of `data`. */
export async function storedEvents(
  store: ObjectStore,
  prefix: string,
): Promise<{ key: string; event: Record<string, unknown> }[]> {
  const events: { key: string; event: Record<string, unknown> }[] = [];
  let after: string | undefined;
  do {
    const page = await store.list({ prefix, ...(after === undefined ? {} : { after }) });
    for (const { key } of page.objects.filter((object) => object.key.endsWith('.jsonl'))) {
      const text = await textOf(store, key);
      if (!text.endsWith('\n')) throw new Error(`${key} does not end with a line break: …${text.slice(-80)}`);
      for (const line of text.split('\n').slice(0, -1)) {
        const event = JSON.parse(line) as Record<string, unknown>;
        if (typeof event.dataref === 'string')
          event.data = JSON.parse(await textOf(store, keyOf(store, event.dataref)));
        events.push({ key, event });
      }
    }
    after = page.next;
  } while (after !== undefined);
  return events;
}

async function textOf(store: ObjectStore, key: string): Promise<string> {
  const stream = await store.get(key);
  if (stream === undefined) throw new Error(`${key} is missing`);
  return Buffer.concat((await stream.toArray()) as Buffer[]).toString('utf8');
}

function keyOf(store: ObjectStore, url: string): string {
  const base = store.url('x').slice(0, -1);
  if (!url.startsWith(base)) throw new Error(`${url} is not in ${base}`);
  const rest = url.slice(base.length);
  return base.startsWith('/') ? rest : decodeURIComponent(rest);
}
