import { parse, stringify } from 'yaml';
import type { Catalog } from '../catalog/catalog.ts';
import type { KeyType } from '../catalog/endpoint-keys.ts';
import { publicEndpoint, type PublicObject } from '../catalog/public.ts';
import { ConfigError } from '../config/issues.ts';
import { parseEndpoint } from '../config/load.ts';
import type { EndpointConfig } from '../config/types.ts';
import type { RoutedEndpoint } from '../endpoint/traffic.ts';
import { ModeltapError } from '../kit/errors.ts';
import { type Answered, type GivenEndpoint, type GivenEndpointChange, texts } from './answers.ts';
import type { EndpointCredentials } from './endpoint-credentials.ts';

/** What endpoints are made with. */
export interface OnlineEndpointsOptions {
  readonly catalog: Catalog;
  readonly credentials: EndpointCredentials;
  /** False: endpoints with `aad_token` are refused, because nobody could ask them. */
  readonly hasIssuer: boolean;
  /** Called after each change, before it is answered. */
  readonly onChange: () => Promise<void>;
  /** Address of the API, for scoring URIs. */
  readonly publicUrl: () => string;
}

/** Keys of an endpoint that name deployments. */
const SHARES = ['traffic', 'mirror_traffic'] as const;
type Share = (typeof SHARES)[number];
type RawEndpoint = Record<string, unknown> & Record<Share, Readonly<Record<string, number>>>;

/** The endpoints of a workspace as the API shows and changes them. */
export class OnlineEndpoints {
  readonly #options: OnlineEndpointsOptions;

  constructor(options: OnlineEndpointsOptions) {
    this.#options = options;
  }

  /** Makes an endpoint with its two keys. Throws `config_invalid`, `already_exists`, `limit_reached`, `oidc_not_configured`. */
  async create(given: GivenEndpoint): Promise<Answered<PublicObject>> {
    const { file = 'endpoint', text = '{}', name } = given;
    const loaded = parseEndpoint(text, { file, ...(name === undefined ? {} : { overrides: { name } }) });
    this.#requireIssuer(loaded.value);
    const entry = await this.#options.catalog.endpoints.create(loaded.value, { sourceYaml: text });
    await this.#options.credentials.renew(loaded.value.name);
    await this.#options.onChange();
    const early = [...Object.keys(loaded.value.traffic), ...Object.keys(loaded.value.mirrorTraffic)].map(
      (deployment) => `warning traffic: there is no deployment ${deployment} yet; it gets its share once it is there`,
    );
    return { value: this.#view(publicEndpoint(entry)), warnings: [...texts(loaded.warnings), ...early] };
  }

  /**
   * Changes an endpoint: a file replaces all it says, then the shares and `set` are applied; what is not given stays.
   * Throws `not_found`, `config_invalid`, `traffic_invalid`, `request_invalid`, `oidc_not_configured`.
   */
  async update(given: GivenEndpointChange): Promise<Answered<PublicObject>> {
    const overrides = given.name === undefined ? {} : { overrides: { name: given.name } };
    const { file = 'endpoint', text } = given;
    const loaded = text === undefined ? undefined : parseEndpoint(text, { file, ...overrides });
    const name = loaded?.value.name ?? given.name;
    if (name === undefined) {
      throw new ModeltapError('request_invalid', { detail: 'name: give the endpoint with --name or in a file' });
    }
    const inFile = text === undefined ? {} : (parse(text) as Readonly<Record<string, unknown>>);
    const entry = await this.#options.catalog.endpoints.edit(
      name,
      (config, deployments) => {
        const raw = rawOf(loaded?.value ?? config);
        // Files of endpoints seldom say where traffic goes. One that does not must not take it away.
        for (const share of SHARES) if (!(share in inFile)) raw[share] = rawOf(config)[share];
        const changed = apply(raw, given);
        this.#requireIssuer(changed);
        const named = SHARES.filter((share) => share in inFile || given[share] !== undefined || isSet(given, share));
        for (const share of named) requireDeployments(changed, share, deployments);
        return changed;
      },
      text === undefined ? {} : { sourceYaml: text },
    );
    await this.#options.onChange();
    return { value: this.#view(publicEndpoint(entry)), warnings: texts(loaded?.warnings ?? []) };
  }

  /** Throws `not_found`. */
  async get(name: string): Promise<PublicObject> {
    return this.#view(publicEndpoint(await this.#options.catalog.endpoints.get(name)));
  }

  async list(): Promise<readonly PublicObject[]> {
    return (await this.#options.catalog.endpoints.list()).map((entry) => this.#view(publicEndpoint(entry)));
  }

  /** The only answer that holds a key or a token. Throws `not_found`, `auth_mode_other`. */
  async credentials(name: string): Promise<PublicObject> {
    return this.#options.credentials.show(await this.#options.catalog.endpoints.get(name));
  }

  /** Throws `not_found`, `auth_mode_other`. */
  async regenerateKey(name: string, which: KeyType): Promise<void> {
    await this.#options.credentials.regenerate(await this.#options.catalog.endpoints.get(name), which);
    await this.#options.onChange();
  }

  /** What the router asks for each request, by name. */
  async routes(): Promise<ReadonlyMap<string, RoutedEndpoint>> {
    const { catalog, credentials } = this.#options;
    const all = await catalog.deployments.list();
    const routes = new Map<string, RoutedEndpoint>();
    for (const entry of await catalog.endpoints.list()) {
      const { name, traffic, mirrorTraffic } = entry.config;
      const own = all.filter(({ config, provisioningState }) => {
        return config.endpointName === name && provisioningState !== 'Deleting';
      });
      const deployments = Object.fromEntries(
        own.map(({ config }) => [config.name, { requestTimeoutMs: config.requestSettings.requestTimeoutMs }]),
      );
      const [copied] = Object.entries(mirrorTraffic).filter(([, percent]) => percent > 0);
      const mirror = copied && { deployment: copied[0], percent: copied[1] };
      const access = await credentials.access(entry);
      routes.set(name, { name, traffic, deployments, access, ...(mirror === undefined ? {} : { mirror }) });
    }
    return routes;
  }

  #requireIssuer({ authMode, name }: EndpointConfig): void {
    if (authMode !== 'aad_token' || this.#options.hasIssuer) return;
    throw new ModeltapError('oidc_not_configured', { endpoint: name });
  }

  #view(endpoint: PublicObject): PublicObject {
    const uri = `${this.#options.publicUrl()}/endpoints/${encodeURIComponent(String(endpoint.name))}/score`;
    return { ...endpoint, scoring_uri: uri };
  }
}

/** As a file has it, so that a change is checked by the rules for files. */
function rawOf(config: EndpointConfig): RawEndpoint {
  return {
    name: config.name,
    description: config.description,
    tags: config.tags,
    properties: config.properties,
    auth_mode: config.authMode,
    traffic: config.traffic,
    mirror_traffic: config.mirrorTraffic,
  };
}

function apply(raw: RawEndpoint, given: GivenEndpointChange): EndpointConfig {
  const changed: Record<string, unknown> = { ...raw };
  for (const share of SHARES) if (given[share] !== undefined) changed[share] = given[share];
  for (const { key, value } of given.set ?? []) {
    const [top = '', ...rest] = key.split('.');
    const inner = rest.join('.');
    if (top === 'name') throw new ModeltapError('request_invalid', { detail: 'name: an endpoint keeps its name' });
    changed[top] = inner === '' ? value : { ...(changed[top] as object), [inner]: value };
  }
  try {
    return parseEndpoint(stringify(changed), { file: 'update' }).value;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    // Places would be those of a text nobody has written.
    const problems = error.issues.filter(({ severity }) => severity === 'error');
    const detail = problems.map((issue) => `${issue.key} ${issue.message}`).join('; ');
    throw new ModeltapError('request_invalid', { detail }, { cause: error });
  }
}

function isSet(given: GivenEndpointChange, share: Share): boolean {
  return (given.set ?? []).some(({ key }) => key === share || key.startsWith(`${share}.`));
}

/** Throws `traffic_invalid` when a share names a deployment that does not exist. */
function requireDeployments(config: EndpointConfig, share: Share, deployments: readonly string[]): void {
  const named = Object.keys(share === 'traffic' ? config.traffic : config.mirrorTraffic);
  const unknown = named.find((name) => !deployments.includes(name));
  if (unknown === undefined) return;
  const known = deployments.length === 0 ? 'it has none yet' : `it has ${deployments.join(', ')}`;
  const problem = `${share} names deployment "${unknown}", which does not exist; ${known}`;
  throw new ModeltapError('traffic_invalid', { endpoint: config.name, problem });
}
