import { resolve } from 'node:path';
import type { Command } from 'commander';
import { formatBytes } from '../kit/bytes.ts';
import { systemClock } from '../kit/clock.ts';
import { ModeltapError } from '../kit/errors.ts';
import { registerAssetQueries } from './asset.ts';
import type { Client } from './client.ts';
import { type CommonOptions, clientOf, progress, show, withCommon } from './common.ts';
import { readConfigFile, warn, type Warned } from './config-file.ts';
import type { Column } from './output.ts';

interface Model {
  readonly name: string;
  readonly version: string;
  readonly type: string;
  readonly path?: string;
  readonly provisioning_state: 'Creating' | 'Succeeded' | 'Failed';
  readonly provisioning_error?: { readonly message: string; readonly fix: string };
  readonly bytes?: number;
  readonly copied_bytes?: number;
}

interface CreateOptions extends CommonOptions {
  readonly file?: string;
  readonly name?: string;
  readonly version?: string;
  readonly path?: string;
  readonly type?: string;
}

const COLUMNS: readonly Column<Model>[] = [
  { title: 'Name', value: (row) => row.name },
  { title: 'Version', value: (row) => row.version },
  { title: 'Type', value: (row) => row.type },
  { title: 'Path', value: (row) => row.path },
];

const PATH = '/api/v1/models';

/** `modeltap model …`, with the words and flags of `az ml model`. */
export function registerModel(program: Command): void {
  const group = program.command('model').description('Named, versioned models, kept with their files');
  withCommon(group.command('create'))
    .description('Register a model: its files are copied into the workspace')
    .option('-f, --file <yaml>', 'model YAML, as for Azure ML')
    .option('-n, --name <name>', 'name; overrides the one in the file')
    .option('-v, --version <version>', 'version; default: the highest number so far plus 1')
    .option('-p, --path <path>', 'file or folder, or azureml://datastores/<datastore>/paths/<path>')
    .option('-t, --type <type>', 'custom_model (default), mlflow_model or triton_model')
    .action(async (options: CreateOptions) => {
      const client = await clientOf(options);
      const file = options.file === undefined ? {} : await readConfigFile(options.file);
      const { name, version, type } = options;
      const path = options.path === undefined ? undefined : absolute(options.path);
      const created = await client.send<Warned<Model>>('POST', PATH, {
        ...file,
        overrides: { name, version, type, path },
      });
      warn(created.warnings);
      show(await untilRegistered(client, created.value), options, COLUMNS);
    });
  registerAssetQueries<Model>(group, {
    path: PATH,
    what: 'model',
    columns: COLUMNS,
    empty: 'No model yet: modeltap model create --name NAME --path PATH',
  });
}

/** Polls until the files are copied, saying how far it is once that takes longer than a moment. */
async function untilRegistered(client: Client, started: Model): Promise<Model> {
  const line = progress();
  const since = systemClock.monotonic();
  const { name, version } = started;
  for (let now = started; ; ) {
    if (now.provisioning_state !== 'Creating') {
      line.end();
      if (now.provisioning_state === 'Succeeded') return now;
      throw new ModeltapError('model_failed', {
        name,
        version,
        detail: now.provisioning_error?.message ?? 'its files could not be copied',
        hint: now.provisioning_error?.fix ?? 'Look at the log of "modeltap up".',
      });
    }
    const seconds = Math.floor((systemClock.monotonic() - since) / 1_000);
    if (seconds >= 1) {
      const size = `${formatBytes(now.copied_bytes ?? 0)} of ${formatBytes(now.bytes ?? 0)}`;
      line.say(`Creating ${name}:${version}: copied ${size}… ${seconds - (seconds % 5)} s`);
    }
    await systemClock.sleep(seconds >= 1 ? 200 : 20);
    now = await client.get<Model>(`${PATH}/${encodeURIComponent(name)}/versions/${encodeURIComponent(version)}`);
  }
}

/** Paths on the command line begin where it runs, not at the YAML file; addresses stay. */
function absolute(path: string): string {
  return /^[a-z][a-z0-9+.-]*:/i.test(path) ? path : resolve(path);
}
