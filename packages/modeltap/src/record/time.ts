/** First and last event time that four digits of a year can show: 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999Z. */
const MIN_TIME_MS = -62_135_596_800_000;
const MAX_TIME_MS = 253_402_300_799_999;
const HOUR_MS = 3_600_000;

/**
 * The event time that is filed and shown: `timeMs` held within the years 1 to 9999, which `YYYY-MM-DDThh:mm:ssZ` and the
 * time folders can write. Not a number: the epoch.
 */
export function clampTimeMs(timeMs: number): number {
  if (Number.isNaN(timeMs)) return 0;
  return Math.min(Math.max(timeMs, MIN_TIME_MS), MAX_TIME_MS);
}

/** Start of the UTC hour of an event time, milliseconds since the epoch: the hour the ledger counts it in. */
export function hourOf(timeMs: number): number {
  return Math.floor(clampTimeMs(timeMs) / HOUR_MS) * HOUR_MS;
}

let lastSecond = Number.NaN;
let lastText = '';

/** `YYYY-MM-DDThh:mm:ssZ` of an event time, whole seconds, cut. The last answer is kept: records come in time order. */
export function isoSeconds(timeMs: number): string {
  const second = Math.floor(clampTimeMs(timeMs) / 1000);
  if (second !== lastSecond) {
    lastText = `${new Date(second * 1000).toISOString().slice(0, 19)}Z`;
    lastSecond = second;
  }
  return lastText;
}
