import { constants, createReadStream, createWriteStream } from 'node:fs';
import { copyFile, mkdir, open, readdir, readlink, realpath, stat } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, relative, sep } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { errorText, isModeltapError, ModeltapError, systemCode } from '../kit/errors.ts';
import { type ObjectStore, StorageError } from '../storage/store.ts';

/** Most files of one model. */
const MAX_FILES = 100_000;

/** One file of a model. */
export interface ModelFile {
  /** Where it lies below the model's folder, parts separated by `/`; begins with the `file` of its `ModelFiles`. */
  readonly path: string;
  readonly bytes: number;
  /** Writes it, whole and on disk, to a path that does not exist. */
  copyTo(target: string, signal: AbortSignal): Promise<void>;
  read(): Promise<Readable>;
}

/** The files of a model, wherever they are. */
export interface ModelFiles {
  /** Last part of the path they were found at: the name of the file or folder that a script looks for. */
  readonly file: string;
  /** At least one. */
  readonly files: readonly ModelFile[];
}

/**
 * The files of a path on this machine. Links are followed where they stay inside it. Throws `model_missing`, `model_empty`,
 * `model_link`, or `model_copy_failed` for what is neither file nor folder and for more than 100 000 files.
 */
export async function localFiles(path: string): Promise<ModelFiles> {
  const file = basename(path);
  try {
    const root = await realpath(path);
    const info = await stat(root);
    if (info.isFile()) return { file, files: [localFile(root, file, info.size)] };
    if (!info.isDirectory()) throw notCopied(path, 'it is neither a file nor a folder');
    const files: ModelFile[] = [];
    await walk({ root, path, files }, { directory: root, name: file, above: [] });
    if (files.length === 0) throw new ModeltapError('model_empty', { path });
    return { file, files };
  } catch (cause) {
    const code = systemCode(cause);
    if (code === 'ENOENT' || code === 'ENOTDIR')
      throw new ModeltapError('model_missing', { path, detail: code }, { cause });
    throw copyError(path, cause);
  }
}

/** The files of an object, or below a "folder", of a store. `path` names them in errors. Throws `model_empty` or `model_copy_failed`. */
export async function storedFiles(store: ObjectStore, key: string, path: string): Promise<ModelFiles> {
  const file = key.slice(key.lastIndexOf('/') + 1);
  try {
    const objects = await allBelow(store, `${key}/`, path);
    // Some stores keep an empty object for each folder.
    const folders = new Set(objects.flatMap((object) => parents(object.key)));
    const files = objects
      .filter((object) => object.bytes > 0 || !folders.has(object.key))
      .map((object) => storedFile(store, object, `${file}/${object.key.slice(key.length + 1)}`));
    if (files.length > 0) return { file, files };
    const single = await store.head(key);
    if (single === undefined) throw new ModeltapError('model_empty', { path });
    return { file, files: [storedFile(store, single, file)] };
  } catch (cause) {
    throw copyError(path, cause);
  }
}

/** Copies every file below `directory`, which is made. `onFile` hears of each one that is there. Throws system errors, or what the signal was aborted with. */
export async function copyFiles(
  { files }: ModelFiles,
  directory: string,
  options: { readonly signal: AbortSignal; readonly onFile: (file: ModelFile) => void },
): Promise<void> {
  for (const file of files) {
    options.signal.throwIfAborted();
    const target = join(directory, ...file.path.split('/'));
    await mkdir(dirname(target), { recursive: true });
    await file.copyTo(target, options.signal);
    options.onFile(file);
  }
}

/** True when both have the same files with the same bytes. */
export async function sameFiles(a: ModelFiles, b: ModelFiles): Promise<boolean> {
  if (a.files.length !== b.files.length) return false;
  const others = new Map(b.files.map((file) => [file.path, file]));
  const pairs = a.files.map((file) => [file, others.get(file.path)] as const);
  if (pairs.some(([file, other]) => file.bytes !== other?.bytes)) return false;
  for (const [file, other] of pairs) {
    if (other === undefined || !(await sameBytes(await file.read(), await other.read()))) return false;
  }
  return true;
}

/** Makes anything that went wrong with the files of a model an error of the registry. */
export function copyError(path: string, cause: unknown): ModeltapError {
  if (isModeltapError(cause)) return cause;
  const disk = 'Check the rights of the files and the space on the disk of the workspace.';
  const hint = cause instanceof StorageError && cause.fix !== '' ? cause.fix : disk;
  return new ModeltapError('model_copy_failed', { path, detail: errorText(cause), hint }, { cause });
}

interface Walk {
  readonly root: string;
  readonly path: string;
  readonly files: ModelFile[];
}

interface Step {
  /** Real path. */
  readonly directory: string;
  readonly name: string;
  /** Real paths of the folders that led here. */
  readonly above: readonly string[];
}

async function walk(found: Walk, step: Step): Promise<void> {
  const above = [...step.above, step.directory];
  const entries = await readdir(step.directory, { withFileTypes: true });
  for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const link = join(step.directory, entry.name);
    const real = entry.isSymbolicLink() ? await linked(found.root, link) : link;
    const name = `${step.name}/${entry.name}`;
    const info = await stat(real);
    if (info.isDirectory()) {
      if (above.includes(real)) throw new ModeltapError('model_link', { link, target: `${real}, a folder above it` });
      await walk(found, { directory: real, name, above });
    } else if (!info.isFile()) throw notCopied(found.path, `${link} is neither a file nor a folder`);
    else if (found.files.length >= MAX_FILES) throw tooMany(found.path);
    else found.files.push(localFile(real, name, info.size));
  }
}

/** What a link leads to, if that is inside the model. */
async function linked(root: string, link: string): Promise<string> {
  let real: string;
  try {
    real = await realpath(link);
  } catch (cause) {
    throw new ModeltapError('model_link', { link, target: `${await readlink(link)}, which cannot be read` }, { cause });
  }
  const inside = relative(root, real);
  if (inside === '..' || inside.startsWith(`..${sep}`) || isAbsolute(inside)) {
    throw new ModeltapError('model_link', { link, target: `${real}, outside the model` });
  }
  return real;
}

function localFile(source: string, path: string, bytes: number): ModelFile {
  return {
    path,
    bytes,
    async copyTo(target) {
      // Takes no room on file systems that can share blocks; an ordinary copy elsewhere.
      await copyFile(source, target, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
      await using handle = await open(target, 'r');
      await handle.sync();
    },
    read: () => Promise.resolve(createReadStream(source)),
  };
}

function storedFile(
  store: ObjectStore,
  object: { readonly key: string; readonly bytes: number },
  path: string,
): ModelFile {
  const read = async () => {
    const stream = await store.get(object.key);
    if (stream === undefined) throw notCopied(object.key, 'it was deleted meanwhile');
    return stream;
  };
  return {
    path,
    bytes: object.bytes,
    read,
    copyTo: async (target, signal) =>
      pipeline(await read(), createWriteStream(target, { flags: 'wx', flush: true }), { signal }),
  };
}

async function allBelow(store: ObjectStore, prefix: string, path: string) {
  const found: { readonly key: string; readonly bytes: number }[] = [];
  let after: string | undefined;
  do {
    const page = await store.list({ prefix, ...(after === undefined ? {} : { after }) });
    for (const object of page.objects) {
      const parts = object.key.split('/');
      if (parts.some((part) => part === '' || part === '.' || part === '..' || /[\\\0]/.test(part))) {
        // A key that ends in a slash is how some programs keep an empty folder.
        if (object.key.endsWith('/') && object.bytes === 0) continue;
        throw notCopied(path, `the object ${object.key} has a name that cannot be a file here`);
      }
      found.push(object);
    }
    if (found.length > MAX_FILES) throw tooMany(path);
    after = page.next;
  } while (after !== undefined);
  return found;
}

function parents(key: string): readonly string[] {
  const parts = key.split('/').slice(0, -1);
  return parts.map((_part, index) => parts.slice(0, index + 1).join('/'));
}

async function sameBytes(a: Readable, b: Readable): Promise<boolean> {
  const left = a[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  const right = b[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  let [x, y]: [Buffer, Buffer] = [Buffer.alloc(0), Buffer.alloc(0)];
  try {
    for (;;) {
      if (x.length === 0) x = await nextOf(left);
      if (y.length === 0) y = await nextOf(right);
      const length = Math.min(x.length, y.length);
      if (length === 0) return x.length === y.length;
      if (x.compare(y, 0, length, 0, length) !== 0) return false;
      [x, y] = [x.subarray(length), y.subarray(length)];
    }
  } finally {
    a.destroy();
    b.destroy();
  }
}

/** The next bytes, or none at the end. */
async function nextOf(chunks: AsyncIterator<Buffer>): Promise<Buffer> {
  for (;;) {
    const { done, value } = await chunks.next();
    if (done === true) return Buffer.alloc(0);
    if (value.length > 0) return value;
  }
}

function tooMany(path: string): ModeltapError {
  return notCopied(path, `it has more than ${MAX_FILES} files`, 'Register an archive, or a folder with fewer files.');
}

function notCopied(path: string, detail: string, hint = 'Remove it, or register a part of the model.'): ModeltapError {
  return new ModeltapError('model_copy_failed', { path, detail, hint });
}
