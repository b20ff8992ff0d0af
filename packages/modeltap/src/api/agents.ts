import { PAYLOAD_COLLECTIONS } from '../config/data-collector.ts';
import { ModeltapError } from '../kit/errors.ts';

/** Rows of an agent's ledger as its API gives them; only what they are sorted by is named. */
interface LedgerRow {
  readonly hour: string;
  readonly collection: string;
}

/** The ledgers of several agents as one: newest hour first. `agent_unreachable` when one of them does not answer. */
export async function mergedLedger(urls: readonly string[], query: string): Promise<{ rows: readonly unknown[] }> {
  const answers = await Promise.all(
    urls.map(async (url) => {
      const answer = await askAgent(url, `/v1/ledger${query}`);
      return ((await answer.json()) as { rows: readonly LedgerRow[] }).rows;
    }),
  );
  const rows = answers
    .flat()
    .toSorted((a, b) => b.hour.localeCompare(a.hour) || a.collection.localeCompare(b.collection));
  return { rows };
}

/** The agent that has a collection: what passes scoring URIs is the payload agent's. */
export function agentOf(collection: unknown, urls: { readonly agent: string; readonly payload: string | undefined }) {
  const payload = typeof collection === 'string' && PAYLOAD_COLLECTIONS.includes(collection.toLowerCase());
  return payload ? (urls.payload ?? urls.agent) : urls.agent;
}

/** Asks an agent; `agent_unreachable` when it does not answer. */
export async function askAgent(url: string, path: string, signal?: AbortSignal): Promise<Response> {
  try {
    return await fetch(`${url}${path}`, signal === undefined ? {} : { signal });
  } catch (cause) {
    throw new ModeltapError('agent_unreachable', { url }, { cause });
  }
}
