import { randomUUID } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Catalog } from '../catalog/catalog.ts';
import { KINDS, notFound } from '../catalog/access.ts';
import { publicModel, type PublicObject } from '../catalog/public.ts';
import type { ModelEntry } from '../catalog/entries.ts';
import { resolveSecrets } from '../catalog/secrets.ts';
import { parseDatastoreUri } from '../config/azureml-uri.ts';
import { parseModel } from '../config/load.ts';
import type { DeploymentConfig, ModelConfig } from '../config/types.ts';
import { type ErrorBody, ModeltapError, systemCode, toErrorBody } from '../kit/errors.ts';
import type { Logger } from '../kit/logger.ts';
import { openStore } from '../storage/stores.ts';
import { type Answered, type GivenAsset, texts } from './answers.ts';
import { copyError, copyFiles, localFiles, type ModelFiles, sameFiles, storedFiles } from './model-files.ts';

/** Begins the name of a folder that is being filled; no model can be named so. */
const UNFINISHED = '.new-';
/** Failed registrations that are remembered, so that whoever asks hears why. */
const MAX_FAILED = 100;

/**
 * The folder a script finds its model in (`AZUREML_MODEL_DIR`), as in Azure ML the one that holds the model's file or folder
 * under its own name: for a path, the folder above it; for a reference, the folder of the registered version. Undefined when
 * the deployment has none. Throws `model_missing`, `model_reference`, `reference_unknown` or `uri_invalid`.
 */
export async function modelDirectory(model: DeploymentConfig['model'], catalog: Catalog): Promise<string | undefined> {
  if (model === undefined) return undefined;
  const entry = 'reference' in model ? await catalog.models.resolve(model.reference) : undefined;
  const path = 'reference' in model ? join(entry?.directory ?? '', entry?.file ?? '') : model.path;
  try {
    await stat(path);
    return dirname(path);
  } catch (cause) {
    throw new ModeltapError('model_missing', { path, detail: systemCode(cause) ?? String(cause) }, { cause });
  }
}

/** A registration that goes on, or failed. */
interface Attempt {
  readonly config: ModelConfig & { readonly version: string };
  readonly total: { files: number; bytes: number };
  readonly copied: { files: number; bytes: number };
  failure?: ErrorBody['error'];
}

/** The models of a workspace: registering copies their files, since a version must not change with the place it came from. */
export class Models {
  readonly #catalog: Catalog;
  readonly #logger: Logger;
  /** By `name:version`. */
  readonly #attempts = new Map<string, Attempt>();
  readonly #running = new Set<Promise<void>>();
  readonly #over = new AbortController();

  constructor(options: { readonly catalog: Catalog; readonly logger: Logger }) {
    this.#catalog = options.catalog;
    this.#logger = options.logger;
  }

  /** Removes what a process that was killed left half copied. Before the first `create`. */
  async removeUnfinished(): Promise<void> {
    const { root } = this.#catalog.models;
    await mkdir(root, { recursive: true, mode: 0o700 });
    const names = (await readdir(root)).filter((name) => name.startsWith(UNFINISHED));
    for (const name of names) await rm(join(root, name), { recursive: true, force: true });
  }

  /** Breaks off what is being copied and waits until it has. */
  async close(): Promise<void> {
    this.#over.abort(new ModeltapError('workspace_stopping'));
    await Promise.all(this.#running);
  }

  /**
   * Checks the file, looks at the model's files and begins to copy them; `show` tells how far it is
   * (`provisioning_state` `Creating`, then `Succeeded` or `Failed`). A version that exists with the same files is given
   * back, and comes back when it was archived. Throws `config_invalid`, `version_taken`, `model_busy`, `not_found` for a
   * datastore, and what the files are refused for.
   */
  async create(given: GivenAsset): Promise<Answered<PublicObject>> {
    const { file = 'model', text = '{}', overrides } = given;
    const loaded = parseModel(text, { file, overrides });
    const warnings = texts(loaded.warnings);
    const { attempt, known } = await this.#reserve(loaded.value);
    const { config } = attempt;
    try {
      const files = await this.#filesOf(config.path);
      if (known !== undefined) {
        await this.#requireSame(known, files);
        const { entry } = await this.#catalog.models.register(config, files.file);
        this.#attempts.delete(keyOf(config));
        return { value: registeredView(entry), warnings };
      }
      attempt.total.files = files.files.length;
      attempt.total.bytes = files.files.reduce((sum, each) => sum + each.bytes, 0);
      const run = this.#run(attempt, files);
      this.#running.add(run);
      void run.finally(() => this.#running.delete(run));
      return { value: attemptView(attempt), warnings };
    } catch (error) {
      this.#attempts.delete(keyOf(config));
      throw error;
    }
  }

  /** `version` may be `latest`. A registration that goes on or failed is shown as such. Throws `not_found`. */
  async show(name: string, version: string): Promise<PublicObject> {
    const attempt = this.#attempts.get(`${name}:${version}`);
    if (attempt !== undefined) return attemptView(attempt);
    return registeredView(await this.#catalog.models.get(name, version === 'latest' ? undefined : version));
  }

  /** The latest version of each model, or all versions of one. Without those that are not registered yet. */
  async list(name: string | undefined, archived: boolean): Promise<readonly PublicObject[]> {
    return (await this.#catalog.models.list({ archived, ...(name === undefined ? {} : { name }) })).map(registeredView);
  }

  /** Hides a version from `list` and `@latest`, or shows it again. Throws `not_found`. */
  async setArchived(name: string, version: string, archived: boolean): Promise<PublicObject> {
    return registeredView(await this.#catalog.models.setArchived(name, version, archived));
  }

  /** Gives the registration its version and keeps others off it. */
  async #reserve(config: ModelConfig): Promise<{ readonly attempt: Attempt; readonly known: ModelEntry | undefined }> {
    for (;;) {
      const version = config.version ?? this.#later(config.name, await this.#catalog.models.nextVersion(config.name));
      const key = `${config.name}:${version}`;
      const earlier = this.#attempts.get(key);
      if (earlier !== undefined && earlier.failure === undefined) {
        throw new ModeltapError('model_busy', { name: config.name, version });
      }
      const attempt = { config: { ...config, version }, total: { files: 0, bytes: 0 }, copied: { files: 0, bytes: 0 } };
      this.#attempts.set(key, attempt);
      const known = await this.#catalog.models.find(config.name, version);
      if (known === undefined || config.version !== undefined) return { attempt, known };
      // Another registration has taken the number while this one looked.
      this.#attempts.delete(key);
    }
  }

  /** `next`, or more when versions that high are being registered. */
  #later(name: string, next: string): string {
    const going = [...this.#attempts.values()].filter(({ config, failure }) => config.name === name && !failure);
    const numbers = going.map(({ config }) => (/^\d{1,15}$/.test(config.version) ? Number(config.version) + 1 : 0));
    return String(Math.max(Number(next), ...numbers));
  }

  async #filesOf(path: string): Promise<ModelFiles> {
    if (!path.startsWith('azureml:')) return localFiles(path);
    const uri = parseDatastoreUri(path);
    const datastore = await this.#catalog.datastores.find(uri.datastore);
    if (datastore === undefined) throw notFound(KINDS.datastore, uri.datastore);
    return storedFiles(await openStore(resolveSecrets(datastore.config)), uri.path, path);
  }

  async #requireSame(known: ModelEntry, files: ModelFiles): Promise<void> {
    const { name, version } = known;
    const same =
      known.file === files.file && (await sameFiles(await localFiles(join(known.directory, known.file)), files));
    if (!same) throw new ModeltapError('version_taken', { kind: 'model', name, version });
  }

  /** Never rejects: what goes wrong is the state of the registration. */
  async #run(attempt: Attempt, files: ModelFiles): Promise<void> {
    const { config } = attempt;
    const { models } = this.#catalog;
    const unfinished = join(models.root, `${UNFINISHED}${randomUUID()}`);
    try {
      await copyFiles(files, unfinished, {
        signal: this.#over.signal,
        onFile: ({ bytes }) => {
          attempt.copied.files += 1;
          attempt.copied.bytes += bytes;
        },
      });
      const target = models.directoryOf(config.name, config.version);
      await mkdir(dirname(target), { recursive: true });
      // Only a process that was killed between the next two steps can have left one, and the catalog does not know it.
      await rm(target, { recursive: true, force: true });
      await rename(unfinished, target);
      await syncFolder(dirname(target));
      await models.register(config, files.file);
      this.#attempts.delete(keyOf(config));
    } catch (cause) {
      const error = copyError(config.path, cause);
      this.#logger.error(
        { model: keyOf(config), code: error.code, error: error.message },
        'a model was not registered',
      );
      await rm(unfinished, { recursive: true, force: true }).catch((left: unknown) => {
        this.#logger.warn({ folder: unfinished, error: String(left) }, 'a half copied model was not removed');
      });
      attempt.failure = toErrorBody(error).error;
      this.#forgetOldFailures();
    }
  }

  #forgetOldFailures(): void {
    const failed = [...this.#attempts].filter(([, attempt]) => attempt.failure !== undefined);
    for (const [key] of failed.slice(0, Math.max(0, failed.length - MAX_FAILED))) this.#attempts.delete(key);
  }
}

function registeredView(entry: ModelEntry): PublicObject {
  return { ...publicModel(entry), provisioning_state: 'Succeeded' };
}

function attemptView({ config, total, copied, failure }: Attempt): PublicObject {
  return {
    name: config.name,
    version: config.version,
    type: config.type,
    source_path: config.path,
    description: config.description,
    tags: config.tags,
    properties: config.properties,
    provisioning_state: failure === undefined ? 'Creating' : 'Failed',
    files: total.files,
    bytes: total.bytes,
    copied_files: copied.files,
    copied_bytes: copied.bytes,
    ...(failure === undefined ? {} : { provisioning_error: failure }),
  };
}

/** So that a power cut cannot take the folder from a version that the catalog has. */
async function syncFolder(path: string): Promise<void> {
  await using handle = await open(path, 'r');
  await handle.sync();
}

const keyOf = (config: { readonly name: string; readonly version: string }) => `${config.name}:${config.version}`;
