import { dirname, join } from 'node:path';
import { parseAssetReference } from '../config/azureml-uri.ts';
import type { ModelConfig } from '../config/types.ts';
import { ModeltapError } from '../kit/errors.ts';
import { type Access, KINDS } from './access.ts';
import { type AssetPage, type AssetVersion, AssetVersions } from './asset-versions.ts';
import type { ModelEntry } from './entries.ts';

/** What is kept of a model; the version stands beside it. */
interface ModelContent {
  readonly type: ModelConfig['type'];
  /** Where the files came from. */
  readonly sourcePath: string;
  /** Name of the file or folder in the model's folder. */
  readonly file: string;
  readonly description: string;
  readonly tags: Readonly<Record<string, string>>;
  readonly properties: Readonly<Record<string, string>>;
}

/** Models of a workspace, by name and version. Their files lie in `models/<name>/<version>` beside the catalog and never change. */
export class ModelTable {
  readonly #versions: AssetVersions<ModelContent>;
  readonly #root: string;

  constructor(access: Access) {
    this.#root = join(dirname(access.file), 'models');
    // Whether the files are the same is for the one to say who has them; see `register`.
    this.#versions = new AssetVersions(access, KINDS.model, () => true);
  }

  /** The folder of all models. */
  get root(): string {
    return this.#root;
  }

  /** The folder of one version, whether it exists or not. `name` and `version` must have passed the checks of a model file. */
  directoryOf(name: string, version: string): string {
    return join(this.#root, name, version);
  }

  /**
   * Registers a version whose files lie in its folder already, as `file` there. A version that exists is given back as it
   * is (`created` false), and comes back when it was archived: the caller has found its files to be the same.
   */
  async register(
    config: ModelConfig & { readonly version: string },
    file: string,
  ): Promise<{ readonly entry: ModelEntry; readonly created: boolean }> {
    const { type, path: sourcePath, description, tags, properties } = config;
    const content = { type, sourcePath, file, description, tags, properties };
    const { entry, created } = await this.#versions.register(config, content);
    return { entry: this.#toEntry(entry), created };
  }

  /** The version that the next model of this name gets when it names none. */
  async nextVersion(name: string): Promise<string> {
    return this.#versions.nextVersion(name);
  }

  /** One version, archived or not; without one, the latest. */
  async find(name: string, version?: string): Promise<ModelEntry | undefined> {
    const found = await this.#versions.find(name, version);
    return found && this.#toEntry(found);
  }

  /** Like `find`, but throws `not_found`. */
  async get(name: string, version?: string): Promise<ModelEntry> {
    return this.#toEntry(await this.#versions.get(name, version));
  }

  /**
   * What `azureml:<name>:<version>`, `azureml:<name>@latest` or `azureml:<name>` (also the latest) stands for. Throws
   * `uri_invalid`, `model_reference` for what is no name of a workspace, or `reference_unknown`, which says what there is.
   */
  async resolve(reference: string): Promise<ModelEntry> {
    if (!/^\s*azureml:(?!\/)/.test(reference)) throw new ModeltapError('model_reference', { reference });
    const { name, version } = parseAssetReference(reference);
    const found = await this.find(name, version);
    if (found !== undefined) return found;
    throw await this.#versions.unknown(reference, name);
  }

  /** By name, newest version first; without a name, only the latest version of each. At most 1 000. */
  async list(page: AssetPage = {}): Promise<readonly ModelEntry[]> {
    return (await this.#versions.list(page)).map((found) => this.#toEntry(found));
  }

  /** Hides a version from `list` and from the latest, or shows it again; `get` always finds it. Idempotent. Throws `not_found`. */
  async setArchived(name: string, version: string, archived: boolean): Promise<ModelEntry> {
    return this.#toEntry(await this.#versions.setArchived(name, version, archived));
  }

  #toEntry(found: AssetVersion<ModelContent>): ModelEntry {
    const { name, version, content, ...rest } = found;
    return { ...rest, ...content, name, version, directory: this.directoryOf(name, version) };
  }
}
