import { ModeltapError } from '../kit/errors.ts';
import type { EndpointAccess } from './access.ts';

/** What the router must know of a deployment. */
export interface RoutedDeployment {
  /** From the arrival of a request to the head of its answer, else status 408. */
  readonly requestTimeoutMs: number;
}

/** What the router must know of an endpoint. */
export interface RoutedEndpoint {
  readonly name: string;
  /** Deployment name → percent. Names without a deployment and weights of 0 get nothing. */
  readonly traffic: Readonly<Record<string, number>>;
  readonly deployments: Readonly<Record<string, RoutedDeployment>>;
  /** Which requests are let in. Absent: all. */
  readonly access?: EndpointAccess;
  /** The deployment that gets copies, and of how many percent of the requests. */
  readonly mirror?: { readonly deployment: string; readonly percent: number };
}

/**
 * The deployment that gets a request: the `forced` one, else one drawn by traffic weight (`random` in [0, 1)), else the
 * only one when no traffic is set. Errors: `not_found` for a forced one that does not exist, `endpoint_empty`,
 * `endpoint_no_traffic`.
 */
export function chooseDeployment(endpoint: RoutedEndpoint, forced: string | undefined, random: () => number): string {
  if (forced !== undefined) {
    if (Object.hasOwn(endpoint.deployments, forced)) return forced;
    throw new ModeltapError('not_found', {
      kind: 'deployment',
      name: forced.slice(0, 64),
      command: 'online-deployment',
    });
  }
  const names = Object.keys(endpoint.deployments);
  const [first] = names;
  if (first === undefined) throw new ModeltapError('endpoint_empty', { endpoint: endpoint.name });
  const weights = names.map((name) => endpoint.traffic[name] ?? 0);
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  if (total <= 0) {
    if (names.length === 1) return first;
    throw new ModeltapError('endpoint_no_traffic', { endpoint: endpoint.name });
  }
  let point = random() * total;
  for (const [index, weight] of weights.entries()) {
    point -= weight;
    if (point < 0) return names[index] ?? first;
  }
  // Rounding may leave a crumb: it belongs to the last deployment that has traffic.
  return names[weights.findLastIndex((weight) => weight > 0)] ?? first;
}

/**
 * The deployment that gets a copy of a request that traffic brought to `answering` (`random` in [0, 1)); undefined: none.
 * A deployment never gets a copy of what it answers itself.
 */
export function chooseMirror(endpoint: RoutedEndpoint, answering: string, random: () => number): string | undefined {
  const { mirror, deployments } = endpoint;
  if (mirror === undefined || mirror.percent <= 0 || mirror.deployment === answering) return undefined;
  if (!Object.hasOwn(deployments, mirror.deployment)) return undefined;
  return random() * 100 < mirror.percent ? mirror.deployment : undefined;
}
