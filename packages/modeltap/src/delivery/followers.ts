import type { CollectionName } from './ledger-table.ts';
import type { CollectionFilter } from './messages.ts';

/** Most bytes of lines on their way to one subscriber; beyond it lines are left out and counted. */
const MAX_UNDERWAY_BYTES = 1024 * 1024;
/** Most subscribers at a time. */
export const MAX_FOLLOWERS = 100;

interface Follower {
  readonly filter: CollectionFilter;
  lines: string[];
  /** Bytes of `lines`, and of those sent and not yet taken. */
  queued: number;
  underway: number;
  missed: number;
}

function wants(filter: CollectionFilter, name: CollectionName): boolean {
  return (
    (filter.endpoint ?? name.endpoint) === name.endpoint &&
    (filter.deployment ?? name.deployment) === name.deployment &&
    (filter.collection ?? name.collection) === name.collection
  );
}

/** Those who follow collections, in the delivery thread. A slow one loses lines of its own and holds up nobody. */
export class Followers {
  readonly #followers = new Map<number, Follower>();
  readonly #send: (id: number, lines: readonly string[], bytes: number, missed: number) => void;

  constructor(send: (id: number, lines: readonly string[], bytes: number, missed: number) => void) {
    this.#send = send;
  }

  get some(): boolean {
    return this.#followers.size > 0;
  }

  add(id: number, filter: CollectionFilter): void {
    this.#followers.set(id, { filter, lines: [], queued: 0, underway: 0, missed: 0 });
  }

  remove(id: number): void {
    this.#followers.delete(id);
  }

  /** Takes one stored line, with its line feed, for whoever wants it. */
  line(name: CollectionName, line: Buffer): void {
    for (const follower of this.#followers.values()) {
      if (!wants(follower.filter, name)) continue;
      if (follower.queued + follower.underway + line.length > MAX_UNDERWAY_BYTES) follower.missed += 1;
      else {
        follower.lines.push(line.toString('utf8', 0, line.length - 1));
        follower.queued += line.length;
      }
    }
  }

  /** Sends what has gathered: called after each cycle. */
  flush(): void {
    for (const [id, follower] of this.#followers) {
      if (follower.lines.length === 0 && follower.missed === 0) continue;
      const { lines, queued, missed } = follower;
      follower.underway += queued;
      follower.lines = [];
      follower.queued = 0;
      follower.missed = 0;
      this.#send(id, lines, queued, missed);
    }
  }

  /** The subscriber took this much of what was sent. */
  took(id: number, bytes: number): void {
    const follower = this.#followers.get(id);
    if (follower) follower.underway -= bytes;
  }
}
