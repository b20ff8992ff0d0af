/** Online endpoints from the command line: keys, tokens, traffic, mirror and TLS, with real processes. */
import assert from 'node:assert/strict';
import { createSign, generateKeyPairSync } from 'node:crypto';
import { cpSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { Agent, request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, before, test } from 'node:test';
import { writeCertificate } from '../support/certificate.ts';
import { cli, keyHeader, startWorkspace, type TestWorkspace } from '../support/workspace.ts';

const root = mkdtempSync(join(tmpdir(), 'modeltap-endpoint-'));
const directory = join(root, 'ws');
let workspace: TestWorkspace;

/** Answers with its name and with what it can see of who asks. */
const SCORE = `
import { Collector } from '@modeltap/collector';
let inputs: Collector;
export function init() { inputs = new Collector({ name: 'model_inputs' }); }
export async function run(data: string, context: { headers?: Record<string, unknown> } = {}) {
  inputs.collect([{ n: JSON.parse(data).n }]);
  return { name: process.env.NAME, seen: JSON.stringify(context) };
}
`;

const issuerKey = generateKeyPairSync('rsa', { modulusLength: 2_048 });
const issuer = createServer((asked, answer) => {
  const keys = [{ ...issuerKey.publicKey.export({ format: 'jwk' }), kid: 'k1' }];
  answer.end(
    JSON.stringify(asked.url === '/keys' ? { keys } : { issuer: issuerUrl(), jwks_uri: `${issuerUrl()}/keys` }),
  );
});
const issuerUrl = () => `http://127.0.0.1:${(issuer.address() as AddressInfo).port}`;

function issuedToken(audience: string): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const claims = { iss: issuerUrl(), aud: audience, exp: Date.now() / 1_000 + 600 };
  const text = `${part({ alg: 'RS256', kid: 'k1' })}.${part(claims)}`;
  return `${text}.${createSign('sha256').update(text).sign(issuerKey.privateKey).toString('base64url')}`;
}

const deploymentYaml = (name: string) => `name: ${name}
endpoint_name: models
code_configuration: { code: scripts, scoring_script: score.ts }
instance_count: 1
environment_variables: { NAME: ${name} }
request_settings: { max_concurrent_requests_per_instance: 20 }
data_collector: { collections: { model_inputs: { enabled: 'True' } } }
`;

before(async () => {
  await new Promise<void>((done) => issuer.listen(0, '127.0.0.1', done));
  mkdirSync(join(root, 'scripts'));
  writeFileSync(join(root, 'scripts/score.ts'), SCORE);
  writeFileSync(join(root, 'request.json'), '{"n":0}');
  for (const name of ['blue', 'green']) writeFileSync(join(root, `${name}.yml`), deploymentYaml(name));
  for (const name of ['one', 'two']) writeCertificate(join(root, 'tls'), name);
  workspace = await startWorkspace(directory, ['--oidc-issuer', issuerUrl(), '--oidc-audience', 'api://models']);
});
after(async () => {
  issuer.close();
  issuer.closeAllConnections();
  await workspace.stop();
  rmSync(root, { recursive: true, force: true });
});

const endpoint = (verb: string, ...rest: string[]) => workspace.run('online-endpoint', verb, '-n', 'models', ...rest);
const attempt = (verb: string, ...rest: string[]) =>
  workspace.attempt('online-endpoint', verb, '-n', 'models', ...rest);
const credentials = () => workspace.json<Record<string, string>>('online-endpoint', 'get-credentials', '-n', 'models');
const shown = () =>
  workspace.json<{ scoring_uri: string; traffic: object; mirror_traffic: object; tags: object }>(
    'online-endpoint',
    'show',
    '-n',
    'models',
  );

async function ask(
  token: string | undefined,
  { n = 1, uri }: { n?: number; uri?: string } = {},
): Promise<{ status: number; text: string; by: string | null }> {
  const answer = await fetch(uri ?? (await shown()).scoring_uri, {
    method: 'POST',
    body: JSON.stringify({ n }),
    headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
  });
  return { status: answer.status, text: await answer.text(), by: answer.headers.get('azureml-model-deployment') };
}

const stored = (deployment: string): readonly number[] =>
  globSync(join(directory, `**/modelDataCollector/models/${deployment}/model_inputs/**/*.jsonl`)).flatMap((file) =>
    readFileSync(file, 'utf8')
      .split('\n')
      .filter(Boolean)
      .flatMap((line) => (JSON.parse(line) as { data: { n: number }[] }).data.map(({ n }) => n)),
  );

async function eventually(holds: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (const until = Date.now() + 15_000; !(await holds()); ) {
    if (Date.now() > until) assert.fail(what);
    await new Promise((done) => setTimeout(done, 50));
  }
}

test('an endpoint lets in who has one of its two keys, and each can be replaced by itself', async () => {
  await workspace.run('online-endpoint', 'create', '-n', 'models');
  await workspace.run('online-deployment', 'create', '-f', join(root, 'blue.yml'), '--all-traffic');
  const first = await credentials();
  assert.deepEqual(Object.keys(first), ['primaryKey', 'secondaryKey']);
  for (const key of Object.values(first)) assert.match(key, /^[\w-]{43}$/);
  assert.equal((await ask(undefined)).status, 401);
  assert.equal((await ask('x')).status, 401);
  const answer = await ask(first.secondaryKey);
  assert.equal(answer.status, 200);
  assert.ok(!answer.text.includes(first.secondaryKey ?? '-'), 'the script does not see the key');
  await endpoint('regenerate-keys', '--key-type', 'primary');
  const second = await credentials();
  assert.equal(second.secondaryKey, first.secondaryKey);
  assert.deepEqual(
    [
      (await ask(first.primaryKey)).status,
      (await ask(second.primaryKey)).status,
      (await ask(second.secondaryKey)).status,
    ],
    [401, 200, 200],
  );
  const invoked = await endpoint('invoke', '-r', join(root, 'request.json'));
  assert.match(invoked, /"name":"blue"/);
});

test('keys are in no answer but one, in no log and, readable, in no file', async () => {
  const keys = Object.values(await credentials());
  const answers = [JSON.stringify(await shown()), await workspace.run('online-endpoint', 'list'), workspace.output()];
  const files = globSync(join(directory, '**/*')).filter((file) => statSync(file).isFile());
  assert.ok(files.some((file) => file.endsWith('workspace.key')));
  assert.equal(statSync(join(directory, 'workspace.key')).mode & 0o777, 0o600);
  for (const key of keys) {
    for (const answer of answers) assert.ok(!answer.includes(key));
    for (const file of files) assert.ok(!readFileSync(file).includes(key), file);
  }
});

test('traffic goes from blue to green under load without a failed request, and blue can be deleted then', async () => {
  await workspace.run('online-deployment', 'create', '-f', join(root, 'green.yml'));
  const headers = await keyHeader(workspace, 'models');
  const { scoring_uri: uri } = await shown();
  const statuses = new Map<string, number>();
  const load = { running: true };
  const clients = Array.from({ length: 6 }, async () => {
    while (load.running) {
      const answer = await fetch(uri, { method: 'POST', headers, body: '{"n":2}' });
      await answer.text();
      const key = `${answer.status} ${answer.headers.get('azureml-model-deployment')}`;
      statuses.set(key, (statuses.get(key) ?? 0) + 1);
    }
  });
  const after = async (what: string) => {
    statuses.clear();
    await eventually(() => [...statuses.values()].reduce((sum, count) => sum + count, 0) > 150, what);
    return new Map(statuses);
  };
  try {
    assert.deepEqual([...(await after('load')).keys()], ['200 blue']);
    await endpoint('update', '--traffic', 'blue=50 green=50');
    const half = await after('load');
    assert.deepEqual([...half.keys()].toSorted(), ['200 blue', '200 green']);
    await endpoint('update', '--traffic', 'blue=0 green=100');
    const switched = await after('load');
    assert.deepEqual(
      [...switched.keys()].filter((key) => key !== '200 blue'),
      ['200 green'],
    );
    assert.ok((switched.get('200 blue') ?? 0) <= 6, 'only what was on its way');
    await workspace.run('online-deployment', 'delete', '-n', 'blue', '-e', 'models');
    assert.deepEqual([...(await after('load')).keys()], ['200 green']);
  } finally {
    load.running = false;
    await Promise.all(clients);
  }
});

test('shares must be of deployments that exist and add up, and a deployment with traffic is not deleted', async () => {
  const refused = async (code: string, said: RegExp, ...rest: string[]) => {
    const result = await attempt('update', ...rest);
    assert.equal(result.code, 2, result.err);
    assert.match(result.err, new RegExp(`error ${code}: `));
    assert.match(result.err, said);
  };
  await refused('traffic_invalid', /"blue", which does not exist; it has green/, '--traffic', 'blue=10 green=90');
  await refused('request_invalid', /traffic the percentages add up to 90/, '--traffic', 'green=90');
  await refused('traffic_invalid', /"green:100" in --traffic is not DEPLOYMENT=PERCENT/, '--traffic', 'green:100');
  await refused('traffic_invalid', /names "green" twice/, '--traffic', 'green=50,green=50');
  await refused(
    'request_invalid',
    /green gets traffic; a deployment gets traffic or copies/,
    '--mirror-traffic',
    'green=5',
  );
  await refused(
    'request_invalid',
    /trafic is not a key that can stand here; did you mean "traffic"/,
    '--set',
    'trafic=1',
  );
  await refused('request_invalid', /auth_mode must be one of key/, '--set', 'auth_mode=none');
  assert.deepEqual((await shown()).traffic, { green: 100 });
  const kept = await workspace.attempt('online-deployment', 'delete', '-n', 'green', '-e', 'models');
  assert.equal(kept.code, 4);
  assert.match(kept.err, /deployment_has_traffic: deployment green of endpoint models still gets 100 % of the traffic/);
  writeFileSync(join(root, 'endpoint.yml'), 'name: models\ndescription: flowers\n');
  await workspace.run('online-endpoint', 'update', '-f', join(root, 'endpoint.yml'), '--set', 'tags.team=a');
  const now = await workspace.json<{ description: string }>('online-endpoint', 'show', '-n', 'models');
  assert.deepEqual([now.description, (await shown()).tags], ['flowers', { team: 'a' }]);
  assert.deepEqual((await shown()).traffic, { green: 100 }, 'a file without traffic leaves it');
});

test('a mirror gets copies, collects them under its own name, and disturbs nobody', async () => {
  await workspace.run('online-deployment', 'create', '-f', join(root, 'blue.yml'));
  await endpoint('update', '--mirror-traffic', 'blue=50');
  const { primaryKey } = await credentials();
  const { scoring_uri: uri } = await shown();
  const numbers = Array.from({ length: 60 }, (_, index) => 1_000 + index);
  for (const n of numbers) {
    const answer = await ask(primaryKey, { n, uri });
    assert.deepEqual([answer.status, answer.by], [200, 'green']);
  }
  const mirrored = async () => {
    const text = await (await fetch(new URL('/metrics', uri))).text();
    const line = /^modeltap_mirrored_total\{endpoint="models",deployment="blue",outcome="answered"\} (\d+)$/m;
    return Number(line.exec(text)?.[1] ?? 0);
  };
  await eventually(async () => stored('green').filter((n) => n >= 1_000).length === 60, 'green collected all');
  const copies = () => stored('blue').filter((n) => n >= 1_000);
  await eventually(async () => copies().length > 0 && copies().length === (await mirrored()), 'each copy is collected');
  // 60 tosses of a coin: fewer than 8 or more than 52 come once in a hundred million runs.
  assert.ok(copies().length >= 8 && copies().length <= 52, `${copies().length} copies`);
  assert.equal(new Set(copies()).size, copies().length);
  const kept = await workspace.attempt('online-deployment', 'delete', '-n', 'blue', '-e', 'models');
  assert.match(kept.err, /deployment_has_traffic[\s\S]*--mirror-traffic "blue=0"/);
  await endpoint('update', '--mirror-traffic', 'blue=0');
  await workspace.run('online-deployment', 'delete', '-n', 'blue', '-e', 'models');
});

test('with aml_token the workspace gives tokens, and keys are good for nothing', async () => {
  const { primaryKey } = await credentials();
  await endpoint('update', '--set', 'auth_mode=aml_token');
  const given = await workspace.json<Record<string, unknown>>('online-endpoint', 'get-credentials', '-n', 'models');
  assert.deepEqual(Object.keys(given), ['accessToken', 'expiryTimeUtc', 'refreshAfterTimeUtc', 'tokenType']);
  assert.equal(given.tokenType, 'Bearer');
  const left = Number(given.expiryTimeUtc) - Date.now() / 1_000;
  assert.ok(left > 11.9 * 3_600 && left <= 12 * 3_600, `${left} s`);
  assert.equal((await ask(String(given.accessToken))).status, 200);
  assert.equal((await ask(primaryKey)).status, 401);
  assert.match(await endpoint('invoke', '-r', join(root, 'request.json')), /"name":"green"/);
  const keys = await attempt('regenerate-keys');
  assert.equal(keys.code, 4);
  assert.match(keys.err, /auth_mode_other: endpoint models has auth_mode aml_token/);
  await endpoint('update', '--set', 'auth_mode=key');
  assert.equal((await ask(String(given.accessToken))).status, 401);
  assert.equal((await ask(primaryKey)).status, 200, 'the keys are those of before');
});

test('with aad_token the issuer of the workspace gives tokens', async () => {
  await endpoint('update', '--set', 'auth_mode=aad_token');
  assert.equal((await ask(issuedToken('api://models'))).status, 200);
  assert.match((await ask(issuedToken('api://others'))).text, /token_refused.*audience/);
  const none = await attempt('get-credentials');
  assert.equal(none.code, 4);
  assert.match(none.err, /auth_mode aad_token[\s\S]*issuer/);
  await endpoint('update', '--set', 'auth_mode=key');
});

test('over https, with a certificate of any name, the command line works and others check the certificate', async () => {
  const { primaryKey } = await credentials();
  assert.equal(await workspace.stop(), 0);
  const tls = ['--tls-cert', join(root, 'tls/one.cert.pem'), '--tls-key', join(root, 'tls/one.key.pem')];
  workspace = await startWorkspace(directory, tls);
  await eventually(async () => (await attempt('invoke', '-r', join(root, 'request.json'))).code === 0, 'it serves');
  const { scoring_uri: uri } = await shown();
  assert.match(uri, /^https:\/\/127\.0\.0\.1:\d+\//);
  const second = await cli(['up', '--workspace', directory, '--port', '0', '--agent-port', '0']);
  assert.match(second.err, /workspace_running/);
  const trusting = (name: string) =>
    new Promise<number>((done, fail) => {
      const agent = new Agent({
        ca: readFileSync(join(root, `tls/${name}.cert.pem`)),
        servername: `${name}.models.test`,
      });
      const headers = { authorization: `Bearer ${primaryKey}` };
      const sent = request(uri, { method: 'POST', agent, headers }, (answer) => {
        answer.resume();
        done(answer.statusCode ?? 0);
      });
      sent.on('error', fail).end('{"n":3}');
    });
  assert.equal(await trusting('one'), 200, 'keys live on over a restart');
  await assert.rejects(trusting('two'));
  for (const part of ['cert', 'key']) cpSync(join(root, `tls/two.${part}.pem`), join(root, `tls/one.${part}.pem`));
  workspace.child.kill('SIGHUP');
  await eventually(
    () =>
      trusting('two').then(
        (status) => status === 200,
        () => false,
      ),
    'the new certificate is served',
  );
  await eventually(async () => (await attempt('invoke', '-r', join(root, 'request.json'))).code === 0, 'it is trusted');
  const wrong = await cli(['up', '--workspace', join(root, 'other'), '--tls-cert', join(root, 'request.json')]);
  assert.equal(wrong.code, 2);
  assert.match(wrong.err, /option_missing: --tls-cert needs --tls-key/);
});

test('deleting the endpoint deletes its deployments, traffic or not; the same name has other keys then', async () => {
  const old = await credentials();
  await endpoint('delete', '--yes');
  assert.deepEqual(await workspace.json<unknown[]>('online-endpoint', 'list'), []);
  writeFileSync(join(root, 'early.yml'), 'name: models\ntraffic: { blue: 100 }\n');
  const created = await workspace.attempt('online-endpoint', 'create', '-f', join(root, 'early.yml'));
  assert.equal(created.code, 0);
  assert.match(created.err, /warning traffic: there is no deployment blue yet/);
  const now = await credentials();
  for (const key of Object.values(now)) assert.ok(!Object.values(old).includes(key));
});

test('an endpoint from before there were keys gets them at the next start', async () => {
  await workspace.stop();
  const catalog = new DatabaseSync(join(directory, 'catalog.db'));
  catalog.exec("drop table endpoint_keys; delete from schema_migrations where name = 'keys of endpoints'");
  catalog.close();
  rmSync(join(directory, 'workspace.key'));
  workspace = await startWorkspace(directory);
  assert.doesNotMatch(workspace.output(), /new keys/);
  const { primaryKey } = await credentials();
  assert.equal((await ask(primaryKey)).status, 404, 'it is let in, and finds no deployment');
  assert.equal((await ask('x')).status, 401);
});

test('aad_token without an issuer is refused, and a lost workspace key means new keys', async () => {
  writeFileSync(join(root, 'aad.yml'), 'name: aad\nauth_mode: aad_token\n');
  const refused = await workspace.attempt('online-endpoint', 'create', '-f', join(root, 'aad.yml'));
  assert.match(refused.err, /oidc_not_configured[\s\S]*--oidc-issuer/);
  const old = await credentials();
  await workspace.stop();
  const key = readFileSync(join(directory, 'workspace.key'), 'utf8');
  writeFileSync(join(directory, 'workspace.key'), `${Buffer.alloc(32, 1).toString('base64url')}\n`);
  const wrong = await cli(['up', '--workspace', directory, '--port', '0', '--agent-port', '0']);
  assert.equal(wrong.code, 1);
  assert.match(wrong.err, /workspace_key_unusable: .*workspace\.key.*primary key of endpoint models/);
  writeFileSync(join(directory, 'workspace.key'), key);
  workspace = await startWorkspace(directory);
  assert.deepEqual(await credentials(), old);
  await workspace.stop();
  rmSync(join(directory, 'workspace.key'));
  workspace = await startWorkspace(directory);
  assert.notEqual((await credentials()).primaryKey, old.primaryKey);
  assert.match(workspace.output(), /"endpoint":"models".*the endpoint has new keys/);
});
