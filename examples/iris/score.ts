import { Collector } from '@modeltap/collector';
import { checkFlowers, type Flowers, loadModel, type Model, type Predictions, predict } from './predict.ts';

let inputsCollector: Collector;
let outputsCollector: Collector;
let model: Model;

/** Runs once, before the first request. */
export async function init(): Promise<void> {
  // Create the collectors with the names the deployment YAML enables.
  inputsCollector = new Collector({ name: 'model_inputs' });
  outputsCollector = new Collector({ name: 'model_outputs' });

  model = await loadModel(process.env['AZUREML_MODEL_DIR'] ?? '.');
}

/** Runs for each request with its body; what it returns is the answer, as JSON. */
export async function run(data: string): Promise<Predictions> {
  // JSON: { "data": { "sepal_length": [5.1, 6.3], "sepal_width": [3.5, 2.8], … } }
  const input = preprocess(JSON.parse(data));

  // Collect the inputs, keep the correlation context.
  const context = inputsCollector.collect(input);

  // Score. The answer has columns too.
  const output = await predict(model, input);

  // Collect the outputs under the same context, so that they can be joined with their inputs later.
  outputsCollector.collect(output, context);

  return output;
}

function preprocess(json: { data?: unknown }): Flowers {
  // Make sure that the payload is a table before anything is collected.
  return checkFlowers(json.data);
}
