/** The right to send one request to a port on loopback. */
export interface RouterLease {
  readonly port: number;
  /** True: the instance finishes what it has begun also when the client has gone; it is not free before. Default false. */
  readonly finishes?: boolean;
  release(): void;
}

/** How to choose an instance. */
export interface RouterAcquireOptions {
  /** Preferably another than this one. */
  readonly avoid?: RouterLease;
  /** Aborts when the request is no longer wanted. */
  readonly signal: AbortSignal;
}

/**
 * An instance to send one request to; undefined when none is ready now. A promise when the request has to wait for room;
 * it may reject with the error to answer.
 */
export type RouterAcquire = (
  endpoint: string,
  deployment: string,
  options: RouterAcquireOptions,
) => RouterLease | undefined | Promise<RouterLease | undefined>;
