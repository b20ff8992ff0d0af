import assert from 'node:assert/strict';
import { request } from 'node:http';
import { test } from 'node:test';
import type { MirrorOutcome } from './mirror.ts';
import { chooseDeployment, chooseMirror, type RoutedEndpoint } from './traffic.ts';
import { call, echo, named, type Serve, signal, world } from './world.test-suite.ts';

interface Seen {
  readonly url: string | undefined;
  readonly method: string | undefined;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: string;
}

/** Keeps what arrives. */
function recorder(answer: Serve = (_request, response) => void response.end('ignored')): {
  seen: Seen[];
  serve: Serve;
} {
  const seen: Seen[] = [];
  return {
    seen,
    serve(incoming, response) {
      const chunks: Buffer[] = [];
      incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
      incoming.on('end', () => {
        const { url, method, headers } = incoming;
        seen.push({ url, method, headers, body: Buffer.concat(chunks).toString() });
        answer(incoming, response);
      });
    },
  };
}

const until = async (holds: () => boolean) => {
  for (const end = Date.now() + 5_000; !holds(); ) {
    if (Date.now() > end) assert.fail('it did not happen');
    await new Promise((done) => setTimeout(done, 5));
  }
};

async function mirrored(
  green: Serve,
  changes: Partial<RoutedEndpoint> & { blue?: Serve; requestTimeoutMs?: number } = {},
) {
  const outcomes: MirrorOutcome[] = [];
  const { blue = echo, ...rest } = changes;
  const here = await world(
    { blue, green },
    {
      traffic: { blue: 100 },
      mirror: { deployment: 'green', percent: 50 },
      options: { random: () => 0.2, onMirrored: (_endpoint, _deployment, outcome) => outcomes.push(outcome) },
      ...rest,
    },
  );
  return { here, outcomes };
}

test('a copy is the same request, says that it is one, and its answer goes to nobody', async () => {
  const green = recorder();
  const { here, outcomes } = await mirrored(green.serve);
  await using _ = here;
  const bodies = ['', '{"x":1}', 'é'.repeat(100_000)];
  let sent = 0;
  for (const body of bodies) {
    for (const chunked of [false, true]) {
      const headers: Record<string, string> = {
        'x-request-id': `r${body.length}${chunked}`,
        'x-mine': '1',
        'x-modeltap-mirror-of': 'forged',
        ...(chunked ? { 'transfer-encoding': 'chunked' } : {}),
      };
      const answer = await call(here.port, '/endpoints/iris/score?a=1', { body, headers });
      assert.equal(answer.headers['azureml-model-deployment'], 'blue');
      const own = JSON.parse(answer.body) as Seen;
      assert.equal(own.body, body);
      assert.equal(own.headers['x-modeltap-mirror-of'], undefined);
      sent += 1;
      await until(() => outcomes.length === sent);
      const copy = green.seen.at(-1);
      assert.deepEqual([copy?.url, copy?.method, copy?.body], ['/score?a=1', 'POST', body]);
      assert.equal(copy?.headers['x-modeltap-mirror-of'], 'blue');
      assert.equal(copy?.headers['x-request-id'], headers['x-request-id']);
      assert.equal(copy?.headers['x-mine'], '1');
    }
  }
  assert.equal(sent, 6);
  assert.deepEqual(new Set(outcomes), new Set(['answered']));
  await until(() => here.leases.back === here.leases.out);
});

test('requests for a named deployment, and those of the mirror itself, are not copied', async () => {
  const green = recorder(named('green'));
  const { here, outcomes } = await mirrored(green.serve);
  await using _ = here;
  await call(here.port, '/endpoints/iris/score', { headers: { 'azureml-model-deployment': 'blue' } });
  await call(here.port, '/endpoints/iris/score', { headers: { 'azureml-model-deployment': 'green' } });
  here.change({ mirror: { deployment: 'gone', percent: 50 } });
  await call(here.port, '/endpoints/iris/score');
  await new Promise((done) => setTimeout(done, 50));
  assert.deepEqual([green.seen.length, outcomes], [1, []]);
});

test('whatever a mirror does, the client gets its answer at once, and it is counted', async () => {
  const cases: readonly [string, Serve | undefined, MirrorOutcome][] = [
    ['refuses', (_incoming, response) => void response.writeHead(503).end(), 'failed'],
    ['breaks', (incoming) => void incoming.socket.destroy(), 'failed'],
    ['hangs', () => undefined, 'timed_out'],
    ['is not there', undefined, 'unavailable'],
  ];
  for (const [what, serve, expected] of cases) {
    const { here, outcomes } = await mirrored(serve ?? echo, { requestTimeoutMs: 200 });
    await using _ = here;
    if (serve === undefined) here.instances.green = [];
    const began = performance.now();
    const answer = await call(here.port, '/endpoints/iris/score', { body: 'x' });
    assert.equal(answer.status, 200, what);
    assert.ok(performance.now() - began < 150, `${what}: the client waited`);
    await until(() => outcomes.length === 1);
    assert.deepEqual(outcomes, [expected], what);
    await until(() => here.leases.back === here.leases.out);
  }
});

test('copies are bounded in size and number, and those over a bound are counted', async () => {
  const release: (() => void)[] = [];
  const green = recorder((_incoming, response) => void release.push(() => response.end()));
  const { here, outcomes } = await mirrored(green.serve);
  await using _ = here;
  const big = 'x'.repeat(1024 ** 2 + 1);
  for (const headers of [{}, { 'transfer-encoding': 'chunked' }] as Record<string, string>[]) {
    const answer = await call(here.port, '/endpoints/iris/score', { body: big, headers });
    assert.equal((JSON.parse(answer.body) as Seen).body.length, big.length);
  }
  assert.deepEqual(outcomes, ['too_large', 'too_large']);
  for (let count = 0; count < 70; count += 1) await call(here.port, '/endpoints/iris/score', { body: 'x' });
  await until(() => release.length === 64);
  assert.deepEqual(
    outcomes.slice(2),
    Array.from({ length: 6 }, () => 'busy'),
  );
  for (const end of release) end();
  await until(() => outcomes.length === 72);
});

test('of a request that its client does not finish no copy is sent', async () => {
  const arrived = signal();
  const green = recorder();
  const { here, outcomes } = await mirrored(green.serve, {
    blue: (incoming) => void incoming.once('data', () => arrived.resolve()),
  });
  await using _ = here;
  const sent = request({ port: here.port, path: '/endpoints/iris/score', method: 'POST' }).on('error', () => undefined);
  sent.write('half');
  await arrived.promise;
  sent.destroy();
  await until(() => outcomes.length === 1);
  assert.deepEqual([outcomes, green.seen], [['client_gone'], []]);
});

/** A generator that gives the same numbers for the same seed. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

test('over many requests, shares and copies are as configured', () => {
  const deployments = Object.fromEntries(['blue', 'green', 'red'].map((name) => [name, { requestTimeoutMs: 1 }]));
  const traffic = { blue: 73, green: 27 };
  const endpoint: RoutedEndpoint = { name: 'iris', traffic, deployments, mirror: { deployment: 'red', percent: 15 } };
  const random = seeded(20_261_123);
  const counts = { blue: 0, green: 0, red: 0, copies: 0 };
  const total = 200_000;
  for (let index = 0; index < total; index += 1) {
    const chosen = chooseDeployment(endpoint, undefined, random) as 'blue' | 'green' | 'red';
    counts[chosen] += 1;
    if (chooseMirror(endpoint, chosen, random) === 'red') counts.copies += 1;
  }
  // Four standard deviations of a binomial distribution.
  const near = (count: number, share: number) =>
    Math.abs(count - total * share) < 4 * Math.sqrt(total * share * (1 - share));
  assert.ok(near(counts.blue, 0.73) && near(counts.green, 0.27) && near(counts.copies, 0.15), JSON.stringify(counts));
  assert.equal(counts.red, 0);
});
