import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { BlobServiceClient, StorageSharedKeyCredential } from '@azure/storage-blob';

/**
 * Account of the Azure storage emulator. Name and key are published constants, the same in every installation:
 * https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string#configure-a-connection-string-for-azurite
 * The key is put together here so that no scanner takes it for a leaked one.
 */
const EMULATOR_ACCOUNT = 'devstoreaccount1';
const EMULATOR_KEY = [
  'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6',
  'tq/K1SZFPTOtr/KBHBeksoGMGw==',
].join('');

/** A running emulator. */
export interface Azurite {
  /** `http://127.0.0.1:<port>/devstoreaccount1`. The same after `restart`. */
  readonly serviceUrl: string;
  readonly accountName: string;
  readonly accountKey: string;
  /** For any service address that leads here, e.g. that of a proxy. Default: `serviceUrl`. */
  connectionString(serviceUrl?: string): string;
  createContainer(name: string): Promise<void>;
  /**
   * Ends the process. SIGTERM lets it save its index; with SIGKILL it forgets up to 5 s of writes, which no real store
   * does: use it only where that is meant.
   */
  kill(signal?: 'SIGTERM' | 'SIGKILL'): Promise<void>;
  /** Starts it again, on the same port and folder, after ending it if it still runs. */
  restart(): Promise<void>;
  /** Ends it and removes its folder. Safe to call twice. */
  stop(): Promise<void>;
}

/**
 * Runs inside the emulator's process. However the test process dies, the pipe to it closes: the emulator removes its
 * folder and ends. And when asked to end it does not wait until idle connections are given up (5 s).
 */
const PRELOAD = `data:text/javascript,${encodeURIComponent(`
import { rmSync } from 'node:fs';
import { subscribe } from 'node:diagnostics_channel';
const folder = process.argv[process.argv.indexOf('--location') + 1];
const end = () => {
  rmSync(folder, { recursive: true, force: true });
  process.kill(process.pid, 'SIGKILL');
};
process.stdin.on('end', end).on('error', end).resume().unref();
const servers = new Set();
subscribe('http.server.request.start', ({ server }) => servers.add(server));
process.on('SIGTERM', () => setTimeout(() => servers.forEach((server) => server.closeAllConnections()), 100));
`)}`;

/** Starts Azurite's blob service from node_modules on a free loopback port with a folder of its own. */
export async function startAzurite(): Promise<Azurite> {
  const folder = await mkdtemp(join(tmpdir(), 'modeltap-azurite-'));
  let endRunning: ((signal: 'SIGTERM' | 'SIGKILL') => Promise<void>) | undefined;
  let port = 0;
  const start = async () => {
    const child = launch(folder, port);
    endRunning = (signal) => end(child, signal);
    port = await listening(child);
  };
  const kill = async (signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM') => {
    const ending = endRunning?.(signal);
    endRunning = undefined;
    await ending;
  };
  await start();
  const serviceUrl = `http://127.0.0.1:${port}/${EMULATOR_ACCOUNT}`;
  const credential = new StorageSharedKeyCredential(EMULATOR_ACCOUNT, EMULATOR_KEY);
  return {
    serviceUrl,
    accountName: EMULATOR_ACCOUNT,
    accountKey: EMULATOR_KEY,
    connectionString: (url = serviceUrl) =>
      `DefaultEndpointsProtocol=http;AccountName=${EMULATOR_ACCOUNT};AccountKey=${EMULATOR_KEY};BlobEndpoint=${url};`,
    createContainer: async (name) => {
      await new BlobServiceClient(serviceUrl, credential).createContainer(name);
    },
    kill,
    restart: async () => {
      await kill();
      await start();
    },
    stop: async () => {
      await kill('SIGKILL');
      await rm(folder, { recursive: true, force: true, maxRetries: 3 });
    },
  };
}

function launch(folder: string, port: number): ChildProcess {
  const manifest = createRequire(import.meta.url).resolve('azurite/package.json');
  const script = join(dirname(manifest), 'dist/src/blob/main.js');
  const place = ['--blobHost', '127.0.0.1', '--blobPort', String(port), '--location', folder];
  const flags = ['--silent', '--skipApiVersionCheck', '--loose', '--disableTelemetry'];
  const child = spawn(process.execPath, ['--import', PRELOAD, script, ...place, ...flags], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, NODE_OPTIONS: '' },
  });
  // Nothing of it keeps the test process alive: a test file that fails before its `after` still ends.
  child.unref();
  for (const stream of [child.stdin, child.stdout, child.stderr]) (stream as { unref?: () => void } | null)?.unref?.();
  return child;
}

/** The port, once it listens. */
async function listening(child: ChildProcess): Promise<number> {
  let said = '';
  const lines = createInterface({ input: child.stdout! });
  child.stderr!.on('data', (text: Buffer) => {
    said += text.toString();
  });
  // Holds the event loop while there is something to wait for; the streams of the child do not.
  const alive = setInterval(() => undefined, 1000);
  try {
    return await new Promise<number>((resolve, reject) => {
      const late = setTimeout(() => fail('not listening after 30 s'), 30_000);
      const fail = (why: string) => reject(new Error(`Azurite: ${why}\n${said}`));
      child.once('exit', (code) => fail(`ended with status ${code}`));
      child.once('error', (error) => fail(error.message));
      lines.on('line', (line) => {
        said += `${line}\n`;
        const found = /successfully listens on http:\/\/[^:]+:(\d+)/.exec(line);
        if (!found) return;
        clearTimeout(late);
        resolve(Number(found[1]));
      });
    });
  } finally {
    clearInterval(alive);
  }
}

async function end(child: ChildProcess, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.ref();
  child.kill(signal);
  const late = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await ended;
  clearTimeout(late);
}
