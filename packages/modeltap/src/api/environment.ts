import type { Catalog } from '../catalog/catalog.ts';
import { publicEnvironment, type PublicObject } from '../catalog/public.ts';
import { parseEnvironment } from '../config/load.ts';
import type { DeploymentConfig, EnvironmentConfig } from '../config/types.ts';
import { type Answered, type GivenAsset, texts } from './answers.ts';

/**
 * The environment of a deployment: the one written in it, or the registered one it names. Undefined when it has none.
 * Throws `uri_invalid`, `environment_elsewhere` or `reference_unknown`.
 */
export async function environmentOf(
  environment: DeploymentConfig['environment'],
  catalog: Catalog,
): Promise<EnvironmentConfig | undefined> {
  if (environment === undefined || !('reference' in environment)) return environment;
  return (await catalog.environments.resolve(environment.reference)).config;
}

/** The environments of a workspace. Registering keeps what the files ask for; nothing is installed before a deployment needs it. */
export class Environments {
  readonly #catalog: Catalog;

  constructor(options: { readonly catalog: Catalog }) {
    this.#catalog = options.catalog;
  }

  /** A version that exists and asks for the same is given back, and comes back when it was archived. Throws `config_invalid` or `version_taken`. */
  async create(given: GivenAsset): Promise<Answered<PublicObject>> {
    const { file = 'environment', text = '{}', overrides } = given;
    const { value, warnings } = parseEnvironment(text, { file, overrides });
    const { entry } = await this.#catalog.environments.register({ ...value, name: value.name ?? '' });
    return { value: publicEnvironment(entry), warnings: texts(warnings) };
  }

  /** `version` may be `latest`. Throws `not_found`. */
  async show(name: string, version: string): Promise<PublicObject> {
    return publicEnvironment(await this.#catalog.environments.get(name, version === 'latest' ? undefined : version));
  }

  /** The latest version of each environment, or all versions of one. */
  async list(name: string | undefined, archived: boolean): Promise<readonly PublicObject[]> {
    const found = await this.#catalog.environments.list({ archived, ...(name === undefined ? {} : { name }) });
    return found.map(publicEnvironment);
  }

  /** Hides a version from `list` and `@latest`, or shows it again. Throws `not_found`. */
  async setArchived(name: string, version: string, archived: boolean): Promise<PublicObject> {
    return publicEnvironment(await this.#catalog.environments.setArchived(name, version, archived));
  }
}
