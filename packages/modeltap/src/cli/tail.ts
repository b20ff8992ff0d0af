import type { Command } from 'commander';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { type CommonOptions, clientOf, wholeNumber, withCommon } from './common.ts';
import { printable } from './output.ts';

/** `modeltap tail ENDPOINT DEPLOYMENT COLLECTION`: records as they are stored, for a person. */
export function registerTail(program: Command): void {
  withCommon(program.command('tail'), 'table')
    .description('Follow the records of a collection as they are stored')
    .argument('<endpoint>')
    .argument('<deployment>')
    .argument('<collection>')
    .option('-n, --records <count>', 'stop after this many records', wholeNumber(1, 1_000_000_000))
    .action(
      async (
        endpoint: string,
        deployment: string,
        collection: string,
        options: CommonOptions & { records?: number },
      ) => {
        const client = await clientOf(options);
        const abort = new AbortController();
        process.once('SIGINT', () => abort.abort());
        const query = new URLSearchParams({ endpoint, deployment, collection });
        process.stderr.write(`Following ${endpoint}/${deployment}/${collection}. Ctrl-C stops.\n`);
        try {
          const answer = await client.raw(`/api/v1/tail?${query.toString()}`, { signal: abort.signal });
          if (!answer.ok || answer.body === null) {
            await client.get(`/api/v1/tail?${query.toString()}`);
            return;
          }
          await follow(Readable.fromWeb(answer.body), options);
        } catch (error) {
          if (!abort.signal.aborted) throw error;
        }
      },
    );
}

async function follow(stream: Readable, options: CommonOptions & { records?: number }): Promise<void> {
  let seen = 0;
  // Ending the stream on purpose, or by Ctrl-C, is no failure.
  stream.on('error', () => stream.destroy());
  for await (const line of createInterface({ input: stream })) {
    if (!line.startsWith('data: ')) continue;
    const text = line.slice('data: '.length);
    process.stdout.write(options.output === 'json' ? `${text}\n` : `${readable(text)}\n`);
    seen += 1;
    if (seen === options.records) break;
  }
  stream.destroy();
}

/** Reads JSON so that every number keeps its digits when it is printed again (JSON.parse source text access). */
function parseExact(text: string): unknown {
  const parse = JSON.parse as (
    text: string,
    reviver: (key: string, value: unknown, context: { source?: string }) => unknown,
  ) => unknown;
  const { rawJSON } = JSON as unknown as { rawJSON: (this: void, text: string) => unknown };
  return parse(text, (_key, value, context) =>
    typeof value === 'number' && context.source !== undefined ? rawJSON(context.source) : value,
  );
}

/** One record as a person reads it: when, whose, how many rows, then each row. */
export function readable(line: string): string {
  const event = parseExact(line) as Record<string, unknown>;
  const data = event.data;
  const rows: readonly unknown[] = Array.isArray(data) ? data : [data ?? event.dataref];
  const head = `${String(event.time)}  ${String(event.correlationid)}  ${rows.length} row${rows.length === 1 ? '' : 's'}`;
  const shown = rows.slice(0, 20).map((row) => `    ${printable(rowText(row))}`);
  if (rows.length > shown.length) shown.push(`    … ${rows.length - shown.length} more`);
  return [printable(head), ...shown].join('\n');
}

function rowText(row: unknown): string {
  const text =
    typeof row === 'object' && row !== null && !Array.isArray(row)
      ? Object.entries(row)
          .map(([name, value]) => `${name}=${JSON.stringify(value)}`)
          .join('  ')
      : JSON.stringify(row);
  return text.length > 2_000 ? `${text.slice(0, 2_000)}…` : text;
}
