import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildVariables, readPipSettings, uvVariables } from './machine.ts';

test('a build inherits what pip and uv read, and nothing else', () => {
  const inherited = {
    PATH: '/usr/bin',
    HOME: '/home/a',
    PIP_INDEX_URL: 'https://mirror/simple',
    UV_CACHE_DIR: '/cache',
    https_proxy: 'http://proxy:3128',
    SSL_CERT_FILE: '/ca.pem',
  };
  const variables = buildVariables({
    ...inherited,
    AZURE_STORAGE_KEY: 'secret',
    PYTHONPATH: '/elsewhere',
    VIRTUAL_ENV: '/other',
    PIP_TARGET: '/elsewhere',
    UV_SYSTEM_PYTHON: '1',
    ABSENT: undefined,
  });
  const ours = ['NO_COLOR', 'PIP_DISABLE_PIP_VERSION_CHECK', 'PIP_NO_INPUT', 'PIP_USER', 'UV_PYTHON_DOWNLOADS'];
  assert.deepEqual(Object.keys(variables).toSorted(), [...Object.keys(inherited), ...ours].toSorted());
});

test("uv gets pip's settings, the variable before the file, and its own stay as they are", () => {
  const settings = readPipSettings(
    [
      ":env:.index-url='https://env/simple'",
      "global.index-url='https://file/simple'",
      "global.extra-index-url='\\nhttps://a/simple\\nhttps://b/simple'",
      "global.trusted-host='a b'",
      "freeze.timeout='10'",
      "install.no-index='true'",
      "user.cert='/x'",
    ].join('\n'),
  );
  const given = uvVariables({ UV_INSECURE_HOST: 'mine' }, settings);
  assert.deepEqual(given, {
    UV_DEFAULT_INDEX: 'https://env/simple',
    UV_INDEX: 'https://a/simple https://b/simple',
    UV_INDEX_STRATEGY: 'unsafe-best-match',
    UV_INSECURE_HOST: 'mine',
    UV_NO_INDEX: '1',
  });
  assert.equal(uvVariables({ UV_INDEX_URL: 'https://uv/simple' }, settings).UV_DEFAULT_INDEX, undefined);
  assert.equal(uvVariables({ REQUESTS_CA_BUNDLE: '/ca.pem' }, new Map()).SSL_CERT_FILE, '/ca.pem');
});
