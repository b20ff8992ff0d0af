import { FLAG } from '../record/codec.ts';
import { sampledRate } from '../record/sample-point.ts';
import type { Exchange, Side } from './exchange.ts';
import { fieldOf, framingOf, type MessageHead } from './head.ts';
import type { PreparedBody } from './prepare.ts';
import { headerAttributes } from './request-headers.ts';
import { storedPath } from './request-path.ts';

/** Longest media type stored. */
const MAX_TYPE = 256;

/**
 * The attributes of the record of one message, as JSON text (docs/tap.md has them all). The text is put together from its
 * members and not made of an object, because this runs twice an exchange.
 */
export function eventAttributes(exchange: Exchange, side: Side, prepared: PreparedBody): Buffer {
  const { settings } = exchange;
  const { body } = prepared;
  const { head } = exchange[side];
  const mediaType = (head === undefined ? '' : (fieldOf(head, 'content-type') ?? '')).slice(0, MAX_TYPE);
  const opaque = (body.flags & FLAG.json) === 0;
  const range = contentRange(exchange, side, prepared);
  const dataType = mediaType === '' ? defaultType(body.text, body.bodyBytes) : mediaType;
  let members = beginning(side, dataType);
  if (body.text) members += ',"text":true';
  if (side === 'request') {
    members += `,"path":${JSON.stringify(storedPath(exchange.target))},"method":${JSON.stringify(exchange.method)}`;
  }
  if (range !== undefined) members += `,"contentrange":"${range}"`;
  let extensions = outcome(exchange, side) + shape(exchange, side, prepared);
  if (opaque && mediaType !== '') extensions += `,"mediatype":${JSON.stringify(mediaType)}`;
  if (head !== undefined && settings.captureHeaders.length > 0) {
    for (const [name, value] of Object.entries(headerAttributes(head, settings.captureHeaders))) {
      extensions += `,"${name}":${JSON.stringify(value)}`;
    }
  }
  return closed(members + rateOf(exchange), extensions);
}

/** The attributes of the record that holds a streamed answer merged into one. */
export function mergedAttributes(exchange: Exchange): Buffer {
  const members = beginning('response', 'application/json') + rateOf(exchange);
  return closed(members, `${outcome(exchange, 'response')},"merged":true`);
}

function beginning(side: Side, dataType: string): string {
  return `{"type":"azureml.inference.${side}","datacontenttype":${JSON.stringify(dataType)}`;
}

/** Members with a comma in front of each, so that the first comma of the extensions is one too many. */
function closed(members: string, extensions: string): Buffer {
  return Buffer.from(extensions === '' ? `${members}}` : `${members},"extensions":{${extensions.slice(1)}}}`);
}

function rateOf(exchange: Exchange): string {
  const { errorRate, samplingRate } = exchange.settings;
  const rate = sampledRate(exchange.failed ? errorRate : samplingRate);
  return rate === undefined ? '' : `,"sampledrate":${rate}`;
}

/** A message without a media type: nothing is said of a body that is not there, and a text is `text/plain`. */
function defaultType(text: boolean, bytes: number): string {
  if (!text) return 'application/json';
  return bytes === 0 ? '' : 'text/plain';
}

/** How the exchange went: on the response; on the request too what went wrong, and all of it when only requests are collected. */
function outcome(exchange: Exchange, side: Side): string {
  const { settings, status, ttfbMs, durationMs, clientAborted, upstreamError } = exchange;
  let members = '';
  if (side === 'response' || settings.response === undefined) {
    if (status !== undefined) members += `,"status":${status}`;
    members += `,"durationms":${Math.round(durationMs)}`;
    if (ttfbMs !== undefined) members += `,"ttfbms":${Math.round(ttfbMs)}`;
  }
  if (clientAborted) members += ',"clientaborted":true';
  if (upstreamError !== undefined) members += `,"upstreamerror":${JSON.stringify(upstreamError)}`;
  return members;
}

/** What there is to know of the body as it is stored. */
function shape(exchange: Exchange, side: Side, prepared: PreparedBody): string {
  const { body, complete, head } = exchange[side];
  const { coding, undecoded } = prepared;
  let members = '';
  if (body.truncated) members += ',"truncated":true';
  if (!complete && head !== undefined) members += ',"incomplete":true';
  if (prepared.body.badJson && complete && !body.truncated) members += ',"invalidjson":true';
  if (coding !== undefined) members += `,"contentencoding":${JSON.stringify(coding.slice(0, MAX_TYPE))}`;
  if (coding !== undefined && undecoded === undefined) members += `,"encodedbytes":${body.seen}`;
  if (undecoded !== undefined) members += `,"undecoded":"${undecoded}"`;
  return members;
}

/**
 * `contentrange`, when it is not `bytes 0-(n-1)/n` with n the stored body's length. The total is `*` where it was not known
 * before the end: for a request that did not announce its length (as in the product document's sample), and for a body
 * that was cut off before its end.
 */
function contentRange(
  exchange: Exchange,
  side: Side,
  { bytes, body, coding, undecoded }: PreparedBody,
): string | undefined {
  const message = exchange[side];
  const { truncated, seen } = message.body;
  const decoded = coding !== undefined && undecoded === undefined;
  if (message.complete && !truncated && bytes === body.bodyBytes) {
    const known = side === 'response' || bytes === 0 || hasLength(message.head);
    return known ? undefined : `bytes 0-${bytes - 1}/*`;
  }
  const announced = announcedBytes(exchange, side);
  let total: number | '*' = bytes;
  if (!message.complete) total = decoded ? '*' : (announced ?? '*');
  else if (truncated) total = decoded ? '*' : seen;
  else if (side === 'request' && announced === undefined && bytes > 0) total = '*';
  if (total === bytes && bytes === body.bodyBytes) return undefined;
  if (bytes === 0) return total === '*' ? undefined : `bytes */${total}`;
  return `bytes 0-${bytes - 1}/${total}`;
}

/** The field is there. What it says was read when the head passed. */
function hasLength(head: MessageHead | undefined): boolean {
  return head?.names.includes('content-length') === true;
}

function announcedBytes(exchange: Exchange, side: Side): number | undefined {
  const { head } = exchange[side];
  if (head === undefined) return undefined;
  const framing = framingOf(head, 1, { kind: 'none' });
  return typeof framing === 'object' && framing.kind === 'length' ? framing.bytes : undefined;
}
