import type { Logger } from '../kit/logger.ts';
import type { Destination } from '../record/types.ts';
import type { SpoolRefusal, SpoolWriter } from '../spool/types.ts';
import type { StopReason } from './framer.ts';

/** Why an exchange that passed is not captured. It is counted, and its bytes pass on all the same. */
export type LostReason =
  | StopReason
  /** No room under `maxCaptureBytes`. */
  | 'memory'
  /** The disk is slower than what passes. */
  | 'disk_slow'
  /** The tap stopped before the exchange ended. */
  | 'stopping'
  | SpoolRefusal;

/** What is known of a JSON text without having parsed it. */
export interface BodyFacts {
  readonly array: boolean;
  /** Elements of the array; 1 for any other value. */
  readonly rows: number;
  /** There are line breaks outside strings. */
  readonly lineBreaks: boolean;
  /** There are `<`, `>` or `&`. */
  readonly escapes: boolean;
}

/** Tells valid JSON from other bytes. Given by the agent, which has one. */
export interface BodyScanner {
  /** Undefined when the body is not valid JSON. */
  whole(body: Buffer): BodyFacts | undefined;
  /** For a body that comes in pieces. */
  start(): { feed(piece: Buffer): void; end(): BodyFacts | undefined };
}

/** What a tap reports for the ledger, one call a record. `timeMs` is the exchange's time. */
export interface TapCounts {
  /** The record is durable. */
  accepted(destinationId: number, timeMs: number, rows: number, bytes: number): void;
  /** The record was lost, with `tap_` and why. */
  rejected(code: string, destinationId: number, timeMs: number): void;
  sampledOut(destinationId: number, timeMs: number, records: number): void;
}

/** Where the records of one side of the exchanges go. */
export interface TapSink {
  readonly spool: SpoolWriter;
  /** Directory of that spool: side files are read from it. */
  readonly spoolDirectory: string;
  readonly destination: Destination;
  readonly counts: TapCounts;
}

/** Limits; all have defaults. */
export interface TapLimits {
  /** Bytes of the bodies of one exchange kept in memory; more goes to disk while it passes. Default 256 KiB. */
  readonly memoryBytes: number;
  /** Most bytes of one body that are kept; what is beyond is cut off and the event says so. Default 1 GiB. */
  readonly maxBodyBytes: number;
  /** Most bytes that a decoded body (gzip, br, …) may have. Default 64 MiB. */
  readonly maxDecodedBytes: number;
  /** Text above it is stored as an object of its own, as delivery does with JSON. Default 4 MiB. */
  readonly inlineBytes: number;
  /** Longest head of a request or answer that is read. Default 64 KiB. */
  readonly maxHeadBytes: number;
  /** Requests of one connection that may wait for their answers. Default 128. */
  readonly maxPipelined: number;
  /** Most connections at a time. Default 10 000. */
  readonly maxConnections: number;
}

/** What a tap does with the exchanges that begin from now on. */
export interface TapSettings {
  /** The server behind the tap: plain HTTP. */
  readonly upstream: { readonly host: string; readonly port: number };
  /** Undefined: this side is not collected. */
  readonly request: TapSink | undefined;
  readonly response: TapSink | undefined;
  /** Which paths are collected: exact, or up to a `*` at the end. */
  readonly paths: readonly string[];
  /** 0 to 1: share of the exchanges that is collected, decided by correlation id. */
  readonly samplingRate: number;
  /** The same for those that failed: status 408, 429, 500 and above, aborted, or not answered. */
  readonly errorRate: number;
  /** Names of the headers that are collected. */
  readonly captureHeaders: readonly string[];
  /** Collect headers that carry secrets too, when they are named. */
  readonly captureSecretHeaders: boolean;
  /** `add`: a request without an id gets `x-request-id`, and its answer too. `pass`: nothing is changed. */
  readonly requestId: 'add' | 'pass';
  readonly limits: TapLimits;
}

/** Memory that the captures of all taps of a process share. Bytes given out must be given back. */
export interface MemoryBudget {
  readonly used: number;
  readonly maxBytes: number;
  /** False: there is no room, and nothing was taken. */
  take(bytes: number): boolean;
  give(bytes: number): void;
}

/** What the process counts of its taps. */
export interface TapMetrics {
  exchange(): void;
  lost(reason: LostReason): void;
}

/** What a tap is made of. */
export interface TapOptions {
  /** Loopback address to listen on; port 0: any free one. */
  readonly listen: { readonly host: string; readonly port: number };
  readonly settings: TapSettings;
  readonly budget: MemoryBudget;
  readonly scanner: BodyScanner;
  readonly metrics: TapMetrics;
  readonly logger: Logger;
}

/** The defaults. */
export function tapLimitsOf(given: Partial<TapLimits> = {}): TapLimits {
  return {
    memoryBytes: 256 * 1024,
    maxBodyBytes: 1024 ** 3,
    maxDecodedBytes: 64 * 1024 ** 2,
    inlineBytes: 4 * 1024 ** 2,
    maxHeadBytes: 64 * 1024,
    maxPipelined: 128,
    maxConnections: 10_000,
    ...given,
  };
}

/** A budget of so many bytes. */
export function createBudget(maxBytes: number): MemoryBudget {
  let used = 0;
  return {
    maxBytes,
    get used() {
      return used;
    },
    take(bytes) {
      if (used + bytes > maxBytes) return false;
      used += bytes;
      return true;
    },
    give(bytes) {
      used -= bytes;
    },
  };
}
