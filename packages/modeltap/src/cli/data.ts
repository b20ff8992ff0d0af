import type { Command } from 'commander';
import { type CommonOptions, clientOf, show, withCommon } from './common.ts';
import type { Column } from './output.ts';

interface DataAsset {
  readonly name: string;
  readonly version: string;
  readonly type: string;
  readonly path: string;
}

const COLUMNS: readonly Column<DataAsset>[] = [
  { title: 'Name', value: (row) => row.name },
  { title: 'Version', value: (row) => row.version },
  { title: 'Type', value: (row) => row.type },
  { title: 'Path', value: (row) => row.path },
];

/** `modeltap data list|show`: the data assets that collections are registered as. */
export function registerData(program: Command): void {
  const group = program.command('data').description('Named, versioned pointers to collected data');
  withCommon(group.command('list'))
    .description('List the data assets')
    .option('-n, --name <name>', 'only the versions of this one')
    .action(async (options: CommonOptions & { name?: string }) => {
      const query = options.name === undefined ? '' : `?name=${encodeURIComponent(options.name)}`;
      const found = await (await clientOf(options)).get<DataAsset[]>(`/api/v1/data${query}`);
      show(
        found,
        options,
        COLUMNS,
        'No data asset yet: a deployment with data_collector registers one per collection.',
      );
    });
  withCommon(group.command('show'))
    .description('Show one data asset')
    .requiredOption('-n, --name <name>', 'name')
    .option('-v, --version <version>', 'version; default: the newest')
    .option('-l, --label <label>', '"latest" is the only label')
    .action(async (options: CommonOptions & { name: string; version?: string }) => {
      const version = encodeURIComponent(options.version ?? 'latest');
      const path = `/api/v1/data/${encodeURIComponent(options.name)}/versions/${version}`;
      show(await (await clientOf(options)).get<DataAsset>(path), options, COLUMNS);
    });
}
