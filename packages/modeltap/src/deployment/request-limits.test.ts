import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmodSync, writeFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import type { DeploymentConfig } from '../config/types.ts';
import { createEndpointRouter } from '../endpoint/router.ts';
import { createDeployments, type Deployments } from './deployment-set.ts';
import { type Answer, call, deploymentConfig, temporaryFolder, until } from './process.test-suite.ts';

/**
 * Stands where the interpreter of an environment would: a server that, like gunicorn, does not know the limits and does
 * not learn that a client has gone. The body is how many milliseconds it takes; `/` tells how many ran at once.
 */
const INTERPRETER = `#!${process.execPath}
let running = 0, most = 0;
const order = [];
const server = require('node:http').createServer((request, response) => {
  if (request.url === '/') return response.end('Healthy');
  if (request.url === '/seen') return response.end(JSON.stringify({ most, order }));
  let body = '';
  request.on('data', (chunk) => { body += chunk; });
  request.on('end', () => {
    running += 1;
    most = Math.max(most, running);
    order.push(body);
    if (body === 'die') process.kill(process.pid, 'SIGKILL');
    setTimeout(() => { running -= 1; response.end('done'); }, Number(body.split(' ')[0]));
  });
}).listen(0, '127.0.0.1', () => process.send({ type: 'listening', port: server.address().port }));
process.on('SIGTERM', () => process.exit(0));
`;

interface World extends AsyncDisposable {
  readonly deployments: Deployments;
  readonly port: number;
  score(body: string): Promise<Answer>;
  /** What each instance saw. */
  seen(): Promise<{ most: number; order: string[] }[]>;
}

async function world(
  requestSettings: Partial<DeploymentConfig['requestSettings']>,
  changes: Partial<DeploymentConfig> = {},
): Promise<World> {
  const folder = temporaryFolder({ 'score.py': '' });
  const python = join(folder.path, 'python');
  writeFileSync(python, INTERPRETER);
  chmodSync(python, 0o755);
  const deployments = createDeployments({ stopDeadlineMs: 2000, drainMs: 100 });
  const limits = {
    requestTimeoutMs: 5000,
    maxConcurrentRequestsPerInstance: 1,
    maxQueueWaitMs: 5000,
    ...requestSettings,
  };
  const config = deploymentConfig(folder.path, 'score.py', { requestSettings: limits, ...changes });
  await deployments.apply({
    config,
    python: { directory: folder.path, python },
    logDirectory: join(folder.path, 'logs'),
    environment: {},
  });
  const router = createEndpointRouter({
    endpoint: () => ({
      name: 'iris',
      traffic: {},
      deployments: { blue: { requestTimeoutMs: limits.requestTimeoutMs } },
    }),
    acquire: (endpoint, deployment, options) => deployments.acquire(endpoint, deployment, options),
  });
  const front = createServer((incoming, response) => router.serve(incoming, response)).listen(0, '127.0.0.1');
  await once(front, 'listening');
  const { port } = front.address() as AddressInfo;
  return {
    deployments,
    port,
    score: (body) => call(port, '/endpoints/iris/score', { body }),
    async seen() {
      const instances = deployments.status('iris', 'blue')?.instances ?? [];
      return Promise.all(
        instances.map(async (one) => (await call(one.port ?? 0, '/seen')).json() as { most: number; order: string[] }),
      );
    },
    async [Symbol.asyncDispose]() {
      await router.stop(0);
      front.close();
      front.closeAllConnections();
      await deployments.stop(1000);
      folder[Symbol.dispose]();
    },
  };
}

const inFlight = (here: World) => here.deployments.status('iris', 'blue')?.instances[0]?.inFlight;

test('an instance gets as many requests at once as it may, the others in the order they came', async () => {
  await using here = await world({ maxConcurrentRequestsPerInstance: 2 });
  const bodies = ['120 a', '60 b', '20 c', '20 d', '20 e'];
  const answers = [];
  for (const body of bodies) {
    answers.push(here.score(body));
    await new Promise((resolve) => setTimeout(resolve, 8));
  }
  for (const answer of answers) assert.equal((await answer).status, 200);
  assert.deepEqual(await here.seen(), [{ most: 2, order: bodies }]);
});

test('all instances have room of their own', async () => {
  await using here = await world({}, { instanceCount: 2 });
  const answers = await Promise.all(['60', '60', '60', '60'].map((body) => here.score(body)));
  assert.deepEqual(
    answers.map(({ status }) => status),
    [200, 200, 200, 200],
  );
  assert.deepEqual(await here.seen(), [
    { most: 1, order: ['60', '60'] },
    { most: 1, order: ['60', '60'] },
  ]);
});

test('a request that waits longer than max_queue_wait_ms is 429 with what to do, and never reaches the instance', async () => {
  await using here = await world({ maxQueueWaitMs: 40 });
  const first = here.score('250');
  await until('it runs', () => inFlight(here) === 1);
  const began = performance.now();
  const second = await here.score('1');
  assert.ok(performance.now() - began < 200, 'it was answered while the first still ran');
  assert.equal(second.status, 429);
  const body = second.json() as { message: string; error: { code: string; message: string; fix: string } };
  assert.equal(body.error.code, 'too_many_requests');
  assert.equal(body.message, body.error.message);
  assert.match(body.error.fix, /max_concurrent_requests_per_instance/);
  assert.equal(second.headers['azureml-model-deployment'], 'blue');
  assert.ok(second.headers['x-request-id']);
  assert.equal((await first).status, 200);
  assert.deepEqual(await here.seen(), [{ most: 1, order: ['250'] }]);
});

test('a request that timed out keeps its place until the instance has finished with it', async () => {
  await using here = await world({ requestTimeoutMs: 120 });
  const late = await here.score('400 late');
  assert.equal(late.status, 408);
  assert.equal((late.json() as { error: { code: string } }).error.code, 'request_timeout');
  assert.equal(inFlight(here), 1, 'the instance is still at it');
  const waited = await here.score('1 waits');
  assert.equal(waited.status, 408, 'it waited for the place in vain');
  await until('the place is free', () => inFlight(here) === 0);
  assert.equal((await here.score('1 next')).status, 200);
  assert.deepEqual(await here.seen(), [{ most: 1, order: ['400 late', '1 next'] }]);
});

test('so does one whose client has gone; one that waits leaves the queue', async () => {
  await using here = await world({});
  const send = (body: string) => {
    const sent = request({ port: here.port, path: '/endpoints/iris/score', method: 'POST' });
    sent.on('error', () => undefined).end(body);
    return sent;
  };
  const first = send('300 first');
  await until('it runs', () => inFlight(here) === 1);
  const second = send('1 second');
  await new Promise((done) => setTimeout(done, 50));
  for (const sent of [first, second]) sent.destroy();
  assert.equal((await here.score('1 third')).status, 200);
  assert.deepEqual(await here.seen(), [{ most: 1, order: ['300 first', '1 third'] }]);
});

test('an instance that dies gives its places back, and those who wait are served when it is there again', async () => {
  await using here = await world({});
  const answers = [here.score('die'), here.score('1 a'), here.score('1 b')];
  assert.deepEqual(
    (await Promise.all(answers)).map(({ status }) => status),
    [502, 200, 200],
  );
  assert.equal(inFlight(here), 0);
});
