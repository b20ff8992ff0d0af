/**
 * What collection costs a scoring request: p50 and p99 through the score server with collection on, against the same
 * script without it (`scoring-load.ts` has the method).
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type BenchRow, runDirectly } from './harness.ts';
import { COLUMNS, latencyRows, scoringRig, type Variant } from './scoring-load.ts';

const SERVER = resolve(import.meta.dirname, '../packages/modeltap/src/deployment/score-server.ts');

/**
 * The scoring script, with collection or without. The model is ten small dense networks, about 1 ms a row; the notes of
 * the rows have the milliseconds, so that the cost beside another model can be worked out. Typed arrays, since the speed
 * of ordinary ones depends on what V8 has seen before, and differed by half between two scripts with the same model.
 */
const SCRIPT = `
const WIDTHS = [${COLUMNS}, 256, 256];
const layers = WIDTHS.map((width) => new Float64Array(width));
const weights = WIDTHS.slice(1).map((width, index) => Float64Array.from({ length: width * WIDTHS[index] }, (_, at) => Math.sin(at)));
function predict(row) {
  layers[0].set(Object.values(row));
  let score = 0;
  for (let member = 0; member < 10; member += 1) score += network();
  return { score, label: score > 0.5 ? 'a' : 'b' };
}
function network() {
  for (let index = 0; index < weights.length; index += 1) {
    const from = layers[index];
    const to = layers[index + 1];
    const matrix = weights[index];
    for (let out = 0, at = 0; out < to.length; out += 1) {
      let sum = 0;
      for (let back = 0; back < from.length; back += 1, at += 1) sum += from[back] * matrix[at];
      to[out] = sum > 0 ? sum : 0;
    }
  }
  return layers.at(-1)[0];
}
let inputs, outputs;
export async function init() {
  if (process.env.COLLECT !== 'on') return;
  const { Collector } = await import('@modeltap/collector');
  // A full queue, with the agent down, must not fail the request.
  const onError = () => {};
  inputs = new Collector({ name: 'model_inputs', onError });
  outputs = new Collector({ name: 'model_outputs', onError });
}
export function run(data) {
  const { rows } = JSON.parse(data);
  const context = inputs?.collect(rows);
  const answer = rows.map(predict);
  outputs?.collect(answer, context);
  return answer;
}
`;
const CONFIG = JSON.stringify({
  collections: {
    model_inputs: { enabled: true, sampleRatePercentage: 100 },
    model_outputs: { enabled: true, sampleRatePercentage: 100 },
  },
});

/** Runs the benchmark; it takes (rounds + 1) × 4 × `BENCH_SECONDS`. */
export async function run(): Promise<BenchRow[]> {
  const folder = mkdtempSync(join(tmpdir(), 'modeltap-scoring-bench-'));
  writeFileSync(join(folder, 'score.mjs'), SCRIPT);
  writeFileSync(join(folder, 'mdc.json'), CONFIG);
  const rig = await scoringRig();
  const server = (collect: 'on' | 'off', agentPort: number) =>
    rig.start(SERVER, [], {
      PATH: process.env.PATH,
      AML_APP_ROOT: folder,
      AZUREML_ENTRY_SCRIPT: 'score.mjs',
      COLLECT: collect,
      AZUREML_MDC_CONFIG_PATH: join(folder, 'mdc.json'),
      AZUREML_MDC_PORT: String(agentPort),
      MODELTAP_MAX_CONCURRENT_REQUESTS: '16',
      NODE_NO_WARNINGS: '1',
    });
  try {
    const ports: Record<Variant, number> = {
      off: await server('off', 0),
      up: await server('on', await rig.agentPort('up')),
      slow: await server('on', await rig.agentPort('slow')),
      down: await server('on', await rig.agentPort('down')),
    };
    return latencyRows('scoring', await rig.measure(ports, false), 1.05);
  } finally {
    rig.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

await runDirectly(import.meta.url, run);
