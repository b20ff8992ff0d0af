/** Payload logging of a deployment: what passes its scoring URI is collected, and collecting never stands in the way. */
import assert from 'node:assert/strict';
import { globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { keyHeader, startWorkspace, type TestWorkspace } from '../support/workspace.ts';

const root = mkdtempSync(join(tmpdir(), 'modeltap-payload-'));
const directory = join(root, 'ws');
let workspace: TestWorkspace;
let uri = '';
let headers: Record<string, string> = {};

const SCORE = `
export function init() {}
export function run(data: string) {
  const { data: rows, fail } = JSON.parse(data);
  if (fail) throw new RangeError('as asked');
  if (data.includes('die')) process.exit(1);
  return rows.map((row: number[]) => row.reduce((sum, value) => sum + value, 0));
}
`;

const yaml = (more = '') => `name: blue
endpoint_name: payload
code_configuration: { code: ., scoring_script: score.ts }
data_collector:
  collections:
    request: { enabled: 'True' }
    response: { enabled: 'True' }
${more}`;

interface StoredEvent {
  readonly id: string;
  readonly type: string;
  readonly data: unknown;
  readonly path?: string;
  readonly method?: string;
  readonly contentrange: string;
  readonly correlationid: string;
  readonly xrequestid: string;
  readonly status?: number;
  readonly headerxtenant?: string;
}

const events = (collection: string) =>
  globSync(join(directory, `**/modelDataCollector/payload/blue/${collection}/**/*.jsonl`)).flatMap((file) =>
    readFileSync(file, 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as StoredEvent),
  );

async function until<T>(what: string, look: () => T | undefined): Promise<T> {
  const end = Date.now() + 15_000;
  for (;;) {
    const seen = look();
    if (seen !== undefined) return seen;
    if (Date.now() > end) throw new Error(`not seen in time: ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

const pair = (id: string) =>
  until(`both events of ${id}`, () => {
    const of = (collection: string) => events(collection).find(({ correlationid }) => correlationid === id);
    const [request, response] = [of('request'), of('response')];
    return request && response && { request, response };
  });

const score = (body: string, more: Record<string, string> = {}) =>
  fetch(`${uri}?version=2`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers, ...more },
    body,
  });

before(async () => {
  mkdirSync(root, { recursive: true });
  writeFileSync(join(root, 'score.ts'), SCORE);
  writeFileSync(join(root, 'deployment.yml'), yaml());
  workspace = await startWorkspace(directory);
  uri = (await workspace.json<{ scoring_uri: string }>('online-endpoint', 'create', '-n', 'payload')).scoring_uri;
  headers = await keyHeader(workspace, 'payload');
  await workspace.run('online-deployment', 'create', '-f', join(root, 'deployment.yml'), '--all-traffic');
});
after(async () => {
  await workspace.stop();
  rmSync(root, { recursive: true, force: true });
});

test('a request and its answer are stored as the product document has them, under one id', async () => {
  const body = '{"data": [  [1,2,3,4,5,6,7,8,9,10], [10,9,8,7,6,5,4,3,2,1]]}';
  const answer = await score(body);
  assert.deepEqual([answer.status, await answer.text()], [200, '[55,55]']);
  const id = answer.headers.get('x-request-id') ?? '';
  const { request, response } = await pair(id);
  assert.deepEqual(
    [request.type, request.path, request.method, request.data, request.xrequestid],
    ['azureml.inference.request', '/score?version=2', 'POST', JSON.parse(body), id],
  );
  assert.equal(request.contentrange, `bytes 0-${body.length - 1}/${body.length}`);
  assert.deepEqual(
    [response.type, response.data, response.contentrange, response.path, response.status],
    ['azureml.inference.response', [55, 55], 'bytes 0-6/7', undefined, 200],
  );
  assert.notEqual(request.id, response.id);
  const assets = await workspace.json<{ name: string }[]>('data', 'list');
  assert.ok(['request', 'response'].every((name) => assets.some((asset) => asset.name === `payload-blue-${name}`)));
});

test('neither keys nor probes are collected; a failure is, with its status', async () => {
  const answer = await score('{"data":[[1]],"fail":true}', { 'x-request-id': 'failed-one' });
  assert.equal(answer.status, 500);
  const { response } = await pair('failed-one');
  assert.equal(response.status, 500);
  const lines = [...events('request'), ...events('response')];
  assert.ok(lines.every(({ path }) => path === undefined || path.startsWith('/score')));
  assert.ok(!JSON.stringify(lines).includes(headers.authorization ?? '?'));
  const rows = await workspace.json<readonly { collection: string; accepted: number; stored: number }[]>('ledger');
  const both = rows.filter(({ collection }) => ['request', 'response'].includes(collection));
  assert.deepEqual(
    both.map(({ accepted, stored }) => accepted === stored && stored >= 2),
    [true, true],
  );
});

test('a killed agent is not noticed by those who score, and what passed meanwhile is stored', async () => {
  const { agent_pid: pid } = await workspaceInfo();
  process.kill(pid, 'SIGKILL');
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, index) => score('{"data":[[1,1]]}', { 'x-request-id': `while-away-${index}` })),
  );
  assert.ok(answers.every(({ status }) => status === 200));
  await pair('while-away-19');
});

test('an instance that dies is tapped again when it is back; new settings count without a dropped request', async () => {
  await score('{"data":[["die"]]}').catch(() => undefined);
  await until('an answer', () =>
    events('request').some(({ data }) => JSON.stringify(data).includes('die')) ? 1 : undefined,
  );
  const back = await score('{"data":[[2,2]]}', { 'x-request-id': 'back-again' });
  assert.equal(back.status, 200);
  await pair('back-again');
  writeFileSync(
    join(root, 'deployment.yml'),
    yaml('  request_logging: { capture_headers: [x-tenant, authorization] }\n'),
  );
  const updated = new AbortController();
  const load = (async () => {
    const seen: number[] = [];
    while (!updated.signal.aborted) seen.push((await score('{"data":[[3]]}')).status);
    return seen;
  })();
  await workspace.run('online-deployment', 'update', '-f', join(root, 'deployment.yml'));
  await score('{"data":[[4]]}', { 'x-request-id': 'with-headers', 'x-tenant': 'acme' });
  updated.abort();
  assert.deepEqual([...new Set(await load)], [200]);
  const { request } = await pair('with-headers');
  assert.equal(request.headerxtenant, 'acme');
  assert.ok(!JSON.stringify(request).includes('Bearer'));
});

test('what is not shipped when the workspace stops is shipped when it starts again', async () => {
  await score('{"data":[[5]]}', { 'x-request-id': 'the-last' });
  assert.equal(await workspace.stop(), 0);
  workspace = await startWorkspace(directory);
  await pair('the-last');
});

async function workspaceInfo(): Promise<{ agent_pid: number }> {
  const answer = await fetch(new URL('/api/v1/workspace', uri));
  return (await answer.json()) as { agent_pid: number };
}
