import type { z } from 'zod';
import { parseBytes } from '../kit/bytes.ts';
import { isEnabled, PAYLOAD_COLLECTIONS } from './data-collector.ts';
import type { Findings } from './check.ts';
import { flag, listOf, mapping, number, oneOf, type Problem, shown, size, text, whole } from './fields.ts';
import { resourceName } from './names.ts';
import type { TapConfig } from './types.ts';
import type { KeyPath } from './yaml.ts';

const MAX_PATHS = 100;
const KILOBYTE = 1024;
const GIGABYTE = 1024 ** 3;

/** The server behind a tap, as `http://host:port`. */
export function readUpstream(value: string): { readonly host: string; readonly port: number } | Problem {
  const url = URL.canParse(value) ? new URL(value) : undefined;
  if (url === undefined || url.hostname === '')
    return { problem: `must be an address such as http://127.0.0.1:8000, not ${shown(value)}` };
  if (url.protocol !== 'http:')
    return {
      problem: 'must begin with http://: a tap sees what passes, so it stands where the traffic is not encrypted',
    };
  if (url.username !== '' || url.password !== '') return { problem: 'must not hold a user or a password' };
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '')
    return {
      problem: `must end behind the port: paths pass as they are, so ${shown(url.pathname)} has no meaning here`,
    };
  return { host: url.hostname.replace(/^\[|\]$/g, ''), port: url.port === '' ? 80 : Number(url.port) };
}

const upstream = text((value) => {
  const read = readUpstream(value.trim());
  return 'problem' in read ? read : value.trim();
});

const pathRule = text((value) =>
  value === '*' || value.startsWith('/')
    ? value
    : { problem: `${shown(value)} is not a path: it begins with a slash, and may end with * for all that follows` },
);

/** One entry of `taps` in an agent file. */
export const tapSchema = mapping({
  endpoint_name: resourceName(),
  deployment_name: resourceName(),
  port: whole({ min: 0, max: 65_535 }),
  upstream,
  paths: listOf(pathRule, MAX_PATHS).default(['*']),
  request_id: oneOf('add', 'pass').default('add'),
  sampling: mapping({ errors: number({ min: 0, max: 1 }).default(1) }).optional(),
  capture_secret_headers: flag().default(false),
  memory_bytes: size(KILOBYTE).default(256 * KILOBYTE),
  max_body_bytes: size(KILOBYTE).default(GIGABYTE),
  max_decoded_bytes: size(KILOBYTE).default(64 * KILOBYTE ** 2),
});

/** Makes the checked form. */
export function buildTap(raw: z.output<typeof tapSchema>): TapConfig {
  const server = readUpstream(raw.upstream);
  return {
    endpointName: raw.endpoint_name,
    deploymentName: raw.deployment_name,
    port: raw.port,
    // The schema has refused any other.
    upstream: 'problem' in server ? { host: '', port: 0 } : server,
    paths: raw.paths,
    requestId: raw.request_id,
    errorRate: raw.sampling?.errors ?? 1,
    captureSecretHeaders: raw.capture_secret_headers,
    memoryBytes: raw.memory_bytes,
    maxBodyBytes: raw.max_body_bytes,
    maxDecodedBytes: raw.max_decoded_bytes,
  };
}

/** Most `memory_bytes`. A body in memory goes into one frame of the spool, which has at most twice this. */
const MAX_MEMORY_BYTES = 8 * KILOBYTE ** 2;

/** Each tap belongs to a deployment of the file that collects requests or responses. */
export function checkTaps(findings: Findings): void {
  const { document } = findings;
  const at = (path: KeyPath) => document.scalar(path)?.text.trim();
  const paths = (key: string) => Array.from({ length: document.length([key]) }, (_, index): KeyPath => [key, index]);
  for (const path of paths('taps')) {
    if ((parseBytes(at([...path, 'memory_bytes']) ?? '') ?? 0) > MAX_MEMORY_BYTES)
      findings.error(
        [...path, 'memory_bytes'],
        'must be at most 8MB: larger bodies are written to disk while they pass',
      );
    const endpoint = at([...path, 'endpoint_name']);
    const deployment = at([...path, 'deployment_name']);
    if (endpoint === undefined || deployment === undefined) continue;
    const owner = paths('deployments').find(
      (one) => at([...one, 'endpoint_name']) === endpoint && at([...one, 'deployment_name']) === deployment,
    );
    if (owner === undefined) {
      findings.error(
        [...path, 'deployment_name'],
        `the deployment ${shown(`${endpoint}/${deployment}`)} is not among deployments`,
      );
      continue;
    }
    const collections = [...owner, 'data_collector', 'collections'];
    const enabled = document
      .keys(collections)
      .some((name) => PAYLOAD_COLLECTIONS.includes(name.toLowerCase()) && isEnabled(document, [...collections, name]));
    if (!enabled)
      findings.warning(
        [...path, 'deployment_name'],
        'neither request nor response is enabled there: traffic passes and nothing is collected',
      );
  }
}
