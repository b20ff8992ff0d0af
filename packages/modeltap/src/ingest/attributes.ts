import type { RecordAttributes } from '../record/types.ts';

/** Source that Modeltap's own SDK writes: it says nothing about the event, so it is not kept. */
export const SDK_SOURCE = '/modeltap/collector';

/** An attribute value as CloudEvents knows them here. */
export type AttributeValue = string | number | boolean;

/** Names that a stored event gives a meaning of its own: a sender's extension of that name is not kept. */
const FIXED: ReadonlySet<string> = new Set([
  'specversion',
  'id',
  'source',
  'type',
  'datacontenttype',
  'time',
  'data',
  'database64',
  'contentrange',
  'correlationid',
  'xrequestid',
  'modelversion',
  'collectdatatype',
  'agent',
  'sampledrate',
  'dataref',
  'datainblob',
]);

/** True for a name that no extension may have. */
export function isFixedName(name: string): boolean {
  return FIXED.has(name);
}

/** True for a legal CloudEvents attribute name. */
export function isAttributeName(name: string): boolean {
  return /^[a-z0-9]+$/.test(name);
}

/** True for the media types whose bodies are JSON: `application/json`, `text/json`, anything `+json`. */
export function isJsonType(contentType: string): boolean {
  const end = contentType.indexOf(';');
  const media = (end < 0 ? contentType : contentType.slice(0, end)).trim().toLowerCase();
  return media === 'application/json' || media === 'text/json' || media.endsWith('+json');
}

/** A positive whole number up to 2^31-1, as `sampledrate` must be; undefined otherwise. */
export function sampledRate(value: AttributeValue): number | undefined {
  const rate = typeof value === 'string' && /^[0-9]{1,10}$/.test(value) ? Number(value) : value;
  return typeof rate === 'number' && Number.isInteger(rate) && rate >= 1 && rate <= 2_147_483_647 ? rate : undefined;
}

/** The attributes of a record in the key order of `RecordAttributes`, as UTF-8 JSON text. Empty extensions are left out. */
export function encodeAttributes(attributes: RecordAttributes): Buffer {
  const { extensions } = attributes;
  return Buffer.from(
    JSON.stringify({
      type: attributes.type,
      datacontenttype: attributes.datacontenttype,
      modelversion: attributes.modelversion,
      collectdatatype: attributes.collectdatatype,
      agent: attributes.agent,
      sampledrate: attributes.sampledrate,
      xrequestid: attributes.xrequestid,
      extensions: extensions !== undefined && Object.keys(extensions).length > 0 ? extensions : undefined,
    }),
  );
}

/** A map that forgets everything when it is full: a bound for what senders can make it hold, and cheap to ask. */
export class BoundedMap<V> {
  readonly #limit: number;
  readonly #map = new Map<string, V>();

  constructor(limit: number) {
    this.#limit = limit;
  }

  get(key: string): V | undefined {
    return this.#map.get(key);
  }

  set(key: string, value: V): V {
    if (this.#map.size >= this.#limit) this.#map.clear();
    this.#map.set(key, value);
    return value;
  }

  clear(): void {
    this.#map.clear();
  }
}
