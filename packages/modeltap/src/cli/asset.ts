import type { Command } from 'commander';
import { type CommonOptions, clientOf, show, withCommon } from './common.ts';
import type { Column } from './output.ts';

/** A kind of asset whose versions can be listed, shown, archived and restored. */
export interface AssetKind<T> {
  /** Of the API. */
  readonly path: string;
  /** `model`, `environment`. */
  readonly what: string;
  readonly columns: readonly Column<T>[];
  /** What to say when there is none. */
  readonly empty: string;
}

interface VersionOptions extends CommonOptions {
  readonly name: string;
  readonly version?: string;
}

/** Adds `list`, `show`, `archive` and `restore` to the command group of an asset. */
export function registerAssetQueries<T>(group: Command, kind: AssetKind<T>): void {
  const { path, what, columns, empty } = kind;
  const article = /^[aeiou]/.test(what) ? 'an' : 'a';
  withCommon(group.command('list'))
    .description(`List the latest version of each ${what}, or all versions of one`)
    .option('-n, --name <name>', 'only the versions of this one')
    .option('--include-archived', 'archived versions too')
    .action(async (options: CommonOptions & { name?: string; includeArchived?: boolean }) => {
      const query = new URLSearchParams();
      if (options.name !== undefined) query.set('name', options.name);
      if (options.includeArchived === true) query.set('archived', 'true');
      const found = await (await clientOf(options)).get<T[]>(`${path}?${query.toString()}`);
      show(found, options, columns, empty);
    });
  withCommon(group.command('show'))
    .description(`Show one version of ${article} ${what}`)
    .requiredOption('-n, --name <name>', 'name')
    .option('-v, --version <version>', 'version; default: the newest')
    .option('-l, --label <label>', '"latest" is the only label')
    .action(async (options: VersionOptions) => {
      show(await (await clientOf(options)).get<T>(versionPath(path, options)), options, columns);
    });
  for (const verb of ['archive', 'restore'] as const) {
    withCommon(group.command(verb))
      .description(
        verb === 'archive'
          ? `Hide a version of ${article} ${what} from list and from "latest"; deployments keep it`
          : `Show an archived version of ${article} ${what} again`,
      )
      .requiredOption('-n, --name <name>', 'name')
      .requiredOption('-v, --version <version>', 'version')
      .action(async (options: VersionOptions) => {
        const client = await clientOf(options);
        show(await client.send<T>('POST', `${versionPath(path, options)}/${verb}`), options, columns);
      });
  }
}

function versionPath(path: string, options: VersionOptions): string {
  const version = encodeURIComponent(options.version ?? 'latest');
  return `${path}/${encodeURIComponent(options.name)}/versions/${version}`;
}
