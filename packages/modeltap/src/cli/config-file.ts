import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { ModeltapError, systemCode } from '../kit/errors.ts';

/** A file a user wrote, as the API takes it: the workspace reads relative paths in it from where the file lies. */
export interface ConfigFile {
  /** Absolute path. */
  readonly file: string;
  readonly text: string;
}

/** An answer of the API with what the user should know about the file. */
export interface Warned<T> {
  readonly value: T;
  readonly warnings: readonly string[];
}

/** Reads a YAML file for the API, `file_unreadable` when that fails. */
export async function readConfigFile(path: string): Promise<ConfigFile> {
  const file = resolve(path);
  try {
    return { file, text: await readFile(file, 'utf8') };
  } catch (cause) {
    throw new ModeltapError('file_unreadable', { file, detail: systemCode(cause) ?? String(cause) }, { cause });
  }
}

/** Prints warnings on standard error. */
export function warn(warnings: readonly string[]): void {
  for (const warning of warnings) process.stderr.write(`${warning}\n`);
}
