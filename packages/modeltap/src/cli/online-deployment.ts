import type { Command } from 'commander';
import { systemClock } from '../kit/clock.ts';
import { type ErrorBody, ModeltapError } from '../kit/errors.ts';
import { ApiError, type Client } from './client.ts';
import { type CommonOptions, clientOf, progress, show, wholeNumber, withCommon } from './common.ts';
import { readConfigFile, warn, type Warned } from './config-file.ts';
import type { Column } from './output.ts';

interface Deployment {
  readonly name: string;
  readonly endpoint_name: string;
  readonly provisioning_state: 'Creating' | 'Updating' | 'Succeeded' | 'Failed' | 'Deleting';
  readonly provisioning_error?: ErrorBody['error'];
  readonly provisioning_detail?: string;
  readonly provisioning_warnings?: readonly string[];
  readonly instance_count: number;
  readonly instances?: readonly { readonly state: string }[];
}

interface NamedOptions extends CommonOptions {
  readonly name: string;
  readonly endpointName: string;
}

interface FileOptions extends CommonOptions {
  readonly file: string;
  readonly name?: string;
  readonly endpointName?: string;
  readonly allTraffic?: boolean;
  readonly wait: boolean;
}

const COLUMNS: readonly Column<Deployment>[] = [
  { title: 'Endpoint', value: (row) => row.endpoint_name },
  { title: 'Name', value: (row) => row.name },
  { title: 'State', value: (row) => row.provisioning_state },
  {
    title: 'Ready',
    value: (row) =>
      `${row.instances?.filter((instance) => instance.state === 'ready').length ?? 0}/${row.instance_count}`,
  },
];

const pathOf = (endpoint: string, name?: string) =>
  `/api/v1/online-endpoints/${encodeURIComponent(endpoint)}/deployments${name === undefined ? '' : `/${encodeURIComponent(name)}`}`;

/** `modeltap online-deployment …`, with the words and flags of `az ml online-deployment`. */
export function registerOnlineDeployment(program: Command): void {
  const group = program.command('online-deployment').description('Versioned model servers behind an endpoint');
  for (const verb of ['create', 'update'] as const) registerApply(group, verb);
  named(group, 'show', 'Show a deployment').action(async (options: NamedOptions) => {
    show(await (await clientOf(options)).get<Deployment>(pathOf(options.endpointName, options.name)), options, COLUMNS);
  });
  withCommon(group.command('list'))
    .description('List the deployments of an endpoint')
    .requiredOption('-e, --endpoint-name <name>', 'name of the endpoint')
    .action(async (options: CommonOptions & { endpointName: string }) => {
      const found = await (await clientOf(options)).get<Deployment[]>(pathOf(options.endpointName));
      show(found, options, COLUMNS, 'No deployment yet: modeltap online-deployment create -f FILE');
    });
  named(group, 'delete', 'Stop and delete a deployment; what was collected stays')
    .option('-y, --yes', 'do not ask (accepted for az ml: nothing is asked here)')
    .action(async (options: NamedOptions) => {
      await (await clientOf(options)).send('DELETE', pathOf(options.endpointName, options.name));
    });
  named(group, 'get-logs', 'Print what the instances wrote')
    .option('-l, --lines <count>', 'how many of the last lines', wholeNumber(1, 100_000), 50)
    .action(async (options: NamedOptions & { lines: number }) => {
      const client = await clientOf(options);
      const answer = await client.get<{ text: string }>(
        `${pathOf(options.endpointName, options.name)}/logs?lines=${options.lines}`,
      );
      process.stdout.write(answer.text);
    });
}

function named(group: Command, verb: string, description: string): Command {
  return withCommon(group.command(verb))
    .description(description)
    .requiredOption('-n, --name <name>', 'name of the deployment')
    .requiredOption('-e, --endpoint-name <name>', 'name of the endpoint');
}

function registerApply(group: Command, verb: 'create' | 'update'): void {
  withCommon(group.command(verb))
    .description(
      verb === 'create'
        ? 'Create a deployment from its YAML'
        : 'Change a deployment, collection too, without dropping a request',
    )
    .requiredOption('-f, --file <yaml>', 'deployment YAML, as for Azure ML')
    .option('-n, --name <name>', 'name; overrides the one in the file')
    .option('-e, --endpoint-name <name>', 'endpoint; overrides the one in the file')
    .option('--all-traffic', 'send all traffic of the endpoint to this deployment once it is ready')
    .option('--no-wait', 'return before the deployment is ready')
    .action(async (options: FileOptions) => {
      const client = await clientOf(options);
      const started = await client.send<Warned<Deployment>>(
        verb === 'create' ? 'POST' : 'PUT',
        '/api/v1/online-deployments',
        {
          ...(await readConfigFile(options.file)),
          name: options.name,
          endpoint_name: options.endpointName,
          all_traffic: options.allTraffic === true,
        },
      );
      warn(started.warnings);
      show(options.wait ? await untilReady(client, started.value) : started.value, options, COLUMNS);
    });
}

/** Polls until the deployment is ready or has failed, saying what goes on once it takes longer than a moment. */
async function untilReady(client: Client, started: Deployment): Promise<Deployment> {
  const line = progress();
  const since = systemClock.monotonic();
  for (;;) {
    const now = await client.get<Deployment>(pathOf(started.endpoint_name, started.name));
    const { provisioning_state: state, provisioning_error: error, provisioning_detail: detail } = now;
    if (state !== 'Creating' && state !== 'Updating') {
      line.end();
      warn((now.provisioning_warnings ?? []).map((text) => `warning: ${text}`));
      if (state === 'Failed') throw failure(now, error);
      return now;
    }
    const seconds = Math.floor((systemClock.monotonic() - since) / 1_000);
    if (seconds >= 1) {
      const doing = detail ?? `starting ${now.instance_count} instance(s)`;
      line.say(`${state} ${now.endpoint_name}/${now.name}: ${doing}… ${seconds - (seconds % 5)} s`);
    }
    await systemClock.sleep(200);
  }
}

/** What went wrong, with its own advice. */
function failure(deployment: Deployment, error: ErrorBody['error'] | undefined): Error {
  if (error !== undefined) return new ApiError(500, error);
  const detail = 'it did not become ready';
  return new ModeltapError('deployment_failed', {
    deployment: `${deployment.endpoint_name}/${deployment.name}`,
    detail,
  });
}
