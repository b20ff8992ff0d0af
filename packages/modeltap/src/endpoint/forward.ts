import type { IncomingMessage, ServerResponse } from 'node:http';
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
  /** The whole body, when the router has it; undefined means: stream the request, if it has a body. */
  readonly body: Buffer | undefined;
  readonly deployment: string;
  readonly requestId: string;
  /**
   * True: an instance that goes on with a request nobody waits for. Then `abort` leaves the connection open until the
   * head of the answer is there, so that the end of the forwarding tells when the instance has done.
   */
  readonly finishes: boolean;
  /** Called when the head of the answer is there, before it is passed on. False: it is no longer wanted. */
  readonly onHead: () => boolean;
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
  abort(): void;
}

/** Sends a request to an instance and streams the answer back at the client's pace. */
export function forward(options: ForwardOptions): Forwarding {
  const { request, response, pool } = options;
  let controller: Dispatcher.DispatchController | undefined;
  let aborted = false;
  let head = false;
  const abort = () => {
    aborted = true;
    if (options.finishes && !head) return;
    controller?.abort(new DOMException('the client has gone or the request timed out', 'AbortError'));
  };
  const end = new Promise<ForwardEnd>((resolve) => {
    pool.dispatch(
      {
        method: (request.method ?? 'GET') as Dispatcher.HttpMethod,
        path: options.path,
        headers: options.headers,
        body: options.body ?? (hasBody(request) ? request : null),
      },
      passOn(options, resolve, {
        onStart(started) {
          controller = started;
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

/** True when the head of a request announces a body. */
export function hasBody(request: IncomingMessage): boolean {
  const { 'content-length': length, 'transfer-encoding': encoding } = request.headers;
  return encoding !== undefined || (length !== undefined && length !== '0');
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
      response.once('drain', () => controller.resume());
    },
    onResponseEnd() {
      response.end();
      resolve({ kind: 'answered' });
    },
    onResponseError(_controller, error) {
      const detail = errorText(error);
      if (head) response.destroy();
      resolve(sent ? { kind: 'broken', head, detail } : { kind: 'unsent', detail });
    },
  };
}
