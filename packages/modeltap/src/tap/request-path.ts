/** Longest path that is stored; a longer one is cut. */
const MAX_PATH = 8192;

/** Names of query parameters whose values are secrets, without `-` and `_`. */
const SECRET: ReadonlySet<string> = new Set([
  'accesskey',
  'accesstoken',
  'apikey',
  'apitoken',
  'auth',
  'authcode',
  'authorization',
  'authtoken',
  'awsaccesskeyid',
  'bearer',
  'clientsecret',
  'code',
  'credential',
  'credentials',
  'functionkey',
  'idtoken',
  'jwt',
  'key',
  'ocpapimsubscriptionkey',
  'pass',
  'passwd',
  'password',
  'pwd',
  'refreshtoken',
  'sas',
  'secret',
  'session',
  'sessionid',
  'sessiontoken',
  'sig',
  'signature',
  'subscriptionkey',
  'token',
  'xamzcredential',
  'xamzsecuritytoken',
  'xamzsignature',
  'xapikey',
  'xfunctionskey',
  'xgoogcredential',
  'xgoogsignature',
]);

/**
 * The path of a request as it is stored: with its query, in which values of parameters named like secrets are `***`. Of
 * an absolute target scheme, host and user are left out.
 */
export function storedPath(target: string): string {
  const path = target.replace(/^https?:\/\/[^/?#]*/i, '');
  const query = path.indexOf('?');
  const masked = query < 0 ? path : path.slice(0, query + 1) + maskQuery(path.slice(query + 1));
  return (masked === '' ? '/' : masked).slice(0, MAX_PATH);
}

function maskQuery(query: string): string {
  return query.replace(/([^&;=]+)=([^&;]*)/g, (whole, name: string) => (isSecret(name) ? `${name}=***` : whole));
}

function isSecret(name: string): boolean {
  return SECRET.has(
    decoded(name)
      .toLowerCase()
      .replace(/[^a-z0-9]/g, ''),
  );
}

function decoded(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    // Not percent-encoded UTF-8: compared as it is written.
    return name;
  }
}

/** Whether a path is among those that are collected: the same, or up to a `*` at the end. The query does not count. */
export function isCollectedPath(target: string, paths: readonly string[]): boolean {
  if (paths.includes('*')) return true;
  const path = target.replace(/^https?:\/\/[^/?#]*/i, '').replace(/[?#].*$/s, '') || '/';
  return paths.some((one) => (one.endsWith('*') ? path.startsWith(one.slice(0, -1)) : path === one));
}
