import { resolve } from 'node:path';
import { ASSET_NAME, ASSET_VERSION, readDatastoreUri } from './azureml-uri.ts';
import type { Reader } from './check.ts';
import { mapping, matching, oneOf, type Problem, text, textMapping } from './fields.ts';
import type { DataAssetConfig } from './types.ts';

const OTHER_SCHEME = /^(?:https?|wasbs?|abfss?|adl):\/\//i;

const dataAssetSchema = mapping({
  $schema: text().optional(),
  name: matching(ASSET_NAME, 'a data asset name has letters, digits, hyphens, underscores and dots, at most 255'),
  version: matching(
    ASSET_VERSION,
    'a version has letters, digits, hyphens, underscores and dots, at most 64',
  ).optional(),
  type: oneOf('uri_folder', 'uri_file', 'mltable').default('uri_folder'),
  path: text((value): string | Problem => {
    if (value.trim() === '') return { problem: 'must be a path or an azureml:// URI, not empty' };
    if (!value.trim().startsWith('azureml:')) return value.trim();
    const reading = readDatastoreUri(value);
    return reading.ok ? value.trim() : reading;
  }),
  description: text().default(''),
  tags: textMapping(),
  properties: textMapping(),
});

/** Reads data asset files whose relative paths begin at `directory`. */
export function dataAssetReader(directory: string): Reader<typeof dataAssetSchema, DataAssetConfig> {
  return {
    schema: dataAssetSchema,
    keys: [{ key: 'properties', effect: 'warning', note: 'an asset keeps description and tags' }],
    check(findings) {
      const path = findings.document.scalar(['path'])?.text.trim();
      if (path !== undefined && OTHER_SCHEME.test(path)) {
        findings.warning(['path'], 'is registered, but only azureml://datastores/… and local paths can be read here');
      }
    },
    build: (raw) => ({
      name: raw.name,
      version: raw.version,
      type: raw.type,
      path: raw.path.startsWith('azureml:') || OTHER_SCHEME.test(raw.path) ? raw.path : resolve(directory, raw.path),
      description: raw.description,
      tags: raw.tags,
    }),
  };
}
