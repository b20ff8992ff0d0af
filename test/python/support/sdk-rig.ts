import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DataCollectorConfig } from '../../../packages/modeltap/src/config/types.ts';
import { mdcConfigFile } from '../../../packages/modeltap/src/deployment/mdc-config.ts';
import { freePort, startAgent, type TestAgent, writeAgentFile } from '../../support/agent.ts';
import { type PythonProcess, startPython } from './python-process.ts';
import { type Recorder, startRecorder } from './recorder.ts';
import type { Venv } from './venv.ts';

/** Collections the agent of a rig takes. */
const COLLECTIONS = ['model_inputs', 'model_outputs', 'large', 'app_traces', 'restarts', 'held'];

/** An error as the client script tells it. */
export interface PythonError {
  readonly type: string;
  readonly message: string;
}

/** What `open` answers. */
export interface Opened {
  readonly raised: PythonError | null;
  readonly errors: readonly PythonError[];
}

/** What `collect` answers. */
export interface Collected extends Opened {
  readonly id: string;
  readonly same: boolean;
  readonly outcomes: Readonly<Record<string, number>>;
}

/** A real SDK process, a recorder, and a real agent with a store on disk. */
export interface SdkRig {
  readonly python: PythonProcess;
  readonly recorder: Recorder;
  readonly store: string;
  agent(): TestAgent;
  /** Starts the agent again on its port, after it was ended. */
  restartAgent(): Promise<void>;
  /** Makes the SDK read Modeltap's own config file at the next `open`; it sends through the recorder unless told otherwise. */
  useConfig(config: Partial<DataCollectorConfig>, port?: number): Promise<void>;
  /** Makes the SDK read the variables of the time before the file at the next `open`. */
  useVariables(variables: Readonly<Record<string, string>>): Promise<void>;
  close(): Promise<void>;
}

const VARIABLES = [
  'CONFIG_PATH',
  'ENABLED',
  'DEBUG',
  'FORMAT_COMPACT',
  'SAMPLE_RATE',
  'QUEUE_CAPACITY',
  'HOST',
  'PORT',
];
const CLEARED = Object.fromEntries(VARIABLES.map((name) => [`AZUREML_MDC_${name}`, null]));

/** The config a deployment has when its collections are on and nothing else is said. */
const DEFAULTS: DataCollectorConfig = {
  collections: Object.fromEntries(
    COLLECTIONS.map((name) => [name, { enabled: true, data: { name, version: '1', path: name } }]),
  ),
  samplingRate: 1,
  rollingRate: 'hour',
  captureHeaders: [],
  batch: 'same_id',
  batchWindowMs: 500,
};

/** Starts all of it. */
export async function startRig(venv: Venv): Promise<SdkRig> {
  const directory = mkdtempSync(join(tmpdir(), 'modeltap-python-'));
  const store = join(directory, 'store');
  const port = await freePort();
  const datastore = { type: 'local', path: store };
  const extra = { max_collections: 20 };
  const file = writeAgentFile({ directory, port, datastore, collections: COLLECTIONS, extra });
  let agent = await startAgent(file, port);
  const recorder = await startRecorder(() => port);
  const python = startPython(venv, 'collect.py');
  return {
    python,
    recorder,
    store,
    agent: () => agent,
    restartAgent: async () => {
      agent = await startAgent(file, port);
    },
    useConfig: async (config, to = recorder.port) => {
      const path = join(directory, 'mdc-config.json');
      writeFileSync(path, mdcConfigFile({ ...DEFAULTS, ...config }));
      const set = {
        ...CLEARED,
        AZUREML_MDC_CONFIG_PATH: path,
        AZUREML_MDC_PORT: String(to),
        AZUREML_MDC_DEBUG: 'true',
      };
      await python.ask({ do: 'env', set });
    },
    useVariables: async (variables) => {
      const set = { ...CLEARED, AZUREML_MDC_ENABLED: 'true', AZUREML_MDC_PORT: String(recorder.port), ...variables };
      await python.ask({ do: 'env', set });
    },
    close: async () => {
      await python.end();
      await recorder.stop();
      await agent.end('SIGKILL');
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
