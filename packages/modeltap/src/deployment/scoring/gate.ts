/** How many may run at once, and how many may wait for how long. */
export interface GateOptions {
  readonly maxRunning: number;
  readonly maxWaiting: number;
  readonly maxWaitMs: number;
}

interface Waiter {
  readonly tell: (entered: boolean) => void;
  readonly timer: NodeJS.Timeout;
}

/** A bounded first-come-first-served queue before a bounded number of running calls. */
export interface Gate {
  /**
   * Calls `tell` with true once there is room (at once when there is room now), or with false when the queue is full
   * or the wait was too long. The returned function leaves the queue without a call; it does nothing afterwards.
   * Whoever entered must call `leave` exactly once.
   */
  enter(tell: (entered: boolean) => void): () => void;
  leave(): void;
  readonly running: number;
  readonly waiting: number;
}

/** Makes a gate. A wait of 0 ms refuses at once when there is no room. */
export function createGate(options: GateOptions): Gate {
  const queue = new Set<Waiter>();
  let running = 0;
  return {
    enter(tell) {
      if (running < options.maxRunning) {
        running += 1;
        tell(true);
        return () => undefined;
      }
      if (queue.size >= options.maxWaiting || options.maxWaitMs <= 0) {
        tell(false);
        return () => undefined;
      }
      const timer = setTimeout(() => {
        if (queue.delete(waiter)) tell(false);
      }, options.maxWaitMs);
      const waiter: Waiter = { tell, timer };
      queue.add(waiter);
      return () => {
        if (queue.delete(waiter)) clearTimeout(timer);
      };
    },
    leave() {
      const [next] = queue;
      if (next === undefined) {
        running -= 1;
        return;
      }
      queue.delete(next);
      clearTimeout(next.timer);
      next.tell(true);
    },
    get running() {
      return running;
    },
    get waiting() {
      return queue.size;
    },
  };
}
