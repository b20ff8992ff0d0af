import { mergeChatStream } from '../payload/chat-stream.ts';
import type { Exchange } from './exchange.ts';
import { fieldOf } from './head.ts';
import { jsonFlags, type StoredBody } from './stored-body.ts';
import type { BodyScanner } from './types.ts';

/** Longest stream that is merged: more would hold up the connections meanwhile. */
const MAX_CHARS = 2 * 1024 ** 2;
const ROUTES = /\/(?:chat\/completions|completions|responses)$/;

/**
 * The answer that an OpenAI-style event stream adds up to, to be stored beside the stream itself. Undefined for any other
 * answer. Numbers keep their text.
 */
export function mergedAnswer(exchange: Exchange, body: StoredBody, scanner: BodyScanner): StoredBody | undefined {
  const { target, response, status = 0 } = exchange;
  const { plain } = body;
  if (plain === undefined || plain.length > MAX_CHARS || response.head === undefined) return undefined;
  if (status < 200 || status > 299 || !ROUTES.test(target.replace(/[?#].*$/s, ''))) return undefined;
  if (!/^text\/event-stream\b/i.test(fieldOf(response.head, 'content-type') ?? '')) return undefined;
  const { message } = mergeChatStream(plain);
  const bytes = Buffer.from(message ?? '');
  const facts = scanner.whole(bytes);
  if (facts === undefined) return undefined;
  const inMemory = { bytes, sideFile: undefined, bodyBytes: bytes.length, text: false, badJson: false };
  return { ...inMemory, flags: jsonFlags(facts), rows: facts.rows };
}
