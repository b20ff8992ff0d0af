import { readFileSync } from 'node:fs';
import { REFERENCE, REFERENCE_BODY } from '../config/datastore.ts';
import type { DatastoreConfig } from '../config/types.ts';
import { ModeltapError, systemCode } from '../kit/errors.ts';
import type { DatastoreOptions } from '../storage/store.ts';

/** Where references to secrets lead. */
export interface SecretEffects {
  /** Undefined when there is no such variable. */
  env(name: string): string | undefined;
  /** Throws a system error when the file cannot be read. */
  readFile(path: string): string;
}

/** A secret is short; a longer file is a mistake. */
const MAX_SECRET_CHARACTERS = 65_536;

/** The process's environment and the disk. */
export const systemSecrets: SecretEffects = {
  env: (name) => process.env[name],
  readFile: (path) => readFileSync(path, 'utf8'),
};

/**
 * What a store is opened with: references replaced by their values, the service address built. Throws `secret_unresolved`
 * naming the variable or file that is missing and the key that asks for it, never a value.
 *
 * Address: a URL in `endpoint` is used as it is; a host with a port or path (an emulator) gets the account name behind it
 * if it has no path; any other host is `<account>.blob.<endpoint>`.
 */
export function resolveSecrets(config: DatastoreConfig, effects: SecretEffects = systemSecrets): DatastoreOptions {
  if (config.type === 'local') return { type: 'local', name: config.name, path: config.path };
  const fill = (key: string, value: string) => fillReferences(value, { datastore: config.name, key, effects });
  const credentials = fillCredentials(config, fill);
  const connection =
    credentials.kind === 'connection_string' ? parseConnectionString(credentials.connectionString) : undefined;
  const accountName = fill('account_name', config.accountName) || (connection?.get('accountname') ?? '');
  const endpoint = fill('endpoint', config.endpoint);
  return {
    type: 'azure_blob',
    name: config.name,
    accountName,
    containerName: fill('container_name', config.containerName),
    serviceUrl: connection?.get('blobendpoint') ?? blobServiceUrl(config.protocol, accountName, endpoint),
    credentials,
  };
}

/** The blob service's address without container and without a slash at the end. */
export function blobServiceUrl(protocol: 'http' | 'https', accountName: string, endpoint: string): string {
  const bare = endpoint.replace(/\/+$/, '');
  if (/^https?:\/\//i.test(bare)) return bare;
  const [host = '', ...path] = bare.split('/');
  if (path.length > 0) return `${protocol}://${bare}`;
  const single = /:\d+$/.test(host) || /^\d+(?:\.\d+){3}$/.test(host) || host === 'localhost';
  return single ? `${protocol}://${host}/${accountName}` : `${protocol}://${accountName}.blob.${host}`;
}

type BlobConfig = Extract<DatastoreConfig, { type: 'azure_blob' }>;
type BlobCredentials = Extract<DatastoreOptions, { type: 'azure_blob' }>['credentials'];

function fillCredentials(config: BlobConfig, fill: (key: string, value: string) => string): BlobCredentials {
  const { accountKey, sasToken, connectionString } = config.credentials;
  if (connectionString !== undefined) {
    return { kind: 'connection_string', connectionString: fill('credentials.connection_string', connectionString) };
  }
  if (sasToken !== undefined) {
    return { kind: 'sas_token', sasToken: fill('credentials.sas_token', sasToken).replace(/^\?/, '') };
  }
  if (accountKey !== undefined) return { kind: 'account_key', accountKey: fill('credentials.account_key', accountKey) };
  throw new ModeltapError('secret_unresolved', { datastore: config.name, problem: 'it has no credentials' });
}

function fillReferences(
  value: string,
  context: { readonly datastore: string; readonly key: string; readonly effects: SecretEffects },
): string {
  const { datastore, key, effects } = context;
  return value.replace(REFERENCE, (_, body: string) => {
    const [, variable, file] = REFERENCE_BODY.exec(body) ?? [];
    const found = variable === undefined ? readSecretFile(effects, file ?? '') : { value: effects.env(variable) };
    if ('problem' in found) {
      throw new ModeltapError('secret_unresolved', {
        datastore,
        problem: `the file ${file} named by ${key} ${found.problem}`,
      });
    }
    if (found.value === undefined || found.value === '') {
      const what = variable === undefined ? `the file ${file}` : `the environment variable ${variable}`;
      throw new ModeltapError('secret_unresolved', {
        datastore,
        problem: `${what} named by ${key} is ${found.value === '' ? 'empty' : 'not set'}`,
      });
    }
    return found.value;
  });
}

function readSecretFile(
  effects: SecretEffects,
  path: string,
): { readonly value: string } | { readonly problem: string } {
  try {
    const text = effects.readFile(path);
    return text.length > MAX_SECRET_CHARACTERS ? { problem: 'is too long for a secret' } : { value: text.trim() };
  } catch (error) {
    const code = systemCode(error);
    return { problem: code === 'ENOENT' ? 'does not exist' : `cannot be read (${code ?? 'unknown reason'})` };
  }
}

/** `Name=Value;…` with names in lower case. */
function parseConnectionString(text: string): ReadonlyMap<string, string> {
  const pairs = text.split(';').map((part): [string, string] => {
    const at = part.indexOf('=');
    return [part.slice(0, Math.max(at, 0)).trim().toLowerCase(), part.slice(at + 1).trim()];
  });
  return new Map(pairs.filter(([name]) => name !== ''));
}
