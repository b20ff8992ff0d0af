import { errorText, systemCode } from '../kit/errors.ts';
import { showKey } from './object-key-check.ts';
import { StorageError, type StorageErrorKind } from './store.ts';

const KINDS: Readonly<Record<string, readonly [kind: StorageErrorKind, fix: string]>> = {
  ENOSPC: ['full', 'Free space on the disk of the datastore, or move it to a larger one.'],
  EDQUOT: ['full', 'Raise the disk quota of the account Modeltap runs as.'],
  EFBIG: ['full', 'Raise the file size limit of the account Modeltap runs as (ulimit -f).'],
  EACCES: ['refused', 'Give the account Modeltap runs as the right to write in the folder of the datastore.'],
  EPERM: ['refused', 'Give the account Modeltap runs as the right to write there, on a file system with hard links.'],
  EROFS: ['refused', 'The file system is mounted read-only: remount it, or choose another folder.'],
  ELOOP: ['refused', 'Replace the symbolic link inside the datastore by a real file or folder.'],
  ENAMETOOLONG: ['invalid', 'A part of a key may have at most 255 bytes on a local disk.'],
  EISDIR: ['invalid', 'On a local disk a key cannot be a file and a folder at once.'],
  ENOTDIR: ['invalid', 'On a local disk a key cannot be a file and a folder at once.'],
  EEXIST: ['invalid', 'On a local disk a key cannot be a file and a folder at once.'],
};

/** What a file system error means for a store. What is not known counts as `unreachable`, which is retried. */
export function localError(store: string, action: string, key: string, error: unknown): StorageError {
  if (error instanceof StorageError) return error;
  const code = systemCode(error) ?? '';
  const [kind, fix] = KINDS[code] ?? ['unreachable', 'Look at the disk or mount of the datastore (dmesg, mount, df).'];
  return new StorageError(kind, `datastore ${store}: ${action} ${showKey(key)} failed: ${errorText(error)}`, {
    fix,
    cause: error,
  });
}
