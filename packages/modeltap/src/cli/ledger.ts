import type { Command } from 'commander';
import { type CommonOptions, clientOf, show, withCommon } from './common.ts';
import type { Column } from './output.ts';

/** One collection and hour of the ledger, as the API gives it. */
interface LedgerRow {
  readonly endpoint: string;
  readonly deployment: string;
  readonly collection: string;
  readonly hour: string;
  readonly seen: number;
  readonly sampled_out: number;
  readonly accepted: number;
  readonly stored: number;
  readonly dropped: Readonly<Record<string, number>>;
  readonly rejected: Readonly<Record<string, number>>;
  readonly duplicate: number;
  readonly spooled: number;
  readonly rows: number;
  readonly bytes: number;
}

const counts = (set: Readonly<Record<string, number>>) =>
  Object.entries(set)
    .map(([reason, count]) => `${reason}=${count}`)
    .join(' ') || '0';

const COLUMNS: readonly Column<LedgerRow>[] = [
  { title: 'Endpoint', value: (row) => row.endpoint },
  { title: 'Deployment', value: (row) => row.deployment },
  { title: 'Collection', value: (row) => row.collection },
  { title: 'Hour (UTC)', value: (row) => row.hour.slice(0, 13) },
  { title: 'Seen', value: (row) => row.seen },
  { title: 'Sampled out', value: (row) => row.sampled_out },
  { title: 'Accepted', value: (row) => row.accepted },
  { title: 'Stored', value: (row) => row.stored },
  { title: 'Dropped', value: (row) => counts(row.dropped) },
  { title: 'Spooled', value: (row) => row.spooled },
  { title: 'Rejected', value: (row) => counts(row.rejected) },
  { title: 'Rows', value: (row) => row.rows },
];

/** `modeltap ledger`: what became of every record, so that nothing is lost unseen. */
export function registerLedger(program: Command): void {
  withCommon(program.command('ledger'), 'table')
    .description('Per collection and hour: seen, sampled out, accepted, stored, dropped by reason, spooled')
    .option('-e, --endpoint-name <name>', 'only this endpoint')
    .option('-d, --deployment-name <name>', 'only this deployment')
    .option('-c, --collection <name>', 'only this collection')
    .action(
      async (options: CommonOptions & { endpointName?: string; deploymentName?: string; collection?: string }) => {
        const query = new URLSearchParams();
        if (options.endpointName !== undefined) query.set('endpoint', options.endpointName);
        if (options.deploymentName !== undefined) query.set('deployment', options.deploymentName);
        if (options.collection !== undefined) query.set('collection', options.collection);
        const answer = await (await clientOf(options)).get<{ rows: LedgerRow[] }>(`/api/v1/ledger?${query.toString()}`);
        show(
          answer.rows,
          options,
          COLUMNS,
          'Nothing was collected yet: send a request to a deployment with data_collector.',
        );
      },
    );
}
