import type { Command } from 'commander';
import { type CommonOptions, clientOf, show, withCommon } from './common.ts';
import { readConfigFile, warn, type Warned } from './config-file.ts';
import type { Column } from './output.ts';

interface Datastore {
  readonly name: string;
  readonly type: string;
  readonly path?: string;
  readonly container_name?: string;
}

const COLUMNS: readonly Column<Datastore>[] = [
  { title: 'Name', value: (row) => row.name },
  { title: 'Type', value: (row) => row.type },
  { title: 'Where', value: (row) => row.path ?? row.container_name },
];

const PATH = '/api/v1/datastores';

/** `modeltap datastore create|list|show`: the places collections are stored in. */
export function registerDatastore(program: Command): void {
  const group = program.command('datastore').description('Places where collected data is stored');
  withCommon(group.command('create'))
    .description('Add a datastore, or change the one of that name; it is proved writable first')
    .requiredOption('-f, --file <yaml>', 'datastore YAML, as for Azure ML')
    .action(async (options: CommonOptions & { file: string }) => {
      const client = await clientOf(options);
      const created = await client.send<Warned<Datastore>>('POST', PATH, await readConfigFile(options.file));
      warn(created.warnings);
      show(created.value, options, COLUMNS);
    });
  withCommon(group.command('list'))
    .description('List the datastores')
    .action(async (options: CommonOptions) => {
      show(await (await clientOf(options)).get<Datastore[]>(PATH), options, COLUMNS);
    });
  withCommon(group.command('show'))
    .description('Show a datastore, without its secrets')
    .requiredOption('-n, --name <name>', 'name')
    .action(async (options: CommonOptions & { name: string }) => {
      show(
        await (await clientOf(options)).get<Datastore>(`${PATH}/${encodeURIComponent(options.name)}`),
        options,
        COLUMNS,
      );
    });
}
