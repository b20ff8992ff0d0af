import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { systemCode } from '../../kit/errors.ts';
import type { PipRequirement } from './pip-lines.ts';
import type { RequirementPlan } from './plan.ts';

/** Raised when environments are built in another way, so that none of the old ones is taken for a new one. */
const BUILDER_FORMAT = 1;
/** Short: scripts of an environment name their interpreter in a first line that Linux cuts at 127 characters. */
const HASH_CHARS = 16;
/** Most files of a local package that are looked at. */
const MAX_FILES = 20_000;
/** Folders of a local package that building it, running it or working on it changes. */
const PASSED_OVER = /^(?:\.git|\.venv|venv|__pycache__|\.\w+_cache|node_modules|build|dist|.*\.egg-info)$/;
/** Of a package installed in place only these decide what is installed. */
const METADATA = ['pyproject.toml', 'setup.py', 'setup.cfg'];

/** Name of an environment: 16 hex digits of what its content follows from. */
export async function fingerprint(plan: RequirementPlan, pythonVersion: string): Promise<string> {
  const hash = createHash('sha256');
  const add = (...parts: readonly string[]) => hash.update(`${JSON.stringify(parts)}\n`);
  add('format', String(BUILDER_FORMAT), pythonVersion, plan.pipVersion ?? '');
  for (const line of plan.packages) add('package', line);
  for (const requirement of plan.pip) {
    add(requirement.constraint ? 'constraint' : 'pip', requirement.line);
    if (requirement.local !== undefined) for (const part of await localContent(requirement.local)) add('local', part);
  }
  return hash.digest('hex').slice(0, HASH_CHARS);
}

/** A file by its content; a folder by the sizes and times of its files. */
async function localContent({ path, editable }: NonNullable<PipRequirement['local']>): Promise<readonly string[]> {
  const info = await stat(path);
  if (info.isFile()) return [await fileHash(path)];
  if (editable) return Promise.all(METADATA.map(async (name) => `${name} ${await hashIfThere(join(path, name))}`));
  const parts: string[] = [];
  const walk = async (folder: string): Promise<void> => {
    const entries = await readdir(folder, { withFileTypes: true });
    for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
      if (PASSED_OVER.test(entry.name) || parts.length >= MAX_FILES) continue;
      const file = join(folder, entry.name);
      if (entry.isDirectory()) await walk(file);
      else if (entry.isFile()) {
        const { size, mtimeMs } = await stat(file);
        parts.push(`${relative(path, file)} ${size} ${mtimeMs}`);
      }
    }
  };
  await walk(path);
  return parts;
}

async function hashIfThere(path: string): Promise<string> {
  try {
    return await fileHash(path);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return '';
    throw error;
  }
}

async function fileHash(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}
