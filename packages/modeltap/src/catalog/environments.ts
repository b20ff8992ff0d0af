import { parseAssetReference } from '../config/azureml-uri.ts';
import type { CondaConfig, EnvironmentConfig } from '../config/types.ts';
import { ModeltapError } from '../kit/errors.ts';
import { type Access, KINDS } from './access.ts';
import { type AssetPage, type AssetVersion, AssetVersions } from './asset-versions.ts';
import type { EnvironmentEntry } from './entries.ts';

const LOCAL_LINE = /^(?:[./~]|-e|--editable|-f|--find-links)|^[^:;@]*[\\/]/;

/** Environments of a workspace, by name and version. What a version asks for never changes, nor does a later change of its files matter. */
export class EnvironmentTable {
  readonly #versions: AssetVersions<EnvironmentConfig>;

  constructor(access: Access) {
    this.#versions = new AssetVersions(access, KINDS.environment, (a, b) => contentOf(a) === contentOf(b));
  }

  /**
   * Registers a version of a named environment; without one, the highest whole number so far plus 1. A version that asks for
   * the same is given back as it is (`created` false), and comes back when it was archived. Throws `version_taken`.
   */
  async register(
    config: EnvironmentConfig & { readonly name: string },
  ): Promise<{ readonly entry: EnvironmentEntry; readonly created: boolean }> {
    const { entry, created } = await this.#versions.register(config, config);
    return { entry: toEntry(entry), created };
  }

  /** One version, archived or not; without one, the latest. */
  async find(name: string, version?: string): Promise<EnvironmentEntry | undefined> {
    const found = await this.#versions.find(name, version);
    return found && toEntry(found);
  }

  /** Like `find`, but throws `not_found`. */
  async get(name: string, version?: string): Promise<EnvironmentEntry> {
    return toEntry(await this.#versions.get(name, version));
  }

  /**
   * What `azureml:<name>:<version>`, `azureml:<name>@latest` or `azureml:<name>` (also the latest) stands for. Throws
   * `uri_invalid`, `environment_elsewhere` for those that Azure keeps, or `reference_unknown`, which says what there is.
   */
  async resolve(reference: string): Promise<EnvironmentEntry> {
    if (/^\s*azureml:\//.test(reference)) throw new ModeltapError('environment_elsewhere', { reference });
    const { name, version } = parseAssetReference(reference);
    const found = await this.find(name, version);
    if (found !== undefined) return found;
    // Azure's own ("curated") environments all begin so.
    if (/^AzureML-/i.test(name)) throw new ModeltapError('environment_elsewhere', { reference });
    throw await this.#versions.unknown(reference, name);
  }

  /** By name, newest version first; without a name, only the latest version of each. At most 1 000. */
  async list(page: AssetPage = {}): Promise<readonly EnvironmentEntry[]> {
    return (await this.#versions.list(page)).map(toEntry);
  }

  /** Hides a version from `list` and from the latest, or shows it again; `get` always finds it. Idempotent. Throws `not_found`. */
  async setArchived(name: string, version: string, archived: boolean): Promise<EnvironmentEntry> {
    return toEntry(await this.#versions.setArchived(name, version, archived));
  }
}

/** Puts back the keys that JSON leaves out of an environment because they are undefined. */
export function completeEnvironment(stored: EnvironmentConfig): EnvironmentConfig {
  const conda = stored.conda && { ...stored.conda, name: stored.conda.name, python: stored.conda.python };
  const routes = stored.inferenceConfig;
  return {
    ...stored,
    name: stored.name,
    version: stored.version,
    image: stored.image,
    conda,
    inferenceConfig: routes && {
      liveness: routes.liveness,
      readiness: routes.readiness,
      scoring: routes.scoring,
    },
  };
}

function toEntry(found: AssetVersion<EnvironmentConfig>): EnvironmentEntry {
  const { name, version, content, ...rest } = found;
  return { ...rest, name, version, config: { ...completeEnvironment(content), name, version } };
}

/** What decides whether two environments are the same: what they ask for, not where it is written or what is said about it. */
function contentOf(config: EnvironmentConfig): string {
  const { image, conda, inferenceConfig } = config;
  return JSON.stringify([image, conda && condaContent(conda), routesContent(inferenceConfig)]);
}

function condaContent(conda: CondaConfig): unknown {
  const packages = conda.packages.map(({ name, version, build, channel }) => [name, version, build, channel]);
  const pip = conda.pip.map(({ text, constraint }) => [text, constraint]);
  // The folder matters only for lines that may name something in it.
  const directory = conda.pip.some(({ text }) => LOCAL_LINE.test(text)) ? conda.directory : '';
  return [conda.channels, conda.python, packages, pip, directory];
}

function routesContent(routes: EnvironmentConfig['inferenceConfig']): unknown {
  return (
    routes && [routes.liveness, routes.readiness, routes.scoring].map((route) => route && [route.path, route.port])
  );
}
