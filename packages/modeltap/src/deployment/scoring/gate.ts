/** What a queue waits for, and how many may wait for how long. */
export interface QueueOptions {
  /** True while one more may enter. Whoever is told to enter takes the room before the call returns. */
  readonly hasRoom: () => boolean;
  readonly maxWaiting: number;
  readonly maxWaitMs: number;
}

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

/** A bounded first-come-first-served queue before something that has room at times. */
export interface Queue {
  /**
   * Calls `tell` with true once there is room (at once when there is room now), or with false when the queue is full
   * or the wait was too long. The returned function leaves the queue without a call; it does nothing afterwards.
   */
  enter(tell: (entered: boolean) => void): () => void;
  /** Lets in as many as there is room for. Call it whenever there may be more room than before. */
  look(): void;
  readonly waiting: number;
}

/** A queue before a bounded number of running calls. */
export interface Gate {
  /** As that of a queue. Whoever entered must call `leave` exactly once. */
  enter(tell: (entered: boolean) => void): () => void;
  leave(): void;
  readonly running: number;
  readonly waiting: number;
}

/** Makes a queue. A wait of 0 ms refuses at once when there is no room. */
export function createQueue(options: QueueOptions): Queue {
  const queue = new Set<Waiter>();
  return {
    enter(tell) {
      if (queue.size === 0 && options.hasRoom()) {
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
    look() {
      for (const waiter of queue) {
        if (!options.hasRoom()) return;
        queue.delete(waiter);
        clearTimeout(waiter.timer);
        waiter.tell(true);
      }
    },
    get waiting() {
      return queue.size;
    },
  };
}

/** Makes a gate. A wait of 0 ms refuses at once when there is no room. */
export function createGate({ maxRunning, maxWaiting, maxWaitMs }: GateOptions): Gate {
  let running = 0;
  const queue = createQueue({ hasRoom: () => running < maxRunning, maxWaiting, maxWaitMs });
  return {
    enter: (tell) =>
      queue.enter((entered) => {
        if (entered) running += 1;
        tell(entered);
      }),
    leave() {
      running -= 1;
      queue.look();
    },
    get running() {
      return running;
    },
    get waiting() {
      return queue.waiting;
    },
  };
}
