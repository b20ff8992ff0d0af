/** One server-sent event. */
export interface SseEvent {
  /** `event:`; empty when there is none. */
  readonly event: string;
  /** The `data:` lines, joined by line feeds. */
  readonly data: string;
}

/**
 * The events of a whole `text/event-stream`: CR, LF and CRLF end lines, comments and other fields are left out. An event
 * that the end of the text cuts short is given like the others.
 */
export function* sseEvents(text: string): Generator<SseEvent, undefined> {
  let event = '';
  let data: string[] = [];
  const start = text.startsWith('\uFEFF') ? 1 : 0;
  for (let at = start; at <= text.length; ) {
    let end = at;
    while (end < text.length && text[end] !== '\n' && text[end] !== '\r') end += 1;
    const line = text.slice(at, end);
    at = end + (text[end] === '\r' && text[end + 1] === '\n' ? 2 : 1);
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    if (field === 'data') data.push(value);
    else if (field === 'event') event = value;
    if (line !== '' && at <= text.length) continue;
    if (data.length > 0) yield { event, data: data.join('\n') };
    event = '';
    data = [];
  }
}
