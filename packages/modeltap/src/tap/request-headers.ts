import type { MessageHead } from './head.ts';

/** Headers that carry secrets or say who somebody is. They are not stored, even when named, unless the configuration says so in so many words. */
const SECRET: ReadonlySet<string> = new Set([
  'api-key',
  'apikey',
  'authentication',
  'authorization',
  'azureml-api-key',
  'cf-access-client-secret',
  'cf-access-jwt-assertion',
  'cookie',
  'cookie2',
  'ocp-apim-subscription-key',
  'private-token',
  'proxy-authenticate',
  'proxy-authorization',
  'set-cookie',
  'set-cookie2',
  'www-authenticate',
  'x-access-token',
  'x-amz-security-token',
  'x-amzn-oidc-accesstoken',
  'x-amzn-oidc-data',
  'x-api-key',
  'x-api-token',
  'x-auth-key',
  'x-auth-token',
  'x-csrf-token',
  'x-forwarded-access-token',
  'x-forwarded-authorization',
  'x-functions-key',
  'x-gitlab-token',
  'x-goog-api-key',
  'x-goog-iap-jwt-assertion',
  'x-id-token',
  'x-jwt-assertion',
  'x-ms-client-principal',
  'x-ms-token-aad-access-token',
  'x-ms-token-aad-id-token',
  'x-ms-token-aad-refresh-token',
  'x-original-authorization',
  'x-refresh-token',
  'x-session-token',
  'x-vault-token',
  'x-xsrf-token',
]);
/** What the name of a secret header nobody has heard of is likely to hold. */
const LIKELY_SECRET = /(?:^|[-_])(?:api-?key|auth|authorization|credentials?|passw(?:or)?d|secret|tokens?)$/;

/** Most bytes of one value, and of all captured headers of one message. */
const MAX_VALUE = 8192;
const MAX_ALL = 16_384;

/** True for a header that is not stored without being allowed in so many words. */
export function isSecretHeader(name: string): boolean {
  const lower = name.toLowerCase();
  return SECRET.has(lower) || LIKELY_SECRET.test(lower);
}

/** The names that are captured, in lower case. */
export function capturedNames(names: readonly string[], secretToo: boolean): readonly string[] {
  const lower = names.map((name) => name.toLowerCase());
  return [...new Set(secretToo ? lower : lower.filter((name) => !isSecretHeader(name)))];
}

/** Name of the extension attribute of a header: `header` and its letters and digits, since CloudEvents allows nothing else. */
export function headerAttribute(name: string): string {
  return `header${name.toLowerCase().replace(/[^a-z0-9]/g, '')}`;
}

/**
 * The captured headers of a message as extension attributes. Fields given several times are joined by `, `, in their
 * order. What is beyond 8 KiB of a value, or 16 KiB in all, is left out.
 */
export function headerAttributes(head: MessageHead, names: readonly string[]): Readonly<Record<string, string>> {
  const found: Record<string, string> = {};
  let left = MAX_ALL;
  for (const name of names) {
    if (!head.names.includes(name)) continue;
    const values = head.values.filter((_, index) => head.names[index] === name);
    const text = values.join(', ').slice(0, MAX_VALUE);
    if (text.length > left) continue;
    left -= text.length;
    found[headerAttribute(name)] ??= text;
  }
  return found;
}

/** Longest id taken from a request; a longer one is cut. */
const MAX_ID = 1024;

/**
 * The correlation id that a request brings: `x-request-id`, else `x-ms-client-request-id`, else the trace id of
 * `traceparent`. Undefined when it brings none; `bare` says that it has none of these fields at all, so that one may be added.
 */
export function requestIdOf(head: MessageHead): { readonly id: string | undefined; readonly bare: boolean } {
  let bare = true;
  for (const name of ['x-request-id', 'x-ms-client-request-id']) {
    const at = head.names.indexOf(name);
    if (at < 0) continue;
    bare = false;
    const value = head.values[at] ?? '';
    if (value !== '') return { id: value.slice(0, MAX_ID), bare };
  }
  const trace = head.names.indexOf('traceparent');
  if (trace < 0) return { id: undefined, bare };
  const [, id] = /^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}/.exec(head.values[trace] ?? '') ?? [];
  return { id: id === undefined || /^0+$/.test(id) ? undefined : id, bare: false };
}
