import assert from 'node:assert/strict';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { readFlowers } from './flowers.ts';
import { checkFlowers } from './predict.ts';
import { sendTraffic, trafficRequest } from './traffic.ts';

const flowers = readFlowers();
const requestsOf = (seed: number, count: number) =>
  Array.from({ length: count }, (_, index) => trafficRequest(flowers, seed, index));

describe('trafficRequest', () => {
  it('makes the same requests for the same seed and others for another', () => {
    assert.deepEqual(requestsOf(1, 50), requestsOf(1, 50));
    const bodies = new Set([...requestsOf(1, 50), ...requestsOf(2, 50)].map((request) => request.body));
    assert.equal(bodies.size, 100);
  });

  it('keeps making the very requests it made when this was written', () => {
    assert.equal(
      trafficRequest(flowers, 1, 0).body,
      '{"data":{"sepal_length":[5.5,48,5.2,5.5,6.5,7.2,6.6,6.3],"sepal_width":[2.8,32,2,2.6,2.6,2.8,3,2.8],"petal_length":[3.6,17,3.5,3.6,5.5,6.3,5.8,5.7],"petal_width":[1.2,1,1.2,1.1,2.2,1.8,2.3,1.8]}}',
    );
  });

  it('holds 1 to 8 flowers the model takes, mostly near real ones, a few absurd', () => {
    const requests = requestsOf(7, 2000);
    const lengths: number[] = [];
    for (const request of requests) {
      const data = checkFlowers(JSON.parse(request.body).data);
      assert.equal(data.sepal_length.length, request.rows);
      lengths.push(...data.sepal_length);
    }
    assert.deepEqual(
      [...new Set(requests.map((request) => request.rows))].sort((a, b) => a - b),
      [1, 2, 3, 4, 5, 6, 7, 8],
    );
    const absurd = lengths.filter((length) => length < 3.5 || length > 9).length;
    assert.ok(absurd > 0 && absurd < lengths.length * 0.03, `${absurd} of ${lengths.length}`);
    const mean = lengths.reduce((sum, length) => sum + Math.min(length, 9), 0) / lengths.length;
    assert.ok(Math.abs(mean - 5.84) < 0.15, `mean sepal length ${mean}; that of the data set is 5.84`);
  });
});

describe('sendTraffic', () => {
  const ids: string[] = [];
  const keys = new Set<string | undefined>();
  const connections = new Set<unknown>();
  let mode: 'good' | 'refuse' | 'short' | 'cut' | 'huge' = 'good';
  const server = http.createServer((request, response) => {
    connections.add(request.socket);
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      ids.push(String(request.headers['x-request-id']));
      keys.add(request.headers.authorization);
      const rows = JSON.parse(Buffer.concat(chunks).toString()).data.sepal_length.length as number;
      if (mode === 'cut') {
        response.writeHead(200, { 'content-length': 1000 });
        response.write('{"species":[', () => request.socket.destroy());
        return;
      }
      if (mode === 'refuse') response.statusCode = 429;
      const count = mode === 'short' ? rows - 1 : rows;
      const padding = mode === 'huge' ? 'x'.repeat(200_000) : '';
      response.end(JSON.stringify({ species: Array.from({ length: count }, () => 'setosa'), padding }));
    });
  });
  let scoringUri = '';
  before(async () => {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    scoringUri = `http://127.0.0.1:${(server.address() as AddressInfo).port}/score`;
  });
  after(() => {
    server.close();
    server.closeAllConnections();
  });

  it('sends every request once over as many connections as it may, and counts what came back', async () => {
    mode = 'good';
    const seen: number[] = [];
    const result = await sendTraffic({
      scoringUri,
      key: 'k1',
      requests: 40,
      concurrency: 3,
      onProgress: (done) => seen.push(done),
    });
    const expected = requestsOf(1936, 40);
    assert.deepEqual(
      [...ids].sort(),
      expected.map((request) => request.id),
    );
    assert.ok(connections.size <= 3, `${connections.size} connections`);
    assert.deepEqual([...keys], ['Bearer k1']);
    const rows = expected.reduce((sum, request) => sum + request.rows, 0);
    const { latencyMs, ...counts } = result;
    assert.deepEqual(counts, { sent: 40, ok: 40, rows, failed: 0 });
    assert.ok(latencyMs.p50 > 0 && latencyMs.p50 <= latencyMs.p99);
    assert.deepEqual(
      seen,
      Array.from({ length: 40 }, (_, index) => index + 1),
    );
  });

  it('counts as failed what is refused, lacks flowers, is cut off or is far too large', async () => {
    for (mode of ['refuse', 'short', 'cut', 'huge'] as const) {
      const result = await sendTraffic({ scoringUri, requests: 5, concurrency: 2 });
      assert.deepEqual(result, { sent: 5, ok: 0, rows: 0, failed: 5, latencyMs: { p50: 0, p99: 0 } }, mode);
    }
  });

  it('counts as failed what nobody answers, instead of rejecting', async () => {
    const closed = http.createServer();
    await new Promise<void>((resolve) => closed.listen(0, '127.0.0.1', resolve));
    const { port } = closed.address() as AddressInfo;
    await new Promise((resolve) => closed.close(resolve));
    const result = await sendTraffic({ scoringUri: `http://127.0.0.1:${port}/score`, requests: 3, concurrency: 3 });
    assert.equal(result.failed, 3);
  });

  it('starts no request once aborted', async () => {
    mode = 'good';
    const stop = new AbortController();
    const onProgress = (done: number) => {
      if (done === 4) stop.abort();
    };
    const result = await sendTraffic({ scoringUri, requests: 1000, concurrency: 2, onProgress, signal: stop.signal });
    assert.ok(result.sent >= 4 && result.sent <= 6, `${result.sent} sent`);
    assert.equal(result.failed, 0);
  });

  it('refuses options that make no sense', async () => {
    await assert.rejects(
      sendTraffic({ scoringUri: 'https://127.0.0.1/score', requests: 1, concurrency: 1 }),
      TypeError,
    );
    await assert.rejects(sendTraffic({ scoringUri, requests: NaN, concurrency: 1 }), RangeError);
    await assert.rejects(sendTraffic({ scoringUri, requests: 1, concurrency: 0 }), RangeError);
  });
});
