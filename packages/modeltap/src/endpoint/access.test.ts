import assert from 'node:assert/strict';
import { createSign, generateKeyPairSync, type KeyObject, constants, sign as signData } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { connect } from 'node:net';
import { test } from 'node:test';
import { type EndpointAccess, issueToken, keyDigest } from './access.ts';
import { signHs256 } from './jwt.ts';
import { createOidcIssuer } from './oidc.ts';
import { call, echo, listen, world } from './world.test-suite.ts';

const KEYS: EndpointAccess = { mode: 'key', digests: [keyDigest('first-key'), keyDigest('second-key')] };
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
const score = (port: number, headers: Record<string, string> = {}) =>
  call(port, '/endpoints/iris/score', { body: 'x', headers });

test('with keys, either of the two lets a request in, and nothing else does', async () => {
  await using here = await world({ blue: echo }, { access: KEYS });
  for (const key of ['first-key', 'second-key']) {
    for (const scheme of ['Bearer ', 'bearer  ']) {
      const answer = await score(here.port, { authorization: `${scheme}${key}` });
      assert.equal(answer.status, 200, scheme);
      const seen = JSON.parse(answer.body) as { headers: IncomingHttpHeaders };
      assert.equal(seen.headers.authorization, undefined, 'the model does not see the key');
    }
  }
  const none = await score(here.port);
  assert.deepEqual([none.status, none.error().code], [401, 'key_auth_bad_header_forbidden']);
  assert.equal(none.headers['www-authenticate'], 'Bearer realm="iris"');
  for (const wrong of ['first-ke', 'first-keyy', 'x'.repeat(5_000), '😀']) {
    const answer = await score(here.port, bearer(encodeURIComponent(wrong)));
    assert.deepEqual([answer.status, answer.error().code], [401, 'key_auth_access_denied']);
    assert.match(String(answer.headers['www-authenticate']), /error="invalid_token"/);
    assert.ok(!answer.body.includes(wrong), 'what was sent is not repeated');
  }
  for (const authorization of ['first-key', 'Basic first-key', 'Bearer', 'Bearer first-key second-key']) {
    assert.equal((await score(here.port, { authorization })).error().code, 'key_auth_bad_header_forbidden');
  }
  assert.equal(here.leases.out, 4, 'nothing that was refused reached the model');
});

test('a refused request is answered before its body is there, and its rest is not taken for another request', async () => {
  await using here = await world({ blue: echo }, { access: KEYS });
  const socket = connect(here.port, '127.0.0.1');
  let text = '';
  socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
  socket.write('POST /endpoints/iris/score HTTP/1.1\r\nHost: x\r\nContent-Length: 400000\r\n\r\n');
  socket.write('GET /endpoints/iris/score HTTP/1.1\r\n'.repeat(1_000));
  socket.on('error', () => undefined);
  await new Promise((done) => socket.once('close', done));
  assert.match(text, /^HTTP\/1\.1 401 /);
  assert.equal(text.match(/HTTP\/1\.1/g)?.length, 1);
});

test('tokens of the workspace are for one endpoint, and end', async () => {
  const secret = Buffer.alloc(32, 7);
  let now = Date.UTC(2026, 0, 1);
  const clock = { now: () => now, monotonic: () => 0, sleep: () => Promise.resolve() };
  const access: EndpointAccess = { mode: 'aml_token', secret };
  await using here = await world({ blue: echo }, { access, options: { clock } });
  const { token, expires, refreshAfter } = issueToken('iris', secret, now);
  assert.deepEqual([expires - now / 1_000, expires - refreshAfter], [12 * 3_600, 3_600]);
  assert.equal((await score(here.port, bearer(token))).status, 200);
  const refused = async (text: string) => {
    const answer = await score(here.port, bearer(text));
    assert.deepEqual([answer.status, answer.error().code], [401, 'token_refused']);
    assert.match(String(answer.headers['www-authenticate']), /error="invalid_token", error_description="\w+"/);
    return /refused: (\w+)/.exec(answer.error().message)?.[1];
  };
  assert.equal(await refused(issueToken('roses', secret, now).token), 'audience');
  assert.equal(await refused(issueToken('iris', Buffer.alloc(32, 8), now).token), 'signature');
  assert.equal(await refused(`${token.slice(0, -4)}AAAA`), 'signature');
  assert.equal(await refused(signHs256({ iss: 'x', aud: 'endpoints/iris', exp: expires }, secret)), 'issuer');
  assert.equal(await refused(signHs256({ iss: 'modeltap', aud: 'endpoints/iris' }, secret)), 'expired');
  const [, claims = ''] = token.split('.');
  const none = `${Buffer.from('{"alg":"none"}').toString('base64url')}.${claims}.AAAA`;
  assert.equal(await refused(none), 'algorithm');
  assert.equal(await refused('first-key'), 'malformed');
  assert.equal(await refused('a.b.c'), 'malformed');
  now += 12 * 3_600_000 + 61_000;
  assert.equal(await refused(token), 'expired');
  now -= 24 * 3_600_000;
  assert.equal(await refused(token), 'not_yet_valid');
  const missing = await score(here.port);
  assert.deepEqual([missing.status, missing.error().code], [401, 'token_missing']);
});

/** An OIDC issuer with keys that can be exchanged, or that does not answer. */
async function issuer(audience: string) {
  const state = { up: true, asked: 0, keys: [] as object[], name: '' };
  const { server, port } = await listen((request, response) => {
    if (!state.up) {
      request.socket.destroy();
      return;
    }
    state.asked += 1;
    const jwks_uri = `${state.name}/keys`;
    const document = request.url === '/keys' ? { keys: state.keys } : { issuer: state.name, jwks_uri };
    response.end(JSON.stringify(document));
  });
  state.name = `http://127.0.0.1:${port}`;
  let now = Date.UTC(2026, 0, 1);
  let passed = 1_000_000;
  const clock = { now: () => now, monotonic: () => passed, sleep: () => Promise.resolve() };
  return {
    state,
    pass(ms: number) {
      now += ms;
      passed += ms;
    },
    claims: (changes: object = {}) => ({ iss: state.name, aud: audience, exp: now / 1_000 + 3_600, ...changes }),
    tokens: createOidcIssuer({ issuerUrl: state.name, audience, clock }),
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}

const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');

function token(head: { alg: string; kid?: string }, claims: object, key: KeyObject): string {
  const text = `${part(head)}.${part(claims)}`;
  const data = Buffer.from(text);
  const made =
    head.alg === 'ES256'
      ? signData('sha256', data, { key, dsaEncoding: 'ieee-p1363' })
      : head.alg === 'PS256'
        ? signData('sha256', data, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 })
        : createSign('sha256').update(data).sign(key);
  return `${text}.${made.toString('base64url')}`;
}

const rsa = generateKeyPairSync('rsa', { modulusLength: 2_048 });
const other = generateKeyPairSync('rsa', { modulusLength: 2_048 });
const weak = generateKeyPairSync('rsa', { modulusLength: 1_024 });
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const jwk = (key: KeyObject, kid: string, more: object = {}) => ({ ...key.export({ format: 'jwk' }), kid, ...more });

test('tokens of an OIDC issuer are checked by its keys, which are kept and may be exchanged', async () => {
  const oidc = await issuer('api://models');
  const { state, claims } = oidc;
  state.keys = [
    jwk(rsa.publicKey, 'r1', { use: 'sig' }),
    jwk(ec.publicKey, 'e1', { alg: 'ES256' }),
    jwk(weak.publicKey, 'w1'),
    jwk(other.publicKey, 'enc', { use: 'enc' }),
    { kty: 'unheard-of', kid: 'u1' },
  ];
  await using here = await world({ blue: echo }, { access: { mode: 'aad_token' }, options: { issuer: oidc.tokens } });
  const ask = async (text: string) => {
    const answer = await score(here.port, bearer(text));
    return answer.status === 200 ? 'ok' : `${answer.status} ${answer.error().message}`;
  };
  for (const alg of ['RS256', 'PS256'])
    assert.equal(await ask(token({ alg, kid: 'r1' }, claims(), rsa.privateKey)), 'ok');
  assert.equal(await ask(token({ alg: 'ES256', kid: 'e1' }, claims(), ec.privateKey)), 'ok');
  assert.equal(await ask(token({ alg: 'RS256' }, claims({ aud: ['x', 'api://models'] }), rsa.privateKey)), 'ok');
  assert.equal(state.asked, 2, 'the keys were asked for once');
  const refused = (reason: string) => `401 the token is refused: ${reason}`;
  const bad = async (changes: object) => ask(token({ alg: 'RS256', kid: 'r1' }, claims(changes), rsa.privateKey));
  assert.equal(await bad({ aud: 'api://others' }), refused('audience'));
  assert.equal(await bad({ iss: 'https://elsewhere' }), refused('issuer'));
  assert.equal(await bad({ exp: 1 }), refused('expired'));
  assert.equal(await bad({ nbf: 4e9 }), refused('not_yet_valid'));
  assert.equal(await ask(token({ alg: 'RS256', kid: 'r1' }, claims(), other.privateKey)), refused('signature'));
  assert.equal(await ask(token({ alg: 'ES256', kid: 'r1' }, claims(), ec.privateKey)), refused('key_unknown'));
  assert.equal(await ask(token({ alg: 'RS256', kid: 'w1' }, claims(), weak.privateKey)), refused('key_unknown'));
  assert.equal(await ask(token({ alg: 'RS256', kid: 'enc' }, claims(), other.privateKey)), refused('key_unknown'));
  assert.equal(await ask(signHs256(claims(), Buffer.from('guess'))), refused('algorithm'));
  assert.equal(state.asked, 2, 'unknown keys do not make it ask at once again');
  state.keys = [jwk(other.publicKey, 'r2')];
  oidc.pass(11_000);
  assert.equal(await ask(token({ alg: 'RS256', kid: 'r2' }, claims(), other.privateKey)), 'ok');
  assert.equal(state.asked, 4);
  assert.equal(await ask(token({ alg: 'RS256', kid: 'r1' }, claims(), rsa.privateKey)), refused('key_unknown'));
  oidc.close();
});

test('an issuer that is not reached is 503, and keys that are known go on working', async () => {
  const oidc = await issuer('api://models');
  const { state, claims } = oidc;
  state.keys = [jwk(rsa.publicKey, 'r1')];
  state.up = false;
  await using here = await world({ blue: echo }, { access: { mode: 'aad_token' }, options: { issuer: oidc.tokens } });
  const good = () => bearer(token({ alg: 'RS256', kid: 'r1' }, claims(), rsa.privateKey));
  const down = await score(here.port, good());
  assert.deepEqual([down.status, down.error().code], [503, 'oidc_unreachable']);
  state.up = true;
  assert.equal((await score(here.port, good())).status, 503, 'it is left alone for a moment');
  oidc.pass(11_000);
  assert.equal((await score(here.port, good())).status, 200);
  state.up = false;
  oidc.pass(3 * 3_600_000);
  assert.equal((await score(here.port, good())).status, 200);
  oidc.pass(11_000);
  const unknown = token({ alg: 'RS256', kid: 'new' }, claims(), rsa.privateKey);
  assert.equal((await score(here.port, bearer(unknown))).error().code, 'oidc_unreachable');
  oidc.close();
  await using bare = await world({ blue: echo }, { access: { mode: 'aad_token' } });
  assert.equal((await score(bare.port, good())).error().code, 'oidc_not_configured');
});

test('an issuer that calls itself otherwise, or has no safe address, is not used', async () => {
  const oidc = await issuer('api://models');
  const tokens = createOidcIssuer({ issuerUrl: `${oidc.state.name}/.well-known/openid-configuration`, audience: 'a' });
  const given = oidc.state.name;
  oidc.state.name = 'https://elsewhere';
  const any = token({ alg: 'RS256', kid: 'r1' }, {}, rsa.privateKey);
  await assert.rejects(tokens.verify(any), {
    code: 'oidc_unreachable',
    message: new RegExp(`keys of ${given} .*it calls itself https://elsewhere`),
  });
  oidc.close();
  for (const issuerUrl of ['http://example.com', 'login', 'file:///etc/passwd']) {
    assert.throws(() => createOidcIssuer({ issuerUrl, audience: 'a' }), { code: 'oidc_issuer_invalid' }, issuerUrl);
  }
});
