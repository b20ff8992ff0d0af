/**
 * What collection costs a request to a Python `score.py` served by azureml-inference-server-http: p50, p99 and requests a
 * second with the real azureml-ai-monitoring on, against the same server without it (`scoring-load.ts` has the method).
 * Only when named: it builds a Python environment from PyPI first. Figures to know, not to hold: the cost is the SDK's own.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pythonReason } from '../test/python/support/available.ts';
import { interpreters } from '../test/python/support/interpreters.ts';
import { makeVenv } from '../test/python/support/venv.ts';
import { type BenchRow, runDirectly } from './harness.ts';
import { latencyRows, median, type Round, scoringRig, type Variant, VARIANTS } from './scoring-load.ts';

const SERVE = resolve(import.meta.dirname, '../packages/modeltap/python/serve.py');
const REQUIREMENTS = ['azureml-inference-server-http', 'azureml-ai-monitoring', 'pandas', 'inference-schema'];

/** The product document's script with a model of a few matrix products, about as quick as a small scikit-learn one. */
const SCRIPT = `
import json
import os
import numpy as np
import pandas as pd

def init():
    global inputs_collector, outputs_collector, weights
    inputs_collector = outputs_collector = None
    weights = [np.sin(np.arange(20 * 256).reshape(20, 256)), np.cos(np.arange(256 * 2).reshape(256, 2))]
    if os.environ.get("COLLECT") == "on":
        from azureml.ai.monitoring import Collector
        # A full queue, with the agent down, must not fail the request.
        inputs_collector = Collector(name="model_inputs", on_error=lambda error: None)
        outputs_collector = Collector(name="model_outputs", on_error=lambda error: None)

def run(data):
    input_df = pd.DataFrame(json.loads(data)["rows"])
    context = inputs_collector.collect(input_df) if inputs_collector else None
    output_df = predict(input_df)
    if outputs_collector:
        outputs_collector.collect(output_df, context)
    return output_df.to_dict(orient="records")

def predict(frame):
    values = frame.to_numpy(dtype="float64")
    for matrix in weights:
        values = np.maximum(values @ matrix, 0)
    return pd.DataFrame(values, columns=["score", "other"])
`;
const CONFIG = JSON.stringify({
  collections: { model_inputs: { enabled: true }, model_outputs: { enabled: true } },
});

async function environment(): Promise<string> {
  const reason = await pythonReason();
  const interpreter = (await interpreters()).at(-1);
  if (reason !== undefined || interpreter === undefined) throw new RangeError(reason ?? 'there is no Python');
  const made = await makeVenv({ interpreter, requirements: REQUIREMENTS });
  if ('problem' in made) throw new RangeError(made.problem);
  return made.venv.python;
}

/** Runs the benchmark; it takes (rounds + 1) × 8 × `BENCH_SECONDS`, and the building of the environment. */
export async function run(): Promise<BenchRow[]> {
  const python = await environment();
  const folder = mkdtempSync(join(tmpdir(), 'modeltap-python-bench-'));
  writeFileSync(join(folder, 'score.py'), SCRIPT);
  writeFileSync(join(folder, 'mdc.json'), CONFIG);
  const rig = await scoringRig();
  const server = async (collect: 'on' | 'off', agentPort: number): Promise<number> => {
    const child = spawn(python, ['-u', SERVE], {
      cwd: folder,
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      env: {
        PATH: process.env.PATH,
        AML_APP_ROOT: folder,
        AZUREML_ENTRY_SCRIPT: 'score.py',
        AZUREML_MODEL_DIR: folder,
        COLLECT: collect,
        AZUREML_MDC_CONFIG_PATH: join(folder, 'mdc.json'),
        AZUREML_MDC_PORT: String(agentPort),
      },
    });
    rig.keep(child);
    return portOf(child);
  };
  try {
    const ports: Record<Variant, number> = {
      off: await server('off', 0),
      up: await server('on', await rig.agentPort('up')),
      slow: await server('on', await rig.agentPort('slow')),
      down: await server('on', await rig.agentPort('down')),
    };
    const rounds = await rig.measure(ports, true);
    // The SDK serialises and sends in a thread that shares the interpreter's lock with the script, on a new connection for
    // each payload. That is its own cost; the limits only catch an agent that holds it up.
    return [...latencyRows('score.py', rounds, 10), ...throughputRows(rounds)];
  } finally {
    rig.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

function throughputRows(rounds: readonly Round[]): BenchRow[] {
  return VARIANTS.filter((variant) => variant !== 'off').map((variant) => {
    const rate = (which: Variant) => Math.round(median(rounds.map((round) => round[which].perSecond)));
    return {
      name: `score.py requests/s, collection on / off, agent ${variant}`,
      ratio: median(rounds.map((round) => round[variant].perSecond / round.off.perSecond)),
      target: 0.2,
      floor: 0.1,
      lowerIsBetter: false,
      note: `${rate(variant)}/s against ${rate('off')}/s`,
    };
  });
}

async function portOf(child: ChildProcess): Promise<number> {
  let text = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    text = (text + chunk.toString()).slice(-2000);
  });
  const ended = once(child, 'exit').then(() => {
    throw new RangeError(`the score server ended: ${text}`);
  });
  const [message] = (await Promise.race([once(child, 'message'), ended])) as [{ port: number }];
  ended.catch(() => undefined);
  return message.port;
}

await runDirectly(import.meta.url, run);
