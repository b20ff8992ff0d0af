import type { ByteWriter } from './byte-writer.ts';
import { insideArray, quoted, withMember, writeJson } from './json-bytes.ts';
import { isoSeconds } from './time.ts';
import type { RecordAttributes, StoredRecord } from './types.ts';

/** Attribute names an extension may not take: a line never has a name twice. */
const OWN_NAMES: ReadonlySet<string> = new Set(
  (
    'specversion id source type datacontenttype dataschema subject time data contentrange correlationid xrequestid ' +
    'modelversion collectdatatype agent sampledrate datainblob dataref'
  ).split(' '),
);

/** The parts of a line that all records of one destination with the same attributes share. */
export interface Envelope {
  /** `","source":…,"type":…,"datacontenttype":…,"time":"` for inline JSON. */
  readonly jsonHead: string;
  /** The same for an event whose data is the address of a raw object. */
  readonly blobHead: string;
  /** `,"xrequestid":…` when the attributes say one, else undefined: it is the correlation id. */
  readonly xrequestid: string | undefined;
  /** `,"path":…,"method":…` of a captured request, else empty. */
  readonly request: string;
  /** Value of `contentrange` when it does not follow from the length of the body. */
  readonly range: string | undefined;
  /** `,"modelversion":…` and what follows it, without the closing brace. */
  readonly tail: string;
}

function member(name: string, value: string | number | boolean | undefined): string {
  if (value === undefined) return '';
  return `,"${name}":${typeof value === 'string' ? quoted(value) : JSON.stringify(value)}`;
}

function parseAttributes(text: string): RecordAttributes | undefined {
  try {
    const value = JSON.parse(text) as RecordAttributes | null;
    return typeof value?.type === 'string' ? value : undefined;
  } catch {
    // The text came out of a frame whose checksum held, so a newer version wrote it; the caller counts the record.
    return undefined;
  }
}

/**
 * Makes the shared parts of a line from a destination's `source` and the JSON text of a record's attributes. Undefined
 * when the text is not one. Callers keep one envelope per distinct pair.
 */
export function createEnvelope(source: string, attributesText: string): Envelope | undefined {
  const attributes = parseAttributes(attributesText);
  if (!attributes) return undefined;
  const { type, modelversion, collectdatatype, agent, sampledrate, xrequestid, path, method } = attributes;
  const { datacontenttype } = attributes;
  // CloudEvents: `data` that is a JSON value needs a JSON media type; a string that stands for text has the text's.
  const isJsonType = attributes.text === true || /^[^;]*[/+]json\s*(;|$)/i.test(datacontenttype ?? '');
  const head = (contentType: string) =>
    `,"source":${quoted(source)},"type":${quoted(type)}${member('datacontenttype', contentType || undefined)},"time":"`;
  const extensions = Object.entries(attributes.extensions ?? {})
    .filter(([name]) => /^[a-z0-9]+$/.test(name) && !OWN_NAMES.has(name))
    .filter(([name]) => !(name === 'path' && path !== undefined) && !(name === 'method' && method !== undefined))
    .map(([name, value]) => member(name, value));
  return {
    jsonHead: head(isJsonType ? datacontenttype : 'application/json'),
    blobHead: head('text/plain'),
    xrequestid: xrequestid === undefined ? undefined : member('xrequestid', xrequestid),
    request: member('path', path) + member('method', method),
    range: attributes.contentrange,
    tail:
      member('modelversion', modelversion) +
      member('collectdatatype', collectdatatype) +
      member('agent', agent) +
      member('sampledrate', sampledrate) +
      extensions.join(''),
  };
}

/** What differs from event to event. */
export interface EventFields {
  readonly envelope: Envelope;
  /** CloudEvents id: as given, or `eventIdOf`. */
  readonly id: string;
  readonly timeMs: number;
  /** Empty: the event has neither `correlationid` nor `xrequestid`. */
  readonly correlationId: string;
}

// The form of a length without a range is that of RFC 9110 §14.4 (`unsatisfied-range`).
function contentRange(bytes: number): string {
  return bytes === 0 ? 'bytes */0' : `bytes 0-${bytes - 1}/${bytes}`;
}

function begin(out: ByteWriter, fields: EventFields, head: string): void {
  out.text(`{"specversion":"1.0","id":${quoted(fields.id)}${head}${isoSeconds(fields.timeMs)}"`);
}

function end(out: ByteWriter, fields: EventFields, bytes: number, last: string): void {
  const { envelope, correlationId } = fields;
  const id = correlationId === '' ? '' : quoted(correlationId);
  const correlation = id === '' ? '' : `,"correlationid":${id}`;
  const request = envelope.xrequestid ?? (id === '' ? '' : `,"xrequestid":${id}`);
  const range = envelope.range === undefined ? `"${contentRange(bytes)}"` : quoted(envelope.range);
  out.text(`${envelope.request},"contentrange":${range}${correlation}${request}${envelope.tail}${last}}\n`);
}

/** What `writeEvent` needs of a record. */
export type InlineBody = Pick<StoredRecord, 'escapes' | 'lineBreaks' | 'correlationId' | 'bodyBytes'> & {
  readonly body: Buffer;
};

/**
 * Appends the line of an event that carries one JSON body: the body's bytes as received but for the byte rules of
 * `writeJson`. `contentrange` counts the bytes received. An empty body, which no JSON text is, makes no `data`.
 */
export function writeEvent(out: ByteWriter, fields: EventFields, record: InlineBody): void {
  begin(out, fields, fields.envelope.jsonHead);
  if (record.body.length > 0) {
    out.text(',"data":');
    writeJson(out, record.body, record.escapes, record.lineBreaks);
  }
  end(out, fields, record.bodyBytes, '');
}

/**
 * Appends the line of an event whose `data` is one array made of the elements of all the records' arrays, in order.
 * `contentrange` counts that array before `<`, `>`, `&` are escaped. With `ownIds`, every row object without a member
 * `correlationid` gets one: the id of the record it came in.
 */
export function writeMergedEvent(
  out: ByteWriter,
  fields: EventFields,
  records: readonly InlineBody[],
  ownIds: boolean,
): void {
  begin(out, fields, fields.envelope.jsonHead);
  out.text(',"data":[');
  let bytes = 2;
  let first = true;
  for (const record of records) {
    const inside = insideArray(record.body);
    if (inside.length === 0) continue;
    const rows = ownIds ? withMember(inside, 'correlationid', quoted(record.correlationId)) : inside;
    if (!first) out.text(',');
    bytes += rows.length + (first ? 0 : 1);
    writeJson(out, rows, record.escapes || ownIds, record.lineBreaks);
    first = false;
  }
  out.text(']');
  end(out, fields, bytes, '');
}

/**
 * Appends the line of an event whose rows lie in an object of their own: `dataref`, its address, stands in the place of
 * `data`. `contentrange` is that of the object.
 */
export function writeReferenceEvent(out: ByteWriter, fields: EventFields, url: string, bytes: number): void {
  begin(out, fields, fields.envelope.jsonHead);
  out.text(`,"dataref":${quoted(url)}`);
  end(out, fields, bytes, '');
}

/**
 * Appends the line of an event whose body is opaque bytes, or a large JSON value that is not rows, in an object of its
 * own: `data` is the address as text, `datainblob` is the string `true`, and `dataref` repeats the address.
 */
export function writeBlobEvent(out: ByteWriter, fields: EventFields, url: string, bytes: number): void {
  begin(out, fields, fields.envelope.blobHead);
  out.text(`,"data":${quoted(url)}`);
  end(out, fields, bytes, `,"datainblob":"true","dataref":${quoted(url)}`);
}
