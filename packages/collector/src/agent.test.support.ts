import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';

/** A request as the agent of a test saw it. */
export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage['headers'];
  readonly rawHeaders: readonly string[];
  readonly body: string;
}

/** What the agent of a test answers; 'hang' never answers, 'cut' closes the connection. */
export type Answer =
  | 'hang'
  | 'cut'
  | { readonly status: number; readonly headers?: Record<string, string>; readonly body?: string };

/** A stored event. */
export interface SeenEvent extends Record<string, unknown> {
  readonly id: string;
  readonly type: string;
  readonly correlationid: string;
  readonly data: unknown;
}

const BATCHES: Answer = {
  status: 204,
  headers: { 'modeltap-batch-max-bytes': '1000000', 'modeltap-batch-max-events': '100' },
};

/** A real HTTP server on a free loopback port that keeps what it is sent. Takes batches unless told otherwise. */
export class TestAgent {
  readonly seen: SeenRequest[] = [];
  probe: Answer = BATCHES;
  answer: (request: SeenRequest) => Answer = () => ({ status: 204 });
  connections = 0;
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;
  #port = 0;

  static async start(): Promise<TestAgent> {
    const agent = new TestAgent();
    await agent.listen();
    return agent;
  }

  get port(): number {
    return this.#port;
  }

  /** Starts, or starts again on the same port. */
  async listen(): Promise<void> {
    const server = createServer((request, response) => {
      const parts: Buffer[] = [];
      request.on('data', (part: Buffer) => parts.push(part));
      request.on('end', () => {
        const { method = '', url = '', headers, rawHeaders } = request;
        const seen = { method, path: url, headers, rawHeaders, body: Buffer.concat(parts).toString() };
        this.seen.push(seen);
        const answer = method === 'OPTIONS' ? this.probe : this.answer(seen);
        if (answer === 'hang') return;
        if (answer === 'cut') request.socket.destroy();
        else response.writeHead(answer.status, answer.headers).end(answer.body);
      });
    });
    server.on('connection', (socket) => {
      this.connections++;
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
    await new Promise<void>((resolve) => server.listen(this.#port, '127.0.0.1', resolve));
    this.#port = (server.address() as AddressInfo).port;
    this.#server = server;
  }

  /** Closes all connections. */
  cutIdle(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async close(): Promise<void> {
    this.cutIdle();
    await new Promise((resolve) => this.#server?.close(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Requests that carried records. */
  get posts(): SeenRequest[] {
    return this.seen.filter((request) => request.method === 'POST');
  }

  /** Events of all batches, in order, also those that were refused or sent twice. */
  get events(): SeenEvent[] {
    return this.posts.flatMap((request) => {
      const body = JSON.parse(request.body) as SeenEvent | SeenEvent[];
      return Array.isArray(body) ? body : [body];
    });
  }

  /** The JSON text of `data` of the last event, byte for byte. */
  lastData(): string {
    const body = this.posts.at(-1)?.body ?? '';
    return body.slice(body.lastIndexOf('"data":') + 7, body.lastIndexOf(',"correlationid":'));
  }
}

/** Module extension of this build: tests run from source and from the compiled package. */
export const EXTENSION = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
