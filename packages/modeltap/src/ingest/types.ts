import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ErrorCode } from '../kit/error-codes.ts';
import type { Logger } from '../kit/logger.ts';
import type { Destination, StoredRecord } from '../record/types.ts';
import type { SpoolWriter } from '../spool/types.ts';

/** What a record is routed by. */
export interface RouteRequest {
  /** Local port of the listener that took the request: a deployment may have one of its own. */
  readonly port: number;
  /** CloudEvents `type`, e.g. `azureml.inference.model_inputs`. Whatever the sender wrote. */
  readonly type: string;
  /** CloudEvents `source` of the event; empty on `/modeldata/log`, whose protocol has none. */
  readonly source: string;
}

/** Where a record goes, or why it goes nowhere. */
export type RouteAnswer =
  | {
      readonly spool: SpoolWriter;
      readonly destination: Destination;
      /** Counts for this destination; default: the counts of the options. */
      readonly counts?: IngestCounts;
    }
  | {
      readonly refusal: 'collection_unknown' | 'collection_disabled' | 'deployment_ambiguous';
      /** Name of the collection asked for. */
      readonly collection: string;
      /** What is enabled here; for `deployment_ambiguous` where it could go. */
      readonly enabled: readonly string[];
    };

/** Looks a record's destination up. Must be pure between two calls of `replaceRoutes`: answers are kept. */
export type Route = (request: RouteRequest) => RouteAnswer;

/**
 * What ingest reports, one call a record but for `sampledOut`. `timeMs` is the event time; `destinationId` 0 means that it is not known.
 * accepted + rejected + duplicate is everything that arrived.
 */
export interface IngestCounts {
  /** The record is durable. Called in the append's callback, before the answer. `bytes` is the body's length. */
  accepted(destinationId: number, timeMs: number, rows: number, bytes: number): void;
  /** The record was refused with this code. */
  rejected(code: ErrorCode, destinationId: number, timeMs: number): void;
  /** The record was taken before and was not taken again. */
  duplicate(destinationId: number, timeMs: number): void;
  /** An accepted record's own time could not be used; the time of arrival took its place. */
  timeReplaced?(destinationId: number): void;
  /** A sender told of so many records that it left out by sampling since it last told. */
  sampledOut?(destinationId: number, timeMs: number, records: number): void;
}

/** An address to listen on. Port 0: any free one. */
export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** Limits, all with defaults. Times in milliseconds. */
export interface IngestLimits {
  /** Largest record. Default 64 MiB. */
  readonly maxRecordBytes: number;
  /** Bodies above it go to a file of their own beside the spool, so that small records do not wait for them. Default 1 MiB. */
  readonly sideFileBytes: number;
  /** Largest body of structured, batch and line requests. Default the greater of `maxRecordBytes` and 16 MiB. */
  readonly maxBatchBytes: number;
  /** Most events in one request. Default 10 000. */
  readonly maxBatchEvents: number;
  /** Most bytes of bodies in memory at a time, over all connections. Default 256 MiB. */
  readonly maxInflightBytes: number;
  /** Most connections at a time per listener. Default 10 000. */
  readonly maxConnections: number;
  /** Longest time between two pieces of a body. Default 30 000. */
  readonly bodyIdleMs: number;
  /** Longest time for the headers of a request. Default 15 000. */
  readonly headersMs: number;
  /** Longest time for a whole request. Default 300 000. */
  readonly requestMs: number;
  /** How long an idle connection is kept. Default 75 000. */
  readonly keepAliveMs: number;
  /** Ids remembered to recognise events that are sent again. Default 65 536. */
  readonly dedupeWindow: number;
}

/** A place for requests that ingest does not take. */
export type NextRequest = (request: IncomingMessage, response: ServerResponse) => void;

/** What an ingest is made of. */
export interface IngestOptions {
  /** At least one; loopback only. */
  readonly listen: readonly ListenAddress[];
  readonly route: Route;
  readonly counts: IngestCounts;
  readonly logger: Logger;
  /** Answers other paths. Default: 404. */
  readonly next?: NextRequest;
  readonly limits?: Partial<IngestLimits>;
  /** Told to senders in `modeltap-agent`. Default `0`. */
  readonly version?: string;
  /** Wall clock, milliseconds. Default `Date.now`. */
  readonly now?: () => number;
  /** Makes ids for records without one. Default `crypto.randomUUID`. */
  readonly uuid?: () => string;
}

/** The ingest side of an agent. */
export interface Ingest {
  /** Opens all listeners. `port_in_use`, `address_not_loopback`. */
  listen(): Promise<void>;
  /** The addresses listened on, with the ports given out for 0, in the order of the options. */
  readonly addresses: readonly ListenAddress[];
  /** Routes from now on with this function; what is under way finishes as it began. */
  replaceRoutes(route: Route): void;
  /** Listens on these addresses from now on: opens new ones, closes those not named after their requests have ended. Port 0 is always a new one. */
  setListeners(addresses: readonly ListenAddress[]): Promise<void>;
  /**
   * Remembers an event of the spool, so that it is recognised when it is sent again. Call before `listen`. A record whose
   * body lies in a side file is remembered only with `crc`, the CRC-32 of that body.
   */
  prime(spool: SpoolWriter, record: StoredRecord, crc?: number): void;
  /** Takes the request if its path is one of ingest's; false: nothing was done. */
  handle(request: IncomingMessage, response: ServerResponse): boolean;
  /** Bytes of bodies in memory now. */
  readonly inflightBytes: number;
  /** Stops accepting, lets requests finish until the deadline, then cuts what is left. */
  close(deadlineMs: number): Promise<void>;
}

/** The defaults. */
export function limitsOf(given: Partial<IngestLimits> = {}): IngestLimits {
  const maxRecordBytes = given.maxRecordBytes ?? 64 * 1024 ** 2;
  return {
    maxRecordBytes,
    sideFileBytes: 1024 ** 2,
    maxBatchBytes: Math.max(maxRecordBytes, 16 * 1024 ** 2),
    maxBatchEvents: 10_000,
    maxInflightBytes: 256 * 1024 ** 2,
    maxConnections: 10_000,
    bodyIdleMs: 30_000,
    headersMs: 15_000,
    requestMs: 300_000,
    keepAliveMs: 75_000,
    dedupeWindow: 65_536,
    ...given,
  };
}
