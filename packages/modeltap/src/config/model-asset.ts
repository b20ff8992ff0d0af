import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { ASSET_NAME, ASSET_VERSION, readDatastoreUri } from './azureml-uri.ts';
import type { Findings, Reader } from './check.ts';
import { field, mapping, matching, oneOf, type Problem, text, textMapping } from './fields.ts';
import { MODEL_KEYS } from './keys.ts';
import type { ModelConfig } from './types.ts';
import { toPlain } from './yaml.ts';

const SCHEME = /^(?:azureml:|[a-z][a-z0-9+.-]*:\/)/i;

const anything = field((value) => ({ value: toPlain(value) })).optional();

const modelSchema = mapping({
  $schema: text().optional(),
  name: matching(ASSET_NAME, 'a model name has letters, digits, hyphens, underscores and dots, at most 255'),
  version: matching(
    ASSET_VERSION,
    'a version has letters, digits, hyphens, underscores and dots, at most 64',
  ).optional(),
  type: oneOf('custom_model', 'mlflow_model', 'triton_model').default('custom_model'),
  path: text((value) => pathProblem(value) ?? value.trim()),
  description: text().default(''),
  tags: textMapping(),
  properties: textMapping(),
  flavors: anything,
  stage: text().optional(),
  datastore: text().optional(),
  job_name: text().optional(),
  latest_version: text().optional(),
  utc_time_created: text().optional(),
  id: text().optional(),
  creation_context: anything,
});

/** Reads model files whose relative paths begin at `directory`. */
export function modelReader(directory: string): Reader<typeof modelSchema, ModelConfig> {
  return {
    schema: modelSchema,
    keys: MODEL_KEYS,
    check: (findings) => checkPath(findings, directory),
    build: (raw) => ({
      name: raw.name,
      version: raw.version,
      type: raw.type,
      path: SCHEME.test(raw.path) ? raw.path : resolve(directory, raw.path),
      description: raw.description,
      tags: raw.tags,
      properties: raw.properties,
    }),
  };
}

function pathProblem(value: string): Problem | undefined {
  const path = value.trim();
  const rule = 'a file or folder on this machine, or azureml://datastores/<datastore>/paths/<path>';
  if (path === '') return { problem: `must be ${rule}, not empty` };
  if (!SCHEME.test(path)) return undefined;
  if (!/^azureml:\/\/(?:datastores|subscriptions)\//i.test(path)) return { problem: `must be ${rule}` };
  const reading = readDatastoreUri(value);
  if (!reading.ok) return reading;
  return reading.value.path === ''
    ? { problem: 'must name a file or folder in the datastore, not the whole datastore' }
    : undefined;
}

/** Existence is checked with a blocking call: one for a file that a person has just asked to register. */
function checkPath(findings: Findings, directory: string): void {
  const path = findings.document.scalar(['path'])?.text.trim();
  if (path === undefined || path === '' || SCHEME.test(path)) return;
  const full = resolve(directory, path);
  if (full.includes('\0') || statSync(full, { throwIfNoEntry: false }) === undefined) {
    findings.error(['path'], `there is no file or folder ${full}`);
  }
}
