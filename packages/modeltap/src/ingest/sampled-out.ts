/** Records of one collection that a sender left out by sampling. */
export interface SampledOut {
  readonly collection: string;
  readonly records: number;
}

/** Header of a batch request that tells what was sampled out. */
export const SAMPLED_OUT_HEADER = 'modeltap-sampled-out';

const MAX_CHARS = 8192;
const MAX_ENTRIES = 64;
const MAX_RECORDS = 2 ** 31;

/** What the header must be, for an error message. */
export const SAMPLED_OUT_FORM = `must be <collection>=<records>[,…]: names percent-encoded, whole numbers from 1 to ${MAX_RECORDS}, at most ${MAX_ENTRIES} and ${MAX_CHARS} bytes`;

/** Reads the header: `<collection>=<n>[,<collection>=<n>…]`, names percent-encoded. Undefined when it is not of that form. */
export function parseSampledOut(text: string): readonly SampledOut[] | undefined {
  if (text.length > MAX_CHARS) return undefined;
  const parts = text.split(',');
  if (parts.length > MAX_ENTRIES) return undefined;
  const entries: SampledOut[] = [];
  for (const part of parts) {
    const [, name = '', digits = ''] = /^[ \t]*([!-<>-~]+)=([1-9]\d{0,9})[ \t]*$/.exec(part) ?? [];
    const collection = decoded(name);
    const records = Number(digits);
    if (!collection || records > MAX_RECORDS) return undefined;
    entries.push({ collection, records });
  }
  return entries;
}

function decoded(name: string): string | undefined {
  try {
    return decodeURIComponent(name);
  } catch {
    // decodeURIComponent throws for what is not percent-encoded UTF-8.
    return undefined;
  }
}
