import { quoted } from '../record/json-bytes.ts';
import { Issues, named } from './issues.ts';
import { type JsonValue, readJson } from './json-text.ts';
import { sseEvents } from './sse.ts';
import { LIMITS } from './types.ts';

/** What `mergeChatStream` gives. */
export interface MergedStream {
  /** JSON text of the answer as it would have been without streaming; undefined when the stream has no chunk in it. */
  readonly message: string | undefined;
  /** As in `DecodedExchange`. */
  readonly issues: readonly string[];
}

/** Members of a delta that are said again, not continued. Every other string goes on where it stopped. */
const ASSIGNED: ReadonlySet<string> = new Set(['role', 'id', 'type', 'name', 'index']);
/** Members of a chunk without meaning in the whole: padding against guessing at lengths. */
const DROPPED: ReadonlySet<string> = new Set(['obfuscation', 'choices']);
const OBJECTS: Readonly<Record<string, string>> = { '"chat.completion.chunk"': '"chat.completion"' };
/** Events that end a stream of the Responses API; each holds the whole answer. */
const FINAL_RESPONSE: ReadonlySet<string> = new Set(['response.completed', 'response.incomplete', 'response.failed']);

/** How deep objects of a delta are merged; below that the last one wins. */
const MERGED_LEVELS = 4;

/** JSON text of an object, by member. */
function objectText(members: ReadonlyMap<string, string>): string {
  return `{${[...members].map(([name, text]) => `${quoted(name)}:${text}`).join(',')}}`;
}

/** What deltas of one member add up to: what is between the quotes of strings, or between the brackets of lists. */
interface Joined {
  readonly quote: '"' | '[';
  readonly parts: string[];
}

/** An object put together out of deltas. Strings are joined as JSON text, so escapes cut in two become whole again. */
class Merged {
  /** By name: JSON text that was assigned, what is joined, or an object. */
  readonly #members = new Map<string, string | Joined | Merged>();

  /** The last thing said wins; `null` and empty strings say nothing once there is something. */
  assign(name: string, value: JsonValue): void {
    const text = value.text;
    if ((text === 'null' || text === '""') && this.#members.has(name)) return;
    this.#members.set(name, OBJECTS[text] ?? text);
  }

  /** Strings go on, objects are merged by member, everything else is assigned. */
  add(name: string, value: JsonValue, levels = MERGED_LEVELS): void {
    if (value.kind === 'string' && !ASSIGNED.has(name)) this.#join(name, '"', value.inner);
    else if (value.kind === 'object' && levels > 0) {
      const known = this.#members.get(name);
      const own = known instanceof Merged ? known : new Merged();
      this.#members.set(name, own);
      for (const [inner, member] of value.members()) own.add(inner, member, levels - 1);
    } else this.assign(name, value);
  }

  /** Lists grow, everything else is assigned. */
  addLists(value: JsonValue): void {
    for (const [name, member] of value.members()) {
      if (member.kind === 'array') this.#join(name, '[', member.inner);
      else this.assign(name, member);
    }
  }

  members(): Map<string, string> {
    const texts = new Map<string, string>();
    for (const [name, member] of this.#members) {
      if (typeof member === 'string') texts.set(name, member);
      else if (member instanceof Merged) texts.set(name, objectText(member.members()));
      else if (member.quote === '"') texts.set(name, `"${member.parts.join('')}"`);
      else texts.set(name, `[${member.parts.join(',')}]`);
    }
    return texts;
  }

  #join(name: string, quote: Joined['quote'], text: string): void {
    const known = this.#members.get(name);
    const parts = known instanceof Object && 'parts' in known && known.quote === quote ? known.parts : [];
    if (text !== '') parts.push(text);
    this.#members.set(name, { quote, parts });
  }
}

/** Calls of tools, by index; where a server leaves the index out, an id that was not seen begins the next one. */
class ToolCalls {
  readonly #calls = new Map<string, Merged>();
  readonly #ids = new Map<string, string>();
  #last = '';
  /** Some were left out, because there are too many. */
  cut = false;

  add(list: JsonValue): void {
    for (const delta of list.items()) {
      const fields = delta.fields();
      const key = this.#keyOf(fields);
      this.#last = key;
      const call = this.#calls.get(key) ?? new Merged();
      if (this.#calls.size < LIMITS.parallel) this.#calls.set(key, call);
      else this.cut ||= !this.#calls.has(key);
      for (const [name, value] of fields) if (name !== 'index') call.add(name, value);
    }
  }

  text(): string | undefined {
    if (this.#calls.size === 0) return undefined;
    return `[${[...this.#calls.values()].map((call) => objectText(call.members())).join(',')}]`;
  }

  #keyOf(fields: ReadonlyMap<string, JsonValue>): string {
    const index = fields.get('index');
    if (index?.kind === 'number') return index.text;
    const id = fields.get('id')?.text ?? '""';
    if (id === '""' || id === 'null') return this.#last;
    const known = this.#ids.get(id) ?? `#${this.#ids.size}`;
    this.#ids.set(id, known);
    return known;
  }
}

/** One choice: of a chat (`delta`) or of a plain completion (`text`). */
class Choice {
  readonly #members = new Merged();
  #message: Merged | undefined;
  #calls: ToolCalls | undefined;
  #logprobs: Merged | undefined;
  finished = false;

  add(fields: ReadonlyMap<string, JsonValue>): void {
    for (const [name, value] of fields) {
      if (name === 'delta' || name === 'message') this.#addDelta(value);
      else if (name === 'text') this.#members.add(name, value);
      else if (name === 'logprobs' && value.kind === 'object') {
        this.#logprobs ??= new Merged();
        this.#logprobs.addLists(value);
      } else this.#members.assign(name, value);
    }
    this.finished ||= (fields.get('finish_reason')?.kind ?? 'null') !== 'null';
  }

  /** Some calls of tools were left out. */
  get cut(): boolean {
    return this.#calls?.cut ?? false;
  }

  text(): string {
    const members = this.#members.members();
    if (this.#message !== undefined) members.set('message', this.#messageText(this.#message.members()));
    if (this.#logprobs !== undefined) members.set('logprobs', objectText(this.#logprobs.members()));
    return objectText(members);
  }

  #addDelta(delta: JsonValue): void {
    this.#message ??= new Merged();
    for (const [name, value] of delta.members()) {
      if (name !== 'tool_calls') this.#message.add(name, value);
      else {
        this.#calls ??= new ToolCalls();
        this.#calls.add(value);
      }
    }
  }

  #messageText(members: ReadonlyMap<string, string>): string {
    const calls = this.#calls?.text();
    const role = members.get('role') ?? '"assistant"';
    const content = members.get('content') ?? 'null';
    const rest = [...members].filter(([name]) => name !== 'role' && name !== 'content');
    const tools: [string, string][] = calls === undefined ? [] : [['tool_calls', calls]];
    return objectText(new Map([['role', role], ['content', content], ...rest, ...tools]));
  }
}

/** A stream as far as it was read. */
class ChatStream {
  readonly #issues: Issues;
  readonly #top = new Merged();
  readonly #choices = new Map<string, Choice>();
  #final: string | undefined;
  #chunks = 0;
  #done = false;
  #responses = false;
  #tooMany = false;

  constructor(issues: Issues) {
    this.#issues = issues;
  }

  add(event: string, data: string): void {
    if (data.trim() === '[DONE]') {
      this.#done = true;
      return;
    }
    const read = readJson(data);
    if (!('value' in read) || read.value.kind !== 'object') {
      this.#issues.add('an event of the stream is not a JSON object: it was cut off or is not of this protocol');
      return;
    }
    if (read.nonFinite > 0) this.#issues.nonFinite(read.nonFinite);
    const fields = read.value.fields();
    const type = fields.get('type')?.string ?? event;
    if (type === 'error' || (fields.get('error')?.kind ?? 'null') !== 'null') this.#error(fields);
    if (type.startsWith('response.')) this.#addResponse(type, fields);
    else this.#addChunk(fields);
  }

  text(): string | undefined {
    if (this.#responses) {
      if (this.#final === undefined) this.#issues.add('the stream ended before the answer was complete');
      return this.#final;
    }
    if (this.#chunks === 0) {
      this.#issues.add('the stream holds no chunk of an answer');
      return undefined;
    }
    const choices = [...this.#choices.values()];
    if (choices.some(({ cut }) => cut)) this.#issues.add(`of the calls of tools the first ${LIMITS.parallel} are kept`);
    if (this.#tooMany) this.#issues.add(`of the choices the first ${LIMITS.parallel} are kept`);
    if (!this.#done && !(choices.length > 0 && choices.every(({ finished }) => finished))) {
      this.#issues.add('the stream ended before the answer was complete');
    }
    const members = this.#top.members();
    const usage = members.get('usage');
    members.delete('usage');
    members.set('choices', `[${choices.map((choice) => choice.text()).join(',')}]`);
    if (usage !== undefined) members.set('usage', usage);
    return objectText(members);
  }

  /** Names the error's type and code only: its message may quote a key or a prompt. */
  #error(fields: ReadonlyMap<string, JsonValue>): void {
    const error = fields.get('error')?.kind === 'object' ? (fields.get('error')?.fields() ?? fields) : fields;
    const code = [error.get('code'), error.get('type')].find((value) => value?.kind === 'string');
    this.#issues.add(`the stream holds an error${code === undefined ? '' : ` (${named(code.string)})`}`);
  }

  /** The last event of the Responses API has the whole answer; all others are steps to it. */
  #addResponse(type: string, fields: ReadonlyMap<string, JsonValue>): void {
    this.#responses = true;
    const response = fields.get('response');
    if (FINAL_RESPONSE.has(type) && response?.kind === 'object') this.#final = response.text;
  }

  #addChunk(fields: ReadonlyMap<string, JsonValue>): void {
    this.#chunks += 1;
    for (const [name, value] of fields) if (!DROPPED.has(name)) this.#top.assign(name, value);
    let place = 0;
    for (const item of fields.get('choices')?.items() ?? []) {
      const own = item.fields();
      const index = own.get('index')?.text ?? String(place);
      place += 1;
      const known = this.#choices.get(index);
      if (known === undefined && this.#choices.size === LIMITS.parallel) {
        this.#tooMany = true;
        continue;
      }
      const choice = known ?? new Choice();
      this.#choices.set(index, choice);
      choice.add(own);
    }
  }
}

/**
 * Merges the whole text of an OpenAI-style event stream into the answer the server would have given without streaming:
 * content, refusals and arguments of tool calls joined by choice and index, log probabilities strung together, usage of
 * the last chunk that has one. Of a stream of the Responses API it is the answer in its last event. Never throws; numbers
 * keep their text. A stream that stops early gives what it had, with an issue.
 */
export function mergeChatStream(text: string): MergedStream {
  const issues = new Issues('response');
  const stream = new ChatStream(issues);
  for (const { event, data } of sseEvents(text)) stream.add(event, data);
  const message = stream.text();
  return { message, issues: issues.list() };
}
