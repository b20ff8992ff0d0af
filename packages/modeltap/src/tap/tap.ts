import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { ModeltapError, systemCode } from '../kit/errors.ts';
import { requireLoopback } from '../kit/loopback.ts';
import { Finisher } from './finisher.ts';
import { capturedNames } from './request-headers.ts';
import { Tunnel } from './tunnel.ts';
import type { TapOptions, TapSettings } from './types.ts';

/** A running tap: it listens, passes on, and captures. */
export interface Tap {
  readonly address: { readonly host: string; readonly port: number };
  /** Open connections of clients. */
  readonly connections: number;
  /** Uses these settings for exchanges, and this server for connections, that begin from now on. */
  update(settings: TapSettings): void;
  /** Resolves when everything captured so far is on disk or counted as lost. */
  settled(): Promise<void>;
  /** Stops accepting, ends idle connections, waits for exchanges under way until the deadline, then cuts. Resolves when all captured records are on disk or counted as lost. */
  close(deadlineMs: number): Promise<void>;
}

/** Opens a tap. `port_in_use`, `address_not_loopback`. */
export async function openTap(options: TapOptions): Promise<Tap> {
  const tap = new RunningTap(options);
  await tap.listen();
  return tap;
}

class RunningTap implements Tap {
  readonly #options: TapOptions;
  readonly #server: Server;
  readonly #tunnels = new Set<Tunnel>();
  readonly #finisher: Finisher;
  #settings: TapSettings;
  #closing = false;
  #onClosed: (() => void) | undefined;

  constructor(options: TapOptions) {
    this.#options = options;
    this.#settings = allowed(options.settings);
    const { scanner, budget, metrics } = options;
    this.#finisher = new Finisher({ scanner, budget }, metrics);
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.#accept(socket));
    this.#server.maxConnections = options.settings.limits.maxConnections;
  }

  get address(): { readonly host: string; readonly port: number } {
    const bound = this.#server.address() as AddressInfo | null;
    return { host: this.#options.listen.host, port: bound?.port ?? this.#options.listen.port };
  }

  get connections(): number {
    return this.#tunnels.size;
  }

  async listen(): Promise<void> {
    const { host, port } = this.#options.listen;
    requireLoopback(host);
    await new Promise<void>((done, failed) => {
      const onError = (error: Error) => {
        const busy = systemCode(error) === 'EADDRINUSE';
        failed(busy ? new ModeltapError('port_in_use', { host, port, option: '--port' }, { cause: error }) : error);
      };
      this.#server.once('error', onError);
      this.#server.listen({ host: host.replace(/^\[|\]$/g, ''), port, backlog: 1024 }, () => {
        this.#server.off('error', onError);
        this.#server.on('error', (error) => this.#options.logger.error({ error: error.message }, 'the tap failed'));
        done();
      });
    });
  }

  update(settings: TapSettings): void {
    this.#settings = allowed(settings);
    this.#server.maxConnections = settings.limits.maxConnections;
  }

  settled(): Promise<void> {
    return this.#finisher.idle();
  }

  async close(deadlineMs: number): Promise<void> {
    if (!this.#closing) {
      this.#closing = true;
      this.#server.close();
    }
    for (const tunnel of this.#tunnels) if (!tunnel.busy) tunnel.end();
    if (this.#tunnels.size > 0) await this.#untilClosed(deadlineMs);
    await this.#finisher.idle();
  }

  async #untilClosed(deadlineMs: number): Promise<void> {
    const gone = new Promise<void>((done) => {
      this.#onClosed = done;
    });
    const idle = setInterval(() => {
      for (const tunnel of this.#tunnels) if (!tunnel.busy) tunnel.end();
    }, 50);
    const cut = setTimeout(() => {
      for (const tunnel of this.#tunnels) tunnel.destroy();
    }, deadlineMs);
    await gone;
    clearInterval(idle);
    clearTimeout(cut);
  }

  #accept(socket: Socket): void {
    const { budget, scanner, metrics } = this.#options;
    const tunnel = new Tunnel(socket, {
      upstream: this.#settings.upstream,
      settings: () => this.#settings,
      budget,
      scanner,
      begun: () => metrics.exchange(),
      over: (exchange) => this.#finisher.add(exchange),
      uncaptured: (reason) => metrics.lost(reason),
      closed: (gone) => this.#gone(gone),
    });
    this.#tunnels.add(tunnel);
  }

  #gone(tunnel: Tunnel): void {
    this.#tunnels.delete(tunnel);
    if (this.#tunnels.size === 0) this.#onClosed?.();
  }
}

/** The settings with the names of headers that may be stored. */
function allowed(settings: TapSettings): TapSettings {
  return { ...settings, captureHeaders: capturedNames(settings.captureHeaders, settings.captureSecretHeaders) };
}
