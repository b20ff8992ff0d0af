import { type Agent, type IncomingHttpHeaders, request } from 'node:http';

/** A request to the agent. */
export interface AgentRequest {
  readonly method: 'POST' | 'OPTIONS';
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
  /** Default 30 000. */
  readonly timeoutMs?: number;
}

/** What the agent answered. */
export interface AgentAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** At most 1 MiB of it. */
  readonly body: string;
}

/** Sends a request; rejects when there was no complete answer. */
export type Post = (request: AgentRequest) => Promise<AgentAnswer>;

const MAX_ANSWER_BYTES = 1_048_576;
const REQUEST_TIMEOUT_MS = 30_000;

/** A `Post` over the connections of `agent`. A request without an answer within its time fails. */
export function httpPost(target: { readonly host: string; readonly port: number; readonly agent: Agent }): Post {
  return async (given) => {
    try {
      return await once(target, given);
    } catch (error) {
      // The agent closed an idle connection just as it was used again: that says nothing about the agent.
      if (error instanceof StaleConnection) return once(target, given);
      throw error;
    }
  };
}

class StaleConnection extends Error {}

class NoAnswer extends Error {}

function once(target: Parameters<typeof httpPost>[0], given: AgentRequest): Promise<AgentAnswer> {
  return new Promise((resolve, reject) => {
    const { method, path, body, timeoutMs = REQUEST_TIMEOUT_MS } = given;
    const headers = { ...given.headers, 'Content-Length': String(body.length) };
    const outgoing = request({ ...target, method, path, headers }, (answer) => {
      const parts: Buffer[] = [];
      let size = 0;
      answer.on('data', (part: Buffer) => {
        if (size < MAX_ANSWER_BYTES) parts.push(part);
        size += part.length;
      });
      answer.on('error', reject);
      answer.on('end', () => {
        const text = Buffer.concat(parts).toString('utf8', 0, MAX_ANSWER_BYTES);
        resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: text });
      });
    });
    const timer = setTimeout(() => {
      outgoing.destroy(new NoAnswer(`no answer within ${timeoutMs / 1000} s`));
    }, timeoutMs);
    outgoing.on('close', () => clearTimeout(timer));
    outgoing.on('error', (error: NodeJS.ErrnoException) => {
      const stale = outgoing.reusedSocket && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
      reject(stale ? new StaleConnection(error.message, { cause: error }) : error);
    });
    outgoing.end(body);
  });
}
