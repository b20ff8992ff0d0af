import { ModeltapError } from './errors.ts';

/** True for `localhost`, 127.0.0.0/8, `::1` and its bracketed or IPv4-mapped spellings. */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, '').toLowerCase();
  if (bare === 'localhost' || bare === '::1' || bare === '0:0:0:0:0:0:0:1') return true;
  const v4 = bare.startsWith('::ffff:') ? bare.slice(7) : bare;
  const parts = v4.split('.');
  return (
    parts.length === 4 && parts[0] === '127' && parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) <= 255)
  );
}

/** Throws `address_not_loopback` unless `host` is loopback. Everything that listens calls it first. */
export function requireLoopback(host: string): void {
  if (!isLoopback(host)) throw new ModeltapError('address_not_loopback', { address: host });
}

/**
 * True when the `Host` header of a request names loopback. A browser page that rebinds its own name to 127.0.0.1 sends
 * that name here, so answering only loopback names closes DNS rebinding.
 */
export function isLoopbackHostHeader(header: string | undefined): boolean {
  if (header === undefined) return true;
  const match = /^(\[[^\]]+\]|[^:]+)(?::\d+)?$/.exec(header);
  return match?.[1] !== undefined && isLoopback(match[1]);
}
