/* Pieces of JSON text: blanks, numbers, strings. */
import {
  F_BREAKS,
  F_ESCAPES,
  F_HIGH,
  CONSTANTS,
  MINUS,
  ZERO,
  INT,
  DOT,
  FRAC,
  E,
  E_SIGN,
  EXP,
  NUMBER_END,
  NUMBER_BAD,
} from './memory';

/** Skips blanks; says in F_BREAKS whether a line break was among them (1), and whether it was a line feed (2). */
export function skipBlanks(from: usize): usize {
  let p = from;
  while (true) {
    const v = v128.load(p);
    const feeds = i8x16.eq(v, i8x16.splat(10));
    const breaks = v128.or(feeds, i8x16.eq(v, i8x16.splat(13)));
    const blanks = v128.or(breaks, v128.or(i8x16.eq(v, i8x16.splat(32)), i8x16.eq(v, i8x16.splat(9))));
    const rest = ~i8x16.bitmask(blanks) & 0xffff;
    const count = rest == 0 ? 16 : ctz(rest);
    const mask = (1 << count) - 1;
    if ((i8x16.bitmask(breaks) & mask) != 0) {
      store<u32>(F_BREAKS, load<u32>(F_BREAKS) | 1 | (u32((i8x16.bitmask(feeds) & mask) != 0) << 1));
    }
    p += count;
    if (rest != 0) return p;
  }
}

export function isDigit(c: u32): bool {
  return c - 48 < 10;
}

export function isHex(c: u32): bool {
  return c - 48 < 10 || (c | 32) - 97 < 6;
}

/** True for the bytes that may follow a backslash, `u` aside. */
export function isEscape(c: u32): bool {
  return c == 47 || c == 110 || c == 34 || c == 92 || c == 116 || c == 114 || c == 98 || c == 102;
}

/** The state of a number after one more byte. */
export function numberStep(state: i32, c: u32): i32 {
  const digit = isDigit(c);
  const exponent = (c | 32) == 101;
  switch (state) {
    case MINUS:
      return c == 48 ? ZERO : digit ? INT : NUMBER_BAD;
    case ZERO:
      return c == 46 ? DOT : exponent ? E : NUMBER_END;
    case INT:
      return digit ? INT : c == 46 ? DOT : exponent ? E : NUMBER_END;
    case DOT:
      return digit ? FRAC : NUMBER_BAD;
    case FRAC:
      return digit ? FRAC : exponent ? E : NUMBER_END;
    case E:
      return digit ? EXP : c == 43 || c == 45 ? E_SIGN : NUMBER_BAD;
    case E_SIGN:
      return digit ? EXP : NUMBER_BAD;
    default:
      return digit ? EXP : NUMBER_END;
  }
}

/** Copies in steps of 16 bytes; writes up to 15 bytes more than asked. */
export function copy16(to: usize, from: usize, length: usize): void {
  for (let i: usize = 0; i < length; i += 16) v128.store(to + i, v128.load(from + i));
}

/** True when the bytes are a quoted ASCII string without escapes. */
export function isPlainString(from: usize, end: usize): bool {
  if (load<u8>(from) != 34) return false;
  for (let p = from; p < end; p += 16) {
    const v = v128.load(p);
    const left = end - p;
    const mask: i32 = left >= 16 ? 0xffff : (1 << (<i32>left)) - 1;
    if (((i8x16.bitmask(v) | i8x16.bitmask(i8x16.eq(v, i8x16.splat(92)))) & mask) != 0) return false;
  }
  return true;
}

/**
 * Looks for `<`, `>`, `&` (legal only in strings) and bytes above 0x7f between `from` and `end`. May look at up to 15
 * bytes behind `end` when these are zeros.
 */
export function findMarks(from: usize, end: usize): void {
  let marks = i64x2.splat(0);
  let high = i64x2.splat(0);
  const fold = v128.load(CONSTANTS + 80);
  const angles = v128.load(CONSTANTS + 96);
  const amps = v128.load(CONSTANTS + 112);
  let p = from;
  for (; p + 16 <= end; p += 16) {
    const v = v128.load(p);
    const angle = i8x16.eq(v128.and(v, fold), angles);
    marks = v128.or(marks, v128.or(angle, i8x16.eq(v, amps)));
    high = v128.or(high, v);
  }
  let found = v128.any_true(marks);
  for (; p < end; p++) {
    const c = <u32>load<u8>(p);
    found = found || (c & 0xfd) == 60 || c == 38;
    if (c > 127) store<u32>(F_HIGH, 1);
  }
  if (found) store<u32>(F_ESCAPES, 1);
  if (i8x16.bitmask(high) != 0) store<u32>(F_HIGH, 1);
}
