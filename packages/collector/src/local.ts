import { writeSync } from 'node:fs';
import { eventTime } from './event.ts';
import type { Inbox } from './inbox.ts';
import type { Ledger } from './ledger.ts';

const STDOUT = 1;
const BUSY_PAUSE_MS = 5;
/** Records printed at a time. */
const AT_ONCE = { maxBytes: 1_048_576, maxEvents: 500 };

/**
 * `runMode: local`: prints records instead of sending them, as the Python SDK does: time, collection, correlation id and
 * data, with ` | ` between them, one line a record.
 */
export class LocalCapture {
  readonly #inbox: Inbox;
  readonly #ledger: Ledger;
  readonly #flushed: (token: number) => void;
  deadlineMs = 0;

  constructor(inbox: Inbox, ledger: Ledger, flushed: (token: number) => void) {
    this.#inbox = inbox;
    this.#ledger = ledger;
    this.#flushed = flushed;
  }

  added(): void {
    while (!this.#inbox.empty) {
      for (const entry of this.#inbox.take(AT_ONCE, () => false)) {
        const { head, envelope, collectedMs } = entry;
        const time = eventTime(head.time, collectedMs);
        const line = `${time} | ${envelope.collection} | ${head.correlationId ?? ''} | `;
        write(Buffer.concat([Buffer.from(line), this.#inbox.data(entry), Buffer.of(0x0a)]));
        this.#ledger.release(envelope.slot, 'sent', 1, head.bytes);
      }
    }
  }

  flush(token: number): void {
    this.#flushed(token);
  }
}

/** Writes all of it to stdout, past the streams of the main thread, which may be blocked or ending. */
function write(line: Buffer): void {
  let at = 0;
  while (at < line.length) {
    try {
      at += writeSync(STDOUT, line, at);
    } catch (error) {
      // A pipe in non-blocking mode whose reader is slow; any other failure leaves no one to tell.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, BUSY_PAUSE_MS);
    }
  }
}
