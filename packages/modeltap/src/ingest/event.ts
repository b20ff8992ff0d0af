import type { RecordAttributes } from '../record/types.ts';
import {
  type AttributeValue,
  encodeAttributes,
  isAttributeName,
  isFixedName,
  isJsonType,
  sampledRate,
  SDK_SOURCE,
} from './attributes.ts';
import type { ModeltapError } from '../kit/errors.ts';
import type { KnownRoute } from './context.ts';

/** Attributes a stored event writes itself; an event that brings them cannot be told apart from it. */
const RESERVED: ReadonlySet<string> = new Set(['dataref', 'datainblob']);

/** What is wrong with an event. */
export interface EventFault {
  readonly attribute: string;
  readonly problem: string;
}

/** Context attributes of an event as they came, all but those that differ from event to event. */
export class ConstantAttributes {
  readonly #values = new Map<string, unknown>();
  #fault: EventFault | undefined;

  /** Adds one. A name given twice is a fault; `null` counts as not given. */
  add(name: string, value: unknown): void {
    if (this.#values.has(name)) this.#fault ??= { attribute: name, problem: 'is given twice' };
    this.#values.set(name, value);
  }

  /** Checks the attributes and makes of them what events with equal attributes share. */
  compile(): EventTemplate {
    const kept: Record<string, string> = {};
    const extensions: Record<string, AttributeValue> = {};
    let fault = this.#fault ?? this.#required();
    let rate: number | undefined;
    for (const [name, value] of this.#values) {
      if (value === null || value === undefined) continue;
      fault ??= attributeFault(name, value);
      if (fault) break;
      if (name === 'sampledrate') rate = sampledRate(value as AttributeValue);
      else if (KEPT.has(name)) kept[name] = value as string;
      else if (!isFixedName(name)) extensions[name] = value as AttributeValue;
    }
    return new EventTemplate({ kept, extensions, rate, source: this.#text('source'), fault });
  }

  #text(name: string): string {
    const value = this.#values.get(name);
    return typeof value === 'string' ? value : '';
  }

  #required(): EventFault | undefined {
    for (const attribute of ['specversion', 'source', 'type']) {
      const value = this.#values.get(attribute) ?? undefined;
      if (value === undefined) return { attribute, problem: 'is missing' };
      if (value === '') return { attribute, problem: 'is empty' };
    }
    return this.#text('specversion') === '1.0' ? undefined : { attribute: 'specversion', problem: 'must be "1.0"' };
  }
}

const KEPT: ReadonlySet<string> = new Set(['type', 'datacontenttype', 'modelversion', 'collectdatatype', 'agent']);
const TEXTS: ReadonlySet<string> = new Set([...KEPT, 'specversion', 'source', 'subject', 'dataschema']);

function attributeFault(attribute: string, value: unknown): EventFault | undefined {
  if (!isAttributeName(attribute))
    return { attribute: JSON.stringify(attribute), problem: 'has a name outside a-z and 0-9' };
  if (RESERVED.has(attribute)) return { attribute, problem: 'is written by the agent and may not be sent' };
  if (attribute === 'sampledrate') {
    const fits = sampledRate(value as AttributeValue) !== undefined;
    return fits ? undefined : { attribute, problem: 'must be a whole number of at least 1' };
  }
  if (TEXTS.has(attribute)) {
    if (typeof value !== 'string') return { attribute, problem: 'must be a string' };
    return value === '' ? { attribute, problem: 'is empty' } : undefined;
  }
  if (typeof value === 'string' || typeof value === 'boolean') return undefined;
  const whole = typeof value === 'number' && Number.isInteger(value) && Math.abs(value) <= 2_147_483_648;
  return whole ? undefined : { attribute, problem: 'must be a string, a boolean or a 32-bit whole number' };
}

interface TemplateParts {
  readonly kept: Readonly<Record<string, string>>;
  readonly extensions: Readonly<Record<string, AttributeValue>>;
  readonly rate: number | undefined;
  readonly source: string;
  readonly fault: EventFault | undefined;
}

/** What knows the destinations. */
interface Router {
  readonly generation: number;
  route(port: number, type: string, source: string): KnownRoute | ModeltapError;
}

/** What events with equal constant attributes share: checked once. */
export class EventTemplate {
  readonly #parts: TemplateParts;
  readonly fault: EventFault | undefined;
  readonly type: string;
  readonly source: string;
  /** `data` is JSON by its content type; also when none is given. */
  readonly json: boolean;
  #found: KnownRoute | ModeltapError | undefined;
  #port = -1;
  #generation = -1;
  #router: Router | undefined;
  #route: KnownRoute | undefined;
  #encoded: Buffer | undefined;

  constructor(parts: TemplateParts) {
    this.#parts = parts;
    this.fault = parts.fault;
    this.type = parts.kept['type'] ?? '';
    this.source = parts.source;
    const { datacontenttype } = parts.kept;
    this.json = datacontenttype === undefined || isJsonType(datacontenttype);
  }

  /** Where events of this kind go; asked anew when the port or the routes have changed. */
  route(router: Router, port: number): KnownRoute | ModeltapError {
    if (this.#found !== undefined && this.#port === port && this.#router === router) {
      if (this.#generation === router.generation) return this.#found;
    }
    this.#port = port;
    this.#router = router;
    this.#generation = router.generation;
    this.#found = router.route(port, this.type, this.source);
    return this.#found;
  }

  /** The attributes text for a destination. `opaque`: the body is bytes although no content type says so. */
  encode(route: KnownRoute, xrequestid?: string, opaque = false): Buffer {
    if (xrequestid !== undefined || opaque) return encodeAttributes(this.#attributes(route, xrequestid, opaque));
    if (this.#encoded === undefined || this.#route !== route) {
      this.#encoded = encodeAttributes(this.#attributes(route, undefined, false));
      this.#route = route;
    }
    return this.#encoded;
  }

  #attributes(route: KnownRoute, xrequestid: string | undefined, opaque: boolean): RecordAttributes {
    const { kept, extensions, rate, source } = this.#parts;
    const foreign = source !== route.destination.source && source !== SDK_SOURCE;
    const eventsource = foreign && !Object.hasOwn(extensions, 'eventsource') ? { eventsource: source } : {};
    return {
      ...kept,
      type: this.type,
      datacontenttype: kept['datacontenttype'] ?? (opaque ? 'application/octet-stream' : 'application/json'),
      ...(rate === undefined ? {} : { sampledrate: rate }),
      ...(xrequestid === undefined ? {} : { xrequestid }),
      extensions: { ...extensions, ...eventsource },
    };
  }
}
