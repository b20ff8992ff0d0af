import type { z } from 'zod';
import {
  ASSET_NAME,
  ASSET_VERSION,
  defaultCollectionPath,
  readAssetReference,
  readDatastoreUri,
} from './azureml-uri.ts';
import type { Findings } from './check.ts';
import {
  field,
  filled,
  flag,
  listOf,
  mapping,
  mappingOf,
  matching,
  mustBe,
  number,
  oneOf,
  type Problem,
  refused,
  scalarOr,
  shown,
  text,
  whole,
} from './fields.ts';
import type { CollectionConfig, DataCollectorConfig } from './types.ts';
import type { KeyPath, SourceDocument } from './yaml.ts';

/** Names that stand for HTTP payloads; any other collection is custom and filled through the SDK. */
export const PAYLOAD_COLLECTIONS: readonly string[] = ['request', 'response'];
/** Custom collections a deployment may enable. */
export const DEFAULT_MAX_COLLECTIONS = 5;
/** Longest path in a datastore, bytes: object keys have 1 024, of which time folders and file names need the rest. */
const MAX_PATH_BYTES = 900;
const MAX_HEADERS = 100;
const LEGACY_KEYS = [
  'enabled',
  'destination',
  'sampling_strategy',
  'payload_request',
  'payload_response',
  'oversize_data_config',
  'model_inputs',
  'model_outputs',
];

const assetName = matching(
  ASSET_NAME,
  'a data asset name has letters, digits, hyphens, underscores and dots, at most 255',
);
const assetVersion = matching(
  ASSET_VERSION,
  'a version has letters, digits, hyphens, underscores and dots, at most 64',
);

/** An `azureml://datastores/…` URI with a path, kept as written but without blanks around it. */
const datastorePath = text((value): string | Problem => {
  const reading = readDatastoreUri(value);
  if (!reading.ok) return reading;
  if (reading.value.path === '') return { problem: 'names the root of the datastore; add a folder behind paths/' };
  if (Buffer.byteLength(reading.value.path) > MAX_PATH_BYTES)
    return { problem: `has a path of more than ${MAX_PATH_BYTES} bytes` };
  return value.trim();
});

const dataReference = field((value): { name: string; version: string } | Problem => {
  const reading = readAssetReference(typeof value === 'string' ? value : '');
  if (!reading.ok)
    return { ...reading, problem: mustBe('azureml:<name>:<version>, or a mapping with name, version and path', value) };
  const { name, version } = reading.value;
  return version === undefined ? { problem: 'must name a version: azureml:<name>:<version>' } : { name, version };
});

const collectionSchema = mapping({
  enabled: flag(),
  client_id: filled('a client id').optional(),
  data: scalarOr(
    dataReference,
    mapping({
      name: assetName.optional(),
      path: datastorePath.optional(),
      version: assetVersion.optional(),
      data_id: filled('a data id').optional(),
    }),
  ).optional(),
  sampling_rate: refused(
    'cannot be set for one collection; set data_collector.sampling_rate, which counts for all of them',
  ),
});

const header = matching(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$/, 'it must be the name of an HTTP header');

/** `data_collector`, of a deployment or of an agent's deployment. */
export const dataCollectorSchema = mapping(
  {
    collections: mappingOf(collectionSchema),
    sampling_rate: number({ min: 0, max: 1 }).default(1),
    rolling_rate: oneOf('minute', 'hour', 'day', 'month', 'year').default('hour'),
    sampling: mapping({ errors: number({ min: 0, max: 1 }).optional() }).optional(),
    request_logging: mapping({
      capture_headers: listOf(header, MAX_HEADERS).default([]),
      capture_secret_headers: flag().optional(),
    }).optional(),
    batch: field((value) => batchMode(value)).default('same_id'),
    batch_window_ms: whole({ min: 0, max: 60_000, unit: 'ms' }).default(500),
  },
  (key) =>
    LEGACY_KEYS.includes(key)
      ? 'is of the first data collector of Azure ML, which is no longer read. Write collections: with one key for each collection (model_inputs, model_outputs, …) and enabled: "True" below it, sampling_rate: as a number from 0 to 1, and data.path: for another destination'
      : undefined,
);

/** Rules of `data_collector` that one key alone cannot tell. `base` is the path of the data_collector key. */
export function checkDataCollector(findings: Findings, base: KeyPath, maxCollections: number): void {
  const { document } = findings;
  const seen = new Map<string, string>();
  const custom: KeyPath[] = [];
  for (const name of document.keys([...base, 'collections'])) {
    const path = [...base, 'collections', name];
    checkCollectionName(findings, path, name, seen);
    const enabled = isEnabled(document, path);
    if (enabled && !PAYLOAD_COLLECTIONS.includes(name.toLowerCase())) custom.push(path);
    checkDataPath(findings, [...path, 'data', 'path']);
  }
  for (const path of custom.slice(maxCollections)) {
    findings.error(path, `is one too many: ${maxCollections} custom collections can be enabled in a deployment`, 'key');
  }
  checkSharedPaths(findings, base);
  const rolling = document
    .scalar([...base, 'rolling_rate'])
    ?.text.trim()
    .toLowerCase();
  if (rolling !== undefined && ['minute', 'day', 'month', 'year'].includes(rolling)) {
    findings.warning(
      [...base, 'rolling_rate'],
      "Azure ML's monitors read only folders by the hour; with another rolling rate they find nothing",
    );
  }
}

/** Makes the checked form; collection names are lower case and every collection has its data asset. */
export function buildDataCollector(
  raw: z.output<typeof dataCollectorSchema>,
  owner: { readonly endpointName: string; readonly deploymentName: string },
): DataCollectorConfig {
  const collections = Object.entries(raw.collections).map(([key, collection]): [string, CollectionConfig] => {
    const name = key.toLowerCase();
    const data: { readonly name?: string; readonly version?: string; readonly path?: string } = pick(collection.data);
    return [
      name,
      {
        enabled: collection.enabled,
        data: {
          name: data.name ?? `${owner.endpointName}-${owner.deploymentName}-${name}`,
          version: data.version ?? '1',
          path: data.path ?? defaultCollectionPath(owner.endpointName, owner.deploymentName, name),
        },
        ...(collection.client_id === undefined ? {} : { clientId: collection.client_id }),
      },
    ];
  });
  return {
    collections: Object.fromEntries(collections),
    samplingRate: raw.sampling_rate,
    rollingRate: raw.rolling_rate,
    captureHeaders: raw.request_logging?.capture_headers ?? [],
    ...(raw.request_logging?.capture_secret_headers === undefined
      ? {}
      : { captureSecretHeaders: raw.request_logging.capture_secret_headers }),
    ...(raw.sampling?.errors === undefined ? {} : { errorRate: raw.sampling.errors }),
    batch: raw.batch,
    batchWindowMs: raw.batch_window_ms,
  };
}

function pick(data: z.output<typeof collectionSchema>['data']) {
  const path = data !== undefined && 'path' in data ? data.path : undefined;
  return {
    ...(data?.name === undefined ? {} : { name: data.name }),
    ...(data?.version === undefined ? {} : { version: data.version }),
    ...(path === undefined ? {} : { path }),
  };
}

function batchMode(value: unknown): 'same_id' | 'across_ids' | 'off' | Problem {
  const read = oneOf('same_id', 'across_ids', 'off', 'false').safeParse(value);
  // YAML 1.1 files read `off` as false.
  if (read.success) return read.data === 'false' ? 'off' : read.data;
  return { problem: mustBe('one of same_id, across_ids, off', value) };
}

/** True when the collection at `path` is switched on. */
export function isEnabled(document: SourceDocument, path: KeyPath): boolean {
  return (
    document
      .scalar([...path, 'enabled'])
      ?.text.trim()
      .toLowerCase() === 'true'
  );
}

function checkCollectionName(findings: Findings, path: KeyPath, name: string, seen: Map<string, string>): void {
  // The name becomes a folder in the datastore and part of a header, hence only these characters.
  if (!/^[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,178}[A-Za-z0-9_-])?$/.test(name) || name.includes('..')) {
    const rule =
      'it has letters, digits, hyphens, underscores and single dots, begins with a letter, digit or underscore, does not end with a dot, and has at most 180 characters';
    findings.error(path, `${shown(name)} is not a collection name: ${rule}`, 'key');
    return;
  }
  const lower = name.toLowerCase();
  const other = seen.get(lower);
  seen.set(lower, name);
  if (other !== undefined) findings.error(path, `is the same collection as "${other}": case does not matter`, 'key');
  else if (lower !== name) findings.warning(path, `is recorded as "${lower}": collection names are lower case`);
}

function checkDataPath(findings: Findings, path: KeyPath): void {
  const text = findings.document.scalar(path)?.text;
  const reading = text === undefined ? undefined : readDatastoreUri(text);
  if (reading?.ok && reading.value.workspace !== undefined) {
    findings.warning(
      path,
      `subscription, resource group and workspace have no effect: the datastore "${reading.value.datastore}" of this workspace is used`,
    );
  }
}

function checkSharedPaths(findings: Findings, base: KeyPath): void {
  const { document } = findings;
  const owners = new Map<string, string>();
  for (const name of document.keys([...base, 'collections'])) {
    const path = [...base, 'collections', name, 'data', 'path'];
    const text = document.scalar(path)?.text;
    const reading = text === undefined ? undefined : readDatastoreUri(text);
    if (!reading?.ok) continue;
    const place = `${reading.value.datastore}/${reading.value.path}`;
    const owner = owners.get(place);
    if (owner !== undefined)
      findings.warning(path, `is also the path of "${owner}": the records of both lie in the same files' folder`);
    owners.set(place, name);
  }
}
