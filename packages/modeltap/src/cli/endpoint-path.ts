/** Where the API has endpoints. */
export const ENDPOINTS_PATH = '/api/v1/online-endpoints';

/** An endpoint as the API shows it, as far as commands look at it. */
export interface Endpoint {
  readonly name: string;
  readonly scoring_uri: string;
  readonly provisioning_state: string;
  readonly auth_mode: 'key' | 'aml_token' | 'aad_token';
  readonly traffic: Readonly<Record<string, number>>;
  readonly mirror_traffic: Readonly<Record<string, number>>;
}

/** What `get-credentials` answers: keys or a token. */
export interface Credentials {
  readonly primaryKey?: string;
  readonly secondaryKey?: string;
  readonly accessToken?: string;
  /** Seconds since the Unix epoch. */
  readonly expiryTimeUtc?: number;
  /** Seconds since the Unix epoch. */
  readonly refreshAfterTimeUtc?: number;
  readonly tokenType?: string;
}
