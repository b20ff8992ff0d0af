import { randomBytes } from 'node:crypto';
import type { Catalog } from '../catalog/catalog.ts';
import type { KeyType } from '../catalog/endpoint-keys.ts';
import type { EndpointEntry } from '../catalog/entries.ts';
import type { PublicObject } from '../catalog/public.ts';
import type { WorkspaceKey } from '../catalog/workspace-key.ts';
import { type EndpointAccess, issueToken, keyDigest } from '../endpoint/access.ts';
import { type Clock, systemClock } from '../kit/clock.ts';
import { ModeltapError } from '../kit/errors.ts';

const KEY_BYTES = 32;
const KEY_TYPES = ['primary', 'secondary'] as const satisfies readonly KeyType[];

/** What credentials are made of. */
export interface EndpointCredentialsOptions {
  readonly catalog: Catalog;
  readonly key: WorkspaceKey;
  readonly clock?: Clock;
}

/** Keys and tokens of endpoints. Keys are in the catalog, sealed with the key of the workspace; tokens are kept nowhere. */
export class EndpointCredentials {
  readonly #catalog: Catalog;
  readonly #key: WorkspaceKey;
  readonly #clock: Clock;

  constructor(options: EndpointCredentialsOptions) {
    this.#catalog = options.catalog;
    this.#key = options.key;
    this.#clock = options.clock ?? systemClock;
  }

  /** Gives the endpoint two new keys; the old ones, if there were any, are good for nothing more. */
  async renew(endpoint: string): Promise<void> {
    const [primary, secondary] = KEY_TYPES.map((which) => this.#key.seal(newKey(), placeOf(endpoint, which)));
    await this.#catalog.endpointKeys.put(endpoint, { primary: primary ?? '', secondary: secondary ?? '' });
  }

  /** What the router lets requests in by. An endpoint without keys gets them. Throws `workspace_key_unusable`. */
  async access(entry: EndpointEntry): Promise<EndpointAccess> {
    const { authMode: mode, name } = entry.config;
    if (mode === 'aml_token') return { mode, secret: this.#tokenSecret(entry) };
    if (mode === 'aad_token') return { mode };
    const keys = await this.#keys(name);
    return { mode, digests: KEY_TYPES.map((which) => keyDigest(keys[which])) };
  }

  /** What `get-credentials` shows, with the names of `az ml`. Throws `auth_mode_other` for `aad_token`. */
  async show(entry: EndpointEntry): Promise<PublicObject> {
    const { authMode: mode, name: endpoint } = entry.config;
    if (mode === 'key') {
      const { primary, secondary } = await this.#keys(endpoint);
      return { primaryKey: primary, secondaryKey: secondary };
    }
    if (mode === 'aad_token') {
      const hint = 'Ask the issuer that the workspace was started with for a token, and send it with the request.';
      throw new ModeltapError('auth_mode_other', { endpoint, mode, what: 'keys or tokens', hint });
    }
    const { token, expires, refreshAfter } = issueToken(endpoint, this.#tokenSecret(entry), this.#clock.now());
    return { accessToken: token, expiryTimeUtc: expires, refreshAfterTimeUtc: refreshAfter, tokenType: 'Bearer' };
  }

  /** Replaces one of the two keys; the other goes on working. Throws `auth_mode_other` where requests are let in by token. */
  async regenerate(entry: EndpointEntry, which: KeyType): Promise<void> {
    const { authMode: mode, name: endpoint } = entry.config;
    if (mode !== 'key') {
      const hint = 'Tokens end by themselves. Keys are for endpoints with auth_mode key.';
      throw new ModeltapError('auth_mode_other', { endpoint, mode, what: 'keys', hint });
    }
    await this.#keys(endpoint);
    await this.#catalog.endpointKeys.replace(endpoint, which, this.#key.seal(newKey(), placeOf(endpoint, which)));
  }

  async #keys(endpoint: string): Promise<Readonly<Record<KeyType, string>>> {
    let sealed = await this.#catalog.endpointKeys.find(endpoint);
    if (sealed === undefined) {
      await this.renew(endpoint);
      sealed = await this.#catalog.endpointKeys.find(endpoint);
    }
    const open = (which: KeyType) => this.#key.open(sealed?.[which] ?? '', placeOf(endpoint, which));
    return { primary: open('primary'), secondary: open('secondary') };
  }

  /** An endpoint that is made anew under an old name does not take the tokens of the old one. */
  #tokenSecret({ config, createdAt }: EndpointEntry): Buffer {
    return this.#key.derive('endpoint tokens', `${config.name} ${createdAt}`);
  }
}

const newKey = () => randomBytes(KEY_BYTES).toString('base64url');
const placeOf = (endpoint: string, which: KeyType) => `the ${which} key of endpoint ${endpoint}`;
