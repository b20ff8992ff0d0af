import type { AgentConfig, TapConfig } from '../config/types.ts';
import { isFault, JsonScan, scanJson } from '../ingest/scan.ts';
import { systemClock } from '../kit/clock.ts';
import type { Counters } from '../kit/counters.ts';
import { ModeltapError } from '../kit/errors.ts';
import type { Logger } from '../kit/logger.ts';
import { openTap, type Tap } from '../tap/tap.ts';
import {
  type BodyScanner,
  createBudget,
  type MemoryBudget,
  type TapMetrics,
  type TapSettings,
  type TapSink,
  tapLimitsOf,
} from '../tap/types.ts';
import { destinationSettings } from './routes.ts';

/** The scanner of ingest, as taps ask for it. */
export const bodyScanner: BodyScanner = {
  whole(body) {
    const facts = scanJson(body);
    return isFault(facts) ? undefined : facts;
  },
  start() {
    const scan = new JsonScan();
    return {
      feed(piece) {
        scan.feed(piece);
      },
      end() {
        const facts = scan.end();
        return isFault(facts) ? undefined : facts;
      },
    };
  },
};

/** What taps need of their agent. */
export interface TapsOptions {
  readonly config: AgentConfig;
  readonly logger: Logger;
  readonly counters: Counters;
  /** Where records of these settings go; their destination is on disk when it resolves. */
  readonly sink: (settings: NonNullable<ReturnType<typeof destinationSettings>>) => Promise<TapSink>;
}

/** A tap with what it belongs to. */
interface OpenTap {
  readonly config: TapConfig;
  readonly tap: Tap;
}

/** The taps of an agent's file. */
export class AgentTaps {
  readonly #options: TapsOptions;
  readonly #budget: MemoryBudget;
  #open: OpenTap[] = [];
  /** Taps that are gone from the file and still have exchanges to end or to store. */
  readonly #leaving = new Set<Promise<void>>();
  #declared = false;

  constructor(options: TapsOptions) {
    this.#options = options;
    this.#budget = createBudget(options.config.maxCaptureBytes);
  }

  /** Where each tap listens, in the order of the file. */
  get addresses(): readonly {
    readonly endpoint: string;
    readonly deployment: string;
    readonly host: string;
    readonly port: number;
    readonly upstream: string;
  }[] {
    return this.#open.map(({ config, tap }) => ({
      endpoint: config.endpointName,
      deployment: config.deploymentName,
      ...tap.address,
      upstream: `http://${config.upstream.host.includes(':') ? `[${config.upstream.host}]` : config.upstream.host}:${config.upstream.port}`,
    }));
  }

  /**
   * Uses this file from now on: opens taps that are new, closes those that are gone when their exchanges have ended, and
   * gives all others their settings. `port_in_use`, `address_not_loopback`; then the taps are as they were before.
   */
  async apply(config: AgentConfig): Promise<void> {
    if (config.taps.length > 0) this.#declareMetrics();
    const next: OpenTap[] = [];
    const opened: OpenTap[] = [];
    try {
      for (const one of config.taps) {
        const settings = await this.#settings(config, one);
        const known = this.#open.find(
          (tap) => isSame(tap.config, one) && !next.some(({ tap: taken }) => taken === tap.tap),
        );
        if (known !== undefined) {
          known.tap.update(settings);
          next.push({ config: one, tap: known.tap });
          continue;
        }
        const tap = await this.#openTap(config, one, settings);
        opened.push({ config: one, tap });
        next.push({ config: one, tap });
      }
    } catch (error) {
      await Promise.all(opened.map(({ tap }) => tap.close(0)));
      throw error;
    }
    const gone = this.#open.filter(({ tap }) => next.every((other) => other.tap !== tap));
    this.#open = next;
    // Their exchanges may go on; nobody has to wait for them.
    for (const { tap } of gone) {
      const left = tap.close(60_000).finally(() => this.#leaving.delete(left));
      this.#leaving.add(left);
    }
  }

  /** Stops accepting, lets exchanges end until the deadline, and stores what was captured, by taps closed before too. */
  async close(deadlineMs: number): Promise<void> {
    const open = this.#open.map(({ tap }) => tap.close(deadlineMs));
    this.#open = [];
    const late = systemClock.sleep(deadlineMs, { unref: true });
    await Promise.all([...open, Promise.race([late, Promise.all(this.#leaving)])]);
  }

  #openTap(config: AgentConfig, { port }: TapConfig, settings: TapSettings): Promise<Tap> {
    const { logger } = this.#options;
    const metrics = this.#metrics();
    const listen = { host: config.host, port };
    return openTap({ listen, settings, budget: this.#budget, scanner: bodyScanner, metrics, logger });
  }

  async #settings(config: AgentConfig, tap: TapConfig): Promise<TapSettings> {
    const deployment = config.deployments.find(
      (one) => one.endpointName === tap.endpointName && one.deploymentName === tap.deploymentName,
    );
    if (deployment === undefined) {
      throw new ModeltapError('tap_deployment_unknown', { endpoint: tap.endpointName, deployment: tap.deploymentName });
    }
    const sink = async (collection: string) => {
      const settings = destinationSettings(deployment, collection);
      // An exchange is an event of its own, however close the next one is.
      return settings && this.#options.sink({ ...settings, batch: 'off' });
    };
    const { memoryBytes, maxBodyBytes, maxDecodedBytes } = tap;
    return {
      upstream: tap.upstream,
      request: await sink('request'),
      response: await sink('response'),
      paths: tap.paths,
      samplingRate: deployment.dataCollector.samplingRate,
      errorRate: tap.errorRate,
      captureHeaders: deployment.dataCollector.captureHeaders,
      captureSecretHeaders: tap.captureSecretHeaders,
      requestId: tap.requestId,
      limits: tapLimitsOf({ memoryBytes, maxBodyBytes, maxDecodedBytes, inlineBytes: config.inlineBytes }),
    };
  }

  #metrics(): TapMetrics {
    const { counters } = this.#options;
    const exchanges = counters.counter('modeltap_tap_exchanges_total', 'HTTP exchanges seen by taps.');
    const lost = counters.counter(
      'modeltap_tap_not_captured_total',
      'Exchanges, or the rest of connections, that passed and were not captured, by reason.',
      ['reason'],
    );
    return { exchange: () => exchanges.inc(), lost: (reason) => lost.inc({ reason }) };
  }

  #declareMetrics(): void {
    if (this.#declared) return;
    this.#declared = true;
    const { counters } = this.#options;
    this.#metrics();
    counters.gauge('modeltap_tap_connections', 'Connections of clients through taps.', ['endpoint', 'deployment'], () =>
      this.#open.map(({ config, tap }) => [
        { endpoint: config.endpointName, deployment: config.deploymentName },
        tap.connections,
      ]),
    );
    counters.gauge('modeltap_tap_capture_bytes', 'Memory that captures take.', [], () => [[{}, this.#budget.used]]);
  }
}

/** Whether a tap of before goes on as this one: it listens on the same port for the same deployment. */
function isSame(before: TapConfig, now: TapConfig): boolean {
  return (
    before.port === now.port && before.endpointName === now.endpointName && before.deploymentName === now.deploymentName
  );
}
