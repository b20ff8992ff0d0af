/**
 * The sending thread. One in a process: it turns packed records into JSON and sends them. It depends on nothing of the
 * main thread but the messages it gets, so it works while that thread is busy, blocked or ending.
 */
import { Agent } from 'node:http';
import { parentPort } from 'node:worker_threads';
import { CollectorError } from './errors.ts';
import { Inbox } from './inbox.ts';
import { Ledger } from './ledger.ts';
import { LocalCapture } from './local.ts';
import { httpPost } from './post.ts';
import type { FromWorker, ToWorker } from './protocol.ts';
import { Sender } from './sender.ts';

interface Outlet {
  readonly inbox: Inbox;
  readonly sender: Sender | LocalCapture;
}

const outlets = new Map<number, Outlet>();

function open({ transport, target, memory }: Extract<ToWorker, { kind: 'open' }>): Outlet {
  const inbox = new Inbox();
  const ledger = new Ledger(memory);
  const flushed = (token: number) => {
    ledger.flushed(token);
    tell({ kind: 'flushed', transport, token });
  };
  if (target.local) return { inbox, sender: new LocalCapture(inbox, ledger, flushed) };
  const { host, port } = target;
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const sender = new Sender({
    inbox,
    ledger,
    post: httpPost({ host, port, agent }),
    report: (report) => tell({ kind: 'report', transport, report }),
    flushed,
  });
  return { inbox, sender };
}

function tell(message: FromWorker): void {
  parentPort?.postMessage(message);
}

parentPort?.on('message', (message: ToWorker) => {
  if (message.kind === 'open') {
    outlets.set(message.transport, open(message));
    return;
  }
  const outlet = outlets.get(message.transport);
  if (outlet === undefined) throw new CollectorError('internal', { detail: `unknown transport ${message.transport}` });
  const { inbox, sender } = outlet;
  switch (message.kind) {
    case 'envelope':
      inbox.envelope(message.id, message.envelope);
      break;
    case 'deadline':
      sender.deadlineMs = message.deadlineMs;
      break;
    case 'chunk':
      inbox.shapes(message.shapes);
      inbox.chunk(message.chunk, message.bytes, message.atMs);
      sender.added(message.records);
      break;
    case 'sampled':
      // What is only printed has no agent to be told.
      if (sender instanceof Sender) sender.reportSampled();
      break;
    case 'flush':
      sender.flush(message.token, message.hurry);
      break;
  }
});
