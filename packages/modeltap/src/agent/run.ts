import { loadAgent } from '../config/load.ts';
import type { AgentConfig } from '../config/types.ts';
import { formatIssues } from '../config/issues.ts';
import { errorText } from '../kit/errors.ts';
import { createLogger, type Logger } from '../kit/logger.ts';
import { onShutdownSignal } from '../kit/shutdown.ts';
import { type Agent, startAgent } from './agent.ts';

/** How long a stopping agent ships what is spooled before it leaves the rest for the next start. */
const DRAIN_MS = 25_000;

/** What the command line says. */
export interface RunAgentOptions {
  /** The agent YAML. */
  readonly file: string;
  readonly logLevel: string;
  /** Read the file, print what is wrong with it, and return. */
  readonly checkOnly: boolean;
}

/**
 * Runs an agent in this process until SIGTERM, SIGINT or, under `modeltap up`, until the parent is gone. SIGHUP and
 * `POST /v1/reload` read the file again; a file with errors is refused whole and the agent goes on as it was.
 */
export async function runAgent(options: RunAgentOptions): Promise<void> {
  const loaded = await loadAgent(options.file);
  if (loaded.warnings.length > 0) process.stderr.write(`${formatIssues(loaded.warnings)}\n`);
  if (options.checkOnly) {
    process.stdout.write(`${options.file} is valid.\n`);
    return;
  }
  await serveAgent({
    config: loaded.value,
    logLevel: options.logLevel,
    reload: async () => (await loadAgent(options.file)).value,
    ready: () => undefined,
  });
}

/** What an agent is run from when it is not a file alone. */
export interface ServeAgentOptions {
  readonly config: AgentConfig;
  readonly logLevel: string;
  /** Gives the settings again, for a reload. */
  readonly reload: () => Promise<AgentConfig>;
  /** Called once it is ready. */
  readonly ready: (agent: Agent) => void;
}

/** Runs an agent with these settings until a signal; see `runAgent`. Ends the process. */
export async function serveAgent(options: ServeAgentOptions): Promise<void> {
  const logger = createLogger({ level: options.logLevel, name: 'agent' });
  const agent = await startAgent({ config: options.config, logger, reload: options.reload });
  logger.info({ addresses: agent.addresses, taps: agent.taps, recovery: agent.recovery }, 'the agent is ready');
  options.ready(agent);
  process.on('SIGHUP', () => reload(() => agent.reload(), logger));
  await new Promise<void>((done) => {
    onShutdownSignal((signal) => {
      logger.info({ signal }, 'stopping');
      done();
    });
    process.once('disconnect', () => {
      logger.info('the workspace is gone, stopping');
      done();
    });
  });
  const left = await agent.stop(DRAIN_MS);
  logger.info(
    { spooledBytes: left.spooledBytes },
    left.spooledBytes === 0 ? 'stopped, all stored' : 'stopped, the rest stays in the spool',
  );
  // A parent that is gone, or a store that hangs, must not keep this process.
  process.exit(process.exitCode ?? 0);
}

function reload(run: () => Promise<void>, logger: Logger): void {
  run().then(
    () => logger.info('the file was read again'),
    (error: unknown) => logger.error({ error: errorText(error) }, 'the file was not taken; going on as before'),
  );
}
