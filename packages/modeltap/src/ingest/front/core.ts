import type { Socket } from 'node:net';
import type { Exchange } from '../exchange.ts';
import type { AnswerText } from './answers.ts';
import type { HeadReader } from './head-reader.ts';

/** Limits of time, in ticks of the sweep. A wait is over when it has seen more ticks than that. */
export interface TickLimits {
  /** For a head, from its first byte or, on a new connection, from the beginning. */
  readonly headers: number;
  /** For a whole request. */
  readonly request: number;
  /** Between two requests. */
  readonly keepAlive: number;
  /** After the last answer: for the rest of a body that nobody wants, and for the sender to read. */
  readonly linger: number;
}

/** A connection, to the listener that has to end it one day. */
export interface SweptConnection {
  /** Called once a tick: ends what has taken too long. */
  sweep(): void;
  /** Ends the connection unless a request is under way. */
  retire(): void;
  /** Ends the connection whatever it does. */
  destroy(): void;
}

/** What the connections of one listener share. */
export interface FrontCore {
  readonly reader: HeadReader;
  readonly answers: AnswerText;
  readonly ticks: TickLimits;
  /** Those that `node:http` does not have. */
  readonly connections: Set<SweptConnection>;
  /** Local port. */
  readonly port: number;
  /** Sweeps so far. */
  readonly tick: number;
  /** The listener is closing: each answer is the last on its connection. */
  readonly closing: boolean;
  /** Takes a request whose path is this one of the targets. */
  receive(target: number, exchange: Exchange): void;
  /** Gives a connection to `node:http`. */
  handOver(socket: Socket): void;
}
