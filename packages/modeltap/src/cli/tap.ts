import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { Agent } from '../agent/agent.ts';
import { serveAgent } from '../agent/run.ts';
import { DEFAULT_DATASTORE } from '../api/workspace.ts';
import { openCatalog } from '../catalog/catalog.ts';
import { DEFAULT_WORKSPACE, defaultCollectionPath, parseDatastoreUri } from '../config/azureml-uri.ts';
import { formatIssues } from '../config/issues.ts';
import { loadAgent } from '../config/load.ts';
import { readUpstream } from '../config/tap.ts';
import type { AgentConfig, CollectionConfig, DatastoreConfig, TapConfig } from '../config/types.ts';
import { ModeltapError } from '../kit/errors.ts';
import { sourceOf } from '../record/source.ts';
import { wholeNumber } from './common.ts';

interface TapOptions {
  readonly upstream?: TapConfig['upstream'];
  readonly endpoint?: string;
  readonly deployment?: string;
  readonly port?: number;
  readonly path: readonly string[];
  readonly header: readonly string[];
  readonly requestId: 'add' | 'pass';
  readonly samplingRate: number;
  readonly workspace: string;
  readonly file?: string;
  readonly agentPort: number;
  readonly logLevel: string;
}

const MEGABYTE = 1024 ** 2;

/** `modeltap tap`: collects the HTTP requests and responses of any model server, without touching it. */
export function registerTap(program: Command): void {
  program
    .command('tap')
    .description('Collect the HTTP requests and responses of any model server, by standing in front of it')
    .option('--upstream <url>', 'the model server: http://host:port', upstreamOf)
    .option('--endpoint <name>', 'endpoint the data is collected for', nameOf)
    .option('--deployment <name>', 'deployment the data is collected for', nameOf)
    .option('-p, --port <port>', 'where clients connect instead; 0: any free one', wholeNumber(0, 65_535))
    .option('--path <path...>', 'collect these paths only; * at the end stands for all that follows', pathsOf, ['*'])
    .option('--header <name...>', 'collect these headers too; never those that carry secrets', [])
    .addOption(
      new Option('--request-id <what>', 'add: requests without an id get x-request-id; pass: nothing is changed')
        .choices(['add', 'pass'])
        .default('add'),
    )
    .option('--sampling-rate <rate>', 'share of the exchanges that is collected, 0 to 1', rateOf, 1)
    .addOption(
      new Option('--workspace <dir>', 'store into the default datastore of this workspace; made if missing')
        .default('.modeltap')
        .env('MODELTAP_WORKSPACE'),
    )
    .option(
      '-f, --file <yaml>',
      'agent YAML with datastores and deployments, instead of a workspace (docs/agent-yaml.md)',
    )
    .option('--agent-port <port>', 'port for health, metrics and ledger; 0: any free one', wholeNumber(0, 65_535), 0)
    .addOption(
      new Option('--log-level <level>', 'what is logged').choices(['debug', 'info', 'warn', 'error']).default('warn'),
    )
    .action(runTap);
}

async function runTap(options: TapOptions): Promise<void> {
  const load = () => (options.file === undefined ? fromWorkspace(options) : fromFile(options, options.file));
  const config = await load();
  await serveAgent({
    config,
    logLevel: options.logLevel,
    reload: load,
    ready: (agent) => process.stderr.write(greeting(agent, config)),
  });
}

/** The workspace's own datastore, with a spool beside those of `modeltap up`, so that both can run. */
async function fromWorkspace(options: TapOptions): Promise<AgentConfig> {
  const directory = resolve(options.workspace);
  const { endpoint, deployment } = options;
  const tap = tapOf(options, endpoint, deployment);
  const { endpointName, deploymentName } = tap;
  const collection = (name: string): CollectionConfig => ({
    enabled: true,
    data: {
      name: `${endpointName}-${deploymentName}-${name}`,
      version: '1',
      path: defaultCollectionPath(endpointName, deploymentName, name),
    },
  });
  return {
    host: '127.0.0.1',
    port: options.agentPort,
    spool: { directory: join(directory, 'taps', `${endpointName}-${deploymentName}`), maxBytes: 4096 * MEGABYTE },
    maxRecordBytes: 64 * MEGABYTE,
    inlineBytes: 4 * MEGABYTE,
    maxCollections: 5,
    maxCaptureBytes: 64 * MEGABYTE,
    datastores: [await defaultDatastore(directory)],
    deployments: [
      {
        endpointName,
        deploymentName,
        source: sourceOf({
          subscription: DEFAULT_WORKSPACE.subscriptionId,
          resourceGroup: DEFAULT_WORKSPACE.resourceGroup,
          workspace: DEFAULT_WORKSPACE.name,
          endpoint: endpointName,
          deployment: deploymentName,
        }),
        dataCollector: {
          collections: { request: collection('request'), response: collection('response') },
          samplingRate: options.samplingRate,
          rollingRate: 'hour',
          captureHeaders: options.header,
          batch: 'off',
          batchWindowMs: 0,
        },
      },
    ],
    taps: [tap],
  };
}

/** What the workspace's catalog says of it, or where `modeltap up` would put it. */
async function defaultDatastore(directory: string): Promise<DatastoreConfig> {
  const file = join(directory, 'catalog.db');
  if (existsSync(file)) {
    const catalog = await openCatalog(file);
    try {
      const entry = await catalog.datastores.find(DEFAULT_DATASTORE);
      if (entry !== undefined) return entry.config;
    } finally {
      await catalog.close();
    }
  }
  return { name: DEFAULT_DATASTORE, type: 'local', path: join(directory, 'datastores', DEFAULT_DATASTORE) };
}

/** The file, with the tap of the command line added when there is one. */
async function fromFile(options: TapOptions, file: string): Promise<AgentConfig> {
  const { value, warnings } = await loadAgent(resolve(file));
  if (warnings.length > 0) process.stderr.write(`${formatIssues(warnings)}\n`);
  if (options.upstream === undefined && options.port === undefined && value.taps.length > 0) return value;
  const [only, second] = value.deployments;
  const one = second === undefined ? only : undefined;
  const tap = tapOf(options, options.endpoint ?? one?.endpointName, options.deployment ?? one?.deploymentName);
  return { ...value, taps: [...value.taps, tap] };
}

function tapOf(options: TapOptions, endpoint: string | undefined, deployment: string | undefined): TapConfig {
  const { upstream, port, path, requestId } = options;
  const missing = Object.entries({ upstream, endpoint, deployment, port })
    .filter(([, value]) => value === undefined)
    .map(([name]) => `--${name}`);
  if (upstream === undefined || endpoint === undefined || deployment === undefined || port === undefined)
    throw new ModeltapError('tap_options_missing', { options: missing.join(', ') });
  return {
    endpointName: endpoint,
    deploymentName: deployment,
    port,
    upstream,
    paths: path,
    requestId,
    errorRate: 1,
    captureSecretHeaders: false,
    memoryBytes: MEGABYTE / 4,
    maxBodyBytes: 1024 * MEGABYTE,
    maxDecodedBytes: 64 * MEGABYTE,
  };
}

function greeting(agent: Agent, config: AgentConfig): string {
  const [own] = agent.addresses;
  const lines = agent.taps.flatMap(({ endpoint, deployment, host, port, upstream }) => [
    `  clients    http://${host}:${port}  →  ${upstream}`,
    ...placesOf(config, endpoint, deployment).map((place) => `  data       ${place}`),
  ]);
  const health = own === undefined ? [] : [`  agent      http://${own.host}:${own.port}  (health, metrics, ledger)`];
  return `The tap is up.\n${[...lines, ...health].join('\n')}\nCtrl-C stops it; what is collected stays.\n`;
}

/** Where what is collected goes, as a person looks for it. */
function placesOf(config: AgentConfig, endpoint: string, deployment: string): readonly string[] {
  const owner = config.deployments.find((one) => one.endpointName === endpoint && one.deploymentName === deployment);
  return ['request', 'response'].flatMap((name) => {
    const collection = owner?.dataCollector.collections[name];
    if (collection?.enabled !== true) return [];
    const uri = parseDatastoreUri(collection.data.path);
    const store = config.datastores.find((one) => one.name === uri.datastore);
    return [store?.type === 'local' ? join(store.path, uri.path) : collection.data.path];
  });
}

function upstreamOf(text: string): TapConfig['upstream'] {
  const read = readUpstream(text);
  if ('problem' in read) throw new InvalidArgumentError(`It ${read.problem}.`);
  return read;
}

function nameOf(text: string): string {
  if (!/^[A-Za-z](?:[A-Za-z0-9_-]{1,30})[A-Za-z0-9]$/.test(text))
    throw new InvalidArgumentError(
      'A name begins with a letter, has 3 to 32 letters, digits and hyphens, and ends with a letter or digit.',
    );
  return text;
}

function pathsOf(text: string, before: readonly string[]): readonly string[] {
  if (text !== '*' && !text.startsWith('/')) throw new InvalidArgumentError('A path begins with a slash.');
  return before.includes('*') ? [text] : [...before, text];
}

function rateOf(text: string): number {
  const rate = Number(text);
  if (text.trim() === '' || !(rate >= 0 && rate <= 1))
    throw new InvalidArgumentError('It must be a number from 0 to 1.');
  return rate;
}
