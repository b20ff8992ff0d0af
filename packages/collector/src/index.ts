export { Collector, flush } from './collector.ts';
export { BasicCorrelationContext, type CorrelationContext, type CorrelationContextOptions } from './context.ts';
export { CollectorError, type CollectorErrorCode, type CollectorErrorParams } from './errors.ts';
export {
  type CollectionOptions,
  type CollectorOptions,
  type DroppedRecords,
  type FlushOptions,
  type FlushResult,
} from './options.ts';
export { samplePoint } from './sampling.ts';
