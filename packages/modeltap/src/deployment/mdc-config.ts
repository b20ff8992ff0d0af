import type { DataCollectorConfig } from '../config/types.ts';

/**
 * Text of the file `AZUREML_MDC_CONFIG_PATH` points SDKs to: collection names in lower case, real booleans, a sampling
 * percentage, and no `runMode`, since `local` would make an SDK print instead of send.
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
  const headers = config.captureHeaders.length === 0 ? {} : { captureHeaders: config.captureHeaders };
  return `${JSON.stringify({ collections, ...headers }, null, 2)}\n`;
}
