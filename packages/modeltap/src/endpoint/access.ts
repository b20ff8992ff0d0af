import { hash, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { ModeltapError } from '../kit/errors.ts';
import { checkClaims, checkHs256, readJwt, signHs256 } from './jwt.ts';

/** How an endpoint knows who may ask it: Azure ML's `auth_mode`. */
export type EndpointAccess =
  | {
      readonly mode: 'key';
      /** `keyDigest` of each key. */
      readonly digests: readonly Buffer[];
    }
  | {
      readonly mode: 'aml_token';
      /** What the tokens of this endpoint are signed with. */
      readonly secret: Buffer;
    }
  | { readonly mode: 'aad_token' };

/** Checks tokens of somebody else's making. */
export interface TokenIssuer {
  /** Resolves for a good token. Rejects with `token_refused`, or `oidc_unreachable` when it cannot tell. */
  verify(token: string): Promise<void>;
}

/** What is asked, and what with. */
export interface AccessRequest {
  readonly endpoint: string;
  readonly access: EndpointAccess;
  readonly headers: IncomingHttpHeaders;
  /** Milliseconds since the Unix epoch. */
  readonly now: number;
  /** Of `aad_token`; undefined when the workspace has none. */
  readonly issuer: TokenIssuer | undefined;
}

/** A token of `auth_mode: aml_token`, with its times in seconds since the Unix epoch. */
export interface EndpointToken {
  readonly token: string;
  readonly expires: number;
  readonly refreshAfter: number;
}

/** What tokens of a workspace have as `iss`. */
const ISSUER = 'modeltap';
const TOKEN_SECONDS = 12 * 3_600;
/** A client should get a new token this long before the old one ends. */
const REFRESH_BEFORE_SECONDS = 3_600;

/** What is kept of a key for comparing. Keys are random and long, so one round of SHA-256 is enough. */
export function keyDigest(key: string): Buffer {
  return hash('sha256', key, 'buffer');
}

/** Makes a token for an endpoint, good for twelve hours. */
export function issueToken(endpoint: string, secret: Buffer, now: number): EndpointToken {
  const iat = Math.floor(now / 1_000);
  const expires = iat + TOKEN_SECONDS;
  const token = signHs256({ iss: ISSUER, aud: audienceOf(endpoint), iat, nbf: iat, exp: expires }, secret);
  return { token, expires, refreshAfter: expires - REFRESH_BEFORE_SECONDS };
}

/**
 * Lets a request in, or throws or rejects: `key_auth_bad_header_forbidden` and `key_auth_access_denied` as Azure ML calls
 * them, `token_missing`, `token_refused`; for `aad_token` also `oidc_not_configured` and `oidc_unreachable`.
 */
export function requireAccess(request: AccessRequest): void | Promise<void> {
  const { endpoint, access, headers, now, issuer } = request;
  const credential = /^bearer +(\S+) *$/i.exec(headers.authorization ?? '')?.[1];
  if (access.mode === 'key') {
    if (credential === undefined) throw new ModeltapError('key_auth_bad_header_forbidden', { endpoint });
    if (!isOneOf(keyDigest(credential), access.digests))
      throw new ModeltapError('key_auth_access_denied', { endpoint });
    return undefined;
  }
  if (credential === undefined) throw new ModeltapError('token_missing', { endpoint });
  if (access.mode === 'aad_token') {
    if (issuer === undefined) throw new ModeltapError('oidc_not_configured', { endpoint });
    return issuer.verify(credential);
  }
  const jwt = readJwt(credential);
  const problem =
    jwt === undefined
      ? 'malformed'
      : (checkHs256(jwt, access.secret) ??
        checkClaims(jwt.claims, { issuer: ISSUER, audience: audienceOf(endpoint), now }));
  if (problem !== undefined) throw new ModeltapError('token_refused', { reason: problem });
  return undefined;
}

/** The `WWW-Authenticate` of an answer with status 401 (RFC 6750 §3); undefined for other errors. */
export function challengeOf(error: ModeltapError, endpoint: string): string | undefined {
  if (error.httpStatus !== 401) return undefined;
  const realm = `Bearer realm="${endpoint.replace(/[^\w.-]/g, '')}"`;
  const missing = error.code === 'token_missing' || error.code === 'key_auth_bad_header_forbidden';
  if (missing) return realm;
  const { reason } = error.params;
  return `${realm}, error="invalid_token"${reason === undefined ? '' : `, error_description="${reason}"`}`;
}

const audienceOf = (endpoint: string) => `endpoints/${endpoint}`;

/** Looks at all of them, so that the time does not tell which one it was. */
function isOneOf(digest: Buffer, known: readonly Buffer[]): boolean {
  let found = false;
  for (const each of known) found = timingSafeEqual(digest, each) || found;
  return found;
}
