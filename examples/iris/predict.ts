import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { env, InferenceSession, Tensor } from 'onnxruntime-web/wasm';

// One request is far too small to split over threads, and threads would compete with the other instances.
env.wasm.numThreads = 1;

/** The four measures of a flower in centimetres, in the order the model was trained on. */
export const FEATURES = ['sepal_length', 'sepal_width', 'petal_length', 'petal_width'] as const;

/** The classes in the order of the model's probabilities. */
export const SPECIES = ['setosa', 'versicolor', 'virginica'] as const;

/** Flowers by column: four columns of equally many finite numbers. */
export type Flowers = Readonly<Record<(typeof FEATURES)[number], readonly number[]>>;

/** Answers by column, one entry a flower: the likeliest species, and the probability of each (0 to 1, six decimals). */
export type Predictions = { readonly species: readonly string[] } & Readonly<
  Record<`probability_${(typeof SPECIES)[number]}`, readonly number[]>
>;

/** A model in memory. */
export type Model = InferenceSession;

/** What was sent is not four equally long columns of numbers; the message names the column. */
export class FlowersError extends Error {
  override readonly name = 'FlowersError';
}

/**
 * Loads `model/iris.onnx` from the folder a deployment gives in `AZUREML_MODEL_DIR`: it holds what `model.path` names under
 * its own name, here the folder `model`. Rejects when it is not there.
 */
export async function loadModel(directory: string): Promise<Model> {
  const bytes = await readFile(join(directory, 'model', 'iris.onnx'));
  return InferenceSession.create(bytes, { executionProviders: ['wasm'] });
}

/** Takes what a caller sent for flowers. Columns the model does not know stay. Throws `FlowersError`. */
export function checkFlowers(sent: unknown): Flowers {
  if (typeof sent !== 'object' || sent === null) throw new FlowersError('data must be an object of columns');
  const columns = sent as Partial<Record<string, unknown>>;
  let rows: number | undefined;
  for (const feature of FEATURES) {
    const values = columns[feature];
    if (!Array.isArray(values)) throw new FlowersError(`data.${feature} must be a list of numbers`);
    rows ??= values.length;
    if (values.length !== rows) {
      throw new FlowersError(`data.${feature} has ${values.length} values, data.${FEATURES[0]} has ${rows}`);
    }
    const bad = values.findIndex((value) => typeof value !== 'number' || !Number.isFinite(value));
    if (bad >= 0) throw new FlowersError(`data.${feature}[${bad}] must be a finite number`);
  }
  return columns as Flowers;
}

/** Scores any number of flowers, none included. */
export async function predict(model: Model, flowers: Flowers): Promise<Predictions> {
  const rows = flowers.sepal_length.length;
  const input = new Float32Array(rows * FEATURES.length);
  FEATURES.forEach((feature, column) => {
    flowers[feature].forEach((value, row) => {
      input[row * FEATURES.length + column] = value;
    });
  });

  const { label, probabilities } = await model.run({ input: new Tensor('float32', input, [rows, FEATURES.length]) });
  const species = label?.data as readonly string[];
  const flat = probabilities?.data as Float32Array;
  return {
    species: [...species],
    probability_setosa: column(flat, 0),
    probability_versicolor: column(flat, 1),
    probability_virginica: column(flat, 2),
  };
}

function column(flat: Float32Array, index: number): number[] {
  const values: number[] = [];
  // A float32 carries about seven digits; the rest of its decimal form is noise of the conversion.
  for (let at = index; at < flat.length; at += SPECIES.length) values.push(Math.round((flat[at] ?? 0) * 1e6) / 1e6);
  return values;
}
