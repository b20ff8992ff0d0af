import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ConfigError } from './issues.ts';
import { ENDPOINT_KEYS } from './keys.ts';
import {
  loadAgent,
  loadDataAsset,
  loadDatastore,
  parseAgent,
  parseDataAsset,
  parseDatastore,
  parseEndpoint,
} from './load.ts';

const directory = mkdtempSync(join(tmpdir(), 'modeltap-load-'));
after(() => rmSync(directory, { recursive: true }));
const source = { file: 'a.yml', directory };

/** `line:column key: message` of every error. */
function errors(parse: () => unknown): readonly string[] {
  try {
    parse();
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    const found = error.issues.filter((issue) => issue.severity === 'error');
    return found.map(({ place, key, message }) => `${place.line}:${place.column} ${key}: ${message}`);
  }
  return assert.fail('the text was not refused');
}

test('an endpoint is read; every key without effect gives one warning', () => {
  const { value, warnings } = parseEndpoint(
    `$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineEndpoint.schema.json
name: my-endpoint
description: d
tags: {a: 1}
properties: {b: 2}
traffic: {blue: 90, green: 10}
mirror_traffic: {red: 50}
auth_mode: Key
compute: azureml:k8s
identity: {type: user_assigned, user_assigned_identities: [/subscriptions/x, {resource_id: /subscriptions/y}]}
public_network_access: enabled
location: westus
kind: Managed
provisioning_state: Succeeded
scoring_uri: https://x
openapi_uri: https://x
id: x
creation_context: {}
`,
    source,
  );
  assert.deepEqual(value, {
    name: 'my-endpoint',
    description: 'd',
    tags: { a: '1' },
    properties: { b: '2' },
    authMode: 'key',
    traffic: { blue: 90, green: 10 },
    mirrorTraffic: { red: 50 },
  });
  const warned = ENDPOINT_KEYS.filter((row) => row.effect === 'warning').map((row) => row.key);
  assert.deepEqual(warnings.map(({ key }) => key).toSorted(), warned.toSorted());
});

test('the smallest endpoint has the defaults of Azure ML', () => {
  const { value, warnings } = parseEndpoint('name: my_endpoint\n', source);
  assert.deepEqual([value.authMode, value.traffic, value.mirrorTraffic], ['key', {}, {}]);
  assert.match(warnings[0]?.message ?? '', /does not take underscores/);
});

test('traffic adds up to 0 or 100 and is mirrored once, at most by half', () => {
  const found = errors(() =>
    parseEndpoint('name: abc\ntraffic: {a: 90, b: 20}\nmirror_traffic: {c: 51, d: 1}\nauth_mode: none\n', source),
  );
  assert.deepEqual(found, [
    '2:1 traffic: the percentages add up to 110; they must add up to 100, or to 0',
    '3:21 mirror_traffic.c: must be a whole number from 0 to 50 percent, not "51"',
    '3:25 mirror_traffic.d: is one too many: traffic is mirrored to one deployment only',
    '4:12 auth_mode: must be one of key, aml_token, aad_token, not "none"',
  ]);
  assert.deepEqual(parseEndpoint('name: abc\ntraffic: {a: 0}\n', source).value.traffic, { a: 0 });
  const both = (mirror: number) => `name: abc\ntraffic: {a: 100, b: 0}\nmirror_traffic: {a: ${mirror}}\n`;
  assert.deepEqual(
    errors(() => parseEndpoint(both(1), source)),
    [
      '3:18 mirror_traffic.a: gets traffic; a deployment gets traffic or copies of it, not both: set one of the two to 0',
    ],
  );
  assert.deepEqual(parseEndpoint(both(0), source).value.mirrorTraffic, { a: 0 });
});

const BLOB = 'name: store\ntype: azure_blob\naccount_name: acct\ncontainer_name: data\n';

test('datastores are read with references to secrets as written', async () => {
  const file = join(directory, 'store.yml');
  writeFileSync(file, `${BLOB}credentials:\n  account_key: \${env:KEY}\n`);
  const { value, warnings } = await loadDatastore(file);
  assert.deepEqual(value, {
    name: 'store',
    type: 'azure_blob',
    accountName: 'acct',
    containerName: 'data',
    endpoint: 'core.windows.net',
    protocol: 'https',
    credentials: { accountKey: '${env:KEY}' },
  });
  assert.deepEqual(warnings, []);
  assert.deepEqual(parseDatastore('name: disk\ntype: LOCAL\npath: ./blobs\n', source).value, {
    name: 'disk',
    type: 'local',
    path: join(directory, 'blobs'),
  });
});

test('a connection string needs no account name', () => {
  const text =
    'name: s\ntype: azure_blob\ncontainer_name: c\nprotocol: wasbs\ncredentials: {connection_string: "${file:/run/s}"}\n';
  const { value, warnings } = parseDatastore(text, source);
  assert.equal(value.type === 'azure_blob' && value.accountName, '');
  assert.deepEqual(
    warnings.map(({ message }) => message),
    ['wasbs is read as https'],
  );
});

test('a literal secret is taken with a warning and is in no text', () => {
  const { warnings } = parseDatastore(`${BLOB}credentials: {sas_token: sv=hunter2}\n`, source);
  assert.match(warnings[0]?.message ?? '', /is a secret written in the file/);
  assert.doesNotMatch(JSON.stringify(warnings), /hunter2/);
});

test('no error about a datastore repeats what may be a secret', () => {
  for (const credentials of [
    '{account_key: [hunter2]}',
    '{account_key: {hunter2: 1}}',
    '{sas_token: "hunter2${env:}"}',
    '{account_key: hunter2, sas_token: hunter2}',
    'hunter2',
    '"hunter2',
    '@hunter2',
    '*hunter2',
    '{account_key: !hunter2 x}',
    '[hunter2]',
  ]) {
    assert.throws(
      () => parseDatastore(`${BLOB}credentials: ${credentials}\n`, source),
      (error) => {
        assert.ok(error instanceof ConfigError);
        assert.doesNotMatch(JSON.stringify(error) + error.message + error.stack, /hunter2/, credentials);
        return true;
      },
    );
  }
});

test('wrong datastores say what is allowed', () => {
  const parse = (text: string) => errors(() => parseDatastore(text, source));
  assert.deepEqual(parse('name: x\ntype: azure_blop\n'), [
    '2:7 type: must be one of local, azure_blob, not "azure_blop"; did you mean "azure_blob"?',
  ]);
  assert.match(
    parse('name: x\ntype: azure_file\n')[0] ?? '',
    /"azure_file" is not available yet; use one of local, azure_blob/,
  );
  assert.deepEqual(parse('name: x\n'), ['1:1 type: is required']);
  assert.match(parse(BLOB)[0] ?? '', /^1:1 credentials: must have one of account_key, sas_token, connection_string/);
  assert.match(
    parse(`${BLOB}credentials: {account_key: "\${env:A}", sas_token: "\${env:B}"}\n`)[0] ?? '',
    /^5:40 credentials.sas_token: is one too many/,
  );
  assert.match(
    parse(`${BLOB}credentials: {account_key: "a\${vault:x}"}\n`)[0] ?? '',
    /^5:30 credentials.account_key: has a reference that is neither/,
  );
  assert.match(
    parse(`${BLOB}endpoint: https://u:p@host/x\ncredentials: {account_key: "\${env:A}"}\n`)[0] ?? '',
    /^5:11 endpoint: .*credentials belong under credentials/,
  );
});

test('data assets are folders unless said otherwise, and local paths become absolute', async () => {
  const file = join(directory, 'asset.yml');
  writeFileSync(file, 'name: reference\npath: ./rows\n');
  assert.deepEqual((await loadDataAsset(file)).value, {
    name: 'reference',
    version: undefined,
    type: 'uri_folder',
    path: join(directory, 'rows'),
    description: '',
    tags: {},
  });
  const remote = parseDataAsset('name: a\nversion: 3\ntype: mltable\npath: azureml://datastores/ws/paths/x\n', source);
  assert.deepEqual([remote.value.version, remote.value.path], ['3', 'azureml://datastores/ws/paths/x']);
  assert.equal(parseDataAsset('name: a\npath: https://host/x\n', source).warnings.length, 1);
  assert.deepEqual(
    errors(() => parseDataAsset('name: a b\npath: azureml://datastores/ws/paths/../x\n', source)).length,
    2,
  );
});

const AGENT = `spool: { path: ./spool, max_bytes: 1GB }
datastores:
  - {name: workspaceblobstore, type: local, path: ./blobs}
deployments:
  - endpoint_name: my_endpoint
    deployment_name: blue
    port: 50012
    data_collector: {collections: {model_inputs: {enabled: 'True'}}}
`;

test('an agent file is read with its defaults', async () => {
  const file = join(directory, 'agent.yml');
  writeFileSync(file, `${AGENT}workspace: {subscription_id: sub, resource_group: rg, name: ws}\n`);
  const { value } = await loadAgent(file);
  const { datastores, deployments, ...rest } = value;
  assert.deepEqual(rest, {
    host: '127.0.0.1',
    port: 50_011,
    spool: { directory: join(directory, 'spool'), maxBytes: 1024 ** 3 },
    maxRecordBytes: 64 * 1024 ** 2,
    inlineBytes: 4 * 1024 ** 2,
    maxCollections: 5,
    taps: [],
    maxCaptureBytes: 64 * 1024 ** 2,
  });
  assert.deepEqual(datastores, [{ name: 'workspaceblobstore', type: 'local', path: join(directory, 'blobs') }]);
  assert.equal(
    deployments[0]?.source,
    '/subscriptions/sub/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/ws/onlineEndpoints/my_endpoint/deployments/blue',
  );
  assert.equal(deployments[0]?.port, 50_012);
  assert.equal(deployments[0]?.dataCollector.collections['model_inputs']?.enabled, true);
});

test('an agent file with what must not be is refused, all at once', () => {
  const found = errors(() =>
    parseAgent(
      `host: 0.0.0.0
max_collections: 1
datastores:
  - {name: blobs, type: local, path: ./blobs}
  - {name: blobs, type: local, path: ./more}
deployments:
  - endpoint_name: my-endpoint
    deployment_name: blue
    port: 50011
    data_collector: {collections: {a: {enabled: true}, b: {enabled: true, data: {path: azureml://datastores/blob/paths/x}}, c: {enabled: false}}}
  - endpoint_name: my-endpoint
    deployment_name: blue
    source: blue
    data_collector: {collections: {}}
`,
      source,
    ),
  );
  assert.deepEqual(found, [
    '1:7 host: refusing to listen on "0.0.0.0": there is no access control yet, so only loopback addresses are allowed',
    '5:12 datastores[1].name: the datastore "blobs" is used already (line 4)',
    '9:11 deployments[0].port: the port "50011" is used already (the default)',
    '10:36 deployments[0].data_collector.collections.a: the datastore "workspaceblobstore" (the default of data.path) is not among datastores',
    '10:56 deployments[0].data_collector.collections.b: is one too many: 1 custom collections can be enabled in a deployment',
    '10:88 deployments[0].data_collector.collections.b.data.path: the datastore "blob" is not among datastores; did you mean "blobs"?',
    '12:22 deployments[1].deployment_name: the deployment "my-endpoint/blue" is used already (line 8)',
    '13:13 deployments[1].source: "blue" is not the ARM id of a deployment',
  ]);
});

test('sizes, hosts and ports of an agent are checked', () => {
  const found = errors(() => parseAgent(`${AGENT}port: 70000\nmax_record_bytes: lots\ninline_bytes: 0\n`, source));
  assert.deepEqual(found, [
    '9:7 port: must be a whole number from 0 to 65535, not "70000"',
    '10:19 max_record_bytes: must be a size such as 64MB or 4GB, not "lots"',
    '11:15 inline_bytes: must be at least 1 bytes',
  ]);
  assert.equal(parseAgent(`${AGENT}host: '::1'\n`, source).value.host, '::1');
});
