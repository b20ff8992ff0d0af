/* What the scanner keeps of the members of an event; see scan.ts. */
import {
  CARRY,
  ENTRY,
  EXTRA,
  SCRATCH,
  TEMPLATES,
  EXTRAS,
  TABLE,
  INPUT,
  MAX_EXTRA,
  EXTRAS_CAP,
  TABLE_CAP,
  ENTRY_BYTES,
  TEMPLATE_BYTES,
  TEMPLATE_MAX,
  CARRY_MAX,
  F_BREAKS,
  F_ESCAPES,
  F_EVENT_DEPTH,
  F_HOOK,
  F_BASE,
  F_MEMBER,
  F_KEY_START,
  F_VALUE_START,
  F_CARRY,
  F_SEEN,
  F_CUT,
  F_SCRATCH,
  F_ROW_DEPTH,
  F_KEY_END,
  R_COUNT,
  R_EXTRAS,
  R_SERIAL,
  STRING,
  ESCAPE,
  HEX,
  E_ARRAY,
  E_BREAKS,
  E_ESCAPES,
  E_DUPLICATE,
  E_ODD_VALUE,
  E_SAME_REQUEST,
  E_TOO_MANY,
  M_ID,
  M_TIME,
  M_DATA,
  M_BASE64,
  M_CORRELATION,
  M_REQUEST,
  M_UNKNOWN,
} from './memory';
import { copy16, isPlainString, findMarks } from './text';

/** Starts the entry of an event whose `{` is at document offset `start`. */
export function eventStart(start: u32): void {
  memory.fill(ENTRY, 0, ENTRY_BYTES);
  store<u32>(ENTRY, start);
  store<i32>(F_HOOK, load<i32>(F_EVENT_DEPTH));
  store<u32>(F_SEEN, 0);
  store<u32>(F_CUT, 0);
  store<u32>(F_SCRATCH, 0);
  store<u32>(F_BREAKS, 0);
}

/** The member names, compared as two little-endian words. */
export function memberOf(p: usize, length: u32): u32 {
  if (length < 2 || length > 15) return M_UNKNOWN;
  const first = load<u64>(p);
  const a = length >= 8 ? first : first & (((<u64>1) << (<u64>length * 8)) - 1);
  const b = length <= 8 ? 0 : load<u64>(p + 8) & (((<u64>1) << (<u64>(length - 8) * 8)) - 1);
  switch (length) {
    case 2:
      return a == 0x6469 ? M_ID : M_UNKNOWN;
    case 4:
      return a == 0x61746164 ? M_DATA : a == 0x656d6974 ? M_TIME : a == 0x65707974 ? 3 : M_UNKNOWN;
    case 5:
      return a == 0x746e656761 ? 12 : M_UNKNOWN; // agent
    case 6:
      return a == 0x656372756f73 ? 2 : M_UNKNOWN; // source
    case 7:
      return a == 0x7463656a627573 ? 14 : M_UNKNOWN; // subject
    case 10:
      if (a == 0x7473657571657278 && b == 0x6469) return M_REQUEST;
      return a == 0x6568637361746164 && b == 0x616d ? 15 : M_UNKNOWN; // dataschema
    case 11:
      if (a == 0x7372657663657073 && b == 0x6e6f69) return 0; // specversion
      if (a == 0x7361625f61746164 && b == 0x343665) return M_BASE64;
      return a == 0x7264656c706d6173 && b == 0x657461 ? 13 : M_UNKNOWN; // sampledrate
    case 12:
      return a == 0x7265766c65646f6d && b == 0x6e6f6973 ? 10 : M_UNKNOWN; // modelversion
    case 13:
      return a == 0x74616c6572726f63 && b == 0x64696e6f69 ? M_CORRELATION : M_UNKNOWN;
    case 15:
      if (a == 0x746e6f6361746164 && b == 0x65707974746e65) return 4; // datacontenttype
      return a == 0x647463656c6c6f63 && b == 0x65707974617461 ? 11 : M_UNKNOWN; // collectdatatype
    default:
      return M_UNKNOWN;
  }
}

/** A member name of an event has ended; `p` is at its closing quote. */
export function keyEnd(p: usize): void {
  const base = load<u32>(F_BASE);
  const start = load<u32>(F_KEY_START);
  const end = base + <u32>(p - INPUT);
  const length = end - start;
  const carried = load<u32>(F_CARRY);
  let member = M_UNKNOWN;
  if (carried > 0 && length <= CARRY_MAX) {
    memory.copy(CARRY + carried, INPUT, length - carried);
    member = memberOf(CARRY, length);
  } else if (carried == 0) {
    member = memberOf(p - length, length);
  }
  store<u32>(F_CARRY, 0);
  store<u32>(F_MEMBER, member);
  store<u32>(F_KEY_END, end);
  if (member < M_UNKNOWN) {
    const seen = load<u32>(F_SEEN);
    if ((seen >> member) & 1) {
      entryFlag(E_DUPLICATE);
      store<u32>(ENTRY + 48, member);
    }
    store<u32>(F_SEEN, seen | (1 << member));
  }
}

export function entryFlag(flag: u32): void {
  store<u32>(ENTRY + 8, load<u32>(ENTRY + 8) | flag);
}

/** A member's value begins at document offset `start`. */
export function valueStart(start: u32, c: u32): void {
  store<u32>(F_VALUE_START, start);
  if (load<u32>(F_MEMBER) != M_DATA) return;
  store<u32>(F_BREAKS, 0);
  store<u32>(F_ESCAPES, 0);
  store<i32>(F_ROW_DEPTH, load<i32>(F_EVENT_DEPTH) + 1);
  if (c == 91) entryFlag(E_ARRAY);
}

/** A member's value has ended before `p`. */
export function valueEnd(p: usize, rows: u32): void {
  const member = load<u32>(F_MEMBER);
  const start = load<u32>(F_VALUE_START);
  const base = load<u32>(F_BASE);
  const end = base + <u32>(p - INPUT);
  if (member == M_UNKNOWN) {
    const count = load<u32>(ENTRY + 44);
    if (count >= MAX_EXTRA) {
      entryFlag(E_TOO_MANY);
      return;
    }
    const slot = EXTRA + ((<usize>count) << 4);
    store<u32>(slot, load<u32>(F_KEY_START));
    store<u32>(slot + 4, load<u32>(F_KEY_END));
    store<u32>(slot + 8, start);
    store<u32>(slot + 12, end);
    store<u32>(ENTRY + 44, count + 1);
  } else {
    const slot = ENTRY + 56 + ((<usize>member) << 3);
    store<u32>(slot, start);
    store<u32>(slot + 4, end);
  }
  if (member == M_DATA) {
    store<u32>(ENTRY + 12, rows);
    findMarks(start > base ? INPUT + (start - base) : INPUT, p);
    if (load<u32>(F_BREAKS)) entryFlag(E_BREAKS);
    if (load<u32>(F_ESCAPES)) entryFlag(E_ESCAPES);
    store<i32>(F_ROW_DEPTH, -1);
    return;
  }
  if (member == M_BASE64 || load<u32>(F_CUT)) return;
  if (member == M_ID || member == M_TIME || member == M_CORRELATION || member == M_REQUEST) {
    if (!isPlainString(INPUT + (start - base), p)) entryFlag(E_ODD_VALUE);
    return;
  }
  keepConstant(INPUT + (load<u32>(F_KEY_START) - base), p);
}

/** Joins a usually constant member to those of the event before it. */
export function keepConstant(from: usize, end: usize): void {
  const length = end - from;
  const used = <usize>load<u32>(F_SCRATCH);
  if (used + length > TEMPLATE_MAX) {
    store<u32>(F_CUT, 1);
    return;
  }
  copy16(SCRATCH + used, from, length);
  store<u32>(F_SCRATCH, <u32>(used + length));
}

/** The template whose bytes are those in SCRATCH, made when there is none. Puts its serial and slot into the entry. */
export function findTemplate(): void {
  const length = <usize>load<u32>(F_SCRATCH);
  v128.store(SCRATCH + length, i64x2.splat(0));
  let hash: u64 = length;
  for (let i: usize = 0; i < length; i += 8) hash = rotl<u64>((hash ^ load<u64>(SCRATCH + i)) * 0x9e3779b97f4a7c15, 29);
  const index = <u32>((hash ^ (hash >> 32)) & 63);
  const slot = TEMPLATES + <usize>index * TEMPLATE_BYTES;
  let same = load<u32>(slot) != 0 && <usize>load<u32>(slot + 4) == length;
  for (let i: usize = 0; same && i < length; i += 16) {
    same = !v128.any_true(v128.xor(v128.load(slot + 16 + i), v128.load(SCRATCH + i)));
  }
  if (!same) {
    const serial = load<u32>(R_SERIAL) + 1;
    store<u32>(R_SERIAL, serial);
    store<u32>(slot, serial);
    store<u32>(slot + 4, <u32>length);
    copy16(slot + 16, SCRATCH, length + 16);
  }
  store<u32>(ENTRY + 32, load<u32>(slot));
  store<u32>(ENTRY + 36, index);
}

export function sameSpan(a: usize, b: usize): bool {
  const base = load<u32>(F_BASE);
  const from = load<u32>(ENTRY + 56 + (a << 3));
  const other = load<u32>(ENTRY + 56 + (b << 3));
  const length = load<u32>(ENTRY + 60 + (a << 3)) - from;
  if (length == 0 || load<u32>(ENTRY + 60 + (b << 3)) - other != length) return false;
  return memory.compare(INPUT + (from - base), INPUT + (other - base), length) == 0;
}

/** The event has ended before document offset `end`: puts its entry into TABLE. */
export function eventEnd(end: u32): void {
  store<u32>(ENTRY + 4, end);
  if (load<u32>(F_CUT)) {
    entryFlag(E_ODD_VALUE);
  } else {
    findTemplate();
    if (sameSpan(M_CORRELATION, M_REQUEST)) entryFlag(E_SAME_REQUEST);
  }
  store<i32>(F_HOOK, -1);
  emit();
}

export function emit(): void {
  const count = load<u32>(R_COUNT);
  const extras = load<u32>(R_EXTRAS);
  const own = load<u32>(ENTRY + 44);
  store<u32>(ENTRY + 40, extras);
  if (own > 0) copy16(EXTRAS + ((<usize>extras) << 4), EXTRA, (<usize>own) << 4);
  store<u32>(R_EXTRAS, extras + own);
  copy16(TABLE + <usize>count * ENTRY_BYTES, ENTRY, ENTRY_BYTES);
  store<u32>(R_COUNT, count + 1);
}

/** An entry for something that is no event. */
export function emitBad(start: u32, reason: u32, offset: u32): void {
  memory.fill(ENTRY, 0, ENTRY_BYTES);
  store<u32>(ENTRY, start);
  store<u32>(ENTRY + 4, offset);
  store<u32>(ENTRY + 24, reason);
  store<u32>(ENTRY + 28, offset);
  store<i32>(F_HOOK, -1);
  emit();
}

export function tableFull(): bool {
  return load<u32>(R_COUNT) >= TABLE_CAP || load<u32>(R_EXTRAS) + MAX_EXTRA > EXTRAS_CAP;
}

/** The piece has ended inside an event: what lay in it can no longer be looked at in place. */
export function cutEvent(state: i32, isKey: bool, end: usize): void {
  store<u32>(F_CUT, 1);
  if (load<i32>(F_ROW_DEPTH) >= 0) {
    const data = load<u32>(F_VALUE_START);
    const first = load<u32>(F_BASE);
    findMarks(data > first ? INPUT + (data - first) : INPUT, end);
  }
  if (!isKey || (state != STRING && state != ESCAPE && state != HEX)) return;
  const start = load<u32>(F_KEY_START);
  const base = load<u32>(F_BASE);
  const carried = load<u32>(F_CARRY);
  const from = carried > 0 ? INPUT : INPUT + (start - base);
  const length = <u32>(end - from);
  if (carried + length <= CARRY_MAX) memory.copy(CARRY + carried, from, length);
  store<u32>(F_CARRY, min<u32>(carried + length, CARRY_MAX + 1));
}
