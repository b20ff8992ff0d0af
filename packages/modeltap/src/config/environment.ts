import type { z } from 'zod';
import { ASSET_NAME, ASSET_VERSION, readAssetReference } from './azureml-uri.ts';
import type { Findings, Reader } from './check.ts';
import { readCondaFile } from './conda.ts';
import {
  field,
  filled,
  freeMapping,
  mapping,
  matching,
  oneOf,
  type Problem,
  scalarOr,
  text,
  textMapping,
  whole,
} from './fields.ts';
import { ENVIRONMENT_KEYS } from './keys.ts';
import type { CondaConfig, DeploymentConfig, EnvironmentConfig, RouteConfig } from './types.ts';
import { type KeyPath, toPlain } from './yaml.ts';

const assetName = () => matching(ASSET_NAME, 'a name has letters, digits, hyphens, underscores and dots, at most 255');
const assetVersion = () =>
  matching(ASSET_VERSION, 'a version has letters, digits, hyphens, underscores and dots, at most 64');
const anything = field((value) => ({ value: toPlain(value) })).optional();

const route = mapping({ path: filled('a path such as /score'), port: whole({ min: 1, max: 65_535 }) }).optional();

const shape = {
  $schema: text().optional(),
  version: assetVersion().optional(),
  description: text().default(''),
  tags: textMapping(),
  properties: textMapping(),
  image: filled('the name of an image').optional(),
  conda_file: scalarOr(filled('a file, or a mapping with dependencies'), freeMapping()).optional(),
  build: mapping({ path: filled('a folder').optional(), dockerfile_path: filled('a file').optional() }).optional(),
  inference_config: mapping({ liveness_route: route, readiness_route: route, scoring_route: route }).optional(),
  os_type: oneOf('linux', 'windows').optional(),
  datastore: text().optional(),
  stage: text().optional(),
  id: text().optional(),
  creation_context: anything,
};

const condaKey = (key: string) =>
  ['channels', 'dependencies'].includes(key)
    ? 'belongs into the conda file: write conda_file: FILE, or put it below conda_file'
    : undefined;

const fileSchema = mapping({ name: assetName(), ...shape }, condaKey);
const inlineSchema = mapping({ name: assetName().optional(), ...shape }, condaKey);

/** `environment` of a deployment: a reference such as `azureml:sklearn:1`, or the keys of an environment file. */
export const environmentSchema = scalarOr(
  text((value) => referenceProblem(value) ?? value.trim()),
  inlineSchema,
).optional();

/** Reads environment files whose relative paths begin at `directory`. A reader is for one file. */
export function environmentReader(directory: string): Reader<typeof fileSchema, EnvironmentConfig> {
  let conda: CondaConfig | undefined;
  return {
    schema: fileSchema,
    keys: ENVIRONMENT_KEYS,
    check(findings) {
      conda = checkEnvironment(findings, [], directory);
    },
    build: (raw) => buildEnvironment(raw, conda),
  };
}

/**
 * Rules of an environment written at `base` that one key alone cannot tell, its conda file among them; gives what that file
 * asks for. Nothing is done when `base` is no mapping.
 */
export function checkEnvironment(findings: Findings, base: KeyPath, directory: string): CondaConfig | undefined {
  const { document } = findings;
  const node = document.get(base);
  if (node?.kind !== 'map') return undefined;
  const has = (key: string) => document.get([...base, key]) !== undefined;
  if (!has('image') && !has('build') && !has('conda_file')) {
    findings.error(base, 'must have a conda_file with the packages it needs (or an image)');
  }
  if (has('image') && has('build')) {
    findings.error([...base, 'build'], 'cannot stand beside image; keep one of them', 'key');
  }
  return has('conda_file') ? readCondaFile(findings, [...base, 'conda_file'], directory) : undefined;
}

/** Makes the checked form of `environment` of a deployment. */
export function buildEnvironmentOf(
  raw: z.output<typeof environmentSchema>,
  conda: CondaConfig | undefined,
): DeploymentConfig['environment'] {
  if (raw === undefined) return undefined;
  return typeof raw === 'string' ? { reference: raw } : buildEnvironment(raw, conda);
}

function buildEnvironment(raw: z.output<typeof inlineSchema>, conda: CondaConfig | undefined): EnvironmentConfig {
  const routes = raw.inference_config;
  return {
    name: raw.name,
    version: raw.version,
    description: raw.description,
    tags: raw.tags,
    image: raw.image,
    conda,
    inferenceConfig: routes && {
      liveness: buildRoute(routes.liveness_route),
      readiness: buildRoute(routes.readiness_route),
      scoring: buildRoute(routes.scoring_route),
    },
  };
}

function buildRoute(raw: z.output<typeof route>): RouteConfig | undefined {
  return raw && { path: raw.path, port: raw.port };
}

function referenceProblem(value: string): Problem | undefined {
  const given = value.trim();
  if (given === '') return { problem: 'must be azureml:<name>:<version> or a mapping, not empty' };
  // Registry ids (azureml://registries/…) and ARM ids (azureml:/subscriptions/…) have forms of their own.
  if (given.startsWith('azureml:/')) return undefined;
  const reading = readAssetReference(value);
  if (reading.ok) return undefined;
  const hint = given.startsWith('azureml:') ? '' : ', or a mapping with conda_file';
  return { problem: `${reading.problem}${hint}`, at: reading.at };
}
