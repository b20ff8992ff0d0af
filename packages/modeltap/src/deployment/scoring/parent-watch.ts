import { Worker } from 'node:worker_threads';

/** Plain JavaScript, since loading a module would cost the thread ten times its memory. */
const WATCH = `
const { graceMs, everyMs, parent } = require('node:worker_threads').workerData;
const timer = setInterval(() => {
  if (process.ppid === parent) return;
  clearInterval(timer);
  setTimeout(() => process.kill(process.pid, 'SIGKILL'), graceMs);
}, everyMs);
`;

/**
 * Ends this process by SIGKILL when its parent has been dead for `graceMs`, whatever the main thread is doing: a
 * scoring script in an endless loop never sees its IPC channel close. Looks once every `everyMs` (default 1000) from a
 * small thread that does not keep the process alive.
 */
export function watchParent(graceMs: number, everyMs = 1000): void {
  const worker = new Worker(WATCH, {
    eval: true,
    workerData: { graceMs, everyMs, parent: process.ppid },
    resourceLimits: { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 2, stackSizeMb: 1 },
    env: {},
    execArgv: [],
    name: 'parent-watch',
  });
  worker.unref();
  worker.on('error', (error) => process.emitWarning(`nobody watches the parent process now: ${String(error)}`));
}
