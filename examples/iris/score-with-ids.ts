import { randomUUID } from 'node:crypto';
import { BasicCorrelationContext, Collector } from '@modeltap/collector';
import { checkFlowers, type Flowers, loadModel, type Model, type Predictions, predict } from './predict.ts';

let inputsCollector: Collector;
let outputsCollector: Collector;
let model: Model;

/** Runs once, before the first request. */
export async function init(): Promise<void> {
  // With `onError` a record that cannot be collected is a line in the log, and the request is answered all the same.
  const onError = (error: Error) => console.error(`not collected: ${error.message}`);
  inputsCollector = new Collector({ name: 'model_inputs', onError });
  outputsCollector = new Collector({ name: 'model_outputs', onError });

  model = await loadModel(process.env['AZUREML_MODEL_DIR'] ?? '.');
}

/** As in `score.ts`, and the caller may name the request: `{ "id": "greenhouse-7", "data": { … } }`. */
export async function run(data: string): Promise<Predictions> {
  const { id, input } = preprocess(JSON.parse(data));

  // Create a context with an id of your own.
  const ownContext = new BasicCorrelationContext({ id });

  // Records of close requests may be stored together, so each row also carries an id of its own: the column that
  // the true species, once somebody has looked at the flower, can be joined on.
  const correlationid = input.sepal_length.map((_, row) => `${id}_${row}`);

  // Collect the inputs, keep the correlation context.
  const context = inputsCollector.collect({ ...input, correlationid }, ownContext);

  // Score. The answer has columns too.
  const output = await predict(model, input);

  // Collect the outputs under the same context, so that inputs and outputs have the same id.
  outputsCollector.collect({ ...output, correlationid }, context);

  return output;
}

function preprocess(json: { id?: string; data?: unknown }): { id: string; input: Flowers } {
  return { id: json.id ?? randomUUID(), input: checkFlowers(json.data) };
}
