import { randomBytes } from 'node:crypto';
import { errorText } from '../kit/errors.ts';
import { openAzureBlob } from './azure-blob.ts';
import { openLocalDisk } from './local-disk.ts';
import { type DatastoreOptions, type ObjectStore, StorageError } from './store.ts';

/** Every backend by the `type` of a datastore: a new one is a file and a row. */
const STORES: { readonly [K in DatastoreOptions['type']]: Opener<Extract<DatastoreOptions, { type: K }>> } = {
  azure_blob: (options) => openAzureBlob(options),
  local: openLocalDisk,
};

type Opener<T> = (options: T) => Promise<ObjectStore>;

/** The types of datastore there are, sorted. */
export const STORE_TYPES = Object.keys(STORES).sort() as readonly DatastoreOptions['type'][];

/** Opens a datastore. Nothing is sent or written yet: `testStore` shows whether it works. */
export function openStore(options: DatastoreOptions): Promise<ObjectStore> {
  // The table's type ties each opener to its options; indexing by a union loses that tie.
  const open = STORES[options.type] as Opener<DatastoreOptions>;
  return open(options);
}

/**
 * Proves that a store takes writes: puts an object of some bytes under `.modeltap/probe-…`, looks for it, deletes it.
 * Undefined when that worked, else what is wrong; never rejects. A store that refuses only the deletion passes: rights
 * to delete are not needed for collecting.
 */
export async function testStore(store: ObjectStore): Promise<StorageError | undefined> {
  const key = `.modeltap/probe-${randomBytes(8).toString('hex')}`;
  const content = Buffer.from('Modeltap tests here whether it can write. This object can be deleted.\n');
  try {
    await store.put(key, content, { ifAbsent: true, contentType: 'text/plain' });
    const found = await store.head(key);
    if (found?.bytes !== content.length) {
      return new StorageError('unreachable', `the ${store.kind} store took ${key} but does not show it`, {
        fix: 'Look at the store: what it acknowledges must be readable at once.',
      });
    }
    await store.delete(key);
    return undefined;
  } catch (error) {
    if (!(error instanceof StorageError)) return new StorageError('unreachable', errorText(error), { cause: error });
    const written = error.kind === 'refused' && (await store.head(key).catch(() => undefined)) !== undefined;
    return written ? undefined : error;
  }
}
