import { Counter, Gauge, Histogram, Registry } from 'prom-client';

/** Labels of one time series. */
export type Labels = Readonly<Record<string, string>>;

/** Prometheus metrics behind five calls, so that no other folder knows the library. */
export interface Counters {
  /** A number that only grows. Declaring a name twice gives the same counter. */
  counter(name: string, help: string, labels?: readonly string[]): { inc(labels?: Labels, by?: number): void };
  /** A number read at scrape time: `read` gives one value, or one per label set. Declaring a name twice adds the second's values. */
  gauge(
    name: string,
    help: string,
    labels: readonly string[],
    read: () => readonly (readonly [Labels, number])[],
  ): void;
  /** Observed values in buckets (upper bounds, in the unit the name ends with). */
  histogram(
    name: string,
    help: string,
    buckets: readonly number[],
    labels?: readonly string[],
  ): { observe(value: number, labels?: Labels): void };
  /** The Prometheus text format, version 0.0.4. */
  text(): Promise<string>;
  readonly contentType: string;
}

/** Buckets in seconds from 1 ms to 60 s. */
export const SECONDS_BUCKETS: readonly number[] = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
];

/** A new, empty set of metrics. */
export function createCounters(): Counters {
  const registry = new Registry();
  const counters = new Map<string, Counter>();
  const histograms = new Map<string, Histogram>();
  const reads = new Map<string, (() => readonly (readonly [Labels, number])[])[]>();
  return {
    counter(name, help, labels = []) {
      const found = counters.get(name) ?? new Counter({ name, help, labelNames: [...labels], registers: [registry] });
      counters.set(name, found);
      return { inc: (set = {}, by = 1) => found.inc(set, by) };
    },
    gauge(name, help, labels, read) {
      const known = reads.get(name);
      if (known) {
        known.push(read);
        return;
      }
      const all = [read];
      reads.set(name, all);
      const gauge: Gauge = new Gauge({
        name,
        help,
        labelNames: [...labels],
        registers: [registry],
        collect() {
          gauge.reset();
          for (const each of all) for (const [set, value] of each()) gauge.set(set, value);
        },
      });
    },
    histogram(name, help, buckets, labels = []) {
      const found =
        histograms.get(name) ??
        new Histogram({ name, help, buckets: [...buckets], labelNames: [...labels], registers: [registry] });
      histograms.set(name, found);
      return { observe: (value, set = {}) => found.observe(set, value) };
    },
    text: () => registry.metrics(),
    contentType: registry.contentType,
  };
}
