import type { Ledger } from './ledger.ts';

/** Names the agent is told in one request; the others follow with the next. Servers take 8 KiB of headers and more. */
const MAX_CHARS = 4096;

/** A header with counts that the agent was not told yet. */
export interface SampledReport {
  /** `<collection>=<n>[,<collection>=<n>…]`, names percent-encoded outside `A-Z a-z 0-9 - _ . ! ~ * ' ( )`. */
  readonly text: string;
  /** The agent has these counts: they are not told again. */
  done(): void;
}

/**
 * What sampling left out since the last report that arrived, as the value of the header `modeltap-sampled-out`; undefined
 * when there is nothing to tell. `collections` are names by their place in the ledger.
 */
export function sampledReport(
  ledger: Ledger,
  collections: Iterable<readonly [number, string]>,
): SampledReport | undefined {
  const counts: (readonly [number, number])[] = [];
  let text = '';
  for (const [slot, name] of collections) {
    const count = ledger.unreported(slot);
    if (count === 0) continue;
    const part = `${encodeURIComponent(Buffer.from(name).toString())}=${count}`;
    if (text.length + part.length >= MAX_CHARS) continue;
    text += text === '' ? part : `,${part}`;
    counts.push([slot, count]);
  }
  if (text === '') return undefined;
  return {
    text,
    done: () => {
      for (const [slot, count] of counts) ledger.reported(slot, count);
    },
  };
}
