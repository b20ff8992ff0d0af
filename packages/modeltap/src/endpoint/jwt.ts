import { createHmac, timingSafeEqual } from 'node:crypto';

/** Longer tokens are not read. */
const MAX_TOKEN_CHARACTERS = 16_384;
/** Clocks of two machines may differ by so much. */
const LEEWAY_SECONDS = 60;

/** A JSON Web Token taken apart; nothing of it is checked yet. */
export interface Jwt {
  readonly alg: string;
  readonly kid: string | undefined;
  readonly claims: Readonly<Record<string, unknown>>;
  /** The text that is signed. */
  readonly signed: string;
  readonly signature: Buffer;
}

/** Why a token is refused, as a word for the client. */
export type TokenProblem =
  | 'malformed'
  | 'algorithm'
  | 'key_unknown'
  | 'signature'
  | 'issuer'
  | 'audience'
  | 'expired'
  | 'not_yet_valid';

/** What the claims of a token must say. */
export interface ExpectedClaims {
  readonly issuer: string;
  readonly audience: string;
  /** Milliseconds since the Unix epoch. */
  readonly now: number;
}

/** Takes a token in compact form apart; undefined when it is none. */
export function readJwt(token: string): Jwt | undefined {
  if (token.length > MAX_TOKEN_CHARACTERS || !/^[\w-]+\.[\w-]+\.[\w-]+$/.test(token)) return undefined;
  const [head = '', body = '', signature = ''] = token.split('.');
  const header = readPart(head);
  const claims = readPart(body);
  if (header === undefined || claims === undefined || typeof header.alg !== 'string') return undefined;
  // `crit` names extensions that must be understood (RFC 7515 §4.1.11); none is.
  if ('crit' in header) return undefined;
  return {
    alg: header.alg,
    kid: typeof header.kid === 'string' ? header.kid : undefined,
    claims,
    signed: `${head}.${body}`,
    signature: Buffer.from(signature, 'base64url'),
  };
}

/** A token signed with HMAC-SHA-256. */
export function signHs256(claims: Readonly<Record<string, unknown>>, secret: Buffer): string {
  const signed = `${writePart({ alg: 'HS256', typ: 'JWT' })}.${writePart(claims)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

/** What is wrong with the signature of a token that `signHs256` should have made. Takes the same time for all signatures. */
export function checkHs256(jwt: Jwt, secret: Buffer): TokenProblem | undefined {
  if (jwt.alg !== 'HS256') return 'algorithm';
  const right = createHmac('sha256', secret).update(jwt.signed).digest();
  return jwt.signature.length === right.length && timingSafeEqual(jwt.signature, right) ? undefined : 'signature';
}

/** What is wrong with the claims: `exp` is required, `nbf` is kept to, both with a minute of leeway. */
export function checkClaims(
  claims: Jwt['claims'],
  { issuer, audience, now }: ExpectedClaims,
): TokenProblem | undefined {
  const seconds = now / 1_000;
  if (claims.iss !== issuer) return 'issuer';
  const audiences: readonly unknown[] = Array.isArray(claims.aud) ? claims.aud : [claims.aud];
  if (!audiences.includes(audience)) return 'audience';
  if (typeof claims.exp !== 'number' || seconds >= claims.exp + LEEWAY_SECONDS) return 'expired';
  if (claims.nbf === undefined) return undefined;
  return typeof claims.nbf === 'number' && seconds >= claims.nbf - LEEWAY_SECONDS ? undefined : 'not_yet_valid';
}

function readPart(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(text, 'base64url').toString('utf8'));
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    // Not JSON: not a token.
    return undefined;
  }
}

function writePart(value: Readonly<Record<string, unknown>>): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}
