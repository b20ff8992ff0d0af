import { randomUUID } from 'node:crypto';
import { connect } from 'node:net';

/** One payload as the Python SDK would send it. */
export interface SdkPayload {
  readonly collection: string;
  /** The exact bytes of the body. */
  readonly body: Buffer;
  readonly correlationId: string;
  /** Text of `ce-time`. Default: now, in whole seconds. */
  readonly time?: string;
  /** Further or replaced headers; values go out as Latin-1. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** What came back. `status` 0: the connection ended without an answer. */
export interface SdkAnswer {
  readonly status: number;
  readonly body: string;
}

/**
 * Sends one payload over a connection of its own, the way the Python SDK and `requests` put it on the wire: one
 * connection a payload, Content-Length, Latin-1 header values, closed by the client after the answer.
 */
export function sendAsSdk(port: number, payload: SdkPayload, timeoutMs = 30_000): Promise<SdkAnswer> {
  const headers: Record<string, string> = {
    Host: `127.0.0.1:${port}`,
    'User-Agent': 'python-requests/2.34.2',
    'Accept-Encoding': 'gzip, deflate',
    Accept: '*/*',
    Connection: 'keep-alive',
    'Content-Type': 'application/json',
    'trace-id': randomUUID(),
    'ce-time': payload.time ?? String(Math.floor(Date.now() / 1000)),
    'ce-type': `azureml.inference.${payload.collection}`,
    'ce-collect-data-type': 'pandas.core.frame.DataFrame',
    'ce-agent': 'azureml-ai-monitoring/1.0.0',
    'ce-x-request-id': payload.correlationId,
    'ce-model-version': 'default',
    'Content-Length': String(payload.body.length),
    ...payload.headers,
  };
  const head = `POST /modeldata/log HTTP/1.1\r\n${Object.entries(headers)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')}\r\n`;
  return sendRaw(port, Buffer.concat([Buffer.from(head, 'latin1'), payload.body]), timeoutMs);
}

/** Sends bytes as they are and reads one answer. */
export function sendRaw(port: number, bytes: Buffer, timeoutMs = 30_000): Promise<SdkAnswer> {
  return new Promise((resolve) => {
    let text = '';
    const socket = connect({ port, host: '127.0.0.1' });
    const done = (answer: SdkAnswer) => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(timeoutMs, () => done({ status: 0, body: 'timeout' }));
    socket.on('connect', () => socket.write(bytes));
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      const answer = parse(text);
      if (answer !== undefined) done(answer);
    });
    socket.on('error', (error) => done({ status: 0, body: error.message }));
    socket.on('close', () => done({ status: 0, body: text }));
  });
}

function parse(text: string): SdkAnswer | undefined {
  const end = text.indexOf('\r\n\r\n');
  if (end < 0) return undefined;
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? 0);
  const length = Number(/\r\ncontent-length: (\d+)/i.exec(text.slice(0, end + 2))?.[1] ?? 0);
  const body = text.slice(end + 4);
  return status >= 200 && body.length >= length ? { status, body: body.slice(0, length) } : undefined;
}
