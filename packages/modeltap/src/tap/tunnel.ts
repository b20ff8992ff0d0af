import { connect, type Socket } from 'node:net';
import { systemCode } from '../kit/errors.ts';
import { ConnectionWatch, type WatchParts } from './watch.ts';

/** How long a connection whose server cannot be reached waits for a request, so that the failure is captured with it. */
const REFUSED_GRACE_MS = 100;
/** How long what was received before a reset may take to be passed on before the reset is. */
const FLUSH_MS = 2000;

/** What a tunnel is made of. */
export interface TunnelParts extends WatchParts {
  readonly upstream: { readonly host: string; readonly port: number };
  readonly closed: (tunnel: Tunnel) => void;
}

interface Fault {
  readonly side: 'client' | 'upstream';
  readonly code: string;
}

/**
 * One connection of a client and the one to the server that belongs to it. Bytes pass at once, in order and as they are,
 * and no faster than they are taken; ends and resets pass too. What the watch makes of them changes nothing here.
 */
export class Tunnel {
  readonly #parts: TunnelParts;
  readonly #client: Socket;
  readonly #upstream: Socket;
  readonly #watch: ConnectionWatch;
  #fault: Fault | undefined;
  #firstEnd: Fault['side'] | undefined;
  #open = 2;

  constructor(client: Socket, parts: TunnelParts) {
    this.#parts = parts;
    this.#client = client;
    this.#watch = new ConnectionWatch(parts);
    this.#upstream = connect({ ...parts.upstream, allowHalfOpen: true, noDelay: true });
    this.#wireClient();
    this.#wireUpstream();
  }

  /** A request is under way, or it is not known whether one is. */
  get busy(): boolean {
    return this.#watch.busy;
  }

  /** Ends an idle connection as a server that stops would. */
  end(): void {
    this.#client.end();
    this.#upstream.end();
  }

  /** Cuts the connection; what is under way is lost. */
  destroy(): void {
    this.#watch.abandon();
    this.#client.destroy();
    this.#upstream.destroy();
  }

  #wireClient(): void {
    const client = this.#client;
    const upstream = this.#upstream;
    client.on('data', (bytes: Buffer) => {
      const out = this.#watch.request(bytes);
      if (out.length > 0 && upstream.writable && !upstream.write(out)) client.pause();
    });
    client.on('drain', () => upstream.resume());
    client.on('end', () => {
      this.#firstEnd ??= 'client';
      endWith(upstream, this.#watch.requestsEnded());
    });
    client.on('error', (error) => {
      this.#fail({ side: 'client', code: systemCode(error) ?? 'error' });
      passReset(client, upstream);
    });
    client.on('close', () => this.#gone(upstream));
  }

  #wireUpstream(): void {
    const client = this.#client;
    const upstream = this.#upstream;
    upstream.on('data', (bytes: Buffer) => {
      const out = this.#watch.response(bytes);
      if (out.length > 0 && client.writable && !client.write(out)) upstream.pause();
    });
    upstream.on('drain', () => client.resume());
    upstream.on('end', () => {
      this.#firstEnd ??= 'upstream';
      endWith(client, this.#watch.responsesEnded());
    });
    upstream.on('error', (error) => {
      this.#fail({ side: 'upstream', code: systemCode(error) ?? 'error' });
      if (upstream.bytesRead === 0 && !this.#watch.hasRequest) this.#waitForRequest();
      else passReset(upstream, client);
    });
    upstream.on('close', () => this.#gone(client));
  }

  /** The server cannot be reached: the client is cut off as soon as its request is known, or soon. */
  #waitForRequest(): void {
    const client = this.#client;
    const cut = () => {
      clearTimeout(timer);
      if (!client.destroyed) client.resetAndDestroy();
    };
    const timer = setTimeout(cut, REFUSED_GRACE_MS);
    timer.unref();
    client.on('data', () => {
      if (this.#watch.hasRequest) cut();
    });
    client.on('close', () => clearTimeout(timer));
    client.resume();
  }

  #fail(fault: Fault): void {
    this.#fault ??= fault;
  }

  /** One of the two sockets is closed. */
  #gone(other: Socket): void {
    this.#open -= 1;
    if (this.#open > 0) {
      // Closed after both ends: the other follows by itself. Otherwise nobody would ever end it.
      if (!other.destroyed && other.readableEnded) other.end();
      return;
    }
    const side = this.#firstEnd ?? 'upstream';
    this.#watch.close(this.#fault ?? { side, code: 'closed' });
    this.#parts.closed(this);
  }
}

/** Passes an end on, behind what was held back. */
function endWith(socket: Socket, held: Buffer | undefined): void {
  if (held !== undefined && socket.writable) socket.write(held);
  socket.end();
}

/** Passes a reset on, behind what was received before it. */
function passReset(from: Socket, to: Socket): void {
  if (to.destroyed) return;
  const reset = () => {
    if (to.destroyed) return;
    // A reset of a connection that is not open yet would wait for it.
    if (to.connecting) to.destroy();
    else to.resetAndDestroy();
  };
  if (to.writableLength === 0 || to.connecting || from.connecting) {
    reset();
    return;
  }
  const timer = setTimeout(reset, FLUSH_MS);
  timer.unref();
  to.once('close', () => clearTimeout(timer));
  const flushed = () => {
    if (to.writableLength === 0) reset();
    else to.once('drain', flushed);
  };
  to.once('drain', flushed);
}
