import { constants, createPublicKey, type JsonWebKey, type KeyObject, verify as verifySignature } from 'node:crypto';
import { type Clock, systemClock } from '../kit/clock.ts';
import { errorText, ModeltapError } from '../kit/errors.ts';
import { type Logger, silentLogger } from '../kit/logger.ts';
import { isLoopback } from '../kit/loopback.ts';
import type { TokenIssuer } from './access.ts';
import { checkClaims, type Jwt, readJwt, type TokenProblem } from './jwt.ts';

/** An OpenID Connect issuer that tokens are taken from. */
export interface OidcOptions {
  /** Its address, or that of its `/.well-known/openid-configuration`. */
  readonly issuerUrl: string;
  /** What tokens must have as `aud`. */
  readonly audience: string;
  readonly logger?: Logger;
  readonly clock?: Clock;
  readonly fetch?: typeof fetch;
}

const WELL_KNOWN = '/.well-known/openid-configuration';
const FETCH_TIMEOUT_MS = 5_000;
const MAX_DOCUMENT_BYTES = 1024 ** 2;
const MAX_KEYS = 100;
/** Keys are asked for again in the background when they are older. */
const FRESH_MS = 3_600_000;
/** After asking, with or without success, the issuer is left alone so long, whatever tokens come. */
const COOLDOWN_MS = 10_000;
const MIN_RSA_BITS = 2_048;

interface IssuerKey {
  readonly kid: string | undefined;
  /** The only algorithm it may be used with, when the issuer says so. */
  readonly alg: string | undefined;
  readonly key: KeyObject;
}

interface KeySet {
  readonly issuer: string;
  readonly keys: readonly IssuerKey[];
  readonly at: number;
}

/**
 * Makes the check of tokens of an OIDC issuer: RS256, PS256 or ES256 by its published keys, `iss`, `aud`, `exp` and
 * `nbf` with a minute of leeway. Keys are kept, asked for again after an hour or when a token names a new one, and go on
 * being used while the issuer cannot be reached. Throws `oidc_issuer_invalid` for an address that cannot be used.
 */
export function createOidcIssuer(options: OidcOptions): TokenIssuer {
  return new OidcIssuer(options);
}

class OidcIssuer implements TokenIssuer {
  readonly #options: OidcOptions;
  readonly #issuer: string;
  readonly #clock: Clock;
  readonly #logger: Logger;
  #set: KeySet | undefined;
  #pending: Promise<void> | undefined;
  #askedAt = Number.NEGATIVE_INFINITY;
  #problem = '';

  constructor(options: OidcOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#logger = options.logger ?? silentLogger;
    const { issuerUrl } = options;
    this.#issuer = issuerUrl.endsWith(WELL_KNOWN) ? issuerUrl.slice(0, -WELL_KNOWN.length) : issuerUrl;
    const problem = addressProblem(this.#issuer);
    if (problem !== undefined) throw new ModeltapError('oidc_issuer_invalid', { url: issuerUrl, problem });
  }

  async verify(token: string): Promise<void> {
    const jwt = readJwt(token);
    const problem = jwt === undefined ? 'malformed' : await this.#check(jwt);
    if (problem !== undefined) throw new ModeltapError('token_refused', { reason: problem });
  }

  async #check(jwt: Jwt): Promise<TokenProblem | undefined> {
    if (!Object.hasOwn(ALGORITHMS, jwt.alg)) return 'algorithm';
    let { keys, set } = await this.#keysFor(jwt);
    if (keys.length === 0 && this.#mayAsk()) {
      await this.#refresh();
      ({ keys, set } = await this.#keysFor(jwt));
    }
    if (keys.length === 0) {
      // A key that came while the issuer could not be asked is not the fault of the client.
      if (this.#problem !== '') throw this.#unreachable();
      return 'key_unknown';
    }
    if (!keys.some(({ key }) => hasSigned(jwt, key))) return 'signature';
    const { audience } = this.#options;
    return checkClaims(jwt.claims, { issuer: set.issuer, audience, now: this.#clock.now() });
  }

  /** Keys this token may be signed with; throws `oidc_unreachable` when there are none at all. */
  async #keysFor(jwt: Jwt): Promise<{ set: KeySet; keys: readonly IssuerKey[] }> {
    if (this.#set === undefined && this.#mayAsk()) await this.#refresh();
    const set = this.#set;
    if (set === undefined) throw this.#unreachable();
    if (this.#clock.monotonic() - set.at > FRESH_MS && this.#mayAsk()) void this.#refresh();
    const keys = set.keys.filter(
      ({ kid, alg, key }) =>
        (jwt.kid === undefined || kid === jwt.kid) && (alg === undefined || alg === jwt.alg) && fits(jwt.alg, key),
    );
    return { set, keys };
  }

  #mayAsk(): boolean {
    return this.#pending !== undefined || this.#clock.monotonic() - this.#askedAt >= COOLDOWN_MS;
  }

  #unreachable(): ModeltapError {
    return new ModeltapError('oidc_unreachable', { issuer: this.#issuer, detail: this.#problem });
  }

  /** Asks once for all who wait. Never rejects. */
  #refresh(): Promise<void> {
    this.#pending ??= this.#ask().finally(() => {
      this.#pending = undefined;
      this.#askedAt = this.#clock.monotonic();
    });
    return this.#pending;
  }

  async #ask(): Promise<void> {
    try {
      const base = this.#issuer.replace(/\/$/, '');
      const about = await this.#document(`${base}${WELL_KNOWN}`);
      const { issuer, jwks_uri: address } = about;
      if (typeof issuer !== 'string' || issuer.replace(/\/$/, '') !== base) {
        throw new ModeltapError('oidc_issuer_invalid', {
          url: this.#issuer,
          problem: `it calls itself ${String(issuer).slice(0, 200)}`,
        });
      }
      const wrong = typeof address === 'string' ? addressProblem(address) : 'it has no jwks_uri';
      if (wrong !== undefined) throw new ModeltapError('oidc_issuer_invalid', { url: this.#issuer, problem: wrong });
      const { keys } = await this.#document(String(address));
      this.#set = { issuer, keys: usableKeys(keys), at: this.#clock.monotonic() };
      this.#problem = '';
    } catch (error) {
      const cause = error instanceof Error && error.cause instanceof Error ? `: ${error.cause.message}` : '';
      this.#problem = `${errorText(error)}${cause}`;
      this.#logger.warn({ issuer: this.#issuer, detail: this.#problem }, 'the keys of the OIDC issuer were not read');
    }
  }

  async #document(url: string): Promise<Readonly<Record<string, unknown>>> {
    const answer = await (this.#options.fetch ?? fetch)(url, {
      headers: { accept: 'application/json' },
      redirect: 'error',
      signal: AbortSignal.timeout(FETCH_TIMEOUT_MS),
    });
    const problem = (text: string) => new ModeltapError('oidc_issuer_invalid', { url, problem: text });
    if (!answer.ok) {
      await answer.body?.cancel();
      throw problem(`it answers ${answer.status}`);
    }
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    for await (const chunk of answer.body ?? []) {
      bytes += chunk.length;
      if (bytes > MAX_DOCUMENT_BYTES) throw problem('its answer is too long');
      chunks.push(chunk);
    }
    const value: unknown = JSON.parse(Buffer.concat(chunks).toString('utf8'));
    if (typeof value !== 'object' || value === null) throw problem('its answer is not a JSON object');
    return value as Readonly<Record<string, unknown>>;
  }
}

/** How each algorithm checks a signature. */
const ALGORITHMS: Readonly<Record<string, (signed: Buffer, key: KeyObject, signature: Buffer) => boolean>> = {
  RS256: (signed, key, signature) => verifySignature('sha256', signed, key, signature),
  PS256: (signed, key, signature) =>
    verifySignature(
      'sha256',
      signed,
      { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST },
      signature,
    ),
  ES256: (signed, key, signature) => verifySignature('sha256', signed, { key, dsaEncoding: 'ieee-p1363' }, signature),
};

function hasSigned(jwt: Jwt, key: KeyObject): boolean {
  try {
    return ALGORITHMS[jwt.alg]?.(Buffer.from(jwt.signed), key, jwt.signature) ?? false;
  } catch {
    // A signature of the wrong form.
    return false;
  }
}

function fits(alg: string, key: KeyObject): boolean {
  const { modulusLength = 0, namedCurve } = key.asymmetricKeyDetails ?? {};
  if (alg === 'ES256') return key.asymmetricKeyType === 'ec' && namedCurve === 'prime256v1';
  return key.asymmetricKeyType === 'rsa' && modulusLength >= MIN_RSA_BITS;
}

/** Keys for signatures that this Node can read; the others are somebody else's. */
function usableKeys(keys: unknown): readonly IssuerKey[] {
  const list: readonly unknown[] = Array.isArray(keys) ? keys.slice(0, MAX_KEYS) : [];
  return list.flatMap((each): IssuerKey[] => {
    if (typeof each !== 'object' || each === null) return [];
    const { kid, alg, use, ...rest } = each as Readonly<Record<string, unknown>>;
    if (use !== undefined && use !== 'sig') return [];
    try {
      const key = createPublicKey({ key: rest as JsonWebKey, format: 'jwk' });
      return [{ kid: typeof kid === 'string' ? kid : undefined, alg: typeof alg === 'string' ? alg : undefined, key }];
    } catch {
      // A kind of key that is not known here.
      return [];
    }
  });
}

/** What is wrong with an address that keys are to come from. */
function addressProblem(address: string): string | undefined {
  const url = URL.parse(address);
  if (url === null) return 'it is not a URL';
  if (url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback(url.hostname))) return undefined;
  return 'it must begin with https://, or http:// on loopback';
}
