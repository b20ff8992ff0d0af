/** `modeltap tap` and the `taps` of an agent, as processes of their own: what a person sees, and what is stored. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { stringify } from 'yaml';
import { ENTRY, freePort, killAgents, ledgerOf, startAgent, untilDelivered, writeAgentFile } from './support/agent.ts';

const root = mkdtempSync(join(tmpdir(), 'modeltap-tap-agent-'));
let server: Server;
let upstream = 0;
const children = new Set<ChildProcess>();

before(async () => {
  server = createServer((request, response) => {
    if (request.url === '/fail') response.statusCode = 500;
    response.setHeader('content-type', 'application/json');
    request.pipe(response);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  upstream = (server.address() as AddressInfo).port;
});
after(() => {
  killAgents();
  for (const child of children) child.kill('SIGKILL');
  server.close();
  server.closeAllConnections();
  rmSync(root, { recursive: true, force: true });
});

function modeltap(...args: string[]) {
  const child = spawn(process.execPath, [ENTRY, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  children.add(child);
  let text = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (text += chunk.toString()));
  return { child, text: () => text, code: once(child, 'close').then(([code]) => code as number | null) };
}

async function until(check: () => boolean, what: () => string): Promise<void> {
  for (let tries = 0; !check(); tries += 1) {
    assert.ok(tries < 300, what());
    await new Promise((done) => setTimeout(done, 50));
  }
}

const post = async (port: number, path: string, id: string) => {
  const headers = { 'content-type': 'application/json', 'x-request-id': id };
  const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method: 'POST', headers, body: `["${id}"]` });
  assert.equal(await answer.text(), `["${id}"]`);
};

const linesIn = (folder: string) =>
  globSync(join(folder, '**/*.jsonl'))
    .flatMap((file) => readFileSync(file, 'utf8').split('\n').slice(0, -1))
    .map((line) => JSON.parse(line) as Record<string, unknown>);

test('modeltap tap stores into a workspace, says where, and drains when it is told to stop', async () => {
  const workspace = join(root, 'workspace');
  const places = `--endpoint iris --deployment blue --port 0 --path /score /fail --workspace ${workspace}`;
  const tap = modeltap('tap', '--upstream', `http://127.0.0.1:${upstream}`, ...places.split(' '));
  await until(() => tap.text().includes('Ctrl-C'), tap.text);
  const port = Number(/clients +http:\/\/127\.0\.0\.1:(\d+)/.exec(tap.text())?.[1]);
  await post(port, '/score', 'one');
  await post(port, '/fail', 'two');
  await post(port, '/other', 'three');
  tap.child.kill('SIGTERM');
  assert.equal(await tap.code, 0, tap.text());
  const folder = join(workspace, 'datastores/workspaceblobstore/modelDataCollector/iris/blue');
  assert.ok(tap.text().includes(join(folder, 'request')), tap.text());
  const [requests, responses] = [linesIn(join(folder, 'request')), linesIn(join(folder, 'response'))];
  assert.deepEqual(
    requests.map((event) => event['data']),
    [['one'], ['two']],
  );
  assert.deepEqual(
    responses.map((event) => event['status']),
    [200, 500],
  );
});

test('the taps of an agent file collect for their deployment, and its ledger, metrics and state show them', async () => {
  const [port, tapPort] = [await freePort(), await freePort()];
  const path = join(root, 'store');
  const directory = join(root, 'sidecar');
  const collections = ['request', 'response'];
  const tap = {
    endpoint_name: 'iris',
    deployment_name: 'blue',
    port: tapPort,
    upstream: `http://127.0.0.1:${upstream}`,
  };
  const setup = { directory, port, datastore: { type: 'local', path }, collections };
  const file = writeAgentFile({ ...setup, extra: { taps: [tap] } });
  const agent = await startAgent(file, port);
  for (let index = 0; index < 20; index += 1) await post(tapPort, '/score', `id-${index}`);
  await untilDelivered(agent);
  const ledger = await ledgerOf(agent);
  assert.deepEqual([ledger.accepted, ledger.stored, ledger.broken], [40, 40, []]);
  assert.equal(linesIn(join(path, 'modelDataCollector/iris/blue/request')).length, 20);
  const metrics = await (await fetch(`${agent.url}/metrics`)).text();
  assert.match(metrics, /modeltap_tap_exchanges_total 20/);
  assert.match(metrics, /modeltap_tap_connections\{endpoint="iris",deployment="blue"\} \d/);
  const state = await agent.get<{ taps: { port: number; upstream: string }[] }>('/v1/state');
  assert.deepEqual([state.taps[0]?.port, state.taps[0]?.upstream], [tapPort, tap.upstream]);

  // A reload changes what is collected without touching connections, and a tap that is gone stops listening.
  writeAgentFile({ ...setup, extra: { taps: [{ ...tap, paths: ['/nothing'] }] } });
  assert.equal((await fetch(`${agent.url}/v1/reload`, { method: 'POST' })).status, 204);
  await post(tapPort, '/score', 'not collected');
  writeAgentFile(setup);
  assert.equal((await fetch(`${agent.url}/v1/reload`, { method: 'POST' })).status, 204);
  await assert.rejects(() => post(tapPort, '/score', 'nobody there'));
  assert.equal((await ledgerOf(agent)).accepted, 40);
  assert.equal(await agent.end('SIGTERM'), 0);
});

test('options and files that cannot work are refused with what to do', async () => {
  const refused = async (...args: string[]) => {
    const run = modeltap('tap', ...args);
    assert.equal(await run.code, 2, run.text());
    return run.text();
  };
  assert.match(await refused('--port', '1'), /tap_options_missing: a tap needs --upstream, --endpoint, --deployment/);
  assert.match(await refused('--upstream', 'https://x'), /must begin with http:\/\//);
  assert.match(await refused('--upstream', 'http://x/score'), /must end behind the port/);
  assert.match(await refused('--endpoint', '9'), /begins with a letter/);
  const file = join(root, 'bad.yml');
  writeFileSync(
    file,
    stringify({
      datastores: [{ name: 'workspaceblobstore', type: 'local', path: './store' }],
      deployments: [],
      taps: [
        { endpoint_name: 'iris', deployment_name: 'green', port: 5002, upstream: 'localhost', memory_bytes: '1GB' },
      ],
    }),
  );
  const text = await refused('-f', file);
  assert.match(text, /taps\[0\]\.upstream: must be an address such as http:\/\/127\.0\.0\.1:8000|must begin with http/);
  assert.match(text, /the deployment "iris\/green" is not among deployments/);
  assert.match(text, /memory_bytes: must be at most 8MB/);
});
