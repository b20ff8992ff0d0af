import { FLAG } from '../record/codec.ts';
import { sampledRate } from '../record/sample-point.ts';
import type { RecordAttributes } from '../record/types.ts';
import type { Exchange, Side } from './exchange.ts';
import { fieldOf, framingOf } from './head.ts';
import type { PreparedBody } from './prepare.ts';
import { headerAttributes } from './request-headers.ts';
import { storedPath } from './request-path.ts';

/** Longest media type stored. */
const MAX_TYPE = 256;

type Extensions = Record<string, string | number | boolean>;

/** The attributes of the record of one message, as JSON text (docs/tap.md has them all). */
export function eventAttributes(exchange: Exchange, side: Side, prepared: PreparedBody): Buffer {
  const { settings } = exchange;
  const { body } = prepared;
  const { head } = exchange[side];
  const mediaType = (head === undefined ? '' : (fieldOf(head, 'content-type') ?? '')).slice(0, MAX_TYPE);
  const range = contentRange(exchange, side, prepared);
  const rate = sampledRate(exchange.failed ? settings.errorRate : settings.samplingRate);
  const opaque = (body.flags & FLAG.json) === 0;
  const extensions: Extensions = {
    ...outcome(exchange, side),
    ...shape(exchange, side, prepared),
    ...(opaque && mediaType !== '' ? { mediatype: mediaType } : {}),
    ...(head === undefined || settings.captureHeaders.length === 0
      ? {}
      : headerAttributes(head, settings.captureHeaders)),
  };
  const attributes: RecordAttributes = {
    type: `azureml.inference.${side}`,
    datacontenttype: mediaType === '' ? defaultType(body.text, body.bodyBytes) : mediaType,
    ...(body.text ? { text: true } : {}),
    ...(side === 'request' ? { path: storedPath(exchange.target), method: exchange.method } : {}),
    ...(range === undefined ? {} : { contentrange: range }),
    ...(rate === undefined ? {} : { sampledrate: rate }),
    ...(Object.keys(extensions).length === 0 ? {} : { extensions }),
  };
  return Buffer.from(JSON.stringify(attributes));
}

/** The attributes of the record that holds a streamed answer merged into one. */
export function mergedAttributes(exchange: Exchange): Buffer {
  const { settings } = exchange;
  const rate = sampledRate(exchange.failed ? settings.errorRate : settings.samplingRate);
  const attributes: RecordAttributes = {
    type: 'azureml.inference.response',
    datacontenttype: 'application/json',
    ...(rate === undefined ? {} : { sampledrate: rate }),
    extensions: { ...outcome(exchange, 'response'), merged: true },
  };
  return Buffer.from(JSON.stringify(attributes));
}

/** A message without a media type: nothing is said of a body that is not there, and a text is `text/plain`. */
function defaultType(text: boolean, bytes: number): string {
  if (!text) return 'application/json';
  return bytes === 0 ? '' : 'text/plain';
}

/** How the exchange went: on the response; on the request too what went wrong, and all of it when only requests are collected. */
function outcome(exchange: Exchange, side: Side): Extensions {
  const { settings, status, ttfbMs, durationMs, clientAborted, upstreamError } = exchange;
  const full = side === 'response' || settings.response === undefined;
  return {
    ...(full && status !== undefined ? { status } : {}),
    ...(full ? { durationms: Math.round(durationMs) } : {}),
    ...(full && ttfbMs !== undefined ? { ttfbms: Math.round(ttfbMs) } : {}),
    ...(clientAborted ? { clientaborted: true } : {}),
    ...(upstreamError === undefined ? {} : { upstreamerror: upstreamError }),
  };
}

/** What there is to know of the body as it is stored. */
function shape(exchange: Exchange, side: Side, prepared: PreparedBody): Extensions {
  const message = exchange[side];
  const cut = message.body.truncated || !message.complete;
  const { coding, undecoded } = prepared;
  return {
    ...(message.body.truncated ? { truncated: true } : {}),
    ...(message.complete || message.head === undefined ? {} : { incomplete: true }),
    ...(prepared.body.badJson && !cut ? { invalidjson: true } : {}),
    ...(coding === undefined ? {} : { contentencoding: coding.slice(0, MAX_TYPE) }),
    ...(coding === undefined || undecoded !== undefined ? {} : { encodedbytes: message.body.seen }),
    ...(undecoded === undefined ? {} : { undecoded }),
  };
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
  const announced = announcedBytes(exchange, side);
  let total: number | '*' = bytes;
  if (!message.complete) total = decoded ? '*' : (announced ?? '*');
  else if (truncated) total = decoded ? '*' : seen;
  else if (side === 'request' && announced === undefined && bytes > 0) total = '*';
  if (total === bytes && bytes === body.bodyBytes) return undefined;
  if (bytes === 0) return total === '*' ? undefined : `bytes */${total}`;
  return `bytes 0-${bytes - 1}/${total}`;
}

function announcedBytes(exchange: Exchange, side: Side): number | undefined {
  const { head } = exchange[side];
  if (head === undefined) return undefined;
  const framing = framingOf(head, 1, { kind: 'none' });
  return typeof framing === 'object' && framing.kind === 'length' ? framing.bytes : undefined;
}
