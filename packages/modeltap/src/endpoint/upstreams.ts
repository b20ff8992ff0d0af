import { Pool } from 'undici';

/** Keep-alive connections to instances, one pool a port. */
export interface Upstreams {
  pool(port: number): Pool;
  /** Closes the pools of instances that have gone: those without a connection or a request. */
  sweep(): void;
  close(): Promise<void>;
}

/** Instances whose pools are kept before unused ones are swept. */
const KEPT = 32;

/** Makes an empty set of pools of at most `connections` sockets each. */
export function createUpstreams(connections = 256): Upstreams {
  const pools = new Map<number, Pool>();
  const sweep = () => {
    for (const [port, pool] of pools) {
      const { connected, pending, running, queued } = pool.stats;
      if (connected + pending + running + queued > 0) continue;
      pools.delete(port);
      void pool.close();
    }
  };
  return {
    pool(port) {
      const found = pools.get(port);
      if (found !== undefined) return found;
      if (pools.size >= KEPT) sweep();
      const pool = new Pool(`http://127.0.0.1:${port}`, {
        connections,
        pipelining: 1,
        // The router has its own limit up to the head of an answer; a body may pause as long as a model thinks.
        headersTimeout: 0,
        bodyTimeout: 600_000,
        keepAliveTimeout: 30_000,
        connect: { timeout: 5000 },
      });
      pools.set(port, pool);
      return pool;
    },
    sweep,
    async close() {
      const all = [...pools.values()];
      pools.clear();
      await Promise.all(all.map((pool) => pool.destroy()));
    },
  };
}
