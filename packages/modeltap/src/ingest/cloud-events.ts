import { crc32 } from 'node:zlib';
import { ModeltapError } from '../kit/errors.ts';
import { FLAG } from '../record/codec.ts';
import type { SpoolRefusal } from '../spool/types.ts';
import { BoundedMap, isAttributeName, isJsonType } from './attributes.ts';
import { BodyIntake, type BodyListener, type ReceivedBody } from './body.ts';
import { flagsOf, type IngestContext, type KnownRoute, quoted } from './context.ts';
import { EventBatch } from './batch.ts';
import { DUPLICATE } from './dedupe.ts';
import { ConstantAttributes } from './event.ts';
import type { Exchange } from './exchange.ts';
import { parseSampledOut, SAMPLED_OUT_FORM, SAMPLED_OUT_HEADER } from './sampled-out.ts';
import { parseRfc3339 } from './time.ts';

/** The body of an event that has no data. */
const NULL_BODY = Buffer.from('null');

/** How a request carries events. */
type ContentMode = 'binary' | 'event' | 'batch' | 'lines' | 'unknown';

const MODES: Readonly<Record<string, ContentMode>> = {
  'application/cloudevents': 'event',
  'application/cloudevents+json': 'event',
  'application/cloudevents-batch': 'batch',
  'application/cloudevents-batch+json': 'batch',
  'application/x-ndjson': 'lines',
  'application/ndjson': 'lines',
  'application/jsonl': 'lines',
};

function contentMode(contentType: string): ContentMode {
  const media = (contentType.split(';', 1)[0] ?? '').trim().toLowerCase();
  if (Object.hasOwn(MODES, media)) return MODES[media] ?? 'unknown';
  return media.startsWith('application/cloudevents') ? 'unknown' : 'binary';
}

/**
 * Receiver of `POST /v1/events`: CloudEvents 1.0 over HTTP in binary, structured and batch mode, and structured events on
 * lines (NDJSON). Strict, and deduplicates by id within a window.
 */
export class CloudEventsReceiver {
  readonly #context: IngestContext;
  readonly #modes = new BoundedMap<ContentMode>(256);

  constructor(context: IngestContext) {
    this.#context = context;
  }

  /** Takes a POST. */
  receive(exchange: Exchange): void {
    const context = this.#context;
    const { headers } = exchange;
    const { contentType = '', host = '', encoding } = headers.shape;
    const mode = this.#modes.get(contentType) ?? this.#modes.set(contentType, contentMode(contentType));
    const wrong =
      context.gate(host, encoding) ??
      (mode === 'unknown' ? new ModeltapError('unsupported_content_type', { type: quoted(contentType) }) : undefined);
    if (wrong !== undefined || mode === 'unknown') {
      context.refuse(exchange, wrong, undefined, context.now());
      return;
    }
    if (mode === 'binary') {
      this.#binary(exchange);
      return;
    }
    const failed = (error: ModeltapError | undefined) => context.refuse(exchange, error, undefined, context.now());
    const sampledOut = mode === 'batch' && headers.sampledOut !== undefined ? parseSampledOut(headers.sampledOut) : [];
    if (sampledOut === undefined) {
      const problem = { attribute: SAMPLED_OUT_HEADER, problem: SAMPLED_OUT_FORM };
      failed(new ModeltapError('event_invalid', { event: 'the request', ...problem }));
      return;
    }
    const { maxBatchBytes, maxBatchEvents } = context.limits;
    const received = (body: ReceivedBody) => new EventBatch(context, { exchange, body, mode, sampledOut }).run();
    const options = {
      kind: mode,
      maxBytes: maxBatchBytes,
      maxEvents: maxBatchEvents,
    } as const;
    new BodyIntake(exchange, options, context.flow, { received, failed }).start();
  }

  #binary(exchange: Exchange): void {
    const context = this.#context;
    const arrivedMs = context.now();
    const { contentType } = exchange.headers.shape;
    const event = readEvent(exchange.rawHeaders, contentType);
    const { template } = event;
    const found =
      template.fault || event.fault ? undefined : context.route(exchange.port, template.type, template.source);
    const route = found instanceof ModeltapError ? undefined : found;
    const timeMs = event.timeMs ?? arrivedMs;
    const failed = (error: ModeltapError | undefined) => context.refuse(exchange, error, route, timeMs);
    if (route === undefined) {
      const fault = event.fault ?? template.fault;
      failed(
        found instanceof ModeltapError ? found : new ModeltapError('event_invalid', { event: 'the event', ...fault }),
      );
      return;
    }
    const take = (body: ReceivedBody) => this.#take({ exchange, route, event, body, timeMs, arrivedMs });
    const { maxRecordBytes, sideFileBytes } = context.limits;
    const kind = contentType !== undefined && isJsonType(contentType) ? 'json' : 'opaque';
    const options = {
      kind,
      maxBytes: maxRecordBytes,
      sideFileBytes,
      spool: route.spool,
      crc: true,
    } as const;
    const listener: BodyListener = { received: take, failed };
    new BodyIntake(exchange, options, context.flow, listener).start();
  }

  #take(taken: Taken): void {
    const { exchange, route, event, body, timeMs, arrivedMs } = taken;
    const context = this.#context;
    const { destination, counts } = route;
    const finish = (error: ModeltapError | undefined) => {
      if (error) context.refuse(exchange, error, route, timeMs);
      else context.accepted(exchange);
    };
    const empty = body.bytes === 0 && body.facts === undefined;
    // As the spool will have it: an event of an earlier run is known by what is in the spool.
    const [bodyBytes, crc] = empty ? [NULL_BODY.length, crc32(NULL_BODY)] : [body.bytes, body.crc];
    const claim = context.dedupe.claim(route.salt, event.id, bodyBytes, crc);
    if (claim < 0) {
      context.drop(body.sideFile);
      const known = (refusal?: SpoolRefusal) => {
        if (refusal === undefined) counts.duplicate(destination.id, timeMs);
        finish(refusal === undefined ? undefined : context.refusal(refusal, route));
      };
      if (claim === DUPLICATE) known();
      else context.dedupe.wait(known);
      return;
    }
    const opaque = body.facts === undefined && !empty;
    const head = {
      destinationId: destination.id,
      timeMs,
      receivedMs: arrivedMs,
      attributes: event.template.encode(route, event.xrequestid, opaque),
      id: event.id,
      correlationId: event.correlationId ?? context.uuid(),
      flags: (empty ? FLAG.json : flagsOf(body.facts)) | (body.sideFile ? FLAG.sideFile : 0),
      rows: body.facts?.rows ?? 1,
      bodyBytes,
    };
    const stored = { parts: empty ? [NULL_BODY] : body.parts, sideFile: body.sideFile };
    context.append(route, head, stored, {
      appended(error, refusal) {
        context.dedupe.settle(claim, error === undefined ? undefined : (refusal ?? 'spool_too_large'));
        finish(error);
      },
    });
  }
}

interface Taken {
  readonly exchange: Exchange;
  readonly route: KnownRoute;
  readonly event: BinaryEvent;
  readonly body: ReceivedBody;
  readonly timeMs: number;
  readonly arrivedMs: number;
}

interface BinaryEvent {
  readonly template: ReturnType<ConstantAttributes['compile']>;
  readonly fault: { readonly attribute: string; readonly problem: string } | undefined;
  readonly id: string;
  readonly timeMs: number | undefined;
  readonly correlationId: string | undefined;
  readonly xrequestid: string | undefined;
}

function readEvent(raw: readonly string[], contentType: string | undefined): BinaryEvent {
  const constants = new ConstantAttributes();
  const varying = new Map<string, string>();
  let fault: BinaryEvent['fault'];
  for (let index = 0; index + 1 < raw.length; index += 2) {
    const name = (raw[index] ?? '').toLowerCase();
    if (!name.startsWith('ce-')) continue;
    const attribute = name.slice(3);
    const value = decodeHeader(raw[index + 1] ?? '');
    if (value === undefined) fault ??= { attribute, problem: 'is not valid percent-encoded UTF-8' };
    else if (attribute === 'datacontenttype')
      fault ??= { attribute, problem: 'is carried by Content-Type in binary mode' };
    else if (!VARYING.has(attribute)) constants.add(attribute, value);
    else if (varying.has(attribute)) fault ??= { attribute, problem: 'is given twice' };
    else varying.set(attribute, value);
    if (!isAttributeName(attribute))
      fault ??= { attribute: quoted(attribute), problem: 'has a name outside a-z and 0-9' };
  }
  if (contentType !== undefined) constants.add('datacontenttype', contentType);
  const id = varying.get('id');
  if (id === undefined) fault ??= { attribute: 'id', problem: 'is missing' };
  if (id === '') fault ??= { attribute: 'id', problem: 'is empty' };
  const time = varying.get('time');
  const timeMs = time === undefined ? undefined : parseRfc3339(time);
  if (time !== undefined && timeMs === undefined) fault ??= { attribute: 'time', problem: 'is not an RFC 3339 time' };
  const [correlation, request] = [varying.get('correlationid') ?? '', varying.get('xrequestid') ?? ''];
  return {
    template: constants.compile(),
    fault,
    id: id ?? '',
    timeMs,
    correlationId: correlation || request || undefined,
    xrequestid: correlation !== '' && request !== '' && correlation !== request ? request : undefined,
  };
}

const VARYING: ReadonlySet<string> = new Set(['id', 'time', 'correlationid', 'xrequestid']);

/** A header value as CloudEvents' HTTP binding 3.1.3.2 reads it: quoted string, then percent-encoded UTF-8, each once. */
export function decodeHeader(value: string): string | undefined {
  let text = value;
  if (text.length >= 2 && text.startsWith('"') && text.endsWith('"')) text = text.slice(1, -1).replace(/\\(.)/g, '$1');
  if (!text.includes('%')) return text;
  try {
    return text.replace(/(?:%[0-9a-fA-F]{2})+/g, (run) => decodeURIComponent(run));
  } catch {
    // decodeURIComponent throws for bytes that are not UTF-8.
    return undefined;
  }
}
