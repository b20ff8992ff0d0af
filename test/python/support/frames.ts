/**
 * What the frames of `clients/frames.py` are on the wire, whatever the pandas: the table of the wire description, by the
 * bytes. Latin-1 text; a pair is for pandas 1.5 and 2, and for pandas 3.
 */
export const FRAME_TEXTS: Readonly<Record<string, string | readonly [string, string]>> = {
  int64: '[{"v":9223372036854775807},{"v":-9223372036854775808},{"v":9007199254740993},{"v":0}]',
  uint64: '[{"v":18446744073709551615},{"v":0}]',
  small_ints: '[{"i8":-128,"u8":255}]',
  nullable_int: '[{"v":9007199254740993},{"v":null}]',
  big_object_int: '[{"v":9223372036854775807},{"v":-1},{"v":18446744073709551615}]',
  float64: '[{"v":0.3},{"v":0.0},{"v":1.0},{"v":1e+21},{"v":-0.5},{"v":123456789.123456791}]',
  not_finite: '[{"v":null},{"v":null},{"v":null},{"v":1.5}]',
  float32: '[{"v":0.1000000015},{"v":1.0}]',
  nothing: '[{"v":null},{"v":null},{"v":null},{"v":null},{"v":1}]',
  bool: '[{"v":true},{"v":false}]',
  nullable_bool: '[{"v":true},{"v":null}]',
  naive_dates: '[{"v":1704164645678},{"v":null},{"v":-500}]',
  zoned_dates: '[{"v":1719828000000}]',
  python_dates: '[{"v":1704153600000},{"v":1704164645000}]',
  times: '[{"v":"01:02:03"}]',
  timedelta: '[{"v":86400500},{"v":null}]',
  category: '[{"v":"a"},{"v":"b"},{"v":null},{"v":"a"}]',
  int_category: '[{"v":3},{"v":1},{"v":3}]',
  nested: '[{"v":[1,[2,null]]},{"v":{"k":{"l":[true,"x"]}}},{"v":[1.5,2.5]},{"v":[1,"a"]},{"v":{}},{"v":[]}]',
  unicode:
    '[{"\\u00e9\\u20ac":"\\u00e9\\u20ac\\ud83d\\ude00"},{"\\u00e9\\u20ac":"\\u65e5\\u672c"},{"\\u00e9\\u20ac":"\\u2028"},{"\\u00e9\\u20ac":"\x7f"}]',
  special_text:
    '[{"a\\/b<&>":"a\\/b"},{"a\\/b<&>":"<b>&amp;<\\/b>"},{"a\\/b<&>":"\\"q\\" \\\\ \\n\\t\\r\\u0001"},{"a\\/b<&>":""}]',
  bytes: '[{"v":"abc"},{"v":"\\u00e9"}]',
  decimal: ['[{"v":1.1}]', '[{"v":"1.10"}]'],
  complex: '[{"v":{"imag":-2.0,"real":1.5}}]',
  set: '[{"v":[7]}]',
  labels: '[{"0":1,"1":2}]',
  date_labels: '[{"1704153600000":1}]',
  multi_labels: `[{"('a', 'x')":1,"('a', 'y')":2}]`,
  index_dropped: '[{"b":1,"a":"x"},{"b":2,"a":"y"}]',
  one_row: '[{"sepal length":5.1,"name":"setosa","n":1}]',
  no_rows: '[]',
  no_columns: '[]',
  subclass: '[{"a":1}]',
  outputs: '[{"0":0},{"0":2},{"0":1}]',
};

/** The text of a frame with a line of pandas. */
export function frameText(name: string, pandas: string): string {
  const text = FRAME_TEXTS[name] ?? '';
  return typeof text === 'string' ? text : text[pandas === '3' ? 1 : 0];
}
