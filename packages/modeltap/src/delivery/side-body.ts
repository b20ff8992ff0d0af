import { open, stat } from 'node:fs/promises';
import { systemCode } from '../kit/errors.ts';
import type { StoredRecord } from '../record/types.ts';
import type { BatchItem } from './batch.ts';
import type { DropReason } from './ledger-table.ts';

/**
 * Bytes of a side file that a cycle with this `inlineBytes` takes into memory for the record: JSON of a size that goes
 * into a line. 0 for all others, whose bodies go from file to store as they are.
 */
export function embeddedBytes(record: StoredRecord | undefined, inlineBytes: number): number {
  if (record === undefined || record.body !== undefined || !record.json) return 0;
  return record.bodyBytes <= inlineBytes ? record.bodyBytes : 0;
}

/**
 * Looks at the side file of a record without a body: the body when it goes into a line, undefined when it is there and
 * stays where it is, the reason to drop the record when it is gone or has another length. Other failures of the disk
 * are thrown: they may pass.
 */
export async function sideBody(item: BatchItem, inlineBytes: number): Promise<Buffer | DropReason | undefined> {
  const { record, sideFile } = item;
  if (record === undefined || sideFile === undefined) return 'side_file_missing';
  try {
    if (embeddedBytes(record, inlineBytes) > 0)
      return (await readWhole(sideFile, record.bodyBytes)) ?? 'side_file_missing';
    return (await stat(sideFile)).size === record.bodyBytes ? undefined : 'side_file_missing';
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return 'side_file_missing';
    throw error;
  }
}

/** A file of exactly this length; undefined when it has another, and then it is not read. */
async function readWhole(path: string, bytes: number): Promise<Buffer | undefined> {
  const file = await open(path, 'r');
  try {
    if ((await file.stat()).size !== bytes) return undefined;
    const body = await file.readFile();
    return body.length === bytes ? body : undefined;
  } finally {
    await file.close();
  }
}
