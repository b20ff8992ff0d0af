import type { DataCollectorConfig } from '../config/types.ts';

/** Collections of HTTP payloads: no SDK fills them. */
const PAYLOAD: ReadonlySet<string> = new Set(['request', 'response']);

/**
 * Text of the file `AZUREML_MDC_CONFIG_PATH` points SDKs to: collection names in lower case, real booleans, a sampling
 * percentage, and no `runMode`, since `local` would make an SDK print instead of send. `enabled` and `sources` are the
 * switches azureml-ai-monitoring 0.1.0b1 asks for; later versions look at the collections.
 */
export function mdcConfigFile(config: DataCollectorConfig): string {
  // 0.07 * 100 is 7.000000000000001.
  const sampleRatePercentage = Number((config.samplingRate * 100).toFixed(6));
  const collections = Object.fromEntries(
    Object.entries(config.collections).map(([name, { enabled }]) => [
      name.toLowerCase(),
      { enabled, sampleRatePercentage },
    ]),
  );
  const custom = Object.entries(config.collections).some(
    ([name, { enabled }]) => enabled && !PAYLOAD.has(name.toLowerCase()),
  );
  const switches = { enabled: custom, sources: { custom: { enabled: custom } } };
  const headers = config.captureHeaders.length === 0 ? {} : { captureHeaders: config.captureHeaders };
  return `${JSON.stringify({ ...switches, collections, ...headers }, null, 2)}\n`;
}
