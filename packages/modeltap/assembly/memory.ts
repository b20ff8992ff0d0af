/* Memory map, states, reasons and members of the scanner; see scan.ts. */

// Memory map. Known to src/ingest/scan.ts as well.
export const STATE: usize = 1024;
export const STACK: usize = STATE + 128; // one byte a level, the first unused
export const CARRY: usize = STATE + 704; // beginning of a member name that the end of a piece has cut
export const ENTRY: usize = STATE + 768; // the event being read: 48 words
export const EXTRA: usize = STATE + 1024; // its unknown members: 64 × (name start, name end, value start, value end)
export const SCRATCH: usize = 4096; // its usually constant members, joined
export const TEMPLATES: usize = 8192; // 64 × (serial, length, 8 bytes unused, 1 104 bytes)
export const EXTRAS: usize = 81920; // unknown members of the events in TABLE
export const TABLE: usize = 147456; // finished events: 48 words each
export const INPUT: usize = 344064;
export const MAX_DEPTH: i32 = 512;
export const MAX_EXTRA: u32 = 64;
export const EXTRAS_CAP: u32 = 4096;
export const TABLE_CAP: u32 = 1024;
export const ENTRY_BYTES: usize = 192;
export const TEMPLATE_BYTES: usize = 1120;
export const TEMPLATE_MAX: usize = 1024;
export const CARRY_MAX: u32 = 32;

// Fields of STATE.
export const F_STATE: usize = STATE;
export const F_DEPTH: usize = STATE + 4;
export const F_IS_KEY: usize = STATE + 8;
export const F_HEX: usize = STATE + 12;
export const F_LITERAL: usize = STATE + 16;
export const F_ROWS: usize = STATE + 20;
export const F_BREAKS: usize = STATE + 24;
export const F_ESCAPES: usize = STATE + 28;
export const F_MODE: usize = STATE + 32;
export const F_EVENT_DEPTH: usize = STATE + 36;
export const F_HOOK: usize = STATE + 40;
export const F_BASE: usize = STATE + 44; // offset of INPUT in the document
export const F_MEMBER: usize = STATE + 48;
export const F_KEY_START: usize = STATE + 52;
export const F_VALUE_START: usize = STATE + 56;
export const F_CARRY: usize = STATE + 60;
export const F_ROOT: usize = STATE + 64; // first byte of the document's value
export const F_SEEN: usize = STATE + 68;
export const F_CUT: usize = STATE + 76; // the event being read began in an earlier piece
export const F_SCRATCH: usize = STATE + 80;
export const F_ROW_DEPTH: usize = STATE + 84;
export const F_REASON: usize = STATE + 88;
export const F_OFFSET: usize = STATE + 92;
export const F_HIGH: usize = STATE + 96; // bytes above 0x7f were seen
export const F_KEY_END: usize = STATE + 100;

// Results of a call, not part of the saved state.
export const R_COUNT: usize = 512;
export const R_EXTRAS: usize = 516;
export const R_SERIAL: usize = 520;
export const KEY_LENGTHS: usize = 640; // 64 bytes
export const CONSTANTS: usize = 256;
v128.store(CONSTANTS, i8x16.splat(34));
v128.store(CONSTANTS + 16, i8x16.splat(92));
v128.store(CONSTANTS + 32, i8x16.splat(31));
v128.store(CONSTANTS + 48, i8x16.splat(48));
v128.store(CONSTANTS + 64, i8x16.splat(9));
v128.store(CONSTANTS + 80, i8x16.splat(-3));
v128.store(CONSTANTS + 96, i8x16.splat(60));
v128.store(CONSTANTS + 112, i8x16.splat(38));

// Modes.
export const BATCH: i32 = 2;
export const LINES: i32 = 3;

// States. VALUE…AFTER expect something, the others are inside a token.
export const VALUE: i32 = 0;
export const FIRST: i32 = 1;
export const KEY_OR_END: i32 = 2;
export const KEY: i32 = 3;
export const COLON: i32 = 4;
export const END: i32 = 5;
export const AFTER: i32 = 6;
export const STRING: i32 = 7;
export const ESCAPE: i32 = 8;
export const HEX: i32 = 9;
export const LITERAL: i32 = 10;
export const SKIP: i32 = 11;
export const MINUS: i32 = 12;
export const ZERO: i32 = 13;
export const INT: i32 = 14;
export const DOT: i32 = 15;
export const FRAC: i32 = 16;
export const E: i32 = 17;
export const E_SIGN: i32 = 18;
export const EXP: i32 = 19;
export const NUMBER_END: i32 = 20;
export const NUMBER_BAD: i32 = 21;

// Reasons. The texts are in src/ingest/scan.ts.
export const R_VALUE: u32 = 1;
export const R_KEY: u32 = 2;
export const R_COLON: u32 = 3;
export const R_SEPARATOR: u32 = 4;
export const R_CONTROL: u32 = 5;
export const R_ESCAPE: u32 = 6;
export const R_HEX: u32 = 7;
export const R_NUMBER: u32 = 8;
export const R_LITERAL: u32 = 9;
export const R_DEPTH: u32 = 10;
export const R_TRAILING: u32 = 11;
export const R_END: u32 = 12;
export const R_NOT_OBJECT: u32 = 14;
export const R_NOT_ARRAY: u32 = 15;
export const R_BREAK: u32 = 17;

// Bits of an entry's flags.
export const E_ARRAY: u32 = 2;
export const E_BREAKS: u32 = 4;
export const E_ESCAPES: u32 = 8;
export const E_DUPLICATE: u32 = 16;
export const E_ODD_KEY: u32 = 32;
export const E_ODD_VALUE: u32 = 64;
export const E_SAME_REQUEST: u32 = 128;
export const E_TOO_MANY: u32 = 256;

// Members, by their place in the entry.
export const M_ID: u32 = 1;
export const M_TIME: u32 = 5;
export const M_DATA: u32 = 6;
export const M_BASE64: u32 = 7;
export const M_CORRELATION: u32 = 8;
export const M_REQUEST: u32 = 9;
export const M_UNKNOWN: u32 = 16;
export const OBJECT: u32 = 1;
export const ARRAY: u32 = 0;
export const ROOT: u32 = 2;
