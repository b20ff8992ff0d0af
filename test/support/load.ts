import { randomUUID } from 'node:crypto';
import { sendAsSdk } from './raw-client.ts';

export interface LoadOptions {
  readonly port: number;
  readonly random: () => number;
  /** Clients at work at the same time. Default 8. */
  readonly clients?: number;
}

/**
 * Load on an agent, with an oracle: every row carries a number of its own; `sent` has all that ever left, `acknowledged`
 * those with a 2xx. Most clients behave as the Python SDK (no retry); one sends CloudEvents batches and repeats a batch
 * with the same ids until it is acknowledged, as our SDK does over a restart of the agent.
 */
export class Load {
  readonly sent = new Set<string>();
  readonly acknowledged = new Set<string>();
  readonly #options: Required<LoadOptions>;
  #running = false;
  #next = 0;
  #work: Promise<void>[] = [];
  #unsure: { body: Buffer; numbers: string[] } | undefined;

  constructor(options: LoadOptions) {
    this.#options = { clients: 8, ...options };
  }

  start(): void {
    this.#running = true;
    this.#work = Array.from({ length: this.#options.clients }, () => this.#client());
    this.#work.push(this.#batchClient());
  }

  /** Stops sending and waits for what is under way. A batch without an answer is sent again by the next `start`. */
  async pause(): Promise<void> {
    this.#running = false;
    await Promise.all(this.#work);
  }

  stop(): void {
    this.#running = false;
  }

  /** Waits for what is under way and sends the last unsure batch until it is acknowledged. */
  async finish(): Promise<void> {
    await Promise.all(this.#work);
    while (this.#unsure !== undefined) await this.#postBatch(this.#unsure);
  }

  #numbers(count: number): string[] {
    return Array.from({ length: count }, () => {
      this.#next += 1;
      const n = `n${this.#next}`;
      this.sent.add(n);
      return n;
    });
  }

  async #client(): Promise<void> {
    const { random, port } = this.#options;
    while (this.#running) {
      const numbers = this.#numbers(1 + Math.floor(random() * 3));
      const filler =
        random() < 0.006
          ? 'x'.repeat(Math.floor((1 + random() * 4) * 1024 ** 2))
          : 'x'.repeat(Math.floor(random() * 1_500));
      const body = Buffer.from(JSON.stringify(numbers.map((n, index) => ({ n, filler: index === 0 ? filler : '' }))));
      const correlationId = random() < 0.3 ? 'shared' : randomUUID();
      const collection = random() < 0.5 ? 'model_inputs' : 'model_outputs';
      const { status } = await sendAsSdk(port, { collection, body, correlationId });
      if (status >= 200 && status < 300) for (const n of numbers) this.acknowledged.add(n);
      else await new Promise((done) => setTimeout(done, 10));
    }
  }

  async #batchClient(): Promise<void> {
    while (this.#running) {
      this.#unsure ??= this.#makeBatch();
      await this.#postBatch(this.#unsure);
    }
  }

  #makeBatch(): { body: Buffer; numbers: string[] } {
    const numbers = this.#numbers(1 + Math.floor(this.#options.random() * 40));
    const time = new Date().toISOString();
    const events = numbers.map((n) => ({
      specversion: '1.0',
      id: randomUUID(),
      source: '/modeltap/collector',
      type: 'azureml.inference.model_inputs',
      datacontenttype: 'application/json',
      time,
      data: [{ n, filler: 'y'.repeat(200) }],
      correlationid: randomUUID(),
    }));
    return { body: Buffer.from(JSON.stringify(events)), numbers };
  }

  async #postBatch(batch: { body: Buffer; numbers: string[] }): Promise<void> {
    try {
      const answer = await fetch(`http://127.0.0.1:${this.#options.port}/v1/events`, {
        method: 'POST',
        headers: { 'content-type': 'application/cloudevents-batch+json' },
        body: new Uint8Array(batch.body),
        signal: AbortSignal.timeout(20_000),
      });
      if (answer.status === 204) {
        for (const n of batch.numbers) this.acknowledged.add(n);
        this.#unsure = undefined;
        return;
      }
      throw new Error(`batch answered ${answer.status}: ${await answer.text()}`);
    } catch (error) {
      if (error instanceof Error && error.message.startsWith('batch answered 4')) throw error;
      await new Promise((done) => setTimeout(done, 20));
    }
  }
}
