import { realpathSync, statSync } from 'node:fs';
import { isAbsolute, relative, resolve, sep } from 'node:path';
import type { z } from 'zod';
import { readAssetReference } from './azureml-uri.ts';
import type { Findings, Reader } from './check.ts';
import { buildDataCollector, checkDataCollector, dataCollectorSchema } from './data-collector.ts';
import { buildEnvironmentOf, checkEnvironment, environmentSchema } from './environment.ts';
import {
  field,
  filled,
  flag,
  freeMapping,
  mapping,
  oneOf,
  type Problem,
  scalarOr,
  text,
  textMapping,
  whole,
} from './fields.ts';
import { DEPLOYMENT_KEYS } from './keys.ts';
import { resourceName, warnUnderscore } from './names.ts';
import type { CondaConfig, DeploymentConfig, ProbeConfig } from './types.ts';
import { toPlain } from './yaml.ts';

const DAY_S = 86_400;

const probe = (successes: number) =>
  mapping({
    initial_delay: whole({ min: 1, max: DAY_S, unit: 'seconds' }).default(10),
    period: whole({ min: 1, max: DAY_S, unit: 'seconds' }).default(10),
    timeout: whole({ min: 1, max: DAY_S, unit: 'seconds' }).default(2),
    success_threshold: whole({ min: 1, max: successes }).default(1),
    failure_threshold: whole({ min: 1, max: 1000 }).default(30),
  }).optional();

const anything = field((value) => ({ value: toPlain(value) })).optional();

const modelSchema = scalarOr(
  text((value) => modelProblem(value) ?? value),
  mapping({
    name: filled('a model name').optional(),
    version: filled('a version').optional(),
    path: text((value) => modelProblem(value) ?? value).optional(),
    type: filled('a model type').optional(),
    description: text().optional(),
    tags: textMapping(),
    properties: textMapping(),
    flavors: anything,
    stage: text().optional(),
  }),
);

const deploymentSchema = mapping({
  $schema: text().optional(),
  name: resourceName(),
  endpoint_name: resourceName(),
  type: oneOf('managed', 'kubernetes').default('managed'),
  description: text().default(''),
  tags: textMapping(),
  properties: textMapping(),
  model: modelSchema.optional(),
  model_mount_path: text().optional(),
  code_configuration: mapping({
    code: filled('a folder'),
    scoring_script: filled('a file inside code'),
  }).optional(),
  environment: environmentSchema,
  environment_variables: textMapping(),
  instance_type: filled('a machine type').optional(),
  instance_count: whole({ min: 1, max: 50 }).default(1),
  app_insights_enabled: flag().optional(),
  scale_settings: mapping({
    type: oneOf('default', 'target_utilization').optional(),
    min_instances: whole({ min: 0, max: 1000 }).optional(),
    max_instances: whole({ min: 1, max: 1000 }).optional(),
    target_utilization_percentage: whole({ min: 1, max: 100 }).optional(),
    polling_interval: whole({ min: 1, max: DAY_S, unit: 'seconds' }).optional(),
  }).optional(),
  request_settings: mapping({
    request_timeout_ms: whole({ min: 1, max: 300_000, unit: 'ms' }).default(5000),
    max_concurrent_requests_per_instance: whole({ min: 1, max: 10_000 }).default(1),
    max_queue_wait_ms: whole({ min: 0, max: 300_000, unit: 'ms' }).default(500),
  }).optional(),
  liveness_probe: probe(1),
  readiness_probe: probe(1000),
  egress_public_network_access: oneOf('enabled', 'disabled').optional(),
  resources: mapping({ requests: freeMapping().optional(), limits: freeMapping().optional() }).optional(),
  private_network_connection: flag().optional(),
  provisioning_state: text().optional(),
  id: text().optional(),
  creation_context: freeMapping().optional(),
  data_collector: dataCollectorSchema.optional(),
});

type RawDeployment = z.output<typeof deploymentSchema>;

/** Reads deployment files whose relative paths begin at `directory`. A reader is for one file. */
export function deploymentReader(options: {
  readonly directory: string;
  readonly maxCollections: number;
}): Reader<typeof deploymentSchema, DeploymentConfig> {
  const { directory, maxCollections } = options;
  let conda: CondaConfig | undefined;
  return {
    schema: deploymentSchema,
    keys: DEPLOYMENT_KEYS,
    check(findings) {
      warnUnderscore(findings, ['name']);
      warnUnderscore(findings, ['endpoint_name']);
      checkByType(findings);
      checkCode(findings, directory);
      checkModel(findings, directory);
      conda = checkEnvironment(findings, ['environment'], directory);
      checkDataCollector(findings, ['data_collector'], maxCollections);
    },
    build: (raw) => buildDeployment(raw, directory, conda),
  };
}

function buildDeployment(raw: RawDeployment, directory: string, conda: CondaConfig | undefined): DeploymentConfig {
  const owner = { endpointName: raw.endpoint_name, deploymentName: raw.name };
  const code = raw.code_configuration;
  return {
    name: raw.name,
    endpointName: raw.endpoint_name,
    type: raw.type,
    description: raw.description,
    tags: raw.tags,
    properties: raw.properties,
    model: buildModel(raw.model, directory),
    code: code && { directory: resolve(directory, code.code), scoringScript: code.scoring_script },
    environment: buildEnvironmentOf(raw.environment, conda),
    environmentVariables: raw.environment_variables,
    instanceCount: raw.instance_count,
    requestSettings: {
      requestTimeoutMs: raw.request_settings?.request_timeout_ms ?? 5000,
      maxConcurrentRequestsPerInstance: raw.request_settings?.max_concurrent_requests_per_instance ?? 1,
      maxQueueWaitMs: raw.request_settings?.max_queue_wait_ms ?? 500,
    },
    livenessProbe: buildProbe(raw.liveness_probe),
    readinessProbe: buildProbe(raw.readiness_probe),
    dataCollector: raw.data_collector && buildDataCollector(raw.data_collector, owner),
  };
}

function buildProbe(raw: RawDeployment['liveness_probe']): ProbeConfig {
  return {
    initialDelay: raw?.initial_delay ?? 10,
    period: raw?.period ?? 10,
    timeout: raw?.timeout ?? 2,
    successThreshold: raw?.success_threshold ?? 1,
    failureThreshold: raw?.failure_threshold ?? 30,
  };
}

function buildModel(raw: RawDeployment['model'], directory: string): DeploymentConfig['model'] {
  if (raw === undefined) return undefined;
  const { path, name, version } = typeof raw === 'string' ? { path: raw } : raw;
  if (path !== undefined) {
    return isReference(path) ? { reference: path.trim() } : { path: resolve(directory, path) };
  }
  if (name === undefined) return undefined;
  return { reference: `azureml:${name}${version === undefined ? '' : `:${version}`}` };
}

/** Anything with a scheme or the prefix `azureml:` is looked up by name, everything else is a path. */
function isReference(model: string): boolean {
  return /^\s*(?:azureml:|[a-z][a-z0-9+.-]*:\/)/i.test(model);
}

function modelProblem(model: string): Problem | undefined {
  if (model.trim() === '') return { problem: 'must be a path or azureml:<name>:<version>, not empty' };
  // ARM ids (azureml:/subscriptions/…) and registry ids (azureml://registries/…) have forms of their own.
  if (!/^\s*azureml:(?!\/)/.test(model)) return undefined;
  const reading = readAssetReference(model);
  return reading.ok ? undefined : reading;
}

function checkByType(findings: Findings): void {
  const { document } = findings;
  const kubernetes = document.scalar(['type'])?.text.trim().toLowerCase() === 'kubernetes';
  const timeout = Number(document.scalar(['request_settings', 'request_timeout_ms'])?.text);
  if (!kubernetes && timeout > 180_000 && timeout <= 300_000) {
    findings.error(
      ['request_settings', 'request_timeout_ms'],
      'must be at most 180000 ms; only type: kubernetes takes up to 300000',
    );
  }
  const scale = document.scalar(['scale_settings', 'type'])?.text.trim().toLowerCase();
  if (!kubernetes && scale === 'target_utilization') {
    findings.error(['scale_settings', 'type'], 'must be default; only type: kubernetes takes target_utilization');
  }
  const names = (document.scalar(['name'])?.text ?? '') + (document.scalar(['endpoint_name'])?.text ?? '');
  if (kubernetes && names.length > 62) {
    findings.error(
      ['name'],
      `name and endpoint_name have ${names.length} characters together; with type: kubernetes at most 62`,
    );
  }
}

/* Existence is checked with blocking calls: a handful for one file that a person has just asked to deploy. */

function checkModel(findings: Findings, directory: string): void {
  const path = findings.document.scalar(['model']) ? ['model'] : ['model', 'path'];
  const model = findings.document.scalar(path)?.text;
  if (model === undefined || model.trim() === '' || isReference(model)) return;
  if (statOf(resolve(directory, model)) === undefined) {
    findings.error(
      path,
      `there is no file or folder ${resolve(directory, model)}; a model is a path or azureml:<name>:<version>`,
    );
  }
}

function checkCode(findings: Findings, directory: string): void {
  const codePath = ['code_configuration', 'code'];
  const scriptPath = ['code_configuration', 'scoring_script'];
  const code = findings.document.scalar(codePath)?.text.trim();
  const script = findings.document.scalar(scriptPath)?.text.trim();
  if (code === undefined || code === '') return;
  if (code.startsWith('azureml:')) {
    findings.error(codePath, 'must be a folder on this machine; code assets (azureml:…) are not available');
    return;
  }
  const folder = resolve(directory, code);
  if (!statOf(folder)?.isDirectory()) {
    findings.error(codePath, `there is no folder ${folder}`);
    return;
  }
  if (script === undefined || script === '') return;
  const file = resolve(folder, script);
  if (!isInside(folder, file)) {
    findings.error(scriptPath, 'must lie inside the folder code_configuration.code');
  } else if (!statOf(file)?.isFile()) {
    findings.error(scriptPath, `there is no file ${script} in ${folder}`);
  } else if (!isInside(realpathSync(folder), realpathSync(file))) {
    findings.error(scriptPath, 'is a link to a file outside the folder code_configuration.code');
  }
}

function isInside(folder: string, file: string): boolean {
  const path = relative(folder, file);
  return path !== '' && path !== '..' && !path.startsWith(`..${sep}`) && !isAbsolute(path);
}

function statOf(path: string) {
  if (path.includes('\0')) return undefined;
  return statSync(path, { throwIfNoEntry: false });
}
