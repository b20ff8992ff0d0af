import { writeFile, rm } from 'node:fs/promises';
import { join, resolve, extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { Option } from 'commander';
import { startApi } from '../api/server.ts';
import { openWorkspace } from '../api/workspace.ts';
import { createCounters } from '../kit/counters.ts';
import { errorText, ModeltapError } from '../kit/errors.ts';
import { createLogger } from '../kit/logger.ts';
import { requireLoopback } from '../kit/loopback.ts';
import { onShutdownSignal, type Stoppable, stopAll } from '../kit/shutdown.ts';
import { RUNNING_FILE, type RunningWorkspace } from './client.ts';
import { wholeNumber } from './common.ts';
import { readRunning } from './running.ts';

interface UpOptions {
  readonly workspace: string;
  readonly host: string;
  readonly port: number;
  readonly agentPort: number;
  readonly logLevel: string;
  readonly drainSeconds: number;
}

/** `modeltap up`: a workspace with API, agent and endpoints, until a signal. */
export function registerUp(program: Command): void {
  program
    .command('up')
    .description('Start a workspace: API, agent and endpoints')
    .addOption(
      new Option('--workspace <dir>', 'directory of the workspace; made if missing')
        .default('.modeltap')
        .env('MODELTAP_WORKSPACE'),
    )
    .option('--host <address>', 'loopback address to listen on', '127.0.0.1')
    .option('-p, --port <port>', 'port of the API and the scoring URIs; 0: any free one', wholeNumber(0, 65_535), 8484)
    .option('--agent-port <port>', 'port of the agent; 0: any free one', wholeNumber(0, 65_535), 50_011)
    .option('--drain-seconds <seconds>', 'how long a stop may take to ship what is spooled', wholeNumber(1, 3_600), 30)
    .addOption(
      new Option('--log-level <level>', 'what is logged').choices(['debug', 'info', 'warn', 'error']).default('info'),
    )
    .action(runUp);
}

async function runUp(options: UpOptions): Promise<void> {
  requireLoopback(options.host);
  const directory = resolve(options.workspace);
  const running = await readRunning(directory);
  if (running !== undefined) throw new ModeltapError('workspace_running', { directory, pid: running.pid });
  const logger = createLogger({ level: options.logLevel });
  const counters = createCounters();
  const started: Stoppable[] = [];
  const stop = () => stopAll(started, options.drainSeconds * 1_000);
  try {
    const workspace = await openWorkspace({
      directory,
      host: options.host,
      agentPort: options.agentPort,
      entry: fileURLToPath(new URL(`./entry${extname(import.meta.url)}`, import.meta.url)),
      logger,
    });
    started.push({ name: 'workspace', stop: (deadlineMs) => workspace.stop(deadlineMs) });
    const { host, port } = options;
    const api = await startApi({ workspace, scoring: workspace.scoring, counters, logger, host, port });
    started.push({ name: 'api', stop: (deadlineMs) => api.close(Math.min(deadlineMs, 10_000)) });
    workspace.setPublicUrl(api.url);
    await workspace.resume();
    const file = join(directory, RUNNING_FILE);
    await writeFile(file, JSON.stringify({ url: api.url, pid: process.pid } satisfies RunningWorkspace));
    started.push({ name: RUNNING_FILE, stop: () => rm(file, { force: true }) });
    process.stderr.write(
      `Modeltap is up.\n  workspace  ${directory}\n  API        ${api.url}\n  agent      ${workspace.agentUrl}\nCtrl-C stops it; what is collected stays.\n`,
    );
  } catch (error) {
    await stop();
    throw error;
  }
  await new Promise<void>((done) => {
    onShutdownSignal((signal) => {
      logger.info({ signal }, 'stopping');
      done();
    });
  });
  for (const { name, error } of await stop()) {
    logger.error({ part: name, error: errorText(error) }, 'did not stop cleanly');
    process.exitCode = 1;
  }
}
