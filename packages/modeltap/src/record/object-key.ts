import { clampTimeMs } from './time.ts';
import type { RollingRate } from './types.ts';

/** How much of `yyyy-MM-ddThh:mm` names the folder. */
const DEPTH: Readonly<Record<RollingRate, number>> = { year: 4, month: 7, day: 10, hour: 13, minute: 16 };

/**
 * Folder of a record inside its datastore: `<path>/<yyyy>/<MM>/<dd>/<HH>` in UTC by the record's time. `minute` adds
 * `/<mm>`; `day`, `month` and `year` drop levels (docs/object-layout.md).
 */
export function folderOf(path: string, rate: RollingRate, timeMs: number): string {
  const text = new Date(clampTimeMs(timeMs)).toISOString().slice(0, DEPTH[rate]);
  return `${path}/${text.replace(/[-T:]/g, '/')}`;
}

/** Key of a collection file: `<folder>/<instance id>.jsonl`, the instance id being the spool id (32 hex digits) and a count of six digits. */
export function fileKeyOf(folder: string, spoolId: string, suffix: number): string {
  return `${folder}/${spoolId}${String(suffix).padStart(6, '0')}.jsonl`;
}

/** The count in a collection file's key, or undefined when `key` is not a file of this spool. */
export function suffixOf(key: string, spoolId: string): number | undefined {
  const match = /([0-9a-f]{32})(\d{6,})\.jsonl$/.exec(key);
  return match?.[1] === spoolId ? Number(match[2]) : undefined;
}

/** What is put beside the collection files: `binary` bytes, or the `json` rows that `dataref` points to. */
export type RawKind = 'binary' | 'json';

/** Key of a raw object. Never ends in `.jsonl`: readers take every such file of the folder for events. */
export function rawKeyOf(folder: string, name: string, kind: RawKind): string {
  return kind === 'json' ? `${folder}/${name}.json` : `${folder}/${name}`;
}
