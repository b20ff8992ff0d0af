import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Readable } from 'node:stream';
import type { Dispatcher, Pool } from 'undici';
import { errorText } from '../kit/errors.ts';
import { forwardedResponseHeaders } from './headers.ts';

/** One request on its way to one instance. */
export interface ForwardOptions {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly pool: Pool;
  readonly path: string;
  readonly headers: string[];
  /** The whole body, or the stream of it: the request itself, or what it is piped to. */
  readonly body: Buffer | Readable | null;
  readonly deployment: string;
  readonly requestId: string;
  /**
   * True: an instance that goes on with a request nobody waits for. Then `abort` leaves the connection open until the
   * head of the answer is there, so that the end of the forwarding tells when the instance has done.
   */
  readonly finishes: boolean;
  /** Called when the head of the answer is there, before it is passed on. False: it is no longer wanted. */
  readonly onHead: () => boolean;
  /** Sees each piece of a body that is the request itself, as it goes to the instance, at the instance's pace. */
  readonly onBody?: ((chunk: Buffer) => void) | undefined;
  /** A client that takes nothing of the answer for so long is cut off. */
  readonly stallMs: number;
}

/**
 * How it ended. `unsent`: no byte of the request reached the instance, so another may be tried. `broken`: it failed
 * after that; when `head` is true the client has part of an answer, and its connection was cut.
 */
export type ForwardEnd =
  | { readonly kind: 'answered' }
  | { readonly kind: 'unsent'; readonly detail: string }
  | { readonly kind: 'broken'; readonly head: boolean; readonly detail: string };

/** A forwarded request that can be broken off. */
export interface Forwarding {
  /** Never rejects. */
  readonly end: Promise<ForwardEnd>;
  /** `now`: also with an instance that finishes what it has begun. */
  abort(now?: boolean): void;
}

/** Sends a request to an instance and streams the answer back at the client's pace. */
export function forward(options: ForwardOptions): Forwarding {
  const { request, response, pool } = options;
  let controller: Dispatcher.DispatchController | undefined;
  let aborted = false;
  let head = false;
  const abort = (now = false) => {
    aborted = true;
    if (options.finishes && !head && !now) return;
    controller?.abort(new DOMException('the client has gone or the request timed out', 'AbortError'));
  };
  const end = new Promise<ForwardEnd>((resolve) => {
    pool.dispatch(
      {
        method: (request.method ?? 'GET') as Dispatcher.HttpMethod,
        path: options.path,
        headers: options.headers,
        body: options.body,
      },
      passOn(options, resolve, {
        onStart(started) {
          controller = started;
          // undici listens in this same turn, so neither of the two misses a piece.
          const { onBody } = options;
          if (options.body === request && onBody !== undefined) request.on('data', onBody);
          // Nothing of it has been sent yet.
          if (aborted) started.abort(new DOMException('the client has gone or the request timed out', 'AbortError'));
        },
        onHead() {
          head = true;
          return !aborted && options.onHead();
        },
      }),
    );
  });
  const onClose = () => {
    if (!response.writableFinished) abort();
  };
  response.once('close', onClose);
  void end.then(() => response.off('close', onClose));
  return { end, abort };
}

function passOn(
  options: ForwardOptions,
  resolve: (end: ForwardEnd) => void,
  on: { onStart: (controller: Dispatcher.DispatchController) => void; onHead: () => boolean },
): Dispatcher.DispatchHandler {
  const { response } = options;
  let sent = false;
  let head = false;
  return {
    onRequestStart(controller) {
      sent = true;
      on.onStart(controller);
    },
    onResponseStart(controller, status, headers, statusMessage) {
      if (status < 200) return;
      if (!on.onHead()) {
        controller.abort(new DOMException('answered already', 'AbortError'));
        return;
      }
      head = true;
      response.writeHead(
        status,
        statusMessage,
        forwardedResponseHeaders(headers, options.deployment, options.requestId),
      );
    },
    onResponseData(controller, chunk) {
      if (response.write(chunk)) return;
      controller.pause();
      cutWhenStalled(options, 'drain', () => controller.resume());
    },
    onResponseEnd() {
      response.end();
      if (!response.writableFinished) cutWhenStalled(options, 'finish');
      resolve({ kind: 'answered' });
    },
    onResponseError(_controller, error) {
      const detail = errorText(error);
      if (head) response.destroy();
      resolve(sent ? { kind: 'broken', head, detail } : { kind: 'unsent', detail });
    },
  };
}

/** Cuts the client off when it takes nothing until `event` for as long as it may. */
function cutWhenStalled({ response, stallMs }: ForwardOptions, event: 'drain' | 'finish', then?: () => void): void {
  const stalled = setTimeout(() => response.destroy(), stallMs);
  const stop = () => {
    clearTimeout(stalled);
    response.off(event, go).off('close', stop);
  };
  const go = () => {
    stop();
    then?.();
  };
  response.on(event, go).on('close', stop);
}
