/*
 * A resumable JSON validator (RFC 8259) in AssemblyScript; see packages/modeltap/src/ingest/scan.ts for the contract.
 *
 * The caller copies a piece of a document to INPUT and calls `run`; the machine stops at the end of the piece and goes
 * on with the next one. Everything that must survive between two pieces lies in the STATE block, which the caller copies
 * out and back in when several documents arrive at the same time. UTF-8 is the caller's part.
 *
 * Behind the piece `run` writes zeros: a NUL is illegal at every place of a document, so no loop needs a bounds check,
 * and only the paths that meet a NUL ask whether it is the end. Loads may run over the end by up to 16 bytes.
 *
 * In the event modes the same machine also reports where the members of each event object lie (TABLE), and knows by
 * comparison whether the usually constant members are byte for byte those of an event seen before (TEMPLATES).
 */
import { eventStart, keyEnd, entryFlag, valueStart, valueEnd, eventEnd, emitBad, tableFull, cutEvent } from './events';
import {
  STATE, STACK, ENTRY, TABLE, INPUT, MAX_DEPTH, F_STATE, F_DEPTH, F_IS_KEY, F_HEX, F_LITERAL, F_ROWS, F_BREAKS,
  F_MODE, F_EVENT_DEPTH, F_HOOK, F_BASE, F_KEY_START, F_CARRY, F_ROOT, F_ROW_DEPTH, F_REASON, F_OFFSET, R_COUNT,
  R_EXTRAS, KEY_LENGTHS, CONSTANTS, BATCH, LINES, VALUE, FIRST, KEY_OR_END, KEY, COLON, END, AFTER, STRING, ESCAPE,
  HEX, LITERAL, SKIP, MINUS, ZERO, INT, DOT, FRAC, EXP, NUMBER_END, R_VALUE, R_KEY, R_COLON, R_SEPARATOR, R_CONTROL,
  R_ESCAPE, R_HEX, R_NUMBER, R_LITERAL, R_DEPTH, R_TRAILING, R_END, R_NOT_OBJECT, R_NOT_ARRAY, R_BREAK, E_ODD_KEY,
  OBJECT, ARRAY, ROOT,
} from './memory';
import { skipBlanks, isDigit, isHex, isEscape, numberStep, findMarks } from './text';

/** Which of the 16 bytes at `p` are digits. */
function digitMask(p: usize, zeros: v128, nines: v128): i32 {
  return i8x16.bitmask(i8x16.le_u(i8x16.sub(v128.load(p), zeros), nines));
}

/** Places of the 16 bytes at `p` that end plain text of a string: quote, backslash, control characters. */
function stopMask(p: usize, quotes: v128, slashes: v128, controls: v128): i32 {
  const v = v128.load(p);
  const quote = v128.or(i8x16.eq(v, quotes), i8x16.eq(v, slashes));
  return i8x16.bitmask(v128.or(quote, i8x16.le_u(v, controls)));
}

/** Starts a document. Modes: 0 any value, 1 one event, 2 an array of events, 3 events on lines. */
export function begin(mode: i32): void {
  memory.fill(STATE, 0, 128);
  store<i32>(F_MODE, mode);
  const eventDepth = mode == 0 ? -1 : mode == BATCH ? 2 : 1;
  store<i32>(F_EVENT_DEPTH, eventDepth);
  store<i32>(F_HOOK, -1);
  store<i32>(F_ROW_DEPTH, mode == 0 ? 1 : -1);
}

/** Validates a whole document of `length` bytes in INPUT. 0 or the reason why it is not one. */
export function whole(length: i32): i32 {
  begin(0);
  return run(0, length) < 0 ? load<i32>(F_REASON) : finish();
}

/** At the end of the document: 0 when it is complete, else the reason. */
export function finish(): i32 {
  const state = load<i32>(F_STATE);
  const lines = load<i32>(F_MODE) == LINES;
  if (load<i32>(F_DEPTH) == 0) {
    if (state == AFTER || state == END) return 0;
    if (lines && (state == VALUE || state == SKIP)) return 0;
    if (!lines && (state == ZERO || state == INT || state == FRAC || state == EXP)) return 0;
  }
  store<u32>(F_REASON, R_END);
  return R_END;
}

/** Writes the state back. */
function save(state: i32, depth: i32, isKey: u32, rows: u32): void {
  store<i32>(F_STATE, state);
  store<i32>(F_DEPTH, depth);
  store<u32>(F_IS_KEY, isKey);
  store<u32>(F_ROWS, rows);
}

function fail(reason: u32, p: usize): i32 {
  store<u32>(F_REASON, reason);
  store<u32>(F_OFFSET, load<u32>(F_BASE) + <u32>(p - INPUT));
  return -1;
}

/** Is a value that is not an object wrong at this place of the document? */
function refuseShape(depth: i32, c: u32): u32 {
  const eventDepth = load<i32>(F_EVENT_DEPTH);
  if (depth >= eventDepth) return 0;
  if (load<i32>(F_MODE) == BATCH && depth == 0) return c == 91 ? 0 : R_NOT_ARRAY;
  return c == 123 ? 0 : R_NOT_OBJECT;
}

/**
 * Goes on from `from` to `length` (both places in INPUT). Returns the place reached: `length`, or less when TABLE is
 * full and must be emptied first; -1 on an error (F_REASON, F_OFFSET).
 */
export function run(from: i32, length: i32): i32 {
  const end = INPUT + <usize>length;
  v128.store(end, i64x2.splat(0));
  v128.store(end + 16, i64x2.splat(0));
  store<u32>(R_COUNT, 0);
  store<u32>(R_EXTRAS, 0);
  const base = load<u32>(F_BASE);
  const mode = load<i32>(F_MODE);
  const eventDepth = load<i32>(F_EVENT_DEPTH);
  let state = load<i32>(F_STATE);
  let depth = load<i32>(F_DEPTH);
  let isKey = load<u32>(F_IS_KEY);
  let rows = load<u32>(F_ROWS);
  let top: u32 = depth == 0 ? ROOT : load<u8>(STACK + depth);
  let hook = load<i32>(F_HOOK);
  let rowDepth = load<i32>(F_ROW_DEPTH);
  let column: usize = 0;
  // Values at this depth or above it are looked at more closely.
  const watch = max(eventDepth, 0);
  let p = INPUT + <usize>from;
  if (from == 0) findMarks(p, end);
  let reason: u32 = 0;
  // Loaded and not written as constants, so that they stay in registers.
  const quotes = v128.load(CONSTANTS);
  const slashes = v128.load(CONSTANTS + 16);
  const controls = v128.load(CONSTANTS + 32);
  const zeros = v128.load(CONSTANTS + 48);
  const nines = v128.load(CONSTANTS + 64);

  while (true) {
    switch (state) {
      case STRING: {
        let stop = stopMask(p, quotes, slashes, controls);
        while (stop == 0) {
          p += 16;
          stop = stopMask(p, quotes, slashes, controls);
        }
        p += ctz(stop);
        const c = <u32>load<u8>(p);
        if (c == 34) {
          if (!isKey) {
            p++;
            state = END;
            continue;
          }
          if (depth == hook) keyEnd(p);
          p++;
          isKey = 0;
          if (load<u8>(p) == 58) {
            p++;
            state = VALUE;
          } else state = COLON;
          continue;
        }
        if (c == 92) {
          p++;
          state = ESCAPE;
          continue;
        }
        if (p < end) reason = R_CONTROL;
        break;
      }
      case FIRST:
      case VALUE: {
        let c = <u32>load<u8>(p);
        if (c <= 32) {
          p = skipBlanks(p);
          c = load<u8>(p);
          if (mode == LINES && depth > 0 && load<u32>(F_BREAKS) & 2) {
            reason = R_BREAK;
            break;
          }
        }
        if (state == FIRST && c == 93) {
          state = AFTER;
          rows -= u32(depth == rowDepth);
          continue;
        }
        if (depth <= watch && p < end) {
          if (depth == 0) store<u32>(F_ROOT, c);
          const wrong = refuseShape(depth, c);
          if (wrong != 0) {
            if (mode != BATCH || depth == 0) {
              reason = wrong;
              break;
            }
            if (tableFull()) {
              save(state, depth, isKey, rows);
              return <i32>(p - INPUT);
            }
            emitBad(base + <u32>(p - INPUT), wrong, base + <u32>(p - INPUT));
          }
          if (depth == hook) {
            valueStart(base + <u32>(p - INPUT), c);
            rows = 0;
            rowDepth = load<i32>(F_ROW_DEPTH);
          }
        }
        if (c == 34) {
          p++;
          const stop = stopMask(p, quotes, slashes, controls);
          const close = p + ctz(stop);
          if (stop == 0 || load<u8>(close) != 34) {
            state = STRING;
            continue;
          }
          p = close + 1;
          state = END;
          continue;
        }
        if (c == 45 || isDigit(c)) {
          // Whole part by branches, which are predicted; decimals, whose count is not, by comparison of 16 at once.
          let q = p + usize(c == 45);
          const first = <u32>load<u8>(q);
          if (!isDigit(first)) {
            state = MINUS;
            p++;
            continue;
          }
          q++;
          if (first != 48) while (isDigit(load<u8>(q))) q++;
          let number = first == 48 ? ZERO : INT;
          let next = <u32>load<u8>(q);
          if (next == 46) {
            let part = ctz(~digitMask(q + 1, zeros, nines));
            if (part == 16) part += ctz(~digitMask(q + 17, zeros, nines));
            if (part == 0 || part == 32) {
              p = q + 1;
              state = DOT;
              continue;
            }
            q += 1 + part;
            number = FRAC;
            next = load<u8>(q);
          }
          p = q;
          // A NUL may be the end of the piece, where the number may go on.
          if (next == 0 || (next | 32) == 101) {
            state = number;
            continue;
          }
          state = END;
          continue;
        }
        if (c == 123 || c == 91) {
          if (depth >= MAX_DEPTH) {
            reason = R_DEPTH;
            break;
          }
          depth++;
          top = u32(c == 123);
          store<u8>(STACK + depth, <u8>top);
          if (c == 123 && depth == eventDepth) {
            eventStart(base + <u32>(p - INPUT));
            hook = depth;
          }
          p++;
          state = c == 123 ? KEY_OR_END : FIRST;
          continue;
        }
        if (c == 110 || c == 116) {
          const rest: u32 = c == 110 ? 0x6c6c75 : 0x657572;
          if ((load<u32>(p + 1) & 0xffffff) == rest) {
            p += 4;
            state = END;
            continue;
          }
          store<u32>(F_LITERAL, rest);
          p++;
          state = LITERAL;
          continue;
        }
        if (c == 102) {
          store<u32>(F_LITERAL, 0x65736c61);
          p++;
          state = LITERAL;
          continue;
        }
        if (p < end) reason = R_VALUE;
        break;
      }
      case END:
        if (depth == hook) {
          valueEnd(p, rows);
          rowDepth = load<i32>(F_ROW_DEPTH);
        }
        state = AFTER;
      case AFTER: {
        let c = <u32>load<u8>(p);
        if (c <= 32) {
          p = skipBlanks(p);
          c = load<u8>(p);
          if (mode == LINES && depth > 0 && load<u32>(F_BREAKS) & 2) {
            reason = R_BREAK;
            break;
          }
        }
        if (c == 44 && depth > 0) {
          p++;
          rows += u32(depth == rowDepth);
          if (top == OBJECT) {
            if (load<u8>(p) == 34) {
              p++;
              isKey = 1;
              if (depth == hook) store<u32>(F_KEY_START, base + <u32>(p - INPUT));
              const stop = stopMask(p, quotes, slashes, controls);
              // The name is taken to be as long as the one at this place of the object before. When that is right, as in
              // rows of a table, the processor need not wait for the comparison to know where the value begins.
              const guess = KEY_LENGTHS + (column & 63);
              let length = <usize>load<u8>(guess);
              column++;
              if (<usize>ctz(stop) != length) {
                length = ctz(stop);
                store<u8>(guess, <u8>length);
              }
              const close = p + length;
              if (stop != 0 && load<u16>(close) == 0x3a22) {
                if (depth == hook) keyEnd(close);
                p = close + 2;
                isKey = 0;
                state = VALUE;
              } else state = STRING;
            } else state = KEY;
          } else state = VALUE;
          continue;
        }
        if ((c == 125 && top == OBJECT) || (c == 93 && top == ARRAY)) {
          p++;
          rows += u32(depth == rowDepth);
          const event = depth == hook;
          depth--;
          top = depth == 0 ? ROOT : load<u8>(STACK + depth);
          state = END;
          if (!event) continue;
          eventEnd(base + <u32>(p - INPUT));
          hook = -1;
          if (mode == LINES) state = VALUE;
          if (!tableFull()) continue;
          save(state, depth, isKey, rows);
          return <i32>(p - INPUT);
        }
        if (p < end) reason = depth == 0 ? R_TRAILING : R_SEPARATOR;
        break;
      }
      case KEY_OR_END:
        column = 0;
      case KEY: {
        let c = <u32>load<u8>(p);
        if (c <= 32) {
          p = skipBlanks(p);
          c = load<u8>(p);
          if (mode == LINES && load<u32>(F_BREAKS) & 2) {
            reason = R_BREAK;
            break;
          }
        }
        if (c == 34) {
          p++;
          isKey = 1;
          if (depth == hook) store<u32>(F_KEY_START, base + <u32>(p - INPUT));
          state = STRING;
          continue;
        }
        if (c == 125 && state == KEY_OR_END) {
          state = AFTER;
          rows -= u32(depth == rowDepth);
          continue;
        }
        if (p < end) reason = R_KEY;
        break;
      }
      case COLON: {
        let c = <u32>load<u8>(p);
        if (c <= 32) {
          p = skipBlanks(p);
          c = load<u8>(p);
          if (mode == LINES && load<u32>(F_BREAKS) & 2) {
            reason = R_BREAK;
            break;
          }
        }
        if (c == 58) {
          p++;
          state = VALUE;
          continue;
        }
        if (p < end) reason = R_COLON;
        break;
      }
      case ESCAPE: {
        const c = <u32>load<u8>(p);
        if (isKey && depth == hook) entryFlag(E_ODD_KEY);
        if (isEscape(c)) {
          p++;
          state = STRING;
          continue;
        }
        if (c == 117) {
          p++;
          store<u32>(F_HEX, 4);
          state = HEX;
          continue;
        }
        if (p < end) reason = R_ESCAPE;
        break;
      }
      case HEX: {
        let left = load<u32>(F_HEX);
        while (left > 0 && isHex(load<u8>(p))) {
          p++;
          left--;
        }
        store<u32>(F_HEX, left);
        if (left == 0) {
          state = STRING;
          continue;
        }
        if (p < end) reason = R_HEX;
        break;
      }
      case LITERAL: {
        let rest = load<u32>(F_LITERAL);
        while (rest != 0 && <u32>load<u8>(p) == (rest & 0xff)) {
          p++;
          rest >>= 8;
        }
        store<u32>(F_LITERAL, rest);
        if (rest == 0) {
          state = END;
          continue;
        }
        if (p < end) reason = R_LITERAL;
        break;
      }
      case SKIP: {
        while (p < end && load<u8>(p) != 10) p++;
        if (p < end) {
          state = VALUE;
          continue;
        }
        break;
      }
      default: {
        let next = state;
        while (true) {
          next = numberStep(state, load<u8>(p));
          if (next >= NUMBER_END) break;
          state = next;
          p++;
        }
        if (p >= end) break;
        if (next == NUMBER_END) {
          state = END;
          continue;
        }
        reason = R_NUMBER;
        break;
      }
    }
    // Only an error or the end of the piece gets here.
    if (reason == 0) break;
    if (mode != LINES) {
      save(state, depth, isKey, rows);
      return fail(reason, p);
    }
    // A bad line is one bad event; the line feed that ends it may be among the blanks just skipped.
    if (reason == R_BREAK) while (load<u8>(p - 1) != 10) p--;
    const at = base + <u32>(p - INPUT);
    emitBad(depth > 0 ? load<u32>(ENTRY) : at, reason, at);
    state = reason == R_BREAK ? VALUE : SKIP;
    reason = 0;
    depth = 0;
    top = ROOT;
    hook = -1;
    isKey = 0;
    store<u32>(F_CARRY, 0);
    if (tableFull()) {
      save(state, depth, isKey, rows);
      return <i32>(p - INPUT);
    }
  }
  if (hook >= 0) cutEvent(state, isKey != 0 && depth == hook, end);
  save(state, depth, isKey, rows);
  return length;
}
