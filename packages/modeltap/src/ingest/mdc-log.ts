import { ModeltapError } from '../kit/errors.ts';
import { FLAG } from '../record/codec.ts';
import type { SpoolRefusal } from '../spool/types.ts';
import { type AttributeValue, encodeAttributes, isFixedName, isJsonType, sampledRate } from './attributes.ts';
import { BodyIntake, type BodyListener, type BodyOptions, type ReceivedBody } from './body.ts';
import { type AppendListener, flagsOf, type IngestContext, type KnownRoute } from './context.ts';
import type { Exchange } from './exchange.ts';
import { HEADER, type HeaderShape } from './headers.ts';
import { parseLooseTime } from './time.ts';

/** What requests with equal constant headers share. */
class LogTemplate {
  readonly context: IngestContext;
  readonly generation: number;
  readonly port: number;
  readonly attributes: Buffer;
  readonly route: KnownRoute | undefined;
  readonly error: ModeltapError | undefined;
  readonly body: BodyOptions;

  constructor(context: IngestContext, shape: HeaderShape, port: number) {
    this.context = context;
    this.generation = context.generation;
    this.port = port;
    const type = shape.first(HEADER.type) ?? '';
    const contentType = shape.contentType ?? 'application/octet-stream';
    this.attributes = attributesOf(shape, type, contentType);
    const route =
      context.gate(shape.host ?? '', shape.encoding) ?? (type === '' ? missingType() : context.route(port, type, ''));
    this.route = route instanceof ModeltapError ? undefined : route;
    this.error = route instanceof ModeltapError ? route : undefined;
    const { maxRecordBytes, sideFileBytes } = context.limits;
    const kind = isJsonType(contentType) ? 'json' : 'opaque';
    this.body = { kind, maxBytes: maxRecordBytes, sideFileBytes, ...(this.route ? { spool: this.route.spool } : {}) };
  }
}

function missingType(): ModeltapError {
  return new ModeltapError('event_invalid', { event: 'the record', attribute: 'ce-type', problem: 'is missing' });
}

/** The last `ce-time` text and what it means: several records a second carry the same. */
const lastTime: { text: string; ms: number | undefined } = { text: '', ms: undefined };

function timeOf(text: string): number | undefined {
  if (text !== lastTime.text) {
    lastTime.text = text;
    lastTime.ms = parseLooseTime(text);
  }
  return lastTime.ms;
}

/**
 * Receiver of `POST /modeldata/log`, the protocol of the Azure ML data collector SDK: one record a request, metadata in
 * `ce-…` headers (Latin-1, no CloudEvents message), body as the SDK serialised it. Never deduplicates: the protocol has
 * no event id.
 */
export function receiveMdcLog(context: IngestContext, exchange: Exchange): void {
  const { port } = exchange;
  const { shape } = exchange.headers;
  let template = shape.template;
  if (!(template instanceof LogTemplate) || template.port !== port || isStale(template, context)) {
    template = new LogTemplate(context, shape, port);
    shape.template = template;
  }
  new LogRecord(exchange, template as LogTemplate).start();
}

function isStale(template: LogTemplate, context: IngestContext): boolean {
  return template.context !== context || template.generation !== context.generation;
}

/** One POST and its answer. One object with methods instead of closures: there is one for every record. */
class LogRecord implements BodyListener, AppendListener {
  readonly #exchange: Exchange;
  readonly #template: LogTemplate;
  readonly #arrivedMs: number;
  readonly #timeMs: number | undefined;

  constructor(exchange: Exchange, template: LogTemplate) {
    this.#exchange = exchange;
    this.#template = template;
    this.#arrivedMs = template.context.now();
    this.#timeMs = timeOf(exchange.headers.time);
  }

  start(): void {
    const { context, error, body } = this.#template;
    if (error === undefined) new BodyIntake(this.#exchange, body, context.flow, this).start();
    else this.failed(error);
  }

  received(body: ReceivedBody): void {
    const { context, route, attributes } = this.#template;
    if (route === undefined) return;
    const { requestId } = this.#exchange.headers;
    const head = {
      destinationId: route.destination.id,
      timeMs: this.#timeMs ?? this.#arrivedMs,
      receivedMs: this.#arrivedMs,
      attributes,
      id: '',
      correlationId: requestId === '' ? context.uuid() : requestId,
      flags: flagsOf(body.facts) | (body.sideFile ? FLAG.sideFile : 0),
      rows: body.facts?.rows ?? 1,
      bodyBytes: body.bytes,
    };
    context.append(route, head, body, this);
  }

  appended(error: ModeltapError | undefined, _refusal: SpoolRefusal | undefined): void {
    if (error !== undefined) {
      this.failed(error);
      return;
    }
    const { context, route } = this.#template;
    if (this.#timeMs === undefined && route !== undefined) context.timeReplaced(route);
    context.accepted(this.#exchange);
  }

  failed(error: ModeltapError | undefined): void {
    const { context, route } = this.#template;
    context.refuse(this.#exchange, error, route, this.#timeMs ?? this.#arrivedMs);
  }
}

function attributesOf(shape: HeaderShape, type: string, datacontenttype: string): Buffer {
  const extensions: Record<string, AttributeValue> = {};
  let rate: number | undefined;
  for (const [name, value] of shape.all(HEADER.extension)) {
    // CloudEvents names allow no hyphen; other characters outside [a-z0-9] go the same way.
    const plain = name
      .slice(3)
      .toLowerCase()
      .replace(/[^a-z0-9]/g, '');
    if (plain === 'sampledrate') rate ??= sampledRate(value);
    else if (plain !== '' && !isFixedName(plain) && !Object.hasOwn(extensions, plain)) extensions[plain] = value;
  }
  const modelversion = shape.first(HEADER.modelVersion);
  const collectdatatype = shape.first(HEADER.collectDataType);
  const agent = shape.first(HEADER.agent);
  return encodeAttributes({
    type,
    datacontenttype,
    ...(modelversion === undefined ? {} : { modelversion }),
    ...(collectdatatype === undefined ? {} : { collectdatatype }),
    ...(agent === undefined ? {} : { agent }),
    ...(rate === undefined ? {} : { sampledrate: rate }),
    extensions,
  });
}
