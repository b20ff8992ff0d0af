/** Bytes of one body read in one turn of the event loop: Node by itself reads up to 2 MiB, and all others wait for it. */
const TURN_BYTES = 65_536;

/** What is held back: a request. */
interface Pausable {
  pause(): unknown;
  resume(): unknown;
}

/** Holds a sender back while there is a reason to: its body has had its turn, or the disk is slower than the sender. */
export class ReadGate {
  readonly #request: Pausable;
  #holds = 0;
  #turnBytes = 0;

  constructor(request: Pausable) {
    this.#request = request;
  }

  /** Nothing more is read until `release`; reasons add up. */
  hold(): void {
    this.#holds += 1;
    if (this.#holds === 1) this.#request.pause();
  }

  /** Ends one `hold`. */
  release(): void {
    this.#holds -= 1;
    if (this.#holds === 0) this.#request.resume();
  }

  /** Counts bytes just read; when they are enough for a turn, the rest waits until others had theirs. */
  count(bytes: number): void {
    this.#turnBytes += bytes;
    if (this.#turnBytes < TURN_BYTES) return;
    this.#turnBytes = Number.NEGATIVE_INFINITY;
    this.hold();
    setImmediate(() => {
      this.#turnBytes = 0;
      this.release();
    });
  }
}
