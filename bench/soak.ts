/**
 * `npm run bench -- soak`: memory of the agent and of a process that uses the SDK under steady mixed load. Runs for
 * `SOAK_MINUTES` (default 30) and compares the resident memory of the last fifth with that of the second fifth (the
 * first one is warm-up): bounded memory stays near 1. Not part of the default list, for its length.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { freePort, ledgerOf, startAgent, untilDelivered, writeAgentFile } from '../test/support/agent.ts';
import { sendAsSdk } from '../test/support/raw-client.ts';
import type { BenchRow } from './harness.ts';

const minutes = Number(process.env.SOAK_MINUTES ?? 30);
const sleep = (ms: number) => new Promise((done) => setTimeout(done, ms));

function residentMb(pid: number | undefined): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) / 1024;
}

const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;

/** Single records, as the Python SDK sends them, with a large one now and then. */
async function singles(port: number, load: { running: boolean; sent: number }): Promise<void> {
  const rows = Buffer.from(JSON.stringify([{ a: 1.5, b: 'text', c: [1, 2, 3], filler: 'x'.repeat(700) }]));
  const large = Buffer.from(JSON.stringify([{ filler: 'x'.repeat(5 * 1024 ** 2) }]));
  for (let n = 1; load.running; n += 1) {
    const body = n % 2_000 === 0 ? large : rows;
    const { status } = await sendAsSdk(port, { collection: 'model_inputs', body, correlationId: randomUUID() });
    if (status === 204) load.sent += 1;
    await sleep(2);
  }
}

async function batches(port: number, load: { running: boolean; sent: number }): Promise<void> {
  while (load.running) {
    const events = Array.from({ length: 100 }, () => ({
      specversion: '1.0',
      id: randomUUID(),
      source: '/modeltap/collector',
      type: 'azureml.inference.model_outputs',
      datacontenttype: 'application/json',
      time: new Date().toISOString(),
      data: [{ score: Math.random() }],
      correlationid: randomUUID(),
    }));
    const answer = await fetch(`http://127.0.0.1:${port}/v1/events`, {
      method: 'POST',
      headers: { 'content-type': 'application/cloudevents-batch+json' },
      body: JSON.stringify(events),
    });
    await answer.text();
    if (answer.status === 204) load.sent += 100;
    await sleep(50);
  }
}

function startHost(port: number): ChildProcess {
  const script = resolve(import.meta.dirname, '../test/support/collector-process.mjs');
  return spawn(process.execPath, [script, String(port)], { stdio: ['pipe', 'ignore', 'inherit'] });
}

/** Two rows: the agent's memory and the SDK host's, end over beginning. */
export async function run(): Promise<BenchRow[]> {
  const directory = mkdtempSync(join(tmpdir(), 'modeltap-soak-'));
  const port = await freePort();
  const datastore = { type: 'local', path: join(directory, 'store') };
  const agent = await startAgent(writeAgentFile({ directory, port, datastore }), port);
  const host = startHost(port);
  const load = { running: true, sent: 0 };
  const work = [singles(port, load), singles(port, load), batches(port, load)];
  const samples: { agent: number; host: number }[] = [];
  const until = Date.now() + minutes * 60_000;
  while (Date.now() < until) {
    await sleep(Math.min(5_000, (minutes * 60_000) / 50));
    samples.push({ agent: residentMb(agent.child.pid), host: residentMb(host.pid) });
  }
  load.running = false;
  await Promise.all(work);
  host.stdin?.end();
  await new Promise((done) => host.once('close', done));
  await untilDelivered(agent);
  const ledger = await ledgerOf(agent);
  await agent.end('SIGTERM');
  rmSync(directory, { recursive: true, force: true });
  const fifth = Math.floor(samples.length / 5);
  const row = (name: string, of: (sample: { agent: number; host: number }) => number): BenchRow => {
    const early = median(samples.slice(fifth, 2 * fifth).map(of));
    const late = median(samples.slice(-fifth).map(of));
    const note = `${early.toFixed(0)} → ${late.toFixed(0)} MB over ${minutes} min; ${ledger.accepted} records, ledger ${ledger.broken.length === 0 ? 'balanced' : 'BROKEN'}`;
    return { name, ratio: late / early, floor: 1.5, target: 1.15, lowerIsBetter: true, note };
  };
  return [
    row('agent memory, end / beginning', (sample) => sample.agent),
    row('SDK host memory, end / beginning', (sample) => sample.host),
  ];
}

if (import.meta.main) for (const row of await run()) console.log(JSON.stringify(row));
