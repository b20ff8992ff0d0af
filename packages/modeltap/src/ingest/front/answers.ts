import { STATUS_CODES } from 'node:http';
import type { Answer } from '../exchange.ts';

/** What a sender is told that says no HTTP. Ends the connection. */
export const BAD_REQUEST = plain(400);
/** What a sender is told that takes too long. Ends the connection. */
export const TIMED_OUT = plain(408);

function statusLine(status: number): string {
  return `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'unknown'}\r\n`;
}

function plain(status: number): Buffer {
  return Buffer.from(`${statusLine(status)}Connection: close\r\n\r\n`, 'latin1');
}

/** Writes answers byte for byte as `node:http` does. */
export class AnswerText {
  /** What is said of a connection that is kept. */
  readonly #kept: string;
  /** Second since the epoch that the prepared texts tell. */
  #second = -1;
  #date = '';
  #accepted = Buffer.alloc(0);
  #acceptedLast = Buffer.alloc(0);

  /** `keepAliveMs`: how long an idle connection is kept; 0: for ever. */
  constructor(keepAliveMs: number) {
    const timeout = keepAliveMs === 0 ? '' : `Keep-Alive: timeout=${Math.floor(keepAliveMs / 1000)}\r\n`;
    this.#kept = `Connection: keep-alive\r\n${timeout}`;
  }

  /** A 204. `last`: the connection ends with it. */
  accepted(last: boolean): Buffer {
    this.#prepare();
    return last ? this.#acceptedLast : this.#accepted;
  }

  /** An answer with a JSON body. `last`: the connection ends with it; `cut`: it also does, because the body was not read. */
  json({ status, headers, body }: Answer, last: boolean, cut: boolean): Buffer {
    this.#prepare();
    const lines = Object.entries({ 'content-type': 'application/json', 'content-length': body.length, ...headers });
    const given = lines.map(([name, value]) => `${name}: ${value}\r\n`).join('');
    // `node:http` writes a connection header of its own behind the date, and one it was given before it.
    const end = cut
      ? `connection: close\r\n${this.#date}`
      : `${this.#date}${last ? 'Connection: close\r\n' : this.#kept}`;
    return Buffer.concat([Buffer.from(`${statusLine(status)}${given}${end}\r\n`, 'latin1'), body]);
  }

  #prepare(): void {
    const now = Date.now();
    const second = Math.floor(now / 1000);
    if (second === this.#second) return;
    this.#second = second;
    this.#date = `Date: ${new Date(now).toUTCString()}\r\n`;
    const head = statusLine(204) + this.#date;
    this.#accepted = Buffer.from(`${head}${this.#kept}\r\n`, 'latin1');
    this.#acceptedLast = Buffer.from(`${head}Connection: close\r\n\r\n`, 'latin1');
  }
}
