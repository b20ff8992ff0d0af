import { ModeltapError } from '../kit/errors.ts';

/** Identity of an Azure ML workspace, as it stands in ARM ids and long URIs. */
export interface WorkspaceIdentity {
  readonly subscriptionId: string;
  readonly resourceGroup: string;
  readonly name: string;
}

/** A place in a datastore: `azureml://datastores/<datastore>/paths/<path>`. */
export interface DatastoreUri {
  readonly datastore: string;
  /** Decoded, `/`-separated, without leading or trailing slash; empty for the root. */
  readonly path: string;
  /** Present in the long form, which names the workspace of the datastore. */
  readonly workspace?: WorkspaceIdentity;
}

/** `azureml:<name>:<version>`, `azureml:<name>@latest`, or `azureml:<name>` (neither). */
export interface AssetReference {
  readonly name: string;
  readonly version?: string;
  readonly label?: 'latest';
}

/** A reading that may fail. `at` counts characters from the start of the text. */
export type Reading<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly at: number; readonly problem: string };

/** Name of a datastore. */
export const DATASTORE_NAME = /^[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,253}[A-Za-z0-9_])?$/;
/** Name of a data asset, model or environment. */
export const ASSET_NAME = /^[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,254})$/;
/** Version of an asset. */
export const ASSET_VERSION = /^[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,63})$/;

/** Half of a pair of UTF-16 units: text that no UTF-8 file can hold. */
const LONE_SURROGATE = /\p{Surrogate}/u;
const SCHEME = 'azureml://';
const SHORT = ['datastores', '', 'paths'] as const;
const LONG = ['subscriptions', '', 'resourcegroups', '', 'workspaces', '', 'datastores', '', 'paths'] as const;
const FORMS = `${SCHEME}datastores/<datastore>/paths/<path> or ${SCHEME}subscriptions/<id>/resourcegroups/<group>/workspaces/<workspace>/datastores/<datastore>/paths/<path>`;

/** Reads a datastore URI, short or long form. Blanks around it are ignored; `%20` and the like are decoded. */
export function readDatastoreUri(text: string): Reading<DatastoreUri> {
  const start = text.length - text.trimStart().length;
  const uri = text.trim();
  if (!uri.startsWith(SCHEME)) return failed(start, `must be ${FORMS}`);
  const parts = splitParts(uri.slice(SCHEME.length), start + SCHEME.length);
  const long = parts[0]?.text.toLowerCase() === 'subscriptions';
  const form = long ? LONG : SHORT;
  const names: string[] = [];
  for (const [index, word] of form.entries()) {
    const part = parts[index] ?? { text: '', at: start + uri.length };
    if (word === '') {
      const name = decodePart(part);
      if (!name.ok) return name;
      names.push(name.value);
    } else if (part.text.toLowerCase() !== word) {
      return failed(part.at, `expected "${word}" here; the form is ${long ? FORMS.split(' or ')[1] : FORMS}`);
    }
  }
  const datastore = names.at(-1) ?? '';
  if (!DATASTORE_NAME.test(datastore)) {
    return failed(parts[form.length - 2]?.at ?? start, 'a datastore name has letters, digits, hyphens and underscores');
  }
  const path = readPath(parts.slice(form.length));
  if (!path.ok) return path;
  if (!long) return { ok: true, value: { datastore, path: path.value } };
  const [subscriptionId = '', resourceGroup = '', name = ''] = names;
  return { ok: true, value: { datastore, path: path.value, workspace: { subscriptionId, resourceGroup, name } } };
}

/** Like `readDatastoreUri`, but throws `uri_invalid`. */
export function parseDatastoreUri(text: string): DatastoreUri {
  return orThrow(text, readDatastoreUri(text));
}

/** Writes a datastore URI so that `parseDatastoreUri` gives the same back. Throws `uri_invalid` when a part cannot be in one. */
export function formatDatastoreUri(uri: DatastoreUri): string {
  const { workspace } = uri;
  const owner = workspace
    ? `subscriptions/${encode(workspace.subscriptionId)}/resourcegroups/${encode(workspace.resourceGroup)}/workspaces/${encode(workspace.name)}/`
    : '';
  const path = uri.path.split('/').map(encode).join('/');
  const text = `${SCHEME}${owner}datastores/${encode(uri.datastore)}/paths/${path}`;
  const back = parseDatastoreUri(text);
  if (back.path !== uri.path) {
    orThrow(text, failed(text.length, 'a path has no leading or trailing slash'));
  }
  return text;
}

/** Reads `azureml:<name>:<version>`, `azureml:<name>@latest` or `azureml:<name>`. Blanks around it are ignored. */
export function readAssetReference(text: string): Reading<AssetReference> {
  const start = text.length - text.trimStart().length;
  const reference = text.trim();
  const at = start + 'azureml:'.length;
  if (!reference.startsWith('azureml:') || reference.startsWith(SCHEME)) {
    return failed(start, 'must be azureml:<name>:<version> or azureml:<name>@latest');
  }
  const [, name = '', mark, rest = ''] = /^([^:@]*)(?:([:@])(.*))?$/s.exec(reference.slice('azureml:'.length)) ?? [];
  if (!ASSET_NAME.test(name)) return failed(at, 'a name has letters, digits, hyphens, underscores and dots');
  if (mark === undefined) return { ok: true, value: { name } };
  const restAt = at + name.length + 1;
  if (mark === '@') {
    if (rest !== 'latest') return failed(restAt, 'the only label is "latest"');
    return { ok: true, value: { name, label: 'latest' } };
  }
  if (!ASSET_VERSION.test(rest)) return failed(restAt, 'a version has letters, digits, hyphens, underscores and dots');
  return { ok: true, value: { name, version: rest } };
}

/** Like `readAssetReference`, but throws `uri_invalid`. */
export function parseAssetReference(text: string): AssetReference {
  return orThrow(text, readAssetReference(text));
}

/** The text of a reference. */
export function formatAssetReference(reference: AssetReference): string {
  const version = reference.version === undefined ? '' : `:${reference.version}`;
  const text = `azureml:${reference.name}${reference.label === undefined ? version : `@${reference.label}`}`;
  parseAssetReference(text);
  return text;
}

/** What stands in ARM ids while a workspace has no Azure identity of its own. */
export const DEFAULT_WORKSPACE: WorkspaceIdentity = {
  subscriptionId: '00000000-0000-0000-0000-000000000000',
  resourceGroup: 'modeltap',
  name: 'modeltap',
};

/** The `data.path` of a collection that names none. */
export function defaultCollectionPath(endpoint: string, deployment: string, collection: string): string {
  return `${SCHEME}datastores/workspaceblobstore/paths/modelDataCollector/${endpoint}/${deployment}/${collection}`;
}

interface Part {
  readonly text: string;
  readonly at: number;
}

function splitParts(text: string, offset: number): readonly Part[] {
  let at = offset;
  return text.split('/').map((part) => {
    const here = at;
    at += part.length + 1;
    return { text: part, at: here };
  });
}

function readPath(parts: readonly Part[]): Reading<string> {
  const kept = parts.at(-1)?.text === '' ? parts.slice(0, -1) : parts;
  const segments: string[] = [];
  for (const part of kept) {
    const segment = decodePart(part);
    if (!segment.ok) return segment;
    segments.push(segment.value);
  }
  return { ok: true, value: segments.join('/') };
}

function decodePart(part: Part): Reading<string> {
  const bad = /[?#\\\p{Cc}]/u.exec(part.text);
  if (bad) return failed(part.at + bad.index, `the character ${JSON.stringify(bad[0])} is not allowed in a path`);
  const broken = /%(?![0-9A-Fa-f]{2})/.exec(part.text);
  if (broken)
    return failed(
      part.at + broken.index,
      '"%" must be followed by two hexadecimal digits; write %25 for a percent sign',
    );
  let text: string;
  try {
    text = decodeURIComponent(part.text);
  } catch (error) {
    if (!(error instanceof URIError)) throw error;
    return failed(part.at, 'the %-encoding is not UTF-8');
  }
  if (text === '') return failed(part.at, 'a part between two slashes is empty');
  if (text === '.' || text === '..') return failed(part.at, '"." and ".." are not allowed in a path');
  if (/[/\\\p{Cc}]/u.test(text))
    return failed(part.at, 'an encoded slash, backslash or control character is not allowed');
  if (LONE_SURROGATE.test(text)) return failed(part.at, 'the text is not valid Unicode');
  return { ok: true, value: text };
}

function encode(segment: string): string {
  if (LONE_SURROGATE.test(segment)) {
    return orThrow(segment.replace(/\p{Surrogate}/gu, '\uFFFD'), failed(0, 'the text is not valid Unicode'));
  }
  return encodeURIComponent(segment).replace(/%(?:3D|3A|40|2B|2C|24|26|3B)/g, decodeURIComponent);
}

function failed(at: number, problem: string): { readonly ok: false; readonly at: number; readonly problem: string } {
  return { ok: false, at, problem };
}

function orThrow<T>(uri: string, reading: Reading<T>): T {
  if (reading.ok) return reading.value;
  throw new ModeltapError('uri_invalid', { uri, column: reading.at + 1, problem: reading.problem });
}
