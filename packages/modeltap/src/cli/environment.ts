import { resolve } from 'node:path';
import type { Command } from 'commander';
import { registerAssetQueries } from './asset.ts';
import { type CommonOptions, clientOf, show, withCommon } from './common.ts';
import { readConfigFile, warn, type Warned } from './config-file.ts';
import type { Column } from './output.ts';

interface Environment {
  readonly name: string;
  readonly version: string;
  readonly image?: string;
  readonly conda_file?: { readonly dependencies: readonly unknown[] };
}

interface CreateOptions extends CommonOptions {
  readonly file?: string;
  readonly name?: string;
  readonly version?: string;
  readonly image?: string;
  readonly condaFile?: string;
}

const COLUMNS: readonly Column<Environment>[] = [
  { title: 'Name', value: (row) => row.name },
  { title: 'Version', value: (row) => row.version },
  {
    title: 'Dependencies',
    value: (row) => row.conda_file?.dependencies.filter((line) => typeof line === 'string').join(' '),
  },
  { title: 'Image', value: (row) => row.image },
];

const PATH = '/api/v1/environments';

/** `modeltap environment …`, with the words and flags of `az ml environment`. */
export function registerEnvironment(program: Command): void {
  const group = program.command('environment').description('Named, versioned lists of the packages a script needs');
  withCommon(group.command('create'))
    .description('Register an environment; it is installed when a deployment first needs it')
    .option('-f, --file <yaml>', 'environment YAML, as for Azure ML')
    .option('-n, --name <name>', 'name; overrides the one in the file')
    .option('-v, --version <version>', 'version; default: the highest number so far plus 1')
    .option('-c, --conda-file <yaml>', 'conda file; overrides the one in the file')
    .option('-i, --image <image>', 'accepted for az ml; packages are installed on this machine')
    .action(async (options: CreateOptions) => {
      const client = await clientOf(options);
      const file = options.file === undefined ? {} : await readConfigFile(options.file);
      const { name, version, image, condaFile } = options;
      const conda_file = condaFile === undefined ? undefined : resolve(condaFile);
      const created = await client.send<Warned<Environment>>('POST', PATH, {
        ...file,
        overrides: { name, version, image, conda_file },
      });
      warn(created.warnings);
      show(created.value, options, COLUMNS);
    });
  registerAssetQueries<Environment>(group, {
    path: PATH,
    what: 'environment',
    columns: COLUMNS,
    empty: 'No environment yet: modeltap environment create -f FILE',
  });
}
