import { resolveSettings, type Settings } from './configuration.ts';
import { BasicCorrelationContext, type CorrelationContext } from './context.ts';
import { CollectorError, errorText } from './errors.ts';
import type { CollectorOptions, FlushOptions, FlushResult } from './options.ts';
import { idText } from './pack.ts';
import { registry } from './registry.ts';
import { sampledRate, samplePoint } from './sampling.ts';
import type { Stream, Transport } from './transport.ts';

/** A collector that can record: where its records go and under which number. */
interface Line {
  readonly transport: Transport;
  readonly stream: Stream;
  readonly envelope: number;
  readonly rate: number;
}

const NOTHING: FlushResult = {
  accepted: 0,
  sent: 0,
  pending: 0,
  sampled: 0,
  dropped: { queue_full: 0, rejected: 0, deadline: 0, too_large: 0, worker_failed: 0 },
};

/**
 * Records what goes into a model or comes out of it, into one collection. `collect()` copies the data and returns; a
 * thread of its own sends it to the agent.
 */
export class Collector {
  /** The collection, as given. */
  readonly name: string;
  readonly #onError: ((error: CollectorError) => void) | undefined;
  #line: Line | undefined;
  /** Why nothing is recorded. */
  #refusal: CollectorError | undefined;

  /** Throws, or passes to `onError`: `name_missing`, `not_configured`, `collection_disabled`, `collection_unknown`, … */
  constructor(options: CollectorOptions) {
    const given = (options ?? {}) as CollectorOptions;
    this.name = given.name;
    this.#onError = given.onError;
    try {
      this.#line = this.#open(resolveSettings(given));
    } catch (error) {
      this.#refusal = this.#fail(error);
    }
  }

  /**
   * Records the data. Returns the context given, or a new one; pass it on so that outputs get the id of their inputs.
   * Data left out by sampling is no failure.
   */
  collect(data: unknown, context?: CorrelationContext): CorrelationContext {
    const used = context === undefined || context === null ? BasicCorrelationContext.generate() : context;
    const line = this.#line;
    if (line === undefined) {
      this.#fail(this.#refusal);
      return used;
    }
    try {
      if (context !== undefined && context !== null) checkContext(used);
      if (line.rate < 1 && pointOf(used) >= line.rate) {
        line.transport.leaveOut(line.stream);
        return used;
      }
      line.transport.record(line.stream, line.envelope, data, used);
    } catch (error) {
      if (error instanceof CollectorError && error.code === 'queue_full') line.stream.queueFull++;
      this.#fail(error);
    }
    return used;
  }

  /** Waits until the records of this collection are sent or dropped, and tells what became of them. Never rejects. */
  async flush(options: FlushOptions = {}): Promise<FlushResult> {
    const line = this.#line;
    if (line === undefined) return NOTHING;
    await line.transport.flush(options.timeoutMs ?? line.transport.flushTimeoutMs ?? 5000);
    return line.transport.result(line.stream);
  }

  /** Flushes and ends this collector: `collect()` fails with `collector_closed` from now on. */
  async close(options: FlushOptions = {}): Promise<FlushResult> {
    const flushed = this.flush(options);
    if (this.#line !== undefined) this.#refusal = new CollectorError('collector_closed', { name: this.name });
    this.#line = undefined;
    return flushed;
  }

  #open(settings: Settings): Line {
    if (settings.refusal !== undefined) throw settings.refusal;
    const transport = registry().transport(settings);
    const stream = transport.stream(settings.name);
    const { samplingRate: rate, source, modelVersion } = settings;
    const { slot, collection } = stream;
    const envelope = transport.envelope({ collection, slot, source, modelVersion, sampledRate: sampledRate(rate) });
    if (this.#onError !== undefined) transport.listen(stream, this.#report);
    return { transport, stream, envelope, rate };
  }

  #fail(cause: unknown): CollectorError {
    const error =
      cause instanceof CollectorError
        ? cause
        : new CollectorError('data_unreadable', { detail: errorText(cause) }, { cause });
    if (this.#onError === undefined) throw error;
    this.#report(error);
    return error;
  }

  /** Calls `onError`. What it throws must not reach the scoring code that asked for no exceptions. */
  readonly #report = (error: CollectorError): void => {
    try {
      this.#onError?.(error);
    } catch (thrown) {
      registry().log.failure(`onError ${this.name} ${error.code}`, error);
      registry().log.failure(
        `onError threw ${this.name}`,
        new CollectorError('on_error_threw', { name: this.name, detail: errorText(thrown) }),
      );
    }
  };
}

/** Waits until the records of every collector of this thread are sent or dropped. Never rejects. */
export async function flush(options: FlushOptions = {}): Promise<FlushResult> {
  return registry().flush(options.timeoutMs);
}

function pointOf(context: CorrelationContext): number {
  return BasicCorrelationContext.is(context)
    ? BasicCorrelationContext.point(context)
    : samplePoint(idText(context) ?? '');
}

function checkContext(context: CorrelationContext): void {
  if (BasicCorrelationContext.is(context)) return;
  for (const method of ['getId', 'getTimestamp', 'getHeaders'] as const) {
    if (typeof context[method] !== 'function') {
      throw new CollectorError('context_invalid', { detail: `it has no ${method}()` });
    }
  }
}
