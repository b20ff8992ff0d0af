import { setImmediate as nextTurn } from 'node:timers/promises';
import { crc32 } from 'node:zlib';
import { errorText, isModeltapError, ModeltapError } from '../kit/errors.ts';
import { FLAG } from '../record/codec.ts';
import type { SideFile, SpoolRefusal, SpoolWriter } from '../spool/types.ts';
import { badJson, type ReceivedBody, tooMany } from './body.ts';
import type { IngestContext, KnownRoute } from './context.ts';
import { DUPLICATE } from './dedupe.ts';
import { ConstantAttributes, EventTemplate } from './event.ts';
import type { Exchange } from './exchange.ts';
import { replyError, replyJson } from './reply.ts';
import type { SampledOut } from './sampled-out.ts';
import {
  ENTRY_FLAG,
  ENTRY_WORDS,
  entryFault,
  type EventMode,
  type EventTable,
  isFault,
  type JsonFault,
  JsonScan,
  MEMBERS,
  scanEventsInPlace,
} from './scan.ts';
import { TimeReader } from './time.ts';

/** Events handled in one turn of the event loop: about a millisecond. */
const SLICE_EVENTS = 256;
/** And so many bytes of them; more than the scanner's own memory, whose events are never left for a later turn. */
const SLICE_BYTES = 524_288;
/** Refusals listed in an answer. */
const MAX_LISTED = 100;
/** Bytes copied, summed or written at a time, with room for others in between. */
const PIECE_BYTES = 1024 * 1024;
const NULL_BODY = Buffer.from('null');
const TEMPLATE_SLOTS = 64;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

// Word of the entry where a member's span begins; see `EventTable`.
const SPAN = 14;
const ID = SPAN + 2;
const TIME = SPAN + 10;
const DATA = SPAN + 12;
const BASE64_DATA = SPAN + 14;
const CORRELATION = SPAN + 16;
const REQUEST = SPAN + 18;
/** Members that usually do not change from event to event, as places in `MEMBERS`. */
const CONSTANT_MEMBERS = [0, 2, 3, 4, 10, 11, 12, 13, 14, 15] as const;

/** Templates by the slot and serial the scanner gave them; shared by all batches, as the scanner's are. */
const templates: ({ readonly serial: number; readonly template: EventTemplate } | undefined)[] = Array.from({
  length: TEMPLATE_SLOTS,
});

const NOT_BASE64 = { attribute: 'data_base64', problem: 'is not base64 text' };

/** One for all: times come in order. */
const times = new TimeReader();

interface BatchParts {
  readonly exchange: Exchange;
  readonly body: ReceivedBody;
  /** `event`: the request is one event and not a batch, its error is the answer. */
  readonly mode: EventMode;
  /** What the sender says it left out; counted when the request is answered as taken. */
  readonly sampledOut: readonly SampledOut[];
}

interface EventBody {
  readonly bytes: Buffer;
  readonly flags: number;
  readonly rows: number;
}

/** The events of one structured, batch or line request, from the scanner's table to the spool and the answer. */
export class EventBatch {
  readonly #context: IngestContext;
  readonly #parts: BatchParts;
  #bytes: Buffer = NULL_BODY;
  #held = 0;
  #tables: readonly EventTable[] = [];
  readonly #arrivedMs: number;
  readonly #rejected: { index: number; code: string; message: string }[] = [];
  #first: ModeltapError | undefined;
  #refused = 0;
  #taken = 0;
  /** Events without an outcome, and one more while there are events not looked at. */
  #open = 1;
  #index = 0;

  constructor(context: IngestContext, parts: BatchParts) {
    this.#context = context;
    this.#parts = parts;
    this.#arrivedMs = context.now();
  }

  /** Handles all events: few at once, many in several turns of the event loop. */
  run(): void {
    const { body, mode } = this.#parts;
    const { maxBatchEvents } = this.#context.limits;
    const now = body.scan === undefined ? scanEventsInPlace(body.parts, mode) : undefined;
    if (now !== undefined && now.table.count <= Math.min(SLICE_EVENTS, maxBatchEvents)) {
      // The common case: everything happens before the scanner is used again.
      this.#bytes = now.bytes;
      this.#tables = [now.table];
      if (this.#isSound(now.fault)) this.#slice(0, 0, now.fault);
      return;
    }
    this.#held = body.bytes;
    this.#context.flow.bytes += this.#held;
    const [only] = body.parts;
    if (body.parts.length === 1 && only) this.#scanned(only);
    else if (body.bytes <= PIECE_BYTES) this.#scanned(Buffer.concat(body.parts));
    else void joinInTurns(body.parts, body.bytes).then((bytes) => this.#scanned(bytes));
  }

  /** Goes on with the text whole in memory of its own. */
  #scanned(bytes: Buffer): void {
    const { body, mode } = this.#parts;
    const { maxBatchEvents } = this.#context.limits;
    this.#bytes = bytes;
    const scan = body.scan ?? new JsonScan(mode);
    if (body.scan === undefined) scan.feed(bytes);
    const end = scan.end();
    const fault = isFault(end) ? end : undefined;
    this.#tables = scan.tables;
    if (scan.events > maxBatchEvents) this.#refuseAll(tooMany(maxBatchEvents));
    else if (this.#isSound(fault)) this.#slice(0, 0, fault);
  }

  /** False, and the request is refused, when the text as a whole is wrong. A torn last line is one bad event. */
  #isSound(fault: JsonFault | undefined): boolean {
    const { mode, body } = this.#parts;
    if (fault === undefined || (mode === 'lines' && fault.offset === body.bytes && body.bytes > 0)) return true;
    this.#refuseAll(badJson(fault));
    return false;
  }

  #refuseAll(error: ModeltapError): void {
    this.#context.flow.bytes -= this.#held;
    this.#context.refuse(this.#parts.exchange, error, undefined, this.#arrivedMs);
  }

  #slice(fromTable: number, fromEntry: number, torn: JsonFault | undefined): void {
    let left = SLICE_EVENTS;
    let bytes = SLICE_BYTES;
    let entry = fromEntry;
    for (let index = fromTable; index < this.#tables.length; index += 1, entry = 0) {
      const table = this.#tables[index] as EventTable;
      for (; entry < table.count; entry += 1) {
        if (left === 0 || bytes <= 0) {
          setImmediate(() => this.#slice(index, entry, torn));
          return;
        }
        const at = entry * ENTRY_WORDS;
        left -= 1;
        bytes -= (table.words[at + 1] as number) - (table.words[at] as number);
        this.#event(table, at);
      }
    }
    if (torn !== undefined) this.#refuse(this.#index++, badJson(torn), undefined, this.#arrivedMs);
    this.#settled();
  }

  #event(table: EventTable, at: number): void {
    const { words } = table;
    const index = this.#index++;
    const flags = words[at + 2] as number;
    const fault = words[at + 6] === 0 ? undefined : entryFault(words[at + 6] as number, words[at + 7] as number);
    if (fault) {
      this.#refuse(index, badJson(fault), undefined, this.#arrivedMs);
      return;
    }
    const template = this.#template(table, at);
    const invalid = shapeFault(words, at, flags) ?? template.fault;
    if (invalid) {
      this.#refuse(index, this.#invalid(index, invalid.attribute, invalid.problem), undefined, this.#arrivedMs);
      return;
    }
    const plain = (flags & ENTRY_FLAG.oddValue) === 0;
    const id = this.#text(words, at + ID, plain);
    const timeMs = words[at + TIME + 1] === 0 ? this.#arrivedMs : this.#time(words, at, plain);
    const correlation = this.#text(words, at + CORRELATION, plain);
    const request = (flags & ENTRY_FLAG.sameRequest) !== 0 ? correlation : this.#text(words, at + REQUEST, plain);
    const body = this.#body(words, at, template);
    const wrong = varyingFault(id, timeMs, correlation, request) ?? (body === undefined ? NOT_BASE64 : undefined);
    if (wrong !== undefined || body === undefined) {
      this.#refuse(
        index,
        this.#invalid(index, wrong?.attribute ?? '', wrong?.problem ?? ''),
        undefined,
        this.#arrivedMs,
      );
      return;
    }
    const route = template.route(this.#context, this.#parts.exchange.port);
    if (route instanceof ModeltapError) {
      this.#refuse(index, route, undefined, timeMs ?? this.#arrivedMs);
      return;
    }
    const correlationId = correlation || request || this.#context.uuid();
    const attributes = template.encode(
      route,
      request && request !== correlationId ? request : undefined,
      (body.flags & FLAG.json) === 0,
    );
    this.#claim({ index, route, body, attributes, id: id as string, correlationId, timeMs: timeMs as number });
  }

  #claim(event: ReadyEvent): void {
    const { body } = event;
    this.#open += 1;
    if (body.bytes.length <= this.#context.limits.sideFileBytes) {
      this.#claimed(event, crc32(body.bytes));
      return;
    }
    // The scanner's own memory does not outlive this turn.
    const bytes = this.#held === 0 ? Buffer.from(body.bytes) : body.bytes;
    void crcInTurns(bytes).then((crc) => this.#claimed({ ...event, body: { ...body, bytes } }, crc));
  }

  #claimed(event: ReadyEvent, crc: number): void {
    const { index, route, body, id, timeMs } = event;
    const { dedupe, limits } = this.#context;
    const claim = dedupe.claim(route.salt, id, body.bytes.length, crc);
    if (claim < 0) {
      const known = (refusal?: SpoolRefusal) => {
        if (refusal === undefined) route.counts.duplicate(route.destination.id, timeMs);
        else this.#refuse(index, this.#context.refusal(refusal, route), route, timeMs);
        this.#settled();
      };
      if (claim === DUPLICATE) known();
      else dedupe.wait(known);
      return;
    }
    if (body.bytes.length <= limits.sideFileBytes) {
      this.#append(event, claim, undefined);
      return;
    }
    writeSideFile(route.spool, body.bytes).then(
      (file) => this.#append(event, claim, file),
      (error: unknown) => {
        dedupe.settle(claim, 'spool_disk_error');
        this.#refuse(index, toSpoolError(error), route, timeMs);
        this.#settled();
      },
    );
  }

  #append(event: ReadyEvent, claim: number, sideFile: SideFile | undefined): void {
    const { index, route, body, attributes, id, correlationId, timeMs } = event;
    const head = {
      destinationId: route.destination.id,
      timeMs,
      receivedMs: this.#arrivedMs,
      attributes,
      id,
      correlationId,
      flags: body.flags | (sideFile ? FLAG.sideFile : 0),
      rows: body.rows,
      bodyBytes: body.bytes.length,
    };
    this.#context.append(
      route,
      head,
      { parts: sideFile ? [] : [body.bytes], sideFile },
      {
        appended: (error, refusal) => {
          this.#context.dedupe.settle(claim, error === undefined ? undefined : (refusal ?? 'spool_too_large'));
          if (error) this.#refuse(index, error, route, timeMs);
          this.#settled();
        },
      },
    );
  }

  #template(table: EventTable, at: number): EventTemplate {
    const { words, extras } = table;
    const serial = words[at + 8] as number;
    const slot = words[at + 9] as number;
    const known = serial === 0 ? undefined : templates[slot];
    if (known !== undefined && known.serial === serial) return known.template;
    const constants = new ConstantAttributes();
    for (const member of CONSTANT_MEMBERS) {
      const span = at + SPAN + 2 * member;
      if (words[span + 1] !== 0)
        constants.add(MEMBERS[member], this.#value(words[span] as number, words[span + 1] as number));
    }
    const first = words[at + 10] as number;
    for (let extra = first * 4; extra < (first + (words[at + 11] as number)) * 4; extra += 4) {
      const name = this.#bytes.toString('utf8', extras[extra], extras[extra + 1]);
      constants.add(name, this.#value(extras[extra + 2] as number, extras[extra + 3] as number));
    }
    const template = constants.compile();
    if (serial !== 0) templates[slot] = { serial, template };
    return template;
  }

  /** A member's value. Objects and arrays are never legal there and are not parsed. */
  #value(start: number, end: number): unknown {
    const first = this.#bytes[start];
    return first === 0x7b || first === 0x5b ? [] : JSON.parse(this.#bytes.toString('utf8', start, end));
  }

  /** A string member: empty when absent or null, undefined when it is not a string. */
  #text(words: Uint32Array, span: number, plain: boolean): string | undefined {
    const end = words[span + 1] as number;
    if (end === 0) return '';
    const start = words[span] as number;
    if (plain) return this.#bytes.toString('latin1', start + 1, end - 1);
    const value = this.#value(start, end);
    return value === null ? '' : typeof value === 'string' ? value : undefined;
  }

  #time(words: Uint32Array, at: number, plain: boolean): number | undefined {
    const start = words[at + TIME] as number;
    const end = words[at + TIME + 1] as number;
    if (plain) return times.read(this.#bytes, start + 1, end - 1);
    const value = this.#value(start, end);
    if (value === null) return this.#arrivedMs;
    if (typeof value !== 'string') return undefined;
    const text = Buffer.from(value);
    return times.read(text, 0, text.length);
  }

  /** The body an event stands for; undefined for base64 that is none. */
  #body(words: Uint32Array, at: number, template: EventTemplate): EventBody | undefined {
    const encodedEnd = words[at + BASE64_DATA + 1] as number;
    if (encodedEnd !== 0) {
      const value = this.#value(words[at + BASE64_DATA] as number, encodedEnd);
      if (typeof value !== 'string' || !BASE64.test(value)) return undefined;
      return { bytes: Buffer.from(value, 'base64'), flags: 0, rows: 1 };
    }
    const end = words[at + DATA + 1] as number;
    if (end === 0) return { bytes: NULL_BODY, flags: FLAG.json, rows: 1 };
    const bytes = this.#bytes.subarray(words[at + DATA] as number, end);
    // A string under a content type that is not JSON stands for its text.
    if (!template.json && bytes[0] === 0x22) {
      return { bytes: Buffer.from(String(JSON.parse(bytes.toString()))), flags: 0, rows: 1 };
    }
    const flags = words[at + 2] as number;
    const array = (flags & ENTRY_FLAG.array) !== 0;
    const json =
      FLAG.json |
      (array ? FLAG.array : 0) |
      ((flags & ENTRY_FLAG.lineBreaks) === 0 ? 0 : FLAG.lineBreaks) |
      ((flags & ENTRY_FLAG.escapes) === 0 ? 0 : FLAG.escapes);
    return { bytes, flags: json, rows: array ? (words[at + 3] as number) : 1 };
  }

  #invalid(index: number, attribute: string, problem: string): ModeltapError {
    return new ModeltapError('event_invalid', {
      event: this.#parts.mode === 'event' ? 'the event' : `event ${index}`,
      attribute,
      problem,
    });
  }

  #refuse(index: number, error: ModeltapError, route: KnownRoute | undefined, timeMs: number): void {
    (route?.counts ?? this.#context.counts).rejected(error.code, route?.destination.id ?? 0, timeMs);
    this.#first ??= error;
    this.#refused += 1;
    if (this.#rejected.length < MAX_LISTED) this.#rejected.push({ index, code: error.code, message: error.message });
  }

  #settled(): void {
    this.#taken += 1;
    if (this.#taken < this.#open) return;
    this.#context.flow.bytes -= this.#held;
    const { exchange, sampledOut } = this.#parts;
    const { closing } = this.#context;
    const accepted = this.#index - this.#refused;
    if (this.#first !== undefined && accepted === 0) {
      replyError(exchange, this.#first, closing);
      return;
    }
    for (const { collection, records } of sampledOut)
      this.#context.sampledOut(exchange.port, collection, { timeMs: this.#arrivedMs, records });
    if (this.#first === undefined) this.#context.accepted(exchange);
    else replyJson(exchange, 207, { accepted, rejected: this.#rejected, rejectedCount: this.#refused }, closing);
  }
}

interface ReadyEvent {
  readonly index: number;
  readonly route: KnownRoute;
  readonly body: EventBody;
  readonly attributes: Buffer;
  readonly id: string;
  readonly correlationId: string;
  readonly timeMs: number;
}

function shapeFault(words: Uint32Array, at: number, flags: number): { attribute: string; problem: string } | undefined {
  if ((flags & ENTRY_FLAG.duplicate) !== 0) {
    return { attribute: MEMBERS[words[at + 12] as number] ?? '', problem: 'is given twice' };
  }
  if ((flags & ENTRY_FLAG.oddName) !== 0) return { attribute: 'names', problem: 'must be written without escapes' };
  if ((flags & ENTRY_FLAG.tooMany) !== 0) return { attribute: 'names', problem: 'are too many: at most 64 extensions' };
  if (words[at + ID + 1] === 0) return { attribute: 'id', problem: 'is missing' };
  const both = words[at + DATA + 1] !== 0 && words[at + BASE64_DATA + 1] !== 0;
  return both ? { attribute: 'data', problem: 'and data_base64 are both given' } : undefined;
}

function varyingFault(
  id: string | undefined,
  timeMs: number | undefined,
  correlation: string | undefined,
  request: string | undefined,
): { attribute: string; problem: string } | undefined {
  if (id === undefined) return { attribute: 'id', problem: 'must be a string' };
  if (id === '') return { attribute: 'id', problem: 'is empty' };
  if (timeMs === undefined) return { attribute: 'time', problem: 'is not an RFC 3339 time' };
  if (correlation === undefined) return { attribute: 'correlationid', problem: 'must be a string' };
  return request === undefined ? { attribute: 'xrequestid', problem: 'must be a string' } : undefined;
}

/** The pieces as one, copied in turns with other work. */
async function joinInTurns(parts: readonly Buffer[], bytes: number): Promise<Buffer> {
  const joined = Buffer.allocUnsafeSlow(bytes);
  let at = 0;
  let pause = PIECE_BYTES;
  for (const part of parts) {
    at += part.copy(joined, at);
    if (at < pause) continue;
    pause = at + PIECE_BYTES;
    await nextTurn();
  }
  return joined;
}

/** CRC-32, computed in turns with other work. */
async function crcInTurns(bytes: Buffer): Promise<number> {
  let crc = 0;
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
    crc = crc32(bytes.subarray(at, at + PIECE_BYTES), crc);
    await nextTurn();
  }
  return crc;
}

async function writeSideFile(spool: SpoolWriter, bytes: Buffer): Promise<SideFile> {
  const file = await spool.openSideFile();
  try {
    for (let at = 0; at < bytes.length; at += PIECE_BYTES) await file.write(bytes.subarray(at, at + PIECE_BYTES));
    await file.seal();
    return file;
  } catch (error) {
    await file.abort();
    throw error;
  }
}

function toSpoolError(error: unknown): ModeltapError {
  return isModeltapError(error) ? error : new ModeltapError('spool_disk_error', { detail: errorText(error) });
}
