import { X509Certificate } from 'node:crypto';
import { readFileSync, unwatchFile, watchFile } from 'node:fs';
import type { Server } from 'node:https';
import { createSecureContext } from 'node:tls';
import { errorText, ModeltapError, systemCode } from '../kit/errors.ts';
import type { Logger } from '../kit/logger.ts';

/** Where the certificate comes from. */
export interface TlsFilesOptions {
  /** PEM: the certificate, then the chain that leads to its issuer. */
  readonly cert: string;
  /** PEM, not encrypted. */
  readonly key: string;
  readonly logger: Logger;
  /** How often the files are looked at. Default 2000 ms. */
  readonly lookEveryMs?: number;
}

const LOOK_EVERY_MS = 2_000;

/**
 * A certificate and its key, read from files, and read again when one of them changes or on demand. While the two do not
 * fit together, as for a moment when they are replaced one by one, the ones before stay in use.
 */
export class TlsFiles {
  readonly #options: TlsFilesOptions;
  readonly #servers = new Set<Server>();
  readonly #listeners: (() => void)[] = [];
  #current: Pair;

  /** Throws `file_unreadable` or `tls_unusable`. */
  constructor(options: TlsFilesOptions) {
    this.#options = options;
    this.#current = readPair(options);
    warnOfEnd(this.#current, options);
    for (const file of [options.cert, options.key]) {
      watchFile(file, { interval: options.lookEveryMs ?? LOOK_EVERY_MS, persistent: false }, this.reload);
    }
  }

  /** For `tls.createServer`. */
  get secure(): { readonly cert: string; readonly key: string } {
    return { cert: this.#current.cert, key: this.#current.key };
  }

  /** The certificate that is served, PEM, without its chain. */
  get certificate(): string {
    return this.#current.leaf.toString();
  }

  /** A server gets every new certificate; connections there are go on with the old one. */
  follow(server: Server): void {
    this.#servers.add(server);
  }

  /** Called after each new certificate. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** Reads the files again. What is wrong with them is logged, and nothing changes. */
  readonly reload = (): void => {
    try {
      const pair = readPair(this.#options);
      if (pair.cert === this.#current.cert && pair.key === this.#current.key) return;
      for (const server of this.#servers) server.setSecureContext({ cert: pair.cert, key: pair.key });
      this.#current = pair;
      this.#options.logger.info({ until: pair.leaf.validTo }, 'a new TLS certificate is in use');
      warnOfEnd(pair, this.#options);
      for (const tell of this.#listeners) tell();
    } catch (error) {
      this.#options.logger.warn({ error: errorText(error) }, 'the TLS files were not taken; those before stay in use');
    }
  };

  /** Stops looking at the files. */
  close(): void {
    for (const file of [this.#options.cert, this.#options.key]) unwatchFile(file, this.reload);
  }
}

interface Pair {
  readonly cert: string;
  readonly key: string;
  readonly leaf: X509Certificate;
}

function readPair({ cert: certFile, key: keyFile }: TlsFilesOptions): Pair {
  const cert = readPem(certFile);
  const key = readPem(keyFile);
  try {
    const leaf = new X509Certificate(cert);
    createSecureContext({ cert, key });
    return { cert, key, leaf };
  } catch (cause) {
    const detail = errorText(cause).replace(/^error:[0-9A-F]+:/, '');
    throw new ModeltapError('tls_unusable', { cert: certFile, key: keyFile, detail }, { cause });
  }
}

function readPem(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new ModeltapError('file_unreadable', { file, detail: systemCode(cause) ?? errorText(cause) }, { cause });
  }
}

function warnOfEnd({ leaf }: Pair, { cert, logger }: TlsFilesOptions): void {
  const now = Date.now();
  if (now > leaf.validToDate.getTime()) logger.warn({ cert, until: leaf.validTo }, 'the TLS certificate has expired');
  else if (now < leaf.validFromDate.getTime()) logger.warn({ cert }, 'the TLS certificate is not valid yet');
}
