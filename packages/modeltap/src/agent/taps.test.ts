import assert from 'node:assert/strict';
import { once } from 'node:events';
import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { stringify } from 'yaml';
import { parseAgent } from '../config/load.ts';
import { silentLogger } from '../kit/logger.ts';
import { startAgent } from './agent.ts';

const EXCHANGES = 5;
const ANSWER_MS = 600;

test('exchanges under way when a tap is taken out end and are stored, also when the agent stops at once', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'modeltap-taps-'));
  const server = createServer((request, response) => {
    setTimeout(() => request.pipe(response), ANSWER_MS);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const upstream = (server.address() as AddressInfo).port;
  const enabled = { enabled: 'True', data: { path: 'azureml://datastores/store/paths/p' } };
  const text = stringify({
    port: 0,
    spool: { path: './spool' },
    datastores: [{ name: 'store', type: 'local', path: './store' }],
    deployments: [
      { endpoint_name: 'iris', deployment_name: 'blue', data_collector: { collections: { request: enabled } } },
    ],
    taps: [{ endpoint_name: 'iris', deployment_name: 'blue', port: 0, upstream: `http://127.0.0.1:${upstream}` }],
  });
  const config = parseAgent(text, { file: join(directory, 'agent.yml') }).value;
  const agent = await startAgent({ config, logger: silentLogger, reload: async () => ({ ...config, taps: [] }) });
  const body = JSON.stringify(['x'.repeat(1024)]);
  const url = `http://127.0.0.1:${agent.taps[0]?.port}/`;
  const headers = { 'content-type': 'application/json', connection: 'close' };
  const send = async () =>
    assert.equal((await (await fetch(url, { method: 'POST', headers, body })).text()).length, body.length);
  const sent = Promise.all(Array.from({ length: EXCHANGES }, send));
  await new Promise((done) => setTimeout(done, ANSWER_MS / 3));
  await agent.reload();
  assert.deepEqual(await agent.stop(20_000), { spooledBytes: 0 });
  await sent;
  const lines = globSync(join(directory, 'store/**/*.jsonl')).flatMap((file) =>
    readFileSync(file, 'utf8').trim().split('\n'),
  );
  assert.equal(lines.length, EXCHANGES);
  server.close();
  server.closeAllConnections();
  rmSync(directory, { recursive: true });
});
