import { ModeltapError } from '../kit/errors.ts';

/**
 * Reads `blue=90 green=10`, as `az ml` takes it; commas and percent signs may stand too. Whether the deployments exist and
 * the sum is right is for the workspace to say. Throws `traffic_invalid`.
 */
export function parseShares(endpoint: string, flag: string, text: string): Readonly<Record<string, string>> {
  const parts = text.split(/[\s,]+/).filter((part) => part !== '');
  const shares = new Map<string, string>();
  for (const part of parts) {
    const [, name, percent] = /^([\w-]+)=(\d{1,3})%?$/.exec(part) ?? [];
    if (name === undefined || percent === undefined) {
      throw new ModeltapError('traffic_invalid', {
        endpoint,
        problem: `"${part}" in ${flag} is not DEPLOYMENT=PERCENT`,
      });
    }
    if (shares.has(name)) {
      throw new ModeltapError('traffic_invalid', { endpoint, problem: `${flag} names "${name}" twice` });
    }
    shares.set(name, percent);
  }
  if (shares.size === 0) throw new ModeltapError('traffic_invalid', { endpoint, problem: `${flag} is empty` });
  return Object.fromEntries(shares);
}

/** Reads one `key=value` of `--set`. Throws `request_invalid`. */
export function parseSet(text: string): { readonly key: string; readonly value: string } {
  const at = text.indexOf('=');
  if (at <= 0) throw new ModeltapError('request_invalid', { detail: `"${text}" in --set is not KEY=VALUE` });
  return { key: text.slice(0, at), value: text.slice(at + 1) };
}
