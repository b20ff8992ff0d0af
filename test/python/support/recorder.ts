import { connect, createServer, type Socket } from 'node:net';
import { setTimeout as wait } from 'node:timers/promises';

/** What came over one connection, as it was on the wire. */
export interface Recording {
  /** Request line and headers, read as Latin-1, without the empty line. */
  readonly head: string;
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
  /** Everything behind the head. */
  readonly body: Buffer;
  /** Status of the answer that went back; 0 when there was none. */
  readonly status: number;
}

/** A proxy that changes nothing and keeps what the client sent. */
export interface Recorder {
  readonly port: number;
  /** Finished connections, in the order in which they began. Takes them: the next call gives later ones only. */
  take(): Promise<readonly Recording[]>;
  stop(): Promise<void>;
}

interface Tap {
  readonly sent: Buffer[];
  answer: string;
  open: boolean;
}

/**
 * Listens on loopback and passes bytes both ways between each client and `targetPort`. It knows nothing of HTTP while it
 * does, so what the agent gets is what the SDK sent, and a target that is gone looks gone.
 */
export async function startRecorder(targetPort: () => number): Promise<Recorder> {
  const taps: Tap[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const tap: Tap = { sent: [], answer: '', open: true };
    taps.push(tap);
    const target = connect({ port: targetPort(), host: '127.0.0.1' });
    for (const socket of [client, target]) {
      sockets.add(socket);
      socket.on('error', () => socket.destroy());
      socket.once('close', () => sockets.delete(socket));
    }
    client.on('data', (chunk: Buffer) => tap.sent.push(chunk));
    target.on('data', (chunk: Buffer) => {
      if (tap.answer.length < 64) tap.answer += chunk.toString('latin1').slice(0, 64);
    });
    client.pipe(target).pipe(client);
    target.once('close', () => client.destroy());
    client.once('close', () => {
      target.destroy();
      tap.open = false;
    });
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    take: async () => {
      for (let tries = 0; taps.some(({ open }) => open); tries += 1) {
        if (tries > 600) throw new Error('a connection of the SDK stayed open');
        await wait(10);
      }
      return taps.splice(0).map(readTap);
    },
    stop: () =>
      new Promise((done) => {
        server.close(() => done());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

function readTap(tap: Tap): Recording {
  const bytes = Buffer.concat(tap.sent);
  const end = bytes.indexOf('\r\n\r\n');
  const head = bytes.toString('latin1', 0, Math.max(0, end));
  const headers = new Map(
    head
      .split('\r\n')
      .slice(1)
      .map((line): [string, string] => {
        const colon = line.indexOf(':');
        return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).replace(/^ /, '')];
      }),
  );
  return {
    head,
    headers,
    body: bytes.subarray(end + 4),
    status: Number(/^HTTP\/1\.1 (\d{3})/.exec(tap.answer)?.[1] ?? 0),
  };
}
