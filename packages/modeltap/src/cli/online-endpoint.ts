import type { Command } from 'commander';
import { type CommonOptions, clientOf, show, withCommon } from './common.ts';
import type { Column } from './output.ts';
import { readConfigFile, warn, type Warned } from './config-file.ts';
import { registerEndpointCredentials } from './endpoint-credentials.ts';
import { registerInvoke } from './endpoint-invoke.ts';
import { ENDPOINTS_PATH as PATH, type Endpoint } from './endpoint-path.ts';
import { parseSet, parseShares } from './endpoint-shares.ts';

interface UpdateOptions extends CommonOptions {
  readonly file?: string;
  readonly name?: string;
  readonly traffic?: string;
  readonly mirrorTraffic?: string;
  readonly set?: readonly string[];
}

const shares = (traffic: Readonly<Record<string, number>>) =>
  Object.entries(traffic)
    .map(([name, percent]) => `${name}=${percent}`)
    .join(' ');

const COLUMNS: readonly Column<Endpoint>[] = [
  { title: 'Name', value: (row) => row.name },
  { title: 'State', value: (row) => row.provisioning_state },
  { title: 'Auth', value: (row) => row.auth_mode },
  { title: 'Traffic', value: (row) => shares(row.traffic) },
  { title: 'Mirror', value: (row) => shares(row.mirror_traffic) },
  { title: 'Scoring URI', value: (row) => row.scoring_uri },
];

/** `modeltap online-endpoint …`, with the words and flags of `az ml online-endpoint`. */
export function registerOnlineEndpoint(program: Command): void {
  const group = program.command('online-endpoint').description('Stable names that models are asked under');
  withCommon(group.command('create'))
    .description('Create an endpoint')
    .option('-f, --file <yaml>', 'endpoint YAML')
    .option('-n, --name <name>', 'name; overrides the one in the file')
    .action(async (options: CommonOptions & { file?: string; name?: string }) => {
      const client = await clientOf(options);
      const file = options.file === undefined ? {} : await readConfigFile(options.file);
      const created = await client.send<Warned<Endpoint>>('POST', PATH, { ...file, name: options.name });
      warn(created.warnings);
      show(created.value, options, COLUMNS);
    });
  registerUpdate(group);
  withCommon(group.command('show'))
    .description('Show an endpoint, with its scoring_uri')
    .requiredOption('-n, --name <name>', 'name')
    .action(async (options: CommonOptions & { name: string }) => {
      show(
        await (await clientOf(options)).get<Endpoint>(`${PATH}/${encodeURIComponent(options.name)}`),
        options,
        COLUMNS,
      );
    });
  withCommon(group.command('list'))
    .description('List the endpoints')
    .action(async (options: CommonOptions) => {
      show(
        await (await clientOf(options)).get<Endpoint[]>(PATH),
        options,
        COLUMNS,
        'No endpoint yet: modeltap online-endpoint create --name NAME',
      );
    });
  withCommon(group.command('delete'))
    .description('Delete an endpoint and its deployments; what was collected stays')
    .requiredOption('-n, --name <name>', 'name')
    .option('-y, --yes', 'do not ask (accepted for az ml: nothing is asked here)')
    .action(async (options: CommonOptions & { name: string }) => {
      await (await clientOf(options)).send('DELETE', `${PATH}/${encodeURIComponent(options.name)}`);
    });
  registerEndpointCredentials(group);
  registerInvoke(group);
}

function registerUpdate(group: Command): void {
  withCommon(group.command('update'))
    .description('Change an endpoint: its traffic, its mirror, or what its YAML says; no request is dropped')
    .option('-f, --file <yaml>', 'endpoint YAML; shares it does not give stay as they are')
    .option('-n, --name <name>', 'name; overrides the one in the file')
    .option('--traffic <shares>', 'percent of the requests for each deployment: "blue=90 green=10"')
    .option('--mirror-traffic <share>', 'percent of the requests that a deployment gets copies of: "green=10"')
    .option('--set <key=value...>', 'single values: description=… auth_mode=… tags.team=… traffic.blue=…')
    .action(async (options: UpdateOptions) => {
      const { name, traffic, mirrorTraffic } = options;
      const endpoint = name ?? options.file ?? '';
      const client = await clientOf(options);
      const updated = await client.send<Warned<Endpoint>>('PUT', PATH, {
        ...(options.file === undefined ? {} : await readConfigFile(options.file)),
        name,
        traffic: traffic === undefined ? undefined : parseShares(endpoint, '--traffic', traffic),
        mirror_traffic:
          mirrorTraffic === undefined ? undefined : parseShares(endpoint, '--mirror-traffic', mirrorTraffic),
        set: options.set?.map(parseSet),
      });
      warn(updated.warnings);
      show(updated.value, options, COLUMNS);
    });
}
