import { bodyJson, decodeSides, pathOf } from './exchange.ts';
import type { Issues } from './issues.ts';
import type { JsonValue } from './json-text.ts';
import { isCell, nothing, tableFromCell, tableFromList, tableFromTensors } from './shapes.ts';
import { TableBuilder } from './table.ts';
import type { CapturedExchange, CapturedMessage, PayloadDecoder, Table } from './types.ts';

const PATH = /\/v1\/models\/[^/:]+(?:\/(?:versions|labels)\/[^/:]+)?:(predict|classify|regress)$/;

type Verb = 'predict' | 'classify' | 'regress';

function verbOf(exchange: CapturedExchange): Verb | undefined {
  return exchange.method === 'POST' ? (PATH.exec(pathOf(exchange))?.[1] as Verb | undefined) : undefined;
}

/** Row format is a list of rows, column format an object of tensors; a single unnamed tensor is a list in both. */
function tableFromFormat(value: JsonValue, where: string, issues: Issues): Table | undefined {
  if (isCell(value)) return tableFromCell(value, issues);
  return value.kind === 'array' ? tableFromList(value, where, issues) : tableFromTensors(value, where, issues);
}

function oneOf(body: JsonValue, names: readonly string[], issues: Issues): readonly [string, JsonValue] | undefined {
  const given = [...body.fields()].filter(([name]) => names.includes(name));
  if (given.length === 1) return given[0];
  return nothing(issues, `expected exactly one of ${names.join(', ')}, found ${given.length}`);
}

/** `examples`, each with the features of `context`, which all of them share. */
function tableFromExamples(body: JsonValue, issues: Issues): Table | undefined {
  const fields = body.fields();
  const examples = fields.get('examples');
  if (examples?.kind !== 'array') return nothing(issues, 'examples is missing or not a list');
  const context = fields.get('context');
  if (context !== undefined && context.kind !== 'object') return nothing(issues, 'context is not an object');
  const shared = [...(context?.fields() ?? [])].map(([name, value]) => [name, value.text] as const);
  if (shared.length === 0) return tableFromList(examples, 'examples', issues);
  const builder = new TableBuilder(issues);
  let at = 0;
  for (const example of examples.items()) {
    if (!builder.hasRoom()) break;
    if (example.kind !== 'object') return nothing(issues, `examples[${at}] is not an object`);
    const own = [...example.fields()].map(([name, value]) => [name, value.text] as const);
    if (!builder.add(new Map([...own, ...shared]))) break;
    at += 1;
  }
  return builder.finish();
}

/** One row for each example: `labels` and `scores`, lists in the order of the answer. */
function tableFromClasses(result: JsonValue, where: string, issues: Issues): Table | undefined {
  const builder = new TableBuilder(issues);
  let at = 0;
  for (const classes of result.items()) {
    if (!builder.hasRoom()) break;
    const labels: string[] = [];
    const scores: string[] = [];
    for (const pair of classes.items()) {
      const [label, score, ...rest] = pair.items();
      if (label === undefined || score === undefined || rest.length > 0) {
        return nothing(issues, `${where}[${at}] is not a list of label and score pairs`);
      }
      labels.push(label.text);
      scores.push(score.text);
    }
    builder.add([
      ['labels', `[${labels.join(',')}]`],
      ['scores', `[${scores.join(',')}]`],
    ]);
    at += 1;
  }
  return builder.finish();
}

function readInputs(verb: Verb, request: CapturedMessage, issues: Issues): Table | undefined {
  const body = bodyJson(request, issues);
  if (body === undefined) return undefined;
  if (verb !== 'predict') return tableFromExamples(body, issues);
  const given = oneOf(body, ['instances', 'inputs'], issues);
  return given && tableFromFormat(given[1], given[0], issues);
}

function readOutputs(verb: Verb, response: CapturedMessage, issues: Issues): Table | undefined {
  const body = bodyJson(response, issues);
  if (body === undefined) return undefined;
  const given = oneOf(body, verb === 'predict' ? ['predictions', 'outputs'] : ['result', 'results'], issues);
  if (given === undefined) return undefined;
  const [where, value] = given;
  if (verb === 'predict') return tableFromFormat(value, where, issues);
  if (value.kind !== 'array') return nothing(issues, `${where} is not a list`);
  return verb === 'classify' ? tableFromClasses(value, where, issues) : tableFromList(value, where, issues);
}

/** TensorFlow Serving's REST API, and KServe's V1 protocol, which has the same form: predict, classify, regress. */
export const tfServing: PayloadDecoder = {
  protocol: 'tf-serving',
  matches: (exchange) => verbOf(exchange) !== undefined,
  decode: (exchange) => {
    const verb = verbOf(exchange) ?? 'predict';
    return decodeSides(exchange, {
      inputs: (request, issues) => readInputs(verb, request, issues),
      outputs: (response, issues) => readOutputs(verb, response, issues),
    });
  },
};
