import { rm } from 'node:fs/promises';
import { join, resolve, extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { InvalidArgumentError, Option } from 'commander';
import { replaceFile } from '../api/agent-process.ts';
import { startApi } from '../api/server.ts';
import { TlsFiles } from '../api/tls.ts';
import { openWorkspace } from '../api/workspace.ts';
import type { TokenIssuer } from '../endpoint/access.ts';
import { createOidcIssuer } from '../endpoint/oidc.ts';
import { MAX_BODY_BYTES } from '../endpoint/router.ts';
import { parseBytes } from '../kit/bytes.ts';
import { createCounters } from '../kit/counters.ts';
import { errorText, ModeltapError } from '../kit/errors.ts';
import { createLogger, type Logger } from '../kit/logger.ts';
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
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly maxBody: number;
  readonly oidcIssuer?: string;
  readonly oidcAudience?: string;
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
    .option(
      '--tls-cert <file>',
      'PEM certificate with its chain: serve https; read again when it changes, or on SIGHUP',
    )
    .option('--tls-key <file>', 'PEM private key of the certificate')
    .addOption(
      new Option('--max-body <size>', 'longest body of a request to an endpoint')
        .argParser(sizeOption)
        .default(MAX_BODY_BYTES, '100MB'),
    )
    .addOption(
      new Option('--oidc-issuer <url>', 'issuer of the tokens of endpoints with auth_mode aad_token').env(
        'MODELTAP_OIDC_ISSUER',
      ),
    )
    .addOption(new Option('--oidc-audience <name>', 'what its tokens must have as aud').env('MODELTAP_OIDC_AUDIENCE'))
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
    const tls = openTls(options, logger);
    if (tls !== undefined) started.push({ name: 'tls', stop: async () => tls.close() });
    const issuer = openIssuer(options, logger);
    const workspace = await openWorkspace({
      directory,
      host: options.host,
      agentPort: options.agentPort,
      entry: fileURLToPath(new URL(`./entry${extname(import.meta.url)}`, import.meta.url)),
      counters,
      ...(issuer === undefined ? {} : { issuer }),
      maxBodyBytes: options.maxBody,
      logger,
    });
    started.push({ name: 'workspace', stop: (deadlineMs) => workspace.stop(deadlineMs) });
    const { host, port } = options;
    const front = tls === undefined ? {} : { front: { tls } };
    const api = await startApi({ workspace, scoring: workspace.scoring, counters, logger, host, port, ...front });
    started.push({ name: 'api', stop: (deadlineMs) => api.close(Math.min(deadlineMs, 10_000)) });
    workspace.setPublicUrl(api.url);
    await workspace.resume();
    started.push(await announce(join(directory, RUNNING_FILE), api.url, tls));
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

/** Leaves the address in a file for the command line, with the certificate to trust, as long as the workspace runs. */
async function announce(file: string, url: string, tls: TlsFiles | undefined): Promise<Stoppable> {
  const write = () => {
    const certificate = tls === undefined ? {} : { certificate: tls.certificate };
    return replaceFile(file, JSON.stringify({ url, pid: process.pid, ...certificate } satisfies RunningWorkspace));
  };
  let written = write();
  await written;
  tls?.onChange(() => {
    written = written.then(write);
  });
  return {
    name: RUNNING_FILE,
    async stop() {
      await written;
      await rm(file, { force: true });
    },
  };
}

/** The certificate of `--tls-cert` and `--tls-key`; undefined without them. Read again on SIGHUP. */
function openTls({ tlsCert: cert, tlsKey: key }: UpOptions, logger: Logger): TlsFiles | undefined {
  if (cert === undefined && key === undefined) return undefined;
  if (cert === undefined || key === undefined) {
    throw new ModeltapError('option_missing', {
      given: cert === undefined ? '--tls-key' : '--tls-cert',
      missing: cert === undefined ? '--tls-cert' : '--tls-key',
    });
  }
  const tls = new TlsFiles({ cert: resolve(cert), key: resolve(key), logger });
  process.on('SIGHUP', tls.reload);
  return tls;
}

function openIssuer({ oidcIssuer, oidcAudience }: UpOptions, logger: Logger): TokenIssuer | undefined {
  if (oidcIssuer === undefined && oidcAudience === undefined) return undefined;
  if (oidcIssuer === undefined || oidcAudience === undefined) {
    throw new ModeltapError('option_missing', {
      given: oidcIssuer === undefined ? '--oidc-audience' : '--oidc-issuer',
      missing: oidcIssuer === undefined ? '--oidc-issuer' : '--oidc-audience',
    });
  }
  return createOidcIssuer({ issuerUrl: oidcIssuer, audience: oidcAudience, logger });
}

function sizeOption(text: string): number {
  const bytes = parseBytes(text);
  if (bytes === undefined || bytes < 1) throw new InvalidArgumentError('It must be a size such as 64MB or 2GB.');
  return bytes;
}
