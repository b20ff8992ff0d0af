import { DATA_TYPES } from './format.ts';
import type { JsonBuffer } from './json-buffer.ts';
import type { Envelope } from './protocol.ts';
import type { ChunkReader, RecordHead } from './unpack.ts';
import { VERSION } from './version.ts';

/** What `agent` says in stored records. */
export const AGENT = `modeltap-collector/${VERSION}`;

const NO_HEADERS: readonly (readonly [string, string])[] = [];
/** Attributes a context header cannot replace. */
const OWN_ATTRIBUTES: ReadonlySet<string> = new Set(
  (
    'specversion id source type datacontenttype dataschema subject time data data_base64 correlationid xrequestid ' +
    'modelversion collectdatatype agent sampledrate'
  ).split(' '),
);
const FIXED_HEADERS: ReadonlySet<string> = new Set(
  'ce-time ce-type ce-collect-data-type ce-agent ce-x-request-id ce-model-version'.split(' '),
);
const HEADER_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

/** A record on its way, written into a buffer. */
export interface Entry {
  /** The CloudEvents id: the same however often the record is sent. */
  readonly id: string;
  readonly head: RecordHead;
  readonly envelope: Envelope;
  readonly collectedMs: number;
  /** The event in the buffer. */
  readonly start: number;
  readonly end: number;
  /** Its data in the buffer. */
  readonly dataStart: number;
  readonly dataEnd: number;
}

/** The parts of an event that are the same for every record of an envelope and a type of data. */
class EventFrame {
  /** From the id to the time. */
  readonly middle: Buffer;
  readonly #ends: (Buffer | undefined)[] = [];
  readonly #envelope: Envelope;

  constructor(envelope: Envelope) {
    const { source, collection } = envelope;
    const type = `azureml.inference.${collection}`;
    this.#envelope = envelope;
    this.middle = Buffer.from(
      `","source":${json(source)},"type":${json(type)},"datacontenttype":"application/json","time":"`,
    );
  }

  /** What follows the correlation id. */
  end(dataType: number): Buffer {
    const known = this.#ends[dataType];
    if (known !== undefined) return known;
    const { modelVersion, sampledRate } = this.#envelope;
    const sampled = sampledRate === undefined ? '' : `,"sampledrate":${sampledRate}`;
    const text = `,"modelversion":${json(modelVersion)},"collectdatatype":${json(DATA_TYPES[dataType] ?? '')},"agent":`;
    const made = Buffer.from(`${text}${json(AGENT)}${sampled}`);
    this.#ends[dataType] = made;
    return made;
  }
}

const frames = new WeakMap<Envelope, EventFrame>();

function frameOf(envelope: Envelope): EventFrame {
  let frame = frames.get(envelope);
  if (frame === undefined) {
    frame = new EventFrame(envelope);
    frames.set(envelope, frame);
  }
  return frame;
}

/** JSON text of a string that is well formed afterwards. */
function json(text: string): string {
  return JSON.stringify(Buffer.from(text).toString());
}

/** Writes a record as a structured CloudEvent; the keys are in the order of the stored lines. */
export function writeEvent(
  out: JsonBuffer,
  reader: ChunkReader,
  record: Pick<Entry, 'id' | 'head' | 'envelope' | 'collectedMs'>,
): Entry {
  const { head, envelope } = record;
  const start = out.length;
  const frame = frameOf(envelope);
  out.ascii('{"specversion":"1.0","id":"');
  out.ascii(record.id);
  out.raw(frame.middle);
  out.ascii(timeText(head.time, record.collectedMs));
  out.ascii('","data":');
  const dataStart = out.length;
  reader.body(head.bodyAt, out);
  const dataEnd = out.length;
  if (head.correlationId !== undefined && head.correlationId !== '') {
    out.ascii(',"correlationid":');
    const from = out.length;
    out.text(head.correlationId);
    const to = out.length;
    out.ascii(',"xrequestid":');
    out.again(from, to);
  }
  out.raw(frame.end(head.dataType));
  for (const [name, value] of extensions(head.headers)) attribute(out, name, value);
  out.ascii('}');
  return { ...record, start, end: out.length, dataStart, dataEnd };
}

/** The headers of `POST /modeldata/log`, as the Python SDK sends them. */
export function logHeaders(entry: Entry): Record<string, string> {
  const { head, envelope } = entry;
  const headers: Record<string, string> = {};
  for (const [key, value] of head.headers) {
    const name = `ce-${key}`;
    if (HEADER_NAME.test(name) && !FIXED_HEADERS.has(name.toLowerCase())) headers[name] = headerValue(value);
  }
  headers['Content-Type'] = 'application/json';
  headers['trace-id'] = entry.id;
  headers['ce-time'] = headerValue(String(head.time));
  headers['ce-type'] = headerValue(`azureml.inference.${envelope.collection}`);
  headers['ce-collect-data-type'] = DATA_TYPES[head.dataType] ?? '';
  headers['ce-agent'] = AGENT;
  if (head.correlationId !== undefined) headers['ce-x-request-id'] = headerValue(head.correlationId);
  headers['ce-model-version'] = headerValue(envelope.modelVersion);
  headers['Accept'] = '*/*';
  headers['User-Agent'] = AGENT;
  return headers;
}

/** RFC 3339 has years of four digits. */
const LAST_SECOND = 253_402_300_800;
let lastTime: number | undefined;
let lastText = '';

/** `eventTime`, remembering the last: generated times are whole seconds, so most records share one. */
function timeText(time: number | string, fallbackMs: number): string {
  if (typeof time !== 'number' || !(time >= 0 && time < LAST_SECOND)) return eventTime(time, fallbackMs);
  if (time !== lastTime) {
    lastText = eventTime(time, fallbackMs);
    lastTime = time;
  }
  return lastText;
}

/** RFC 3339 of Unix seconds; `fallbackMs` when the context gave something that is no time. */
export function eventTime(time: number | string, fallbackMs: number): string {
  const seconds = typeof time === 'number' ? time : time.trim() === '' ? Number.NaN : Number(time);
  const given = Number.isNaN(seconds) ? Date.parse(String(time)) : Math.floor(seconds * 1000);
  const date = new Date(given);
  const valid = date.getTime() >= -62_167_219_200_000 && date.getTime() < LAST_SECOND * 1000;
  return (valid ? date : new Date(fallbackMs)).toISOString().replace('.000Z', 'Z');
}

/** Context headers as CloudEvents attributes: lower case letters and digits only, never in place of a fixed one. */
function extensions(headers: RecordHead['headers']): Iterable<readonly [string, string]> {
  if (headers.length === 0) return NO_HEADERS;
  const byName = new Map<string, string>();
  for (const [key, value] of headers) {
    const name = key.toLowerCase().replace(/[^a-z0-9]/g, '');
    if (name !== '' && !OWN_ATTRIBUTES.has(name)) byName.set(name, value);
  }
  return byName;
}

function attribute(out: JsonBuffer, name: string, value: string): void {
  out.ascii(`,"${name}":`);
  out.text(value);
}

/** Header values are Latin-1; everything else is percent-encoded, as CloudEvents over HTTP does it. */
function headerValue(text: string): string {
  return text.replace(/[^\x20-\x7e\xa0-\xff]+/gu, (part) => encodeURIComponent(Buffer.from(part).toString()));
}
