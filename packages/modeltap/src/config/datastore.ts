import { resolve } from 'node:path';
import { z } from 'zod';
import { DATASTORE_NAME } from './azureml-uri.ts';
import type { Findings, Reader } from './check.ts';
import { closest } from './closest.ts';
import {
  asText,
  field,
  filled,
  mapping,
  matching,
  mustBe,
  mustBeMapping,
  oneOf,
  type Problem,
  shown,
  text,
  textMapping,
} from './fields.ts';
import type { DatastoreConfig } from './types.ts';
import { type KeyPath, PlainScalar } from './yaml.ts';

const TYPES = ['local', 'azure_blob'] as const;
const FUTURE_TYPES = ['azure_data_lake_gen2', 'azure_data_lake_gen1', 'azure_file', 's3', 'gcs'];

/** `${env:NAME}` or `${file:/path}`; everything else between `${` and `}` is refused. */
export const REFERENCE = /\$\{([^}]*)\}/g;
/** What may stand inside `${…}`. */
export const REFERENCE_BODY = /^(?:env:([A-Za-z_][A-Za-z0-9_]*)|file:(\/[^\0]+))$/;

// Texts here never repeat the value: it may be a secret put in the wrong place.
const withReferences = (what: string, mayBeEmpty = false) =>
  field((value): string | Problem => {
    const given = asText(value)?.trim();
    if (given === undefined)
      return { problem: `must be ${what}, not ${value === null ? 'empty' : 'a mapping or list'}` };
    if (given === '' && !mayBeEmpty) return { problem: `must be ${what}, not empty` };
    for (const match of given.matchAll(REFERENCE)) {
      if (!REFERENCE_BODY.test(match[1] ?? '')) {
        return { problem: 'has a reference that is neither ${env:NAME} nor ${file:/absolute/path}', at: match.index };
      }
    }
    return given;
  });

const common = {
  $schema: text().optional(),
  name: matching(DATASTORE_NAME, 'a datastore name has letters, digits, hyphens and underscores, at most 255'),
  description: text().optional(),
  tags: textMapping(),
};

const localSchema = mapping({ ...common, type: oneOf('local'), path: filled('a folder') });

const blobSchema = mapping({
  ...common,
  type: oneOf('azure_blob'),
  account_name: withReferences('the name of the storage account', true).optional(),
  container_name: withReferences('the name of the container'),
  endpoint: withReferences('a host such as core.windows.net, or a URL').default('core.windows.net'),
  protocol: oneOf('https', 'http', 'wasbs').default('https'),
  credentials: mapping({
    account_key: withReferences('the key of the account').optional(),
    sas_token: withReferences('a shared access signature').optional(),
    connection_string: withReferences('a connection string').optional(),
  }).optional(),
});

/** A datastore, by its `type`; relative paths begin at the directory given to `datastoreReader`. */
export const datastoreSchema = z.unknown().transform((value, context) => {
  const type = typeOf(value);
  const parsed =
    type === 'azure_blob' ? blobSchema.safeParse(value) : type === 'local' ? localSchema.safeParse(value) : undefined;
  if (parsed?.success) return parsed.data;
  if (parsed === undefined) {
    // Not a known type: the other keys mean nothing yet.
    const shape = z.object({ type: field(typeProblem) }).safeParse(value ?? {});
    const message = isObject(value) ? (shape.error?.issues[0]?.message ?? 'is required') : mustBeMapping(value);
    context.addIssue({ code: 'custom', message, path: isObject(value) ? ['type'] : [] });
    return z.NEVER;
  }
  for (const issue of parsed.error.issues) {
    context.addIssue({
      code: 'custom',
      message: issue.message,
      path: [...issue.path],
      params: issue.code === 'custom' ? issue.params : {},
    });
  }
  return z.NEVER;
});

/** Reads datastore files whose relative paths begin at `directory`. */
export function datastoreReader(directory: string): Reader<typeof datastoreSchema, DatastoreConfig> {
  return {
    schema: datastoreSchema,
    keys: [],
    check: (findings) => checkDatastore(findings, []),
    build: (raw) => buildDatastore(raw, directory),
  };
}

/** Rules of a datastore that one key alone cannot tell. `base` is its path in the file. */
export function checkDatastore(findings: Findings, base: KeyPath): void {
  const { document } = findings;
  if (
    document
      .scalar([...base, 'type'])
      ?.text.trim()
      .toLowerCase() !== 'azure_blob'
  )
    return;
  const given = document.keys([...base, 'credentials']).filter((key) => key in CREDENTIALS);
  const [first, second] = given;
  if (first === undefined) {
    findings.error(
      [...base, 'credentials'],
      'must have one of account_key, sas_token, connection_string; access by identity is not available yet',
      'key',
    );
  } else if (second !== undefined) {
    findings.error([...base, 'credentials', second], `is one too many: "${first}" is given already; keep one`, 'key');
  }
  if (first !== 'connection_string' && (document.scalar([...base, 'account_name'])?.text.trim() ?? '') === '') {
    findings.error([...base, 'account_name'], 'is required (only a connection string says it itself)');
  }
  for (const key of given) {
    const value = document.scalar([...base, 'credentials', key])?.text;
    if (value?.includes('${') === false) {
      findings.warning(
        [...base, 'credentials', key],
        'is a secret written in the file; ${env:NAME} or ${file:/path} keeps it out of it',
      );
    }
  }
  checkEndpoint(findings, base);
  if (
    document
      .scalar([...base, 'protocol'])
      ?.text.trim()
      .toLowerCase() === 'wasbs'
  ) {
    findings.warning([...base, 'protocol'], 'wasbs is read as https');
  }
}

/** Makes the checked form. */
export function buildDatastore(raw: z.output<typeof datastoreSchema>, directory: string): DatastoreConfig {
  if (raw.type === 'local') return { name: raw.name, type: 'local', path: resolve(directory, raw.path) };
  const { account_key: accountKey, sas_token: sasToken, connection_string: connectionString } = raw.credentials ?? {};
  return {
    name: raw.name,
    type: 'azure_blob',
    accountName: raw.account_name ?? '',
    containerName: raw.container_name,
    endpoint: raw.endpoint,
    protocol: raw.protocol === 'http' ? 'http' : 'https',
    credentials: {
      ...(accountKey === undefined ? {} : { accountKey }),
      ...(sasToken === undefined ? {} : { sasToken }),
      ...(connectionString === undefined ? {} : { connectionString }),
    },
  };
}

const CREDENTIALS: Readonly<Record<string, true>> = { account_key: true, sas_token: true, connection_string: true };

function checkEndpoint(findings: Findings, base: KeyPath): void {
  const path = [...base, 'endpoint'];
  const endpoint = findings.document.scalar(path)?.text;
  if (endpoint === undefined || endpoint.includes('${')) return;
  if (/[?#@\s]/.test(endpoint.trim())) {
    findings.error(
      path,
      'must be a host such as core.windows.net, or a URL without user, query and fragment; credentials belong under credentials',
    );
  } else if (/:\/\//.test(endpoint) && !/^https?:\/\/[^/]/i.test(endpoint)) {
    findings.error(path, 'must be an http or https URL, or only a host');
  }
}

function typeOf(value: unknown): (typeof TYPES)[number] | undefined {
  const given = isObject(value) ? asText(value['type'])?.trim().toLowerCase() : undefined;
  return TYPES.find((type) => type === given);
}

function typeProblem(value: unknown): Problem {
  const given = asText(value)?.trim();
  if (given !== undefined && FUTURE_TYPES.includes(given.toLowerCase())) {
    return { problem: `${shown(given)} is not available yet; use one of ${TYPES.join(', ')}` };
  }
  const near = given === undefined ? undefined : closest(given, TYPES);
  return {
    problem: `${mustBe(`one of ${TYPES.join(', ')}`, value)}${near === undefined ? '' : `; did you mean "${near}"?`}`,
  };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof PlainScalar);
}
