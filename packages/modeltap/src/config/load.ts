import { dirname, resolve } from 'node:path';
import type { z } from 'zod';
import { agentReader } from './agent.ts';
import { type Reader, readConfig } from './check.ts';
import { dataAssetReader } from './data-asset.ts';
import { DEFAULT_MAX_COLLECTIONS } from './data-collector.ts';
import { datastoreReader } from './datastore.ts';
import { deploymentReader } from './deployment.ts';
import { endpointReader } from './endpoint.ts';
import { environmentReader } from './environment.ts';
import { modelReader } from './model-asset.ts';
import type {
  AgentConfig,
  DataAssetConfig,
  DatastoreConfig,
  DeploymentConfig,
  EndpointConfig,
  EnvironmentConfig,
  Loaded,
  ModelConfig,
} from './types.ts';
import { parseSource, readConfigText } from './yaml.ts';

/** Where a text came from. */
export interface TextSource {
  /** Name used in error texts. */
  readonly file: string;
  /** Absolute folder where relative paths in the text begin. Default: the folder of `file`. */
  readonly directory?: string;
  /** Values that win over top-level keys of the text, e.g. from `--name`; keys as in the file. */
  readonly overrides?: Readonly<Record<string, string | undefined>>;
}

/** What else decides whether a deployment is valid. */
export interface DeploymentRules {
  /** Custom collections that may be enabled. Default 5. */
  readonly maxCollections?: number;
  /** As in `TextSource`. */
  readonly overrides?: TextSource['overrides'];
}

/*
 * Every function below throws `ConfigError` (code `config_invalid`) with all errors and warnings of the file, each with
 * its place. Files may have 1 MiB.
 */

/** Checks the text of a deployment file. */
export function parseDeployment(
  text: string,
  source: TextSource,
  rules: DeploymentRules = {},
): Loaded<DeploymentConfig> {
  const { maxCollections = DEFAULT_MAX_COLLECTIONS } = rules;
  return read(deploymentReader({ directory: folderOf(source), maxCollections }), text, source);
}

/** Checks the text of an endpoint file. */
export function parseEndpoint(text: string, source: TextSource): Loaded<EndpointConfig> {
  return read(endpointReader, text, source);
}

/** Checks the text of a datastore file. References to secrets stay as written. */
export function parseDatastore(text: string, source: TextSource): Loaded<DatastoreConfig> {
  return read(datastoreReader(folderOf(source)), text, source);
}

/** Checks the text of a data asset file. */
export function parseDataAsset(text: string, source: TextSource): Loaded<DataAssetConfig> {
  return read(dataAssetReader(folderOf(source)), text, source);
}

/** Checks the text of an environment file, and the conda and requirements files it names. */
export function parseEnvironment(text: string, source: TextSource): Loaded<EnvironmentConfig> {
  return read(environmentReader(folderOf(source)), text, source);
}

/** Checks the text of a model file; a path on this machine must exist. */
export function parseModel(text: string, source: TextSource): Loaded<ModelConfig> {
  return read(modelReader(folderOf(source)), text, source);
}

/** Checks the text of an agent file. */
export function parseAgent(text: string, source: TextSource): Loaded<AgentConfig> {
  return read(agentReader(folderOf(source)), text, source);
}

/** Reads and checks a deployment file. */
export async function loadDeployment(file: string, rules: DeploymentRules = {}): Promise<Loaded<DeploymentConfig>> {
  const { overrides } = rules;
  return parseDeployment(await readConfigText(file), overrides === undefined ? { file } : { file, overrides }, rules);
}

/** Reads and checks an endpoint file. */
export async function loadEndpoint(
  file: string,
  overrides: TextSource['overrides'] = {},
): Promise<Loaded<EndpointConfig>> {
  return parseEndpoint(await readConfigText(file), { file, overrides });
}

/** Reads and checks a datastore file. */
export async function loadDatastore(file: string): Promise<Loaded<DatastoreConfig>> {
  return parseDatastore(await readConfigText(file), { file });
}

/** Reads and checks a data asset file. */
export async function loadDataAsset(file: string): Promise<Loaded<DataAssetConfig>> {
  return parseDataAsset(await readConfigText(file), { file });
}

/** Reads and checks an agent file. */
export async function loadAgent(file: string): Promise<Loaded<AgentConfig>> {
  return parseAgent(await readConfigText(file), { file });
}

function read<S extends z.ZodType, T>(reader: Reader<S, T>, text: string, source: TextSource): Loaded<T> {
  return readConfig(reader, parseSource(text, source.file), source.overrides);
}

function folderOf(source: TextSource): string {
  return source.directory ?? resolve(dirname(source.file));
}
