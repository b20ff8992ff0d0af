import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { type Rig, SOURCE, startRig } from './rig.test.ts';
import { parseSampledOut } from './sampled-out.ts';

const BATCH = { 'content-type': 'application/cloudevents-batch+json' };

let rig: Rig;
before(async () => {
  rig = await startRig();
});
after(() => rig.close());

/** One event; of a collection that is not there, it is refused. */
function event(collection: string): object {
  return {
    specversion: '1.0',
    id: String(Math.random()),
    source: SOURCE,
    type: `azureml.inference.${collection}`,
    data: 1,
  };
}

/** Posts with the header and gives the status, the text and what was counted. */
async function post(report: string | string[], body: string, headers: Record<string, string> = BATCH) {
  const from = rig.counted.length;
  const answer = await rig.post('/v1/events', { ...headers, 'modeltap-sampled-out': report }, body);
  return { status: answer.status, text: answer.text, counted: rig.counted.slice(from) };
}

test('a report is counted for the collections that are known, with events and without', async () => {
  const alone = await post('model_inputs=12,nobody=4,model_outputs=1', '[]');
  assert.deepEqual([alone.status, alone.counted], [204, ['sampled 1 12', 'sampled 2 1']]);
  const mixed = await post('model%5Foutputs=2147483648', JSON.stringify([event('model_inputs'), event('nobody')]));
  assert.equal(mixed.status, 207);
  assert.deepEqual(mixed.counted.toSorted(), [
    'accepted 1 1 1',
    'rejected collection_unknown 0',
    'sampled 2 2147483648',
  ]);
  const several = await post(['model_inputs=1', 'model_inputs=2'], '[]');
  assert.deepEqual([several.status, several.counted], [204, ['sampled 1 1', 'sampled 1 2']]);
});

test('a report is not counted when the request is refused: the sender will tell it again', async () => {
  const refused = await post('model_inputs=3', JSON.stringify([event('nobody')]));
  assert.deepEqual([refused.status, refused.counted], [404, ['rejected collection_unknown 0']]);
  const broken = await post('model_inputs=3', '[');
  assert.deepEqual([broken.status, broken.counted], [400, ['rejected bad_json 0']]);
});

test('a report is for batches only', async () => {
  const { status, counted } = await post('model_inputs=0', `${JSON.stringify(event('model_inputs'))}\n`, {
    'content-type': 'application/x-ndjson',
  });
  assert.deepEqual([status, counted], [204, ['accepted 1 1 1']]);
});

const MALFORMED = [
  '',
  'model_inputs',
  'model_inputs=',
  '=1',
  'model_inputs=0',
  'model_inputs=01',
  'model_inputs=-1',
  'model_inputs=1.5',
  'model_inputs=2147483649',
  'model_inputs=1,',
  'model inputs=1',
  'model_inputs=1;model_outputs=1',
  '%FF=1',
  Array.from({ length: 65 }, (_, n) => `c${n}=1`).join(','),
  `${'x'.repeat(8200)}=1`,
];

test('a malformed report is refused by the name of the header, and nothing of the request is taken', async () => {
  for (const bad of MALFORMED) {
    const { status, text, counted } = await post(bad, JSON.stringify([event('model_inputs')]));
    assert.deepEqual([status, counted], [400, ['rejected event_invalid 0']], bad.slice(0, 50));
    assert.match(text, /the request: attribute modeltap-sampled-out must be <collection>=<records>/);
  }
});

test('what a sender writes is what is read', () => {
  const entry = fc
    .tuple(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }), fc.integer({ min: 1, max: 2 ** 31 }))
    .map(([collection, records]) => ({ collection, records }));
  fc.assert(
    fc.property(fc.array(entry, { minLength: 1, maxLength: 10 }), fc.constantFrom(',', ', '), (entries, comma) => {
      const text = entries.map((one) => `${encodeURIComponent(one.collection)}=${one.records}`).join(comma);
      assert.deepEqual(parseSampledOut(text), entries);
    }),
  );
});
