import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Answer, BodySink, Exchange } from './exchange.ts';
import { type ReadHeaders, readHeaders } from './headers.ts';
import { LINGER_MS } from './reply.ts';

/** A request that `node:http` has read. */
export class NodeExchange implements Exchange {
  readonly port: number;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  #headers: ReadHeaders | undefined;

  constructor(request: IncomingMessage, response: ServerResponse, port: number) {
    this.#request = request;
    this.#response = response;
    this.port = port;
  }

  get headers(): ReadHeaders {
    return (this.#headers ??= readHeaders(this.#request.rawHeaders));
  }

  get rawHeaders(): readonly string[] {
    return this.#request.rawHeaders;
  }

  receive(sink: BodySink): void {
    const request = this.#request;
    request.on('data', (bytes: Buffer) => sink.piece(bytes));
    request.on('end', () => sink.ended());
    const closed = () => {
      if (!request.readableEnded) sink.gone();
    };
    if (request.destroyed) closed();
    else request.once('close', closed);
  }

  pause(): void {
    this.#request.pause();
  }

  resume(): void {
    this.#request.resume();
  }

  accept(close: boolean): void {
    const response = this.#response;
    if (close) response.shouldKeepAlive = false;
    response.statusCode = 204;
    response.end();
  }

  reply({ status, headers, body }: Answer, close: boolean): void {
    const request = this.#request;
    const response = this.#response;
    if (response.headersSent || response.destroyed) return;
    if (close) response.shouldKeepAlive = false;
    const all = { 'content-type': 'application/json', 'content-length': body.length, ...headers };
    if (request.readableEnded) {
      response.writeHead(status, all);
      response.end(body);
      return;
    }
    response.writeHead(status, { ...all, connection: 'close' });
    // The answer is complete on the wire; ending it would close the socket under a sender that still writes.
    response.write(body);
    const timer = setTimeout(() => response.end(), LINGER_MS);
    const finish = () => {
      clearTimeout(timer);
      response.end();
    };
    request.once('end', finish);
    request.once('close', finish);
    request.resume();
  }
}
