/**
 * The binary form in which records travel from the scoring thread to the sending thread: cheap to write, turned into
 * JSON text on the other side. It never leaves the process, so it has no version of its own.
 *
 * A chunk is a sequence of records. A record is
 * `u32 length of the whole record · u16 envelope id · u8 data type · u8 flags · id · [time] · [headers] · body`:
 * - id: 16 raw bytes of a UUID when `FLAG_UUID`, else a string value, or `NULL` for no id;
 * - time: a float64 of Unix seconds or a string value;
 * - headers, only with `FLAG_HEADERS`: u32 count, then pairs of string values;
 * - body: u32 count of rows, then as many values.
 *
 * A value is one tag byte and what the tag says. Numbers are little-endian, lengths count bytes.
 */
export const TAG = {
  NULL: 0,
  TRUE: 1,
  FALSE: 2,
  /** i32 */
  INT: 3,
  /** f64; NaN and the infinities stand for null */
  DOUBLE: 4,
  /** u8 length, ASCII */
  SHORT: 5,
  /** u32 length, UTF-8 */
  LONG: 6,
  /** i64 */
  BIGINT: 7,
  /** u32 length, the text of a JSON number */
  DIGITS: 8,
  /** u32 count, then values */
  ARRAY: 9,
  /** Key (string value), value, …, `END` */
  OBJECT: 10,
  /** u32 shape id, then one value for each key of the shape */
  SHAPED: 11,
  END: 12,
} as const;

/** The id is 16 bytes, not a value. */
export const FLAG_UUID = 1;
/** The context had headers. */
export const FLAG_HEADERS = 2;

/** Bytes before the id of a record. */
export const RECORD_HEAD = 8;

/** What `collectdatatype` says, by the data type byte of a record. */
export const DATA_TYPES = [
  'js.Array',
  'js.Object',
  'apache-arrow.Table',
  'nodejs-polars.DataFrame',
  'arquero.Table',
  'danfojs.DataFrame',
] as const;

/** A kind of data `collect()` takes. */
export type DataType = (typeof DATA_TYPES)[number];

/** Nested values deeper than this are refused: readers of the stored lines have limits of their own. */
export const MAX_DEPTH = 100;
