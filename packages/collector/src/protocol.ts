import type { ShapeDefinition } from './shapes.ts';
import type { CollectorErrorCode } from './errors.ts';

/** What all records of one collector have in common. Sent once, then known by number. */
export interface Envelope {
  readonly collection: string;
  /** Where the ledger counts the collection. */
  readonly slot: number;
  readonly source: string;
  readonly modelVersion: string;
  readonly sampledRate: number | undefined;
}

/** Where and how the records of a transport go. */
export interface Target {
  readonly host: string;
  readonly port: number;
  /** Print to stdout instead of sending. */
  readonly local: boolean;
}

/** From the scoring thread to the sending thread. */
export type ToWorker =
  | { readonly kind: 'open'; readonly transport: number; readonly target: Target; readonly memory: SharedArrayBuffer }
  | { readonly kind: 'deadline'; readonly transport: number; readonly deadlineMs: number }
  | { readonly kind: 'envelope'; readonly transport: number; readonly id: number; readonly envelope: Envelope }
  | {
      readonly kind: 'chunk';
      readonly transport: number;
      readonly chunk: ArrayBuffer;
      readonly bytes: number;
      readonly records: number;
      readonly shapes: readonly ShapeDefinition[];
      /** When the records were collected, at most 0.1 s late. */
      readonly atMs: number;
    }
  /** Sampling left records out since the last of these: the agent may be told, should nothing else be sent. */
  | { readonly kind: 'sampled'; readonly transport: number }
  | {
      readonly kind: 'flush';
      readonly transport: number;
      readonly token: number;
      /** The process ends: no long pauses between attempts any more. */
      readonly hurry: boolean;
    };

/** A failure of delivery. */
export interface Report {
  readonly code: Extract<
    CollectorErrorCode,
    'agent_unreachable' | 'delivery_deadline' | 'delivery_rejected' | 'delivery_too_large'
  >;
  /** The collection concerned; undefined: all. */
  readonly slot: number | undefined;
  readonly count: number;
  readonly detail: string;
}

/** From the sending thread to the scoring thread. */
export type FromWorker =
  | { readonly kind: 'report'; readonly transport: number; readonly report: Report }
  | { readonly kind: 'flushed'; readonly transport: number; readonly token: number };
