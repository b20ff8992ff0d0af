import { type Command, Option } from 'commander';
import { type CommonOptions, clientOf, show, withCommon } from './common.ts';
import { type Credentials, ENDPOINTS_PATH } from './endpoint-path.ts';
import type { Column } from './output.ts';

const KEYS: readonly Column<Credentials>[] = [
  { title: 'PrimaryKey', value: (row) => row.primaryKey },
  { title: 'SecondaryKey', value: (row) => row.secondaryKey },
];
const TOKEN: readonly Column<Credentials>[] = [
  { title: 'AccessToken', value: (row) => row.accessToken },
  { title: 'ExpiryTimeUtc', value: (row) => row.expiryTimeUtc },
  { title: 'RefreshAfterTimeUtc', value: (row) => row.refreshAfterTimeUtc },
  { title: 'TokenType', value: (row) => row.tokenType },
];

/** `get-credentials` and `regenerate-keys`, with the words and flags of `az ml online-endpoint`. */
export function registerEndpointCredentials(group: Command): void {
  withCommon(group.command('get-credentials'))
    .description('Show the keys of an endpoint, or a new token for it: what requests send as "Authorization: Bearer …"')
    .requiredOption('-n, --name <name>', 'name of the endpoint')
    .action(async (options: CommonOptions & { name: string }) => {
      const client = await clientOf(options);
      const path = `${ENDPOINTS_PATH}/${encodeURIComponent(options.name)}/credentials`;
      const found = await client.send<Credentials>('POST', path);
      show(found, options, found.accessToken === undefined ? KEYS : TOKEN);
    });
  withCommon(group.command('regenerate-keys'))
    .description('Replace one of the two keys of an endpoint; the other goes on working')
    .requiredOption('-n, --name <name>', 'name of the endpoint')
    .addOption(new Option('--key-type <type>', 'which one').choices(['primary', 'secondary']).default('primary'))
    .action(async (options: CommonOptions & { name: string; keyType: string }) => {
      const path = `${ENDPOINTS_PATH}/${encodeURIComponent(options.name)}/regenerate-keys`;
      await (await clientOf(options)).send('POST', path, { key_type: options.keyType });
    });
}
