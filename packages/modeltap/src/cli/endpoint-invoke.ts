import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { ModeltapError, systemCode } from '../kit/errors.ts';
import { type CommonOptions, clientOf, withCommon } from './common.ts';
import { type Credentials, type Endpoint, ENDPOINTS_PATH } from './endpoint-path.ts';

interface InvokeOptions extends CommonOptions {
  readonly name: string;
  readonly requestFile: string;
  readonly deploymentName?: string;
}

/** `online-endpoint invoke`. */
export function registerInvoke(group: Command): void {
  withCommon(group.command('invoke'))
    .description('Send a request to the scoring URI, with a key or token of the endpoint, and print the answer')
    .requiredOption('-n, --name <name>', 'name of the endpoint')
    .requiredOption('-r, --request-file <json>', 'file with the request body')
    .option('-d, --deployment-name <name>', 'send it to this deployment, whatever the traffic says')
    .action(invoke);
}

async function invoke(options: InvokeOptions): Promise<void> {
  const client = await clientOf(options);
  const path = `${ENDPOINTS_PATH}/${encodeURIComponent(options.name)}`;
  const endpoint = await client.get<Endpoint>(path);
  const { primaryKey, accessToken } = await client.send<Credentials>('POST', `${path}/credentials`);
  const answer = await client.raw(endpoint.scoring_uri, {
    method: 'POST',
    body: await requestBody(options.requestFile),
    headers: {
      'content-type': 'application/json',
      authorization: `Bearer ${primaryKey ?? accessToken ?? ''}`,
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
