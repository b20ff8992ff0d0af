import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import type { SpoolWriter } from '../../spool/types.ts';
import { type Rig, routesTo, startRig } from '../rig.test.ts';
import { parseHead, targetOf } from './head.ts';
import { Line, undated } from './wire.test.kit.ts';

/* The same bytes to two ingests that are alike but for their front, and what came of them. */

const NOW = Date.UTC(2026, 10, 23);
const TARGETS = ['/modeldata/log', '/v1/events'].map(targetOf);
/** As `limitsOf` has it. */
const KEEP_ALIVE_MS = 75_000;

/** What a sender and the spool saw. */
export interface Outcome {
  /** All that was answered, without dates. */
  readonly text: string;
  /** The connection was closed. */
  readonly over: boolean;
  /** The records as they were handed to the spool, in order, Latin-1. */
  readonly stored: readonly string[];
}

/** What `node:http` made of the bytes, and where in them it said something. */
export interface Judgement extends Outcome {
  readonly marks: readonly { readonly at: number; readonly length: number }[];
  /** Bytes it was given until the connection was over. */
  readonly used: number;
}

/** How the front is given the bytes. */
export interface Manner {
  /** Where they are cut, as parts of their length. */
  readonly cuts: readonly number[];
  /** Between two pieces the loop has a turn. */
  readonly slowly: boolean;
}

const next = (request: IncomingMessage, response: ServerResponse) =>
  response.end(`next ${request.method} ${request.url}`);

/** A spool that keeps what is appended in a list, and says a turn later that it has it: the disk would take most of the time. */
function listing(spool: SpoolWriter, stored: string[]): SpoolWriter {
  const append: SpoolWriter['append'] = (parts, done) => {
    stored.push(Buffer.concat(parts).toString('latin1'));
    setImmediate(() => done(undefined));
    return true;
  };
  return Object.create(spool, { append: { value: append } }) as SpoolWriter;
}

async function rigWith(stored: string[]): Promise<Rig> {
  const route = (spool: SpoolWriter) => routesTo(listing(spool, stored));
  return await startRig({ route, next, now: () => NOW, uuid: () => 'made-up' });
}

interface Pending {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

/** Ingest mounted in a plain `node:http` server, which is given one byte at a time, and no byte before it has answered. */
class BareSide {
  readonly #rig: Rig;
  readonly #stored: string[];
  readonly #pending: Pending[] = [];
  readonly #server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS });

  constructor(rig: Rig, stored: string[]) {
    this.#rig = rig;
    this.#stored = stored;
    const answer = (request: IncomingMessage, response: ServerResponse) => {
      this.#pending.push({ request, response });
      if (!this.#rig.ingest.handle(request, response)) next(request, response);
    };
    this.#server.on('request', answer);
    this.#server.on('checkContinue', (request, response) => {
      response.writeContinue();
      answer(request, response);
    });
  }

  async judge(bytes: Buffer): Promise<Judgement> {
    this.#stored.length = 0;
    this.#pending.length = 0;
    const line = new Line();
    const marks: { at: number; length: number }[] = [];
    line.on('error', () => undefined);
    this.#server.emit('connection', line);
    await turn();
    let used = 0;
    for (let at = 0; at < bytes.length && !line.over; at += 1) {
      used = at + 1;
      const before = line.text.length;
      line.feed(bytes.subarray(at, at + 1));
      await this.#settle();
      if (line.text.length === before) continue;
      marks.push({ at: at + 1, length: undated(line.text).length });
      // The last answer ends the line, but not at once.
      await turn();
      await turn();
    }
    await turn();
    await turn();
    const outcome = { text: undated(line.text), over: line.over, stored: [...this.#stored], marks, used };
    line.destroy();
    return outcome;
  }

  async #settle(): Promise<void> {
    const busy = () => this.#pending.some(({ request, response }) => request.complete && !response.closed);
    if (!busy()) return;
    while (busy()) await turn();
    this.#pending.length = 0;
    await turn();
  }
}

/** Offset of the first head that is not the front's: from there on `node:http` has the connection. */
function takeover(bytes: Buffer): number {
  let at = 0;
  for (;;) {
    const head = parseHead(bytes, at, TARGETS);
    if (typeof head === 'number' || head.end + head.length > bytes.length) return at;
    at = head.end + head.length;
  }
}

/** Two ingests, one behind its front and one in a plain `node:http` server. Close it. */
export class Pair {
  readonly #front: Rig;
  readonly #bareRig: Rig;
  readonly #stored: string[];
  readonly #bare: BareSide;

  private constructor(front: Rig, stored: string[], bareRig: Rig, bare: BareSide) {
    this.#front = front;
    this.#stored = stored;
    this.#bareRig = bareRig;
    this.#bare = bare;
  }

  static async start(): Promise<Pair> {
    const [frontStored, bareStored]: [string[], string[]] = [[], []];
    const front = await rigWith(frontStored);
    const bareRig = await rigWith(bareStored);
    return new Pair(front, frontStored, bareRig, new BareSide(bareRig, bareStored));
  }

  /** What `node:http` makes of the bytes when each request is answered before the next byte is there. */
  async judge(bytes: Buffer): Promise<Judgement> {
    return await this.#bare.judge(bytes);
  }

  /**
   * What the front makes of them. Where `node:http` has taken over, nothing is sent behind an answer that is not there yet,
   * or behind the last one: it drops answers when what follows is bad, and reads on when it has answered for good. Waits until as much was answered as was judged, 3 s at most.
   */
  async send(bytes: Buffer, { cuts, slowly }: Manner, judged: Judgement): Promise<Outcome> {
    this.#stored.length = 0;
    const handed = takeover(bytes);
    const paced = judged.marks.filter(({ at }) => at > handed);
    const last = judged.over && judged.used > handed ? judged.used : bytes.length;
    const ends = [...cuts.map((cut) => Math.ceil(cut * last)), ...paced.map(({ at }) => at), last];
    const socket = connect({ port: this.#front.port, host: '127.0.0.1', noDelay: true });
    const state = { raw: '', over: false };
    socket.on('data', (chunk: Buffer) => {
      state.raw += chunk.toString('latin1');
    });
    socket.on('error', () => undefined);
    for (const event of ['end', 'close']) {
      socket.on(event, () => {
        state.over = true;
      });
    }
    const text = () => undated(state.raw);
    let sent = 0;
    for (const end of ends.toSorted((a, b) => a - b)) {
      const due = paced.findLast(({ at }) => at <= sent)?.length ?? 0;
      await until(() => text().length >= due || state.over);
      if (!state.over && end > sent) socket.write(bytes.subarray(sent, end));
      sent = Math.max(sent, end);
      if (slowly) await turn();
    }
    await until(() => text().length >= judged.text.length && state.over === judged.over);
    await turn();
    await turn();
    const outcome = { text: text(), over: state.over, stored: [...this.#stored] };
    socket.destroy();
    return outcome;
  }

  async close(): Promise<void> {
    await this.#front.close();
    await this.#bareRig.close();
  }
}

async function until(holds: () => boolean): Promise<void> {
  const end = performance.now() + 3000;
  while (!holds() && performance.now() < end) await turn();
}
