import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { ModeltapError, systemCode } from '../kit/errors.ts';
import { type CommonOptions, clientOf, show, withCommon } from './common.ts';
import type { Column } from './output.ts';
import { readConfigFile, warn, type Warned } from './config-file.ts';

interface Endpoint {
  readonly name: string;
  readonly scoring_uri: string;
  readonly provisioning_state: string;
  readonly auth_mode: string;
  readonly traffic: Readonly<Record<string, number>>;
}

const COLUMNS: readonly Column<Endpoint>[] = [
  { title: 'Name', value: (row) => row.name },
  { title: 'State', value: (row) => row.provisioning_state },
  {
    title: 'Traffic',
    value: (row) =>
      Object.entries(row.traffic)
        .map(([name, percent]) => `${name}=${percent}`)
        .join(' '),
  },
  { title: 'Scoring URI', value: (row) => row.scoring_uri },
];

const PATH = '/api/v1/online-endpoints';

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
  registerInvoke(group);
}

function registerInvoke(group: Command): void {
  withCommon(group.command('invoke'))
    .description('Send a request to the scoring URI and print the answer')
    .requiredOption('-n, --name <name>', 'name of the endpoint')
    .requiredOption('-r, --request-file <json>', 'file with the request body')
    .option('-d, --deployment-name <name>', 'send it to this deployment, whatever the traffic says')
    .action(async (options: CommonOptions & { name: string; requestFile: string; deploymentName?: string }) => {
      const client = await clientOf(options);
      const endpoint = await client.get<Endpoint>(`${PATH}/${encodeURIComponent(options.name)}`);
      const answer = await client.raw(endpoint.scoring_uri, {
        method: 'POST',
        body: await requestBody(options.requestFile),
        headers: {
          'content-type': 'application/json',
          ...(options.deploymentName === undefined ? {} : { 'azureml-model-deployment': options.deploymentName }),
        },
      });
      const text = await answer.text();
      if (!answer.ok) {
        throw new ModeltapError('scoring_failed', {
          uri: endpoint.scoring_uri,
          status: answer.status,
          text: text.slice(0, 2_000),
        });
      }
      process.stdout.write(text.endsWith('\n') ? text : `${text}\n`);
    });
}

async function requestBody(file: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return new Uint8Array(await readFile(file));
  } catch (cause) {
    throw new ModeltapError(
      'file_unreadable',
      { file: resolve(file), detail: systemCode(cause) ?? String(cause) },
      { cause },
    );
  }
}
