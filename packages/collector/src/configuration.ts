import { readFileSync } from 'node:fs';
import { CollectorError, errorText } from './errors.ts';
import type { CollectorOptions } from './options.ts';

/** Everything a collector needs to know, resolved. */
export interface Settings {
  /** Lower case. */
  readonly name: string;
  /** Why nothing is recorded; undefined when the collection is on. */
  readonly refusal: CollectorError | undefined;
  /** 0…1. */
  readonly samplingRate: number;
  readonly host: string;
  readonly port: number;
  /** Print to stdout instead of sending. */
  readonly local: boolean;
  /** Every report is logged, not one a minute. */
  readonly debug: boolean;
  readonly modelVersion: string;
  readonly source: string;
  /** Limits that were given; the rest keep their defaults. */
  readonly limits: GivenLimits;
  readonly maxCollections: number | undefined;
}

/** Limits of the queue as far as they were given. */
export interface GivenLimits {
  readonly maxQueueBytes?: number;
  readonly maxQueueItems?: number;
  readonly deliveryDeadlineMs?: number;
  readonly flushTimeoutMs?: number;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** What a source of configuration says about one collection. */
interface Found {
  readonly refusal?: CollectorError;
  readonly samplingRate?: number;
  readonly local?: boolean;
  readonly maxQueueItems?: number;
}

const PAYLOAD_COLLECTIONS: ReadonlySet<string> = new Set(['request', 'response']);

/** True for the collections of payload logging, which do not count as custom ones. */
export function isPayloadCollection(name: string): boolean {
  return PAYLOAD_COLLECTIONS.has(name);
}

/**
 * Resolves options and environment. Explicit options win; then comes the file named by AZUREML_MDC_CONFIG_PATH; then the
 * older variables (AZUREML_MDC_ENABLED and others). Throws `name_missing`, `configuration_unreadable`,
 * `configuration_invalid`; a collection that is off is not an error here but a `refusal`.
 */
export function resolveSettings(options: CollectorOptions): Settings {
  const env = options.env ?? process.env;
  if (typeof options.name !== 'string' || options.name === '') throw new CollectorError('name_missing');
  const name = options.name.toLowerCase();
  const found = find(name, options, env);
  const given = checked(options);
  const items = given.maxQueueItems ?? found.maxQueueItems;
  return {
    name,
    refusal: found.refusal,
    samplingRate: number(options.samplingRate, 'samplingRate', [0, 1]) ?? found.samplingRate ?? 1,
    host: options.host || env['AZUREML_MDC_HOST'] || '127.0.0.1',
    port: integer(options.port ?? env['AZUREML_MDC_PORT'], 'AZUREML_MDC_PORT', [1, 65_535]) ?? 50_011,
    local: found.local ?? false,
    debug: isTrue(env['AZUREML_MDC_DEBUG']),
    modelVersion: options.modelVersion ?? 'default',
    source: options.source ?? '/modeltap/collector',
    limits: { ...given, ...(items === undefined ? {} : { maxQueueItems: items }) },
    maxCollections: integer(options.maxCollections, 'maxCollections', [1, 250]),
  };
}

const LIMITS = {
  maxQueueBytes: [1024, 1_073_741_824],
  maxQueueItems: [1, 10_000_000],
  deliveryDeadlineMs: [1, 86_400_000],
  flushTimeoutMs: [0, 600_000],
} as const satisfies Record<keyof GivenLimits, Range>;

function checked(options: CollectorOptions): GivenLimits {
  const given: Partial<Record<keyof GivenLimits, number>> = {};
  for (const key of Object.keys(LIMITS) as (keyof GivenLimits)[]) {
    const value = integer(options[key], key, LIMITS[key]);
    if (value !== undefined) given[key] = value;
  }
  return given;
}

function find(name: string, options: CollectorOptions, env: Environment): Found {
  if (options.enabled === false) return refused('collection_disabled', { name });
  if (options.collections !== undefined) return fromCollections(name, options.collections);
  if (options.enabled === true) return {};
  const path = env['AZUREML_MDC_CONFIG_PATH'];
  if (path) return fromFile(name, path);
  if (isTrue(env['AZUREML_MDC_ENABLED'])) return fromVariables(env);
  return refused('not_configured', { name });
}

function fromCollections(name: string, collections: NonNullable<CollectorOptions['collections']>): Found {
  const byName = new Map(Object.entries(collections).map(([key, value]) => [key.toLowerCase(), value]));
  const value = byName.get(name);
  if (value === undefined) return unknownCollection(name, [...byName.keys()]);
  const { enabled = true, samplingRate } = typeof value === 'boolean' ? { enabled: value } : value;
  if (!enabled) return refused('collection_disabled', { name });
  const rate = number(samplingRate, `collections.${name}.samplingRate`, [0, 1]);
  return rate === undefined ? {} : { samplingRate: rate };
}

/** The file of the Python SDK: `{"runMode","collections":{"<name>":{"enabled","sampleRatePercentage"}}}`. */
function fromFile(name: string, path: string): Found {
  const { runMode, collections } = readFile(path);
  const byName = new Map(Object.entries(collections).map(([key, value]) => [key.toLowerCase(), value]));
  const isOn = (value: unknown) => isRecord(value) && isEnabled(value['enabled']);
  const custom = [...byName].some(([key, value]) => !isPayloadCollection(key) && isOn(value));
  const own = byName.get(name);
  if (own === undefined) return unknownCollection(name, [...byName.keys()]);
  if (!custom || !isOn(own) || !isRecord(own)) return refused('collection_disabled', { name });
  // azure-ai-ml writes the rate of a local deployment under another name than the one the SDK reads.
  const percent = percentage(
    own['sampleRatePercentage'] ?? own['sampling_percentage'],
    `${path}: sampleRatePercentage`,
  );
  return {
    local: typeof runMode === 'string' && runMode.toLowerCase() === 'local',
    ...(percent === undefined ? {} : { samplingRate: percent }),
  };
}

function readFile(path: string): { runMode: unknown; collections: Record<string, unknown> } {
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(path, 'utf8').replace(/^\uFEFF/, ''));
  } catch (error) {
    throw new CollectorError('configuration_unreadable', { path, detail: errorText(error) }, { cause: error });
  }
  const collections = isRecord(parsed) ? parsed['collections'] : undefined;
  if (!isRecord(parsed) || !isRecord(collections)) {
    throw new CollectorError('configuration_unreadable', { path, detail: '"collections" is not an object' });
  }
  return { runMode: parsed['runMode'], collections };
}

/** The variables of older versions of the Python SDK. Any name is on. */
function fromVariables(env: Environment): Found {
  const percent = percentage(env['AZUREML_MDC_SAMPLE_RATE'] || undefined, 'AZUREML_MDC_SAMPLE_RATE');
  const capacity = env['AZUREML_MDC_QUEUE_CAPACITY'] || undefined;
  const items = integer(capacity, 'AZUREML_MDC_QUEUE_CAPACITY', LIMITS.maxQueueItems);
  return {
    local: isTrue(env['AZUREML_MDC_LOCAL_CAPTURE']) || isTrue(env['AZUREML_MDC_WORKER_PRINTONLY']),
    ...(percent === undefined ? {} : { samplingRate: percent }),
    ...(items === undefined ? {} : { maxQueueItems: items }),
  };
}

function unknownCollection(name: string, known: readonly string[]): Found {
  return refused('collection_unknown', { name, known: known.length > 0 ? known.join(', ') : 'none' });
}

function refused(
  code: 'collection_disabled' | 'collection_unknown' | 'not_configured',
  params: Record<string, string>,
): Found {
  return { refusal: new CollectorError(code, params) };
}

function isTrue(text: string | undefined): boolean {
  return text?.trim().toLowerCase() === 'true';
}

/** Python tests the truth of the value, so its text "false" means on; here it means what it says. */
function isEnabled(value: unknown): boolean {
  if (typeof value === 'string') return !['', 'false', '0', 'no', 'off'].includes(value.trim().toLowerCase());
  return Boolean(value);
}

type Range = readonly [least: number, most: number];

function percentage(value: unknown, setting: string): number | undefined {
  const percent = number(value, setting, [0, 100]);
  return percent === undefined ? undefined : percent / 100;
}

function integer(value: unknown, setting: string, range: Range): number | undefined {
  const found = number(value, setting, range);
  if (found !== undefined && !Number.isInteger(found)) throw invalid(setting, 'it must be a whole number');
  return found;
}

function number(value: unknown, setting: string, [least, most]: Range): number | undefined {
  if (value === undefined || value === '') return undefined;
  const found = typeof value === 'string' ? Number(value) : value;
  if (typeof found !== 'number' || Number.isNaN(found) || found < least || found > most) {
    throw invalid(setting, `it must be a number from ${least} to ${most}`);
  }
  return found;
}

function invalid(setting: string, detail: string): CollectorError {
  return new CollectorError('configuration_invalid', { setting, detail });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
