/** First and last millisecond that a stored time (years 1 to 9999) can show. */
const MIN_MS = -62_135_596_800_000;
const MAX_MS = 253_402_300_799_999;

function inRange(ms: number): number | undefined {
  return ms >= MIN_MS && ms <= MAX_MS ? Math.trunc(ms) : undefined;
}

const EPOCH = /^[+-]?(?:\d{1,20}(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?$/;
const DAYS_IN_MONTH = [0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/**
 * Time of a `ce-time` header of the Azure ML SDK, milliseconds: epoch seconds as decimal text (floats too), or RFC 3339.
 * Undefined when it is neither or outside the years 1 to 9999.
 */
export function parseLooseTime(text: string): number | undefined {
  const trimmed = text.trim();
  return EPOCH.test(trimmed) ? inRange(Number(trimmed) * 1000) : parseRfc3339(trimmed);
}

const RFC3339 = /^(\d{4})-(\d{2})-(\d{2})[Tt ](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,30}))?(?:[Zz]|([+-])(\d{2}):(\d{2}))$/;

/**
 * An RFC 3339 time (what CloudEvents asks for) in milliseconds, further digits cut. A leap second counts as the second
 * behind it. Undefined when it is not one, names a day that does not exist, or lies outside the years 1 to 9999.
 */
export function parseRfc3339(text: string): number | undefined {
  const match = RFC3339.exec(text);
  if (!match) return undefined;
  const part = (index: number) => Number(match[index] ?? 0);
  const [year, month, day] = [part(1), part(2), part(3)];
  if (month < 1 || month > 12 || day < 1 || day > (DAYS_IN_MONTH[month] ?? 0)) return undefined;
  if (part(4) > 23 || part(5) > 59 || part(6) > 60 || part(9) > 23 || part(10) > 59) return undefined;
  // Date.UTC takes the years 0 to 99 as 1900 to 1999.
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  if (date.getUTCDate() !== day) return undefined;
  const offset = (match[8] === '-' ? -1 : 1) * (part(9) * 60 + part(10)) * 60_000;
  const millis = Number((match[7] ?? '').slice(0, 3).padEnd(3, '0'));
  return inRange(date.getTime() + part(4) * 3_600_000 + part(5) * 60_000 + part(6) * 1000 + millis - offset);
}

const DAY_BYTES = 10;

/** Reads RFC 3339 times that lie in a buffer as ASCII; remembers the last day, because events come in order. */
export class TimeReader {
  readonly #day = Buffer.alloc(DAY_BYTES);
  #dayMs = Number.NaN;

  /** The same answers as `parseRfc3339` for the text between the two offsets. */
  read(bytes: Buffer, start: number, end: number): number | undefined {
    const dayEnd = start + DAY_BYTES;
    if (end - start >= 20 && bytes[end - 1] === 0x5a && bytes[dayEnd] === 0x54 && this.#sameDay(bytes, start, dayEnd)) {
      const seconds = secondsOfDay(bytes, dayEnd + 1);
      const millis = millisOf(bytes, dayEnd + 9, end - 1);
      if (seconds >= 0 && millis >= 0) return this.#dayMs + seconds * 1000 + millis;
    }
    return parseRfc3339(bytes.toString('latin1', start, end));
  }

  #sameDay(bytes: Buffer, start: number, end: number): boolean {
    const day = this.#day;
    for (let index = 0; index < DAY_BYTES; index += 1) {
      if (bytes[start + index] !== day[index]) {
        const ms = parseRfc3339(`${bytes.toString('latin1', start, end)}T00:00:00Z`);
        if (ms === undefined) return false;
        bytes.copy(day, 0, start, end);
        this.#dayMs = ms;
        return true;
      }
    }
    return true;
  }
}

function two(bytes: Buffer, at: number): number {
  const tens = (bytes[at] ?? 0) - 48;
  const ones = (bytes[at + 1] ?? 0) - 48;
  return tens >= 0 && tens <= 9 && ones >= 0 && ones <= 9 ? tens * 10 + ones : 99;
}

/** Seconds of `hh:mm:ss`, or -1 (also for a leap second, which the slow way reads). */
function secondsOfDay(bytes: Buffer, at: number): number {
  const [hours, minutes, seconds] = [two(bytes, at), two(bytes, at + 3), two(bytes, at + 6)];
  if (hours > 23 || minutes > 59 || seconds > 59 || bytes[at + 2] !== 0x3a || bytes[at + 5] !== 0x3a) return -1;
  return hours * 3600 + minutes * 60 + seconds;
}

/** Milliseconds of a fraction such as `.25`, 0 for none, -1 for what is not one. */
function millisOf(bytes: Buffer, at: number, end: number): number {
  if (at === end) return 0;
  if (bytes[at] !== 0x2e || end - at < 2 || end - at > 10) return -1;
  let millis = 0;
  for (let index = 1; index < end - at; index += 1) {
    const digit = (bytes[at + index] ?? 0) - 48;
    if (digit < 0 || digit > 9) return -1;
    if (index <= 3) millis += digit * (index === 1 ? 100 : index === 2 ? 10 : 1);
  }
  return millis;
}
