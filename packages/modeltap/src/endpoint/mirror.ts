import type { Dispatcher, Pool } from 'undici';
import { isModeltapError } from '../kit/errors.ts';
import type { RouterAcquire, RouterLease } from './lease.ts';

/**
 * What became of a copy. `answered`: the deployment answered with a status below 500. `failed`: with another, or the
 * connection broke. `timed_out`: not within its `request_timeout_ms`. `busy`: too many copies on their way, or the
 * deployment has as many requests as it may. `unavailable`: no instance was ready. `too_large`: the body is longer than a
 * copy may be. `client_gone`: the client left before all of the request was there.
 */
export type MirrorOutcome = 'answered' | 'failed' | 'timed_out' | 'busy' | 'unavailable' | 'too_large' | 'client_gone';

/** What copies are sent with. */
export interface MirrorsOptions {
  readonly acquire: RouterAcquire;
  readonly pool: (port: number) => Pool;
  readonly onOutcome: (endpoint: string, deployment: string, outcome: MirrorOutcome) => void;
  /** Copies held in memory or on their way; more are not made. Default 64. */
  readonly maxInFlight?: number;
  /** Longest body that is copied. Default 1 MiB, so at most 64 MiB in all. */
  readonly maxBodyBytes?: number;
}

/** A request to copy. */
export interface MirrorRequest {
  readonly endpoint: string;
  readonly deployment: string;
  readonly method: string;
  readonly path: string;
  readonly headers: string[];
  /** Announced length of the body; undefined when it is not known. */
  readonly bodyBytes: number | undefined;
  readonly timeoutMs: number;
}

/** A copy that is being made. None of its calls throws or waits. */
export interface MirrorCopy {
  /** One more piece of the body, as the instance that answers gets it. */
  add(chunk: Buffer): void;
  /** The body is whole: sends the copy. */
  send(): void;
  /** The body will not be whole. Nothing happens once the copy is sent. */
  cancel(): void;
}

const DEFAULT_IN_FLIGHT = 64;
const DEFAULT_BODY_BYTES = 1024 ** 2;

/** Sends copies of requests to a deployment whose answers nobody gets. Whatever goes wrong with one is only counted. */
export class Mirrors {
  readonly #options: MirrorsOptions;
  readonly #running = new Set<AbortController>();

  constructor(options: MirrorsOptions) {
    this.#options = options;
  }

  /** Begins a copy; undefined when none can be made now. */
  begin(about: MirrorRequest): MirrorCopy | undefined {
    const { maxInFlight = DEFAULT_IN_FLIGHT, maxBodyBytes = DEFAULT_BODY_BYTES } = this.#options;
    const end = (outcome: MirrorOutcome) => this.#options.onOutcome(about.endpoint, about.deployment, outcome);
    const tooLarge = (about.bodyBytes ?? 0) > maxBodyBytes;
    if (tooLarge || this.#running.size >= maxInFlight) {
      end(tooLarge ? 'too_large' : 'busy');
      return undefined;
    }
    const over = new AbortController();
    this.#running.add(over);
    const chunks: Buffer[] = [];
    let bytes = 0;
    let collecting = true;
    const finish = (outcome: MirrorOutcome) => {
      collecting = false;
      chunks.length = 0;
      if (this.#running.delete(over)) end(outcome);
    };
    return {
      add(chunk) {
        if (!collecting) return;
        bytes += chunk.length;
        if (bytes > maxBodyBytes) finish('too_large');
        else chunks.push(chunk);
      },
      send: () => {
        if (!collecting) return;
        collecting = false;
        const [only] = chunks;
        const body = chunks.length === 1 && only !== undefined ? only : Buffer.concat(chunks);
        chunks.length = 0;
        void this.#send(about, body, over).then(finish, () => finish('failed'));
      },
      cancel() {
        if (collecting) finish('client_gone');
      },
    };
  }

  /** Breaks off what is on its way. */
  close(): void {
    for (const over of this.#running) over.abort();
  }

  async #send(about: MirrorRequest, body: Buffer, over: AbortController): Promise<MirrorOutcome> {
    const timer = setTimeout(() => over.abort(), about.timeoutMs);
    let lease: RouterLease | undefined;
    try {
      lease = await this.#options.acquire(about.endpoint, about.deployment, { signal: over.signal });
      if (over.signal.aborted) return 'timed_out';
      if (lease === undefined) return 'unavailable';
      return await this.#dispatch({ about, body, over, lease });
    } catch (error) {
      return isModeltapError(error) && error.code === 'too_many_requests' ? 'busy' : 'failed';
    } finally {
      clearTimeout(timer);
      lease?.release();
    }
  }

  #dispatch(what: {
    about: MirrorRequest;
    body: Buffer;
    over: AbortController;
    lease: RouterLease;
  }): Promise<MirrorOutcome> {
    const { about, body, over, lease } = what;
    let controller: Dispatcher.DispatchController | undefined;
    let status = 0;
    return new Promise((resolve) => {
      over.signal.addEventListener('abort', () => {
        // An instance that goes on with what nobody waits for is not free before it has answered.
        if (!(lease.finishes ?? false) || status > 0) controller?.abort(new DOMException('timed out', 'AbortError'));
      });
      this.#options.pool(lease.port).dispatch(
        {
          method: about.method as Dispatcher.HttpMethod,
          path: about.path,
          headers: about.headers,
          body: body.length === 0 ? null : body,
        },
        {
          onRequestStart(started) {
            controller = started;
            if (over.signal.aborted) started.abort(new DOMException('timed out', 'AbortError'));
          },
          onResponseStart(_controller, code) {
            if (code < 200) return;
            status = code;
            if (over.signal.aborted) controller?.abort(new DOMException('timed out', 'AbortError'));
          },
          onResponseData() {
            // Its answer goes nowhere.
          },
          onResponseEnd() {
            if (over.signal.aborted) resolve('timed_out');
            else resolve(status < 500 ? 'answered' : 'failed');
          },
          onResponseError() {
            resolve(over.signal.aborted ? 'timed_out' : 'failed');
          },
        },
      );
    });
  }
}
