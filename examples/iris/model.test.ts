import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { before, describe, it } from 'node:test';
import { type Flower, readFlowers } from './flowers.ts';
import { checkFlowers, FEATURES, type Flowers, FlowersError, loadModel, type Model, predict } from './predict.ts';

const here = fileURLToPath(new URL('.', import.meta.url));
const flowers = readFlowers();

function toColumns(rows: readonly Flower[]): Flowers {
  const entries = FEATURES.map((feature, column) => [feature, rows.map((row) => row.measures[column])]);
  return checkFlowers(Object.fromEntries(entries));
}

/** Count and accuracy of one line of the model card's table. */
function stated(rows: string): [count: number, accuracy: string] {
  const card = readFileSync(new URL('./model/model-card.md', import.meta.url), 'utf8');
  const [, count, accuracy = ''] = new RegExp(`^\\| ${rows} +\\| (\\d+) +\\| ([\\d.]+) +\\|$`, 'm').exec(card) ?? [];
  return [Number(count), accuracy];
}

describe('the committed iris model', () => {
  let model: Model;
  before(async () => {
    model = await loadModel(here);
  });

  async function accuracy(rows: readonly Flower[]): Promise<number> {
    const { species } = await predict(model, toColumns(rows));
    return species.filter((name, row) => name === rows[row]?.species).length / rows.length;
  }

  it('is as accurate on every split of the data set as its card states, and at least 0.9', async () => {
    for (const split of ['train', 'test', 'all']) {
      const rows = flowers.filter((flower) => split === 'all' || flower.split === split);
      const measured = await accuracy(rows);
      assert.ok(measured >= 0.9, `${split}: ${measured}`);
      assert.deepEqual([rows.length, measured.toFixed(4)], stated(split), split);
    }
  });

  it('gives probabilities that sum to 1 and the species of the largest', async () => {
    const answer = await predict(model, toColumns(flowers));
    answer.species.forEach((species, row) => {
      const of = {
        setosa: answer.probability_setosa[row] ?? NaN,
        versicolor: answer.probability_versicolor[row] ?? NaN,
        virginica: answer.probability_virginica[row] ?? NaN,
      };
      const all = Object.values(of);
      assert.ok(Math.abs(all.reduce((sum, value) => sum + value, 0) - 1) < 1e-5);
      assert.equal(of[species as keyof typeof of], Math.max(...all));
    });
  });

  it('answers requests that overlap exactly as it answers them alone', async () => {
    const alone = await predict(model, toColumns(flowers));
    const overlapping = await Promise.all(flowers.map((flower) => predict(model, toColumns([flower]))));
    assert.deepEqual(
      overlapping.map((answer) => [answer.species[0], answer.probability_virginica[0]]),
      alone.species.map((species, row) => [species, alone.probability_virginica[row]]),
    );
  });

  it('answers no flowers with no species', async () => {
    const answer = await predict(model, toColumns([]));
    assert.deepEqual(Object.values(answer), [[], [], [], []]);
  });

  it('is looked for under the name of its folder, as Azure ML keeps it', async () => {
    await assert.rejects(loadModel(`${here}model`), /ENOENT.*model\/model\/iris\.onnx/);
  });
});

describe('checkFlowers', () => {
  it('names the column that is missing, short or not a number', () => {
    const good = { sepal_length: [5.1], sepal_width: [3.5], petal_length: [1.4], petal_width: [0.2] };
    assert.equal(checkFlowers(good), good);
    const bad: [unknown, RegExp][] = [
      [undefined, /data must be an object/],
      [{ ...good, petal_width: undefined }, /data\.petal_width must be a list/],
      [{ ...good, petal_length: [1.4, 1.5] }, /data\.petal_length has 2 values, data\.sepal_length has 1/],
      [{ ...good, sepal_width: ['wide'] }, /data\.sepal_width\[0\] must be a finite number/],
      [{ ...good, sepal_width: [null] }, /data\.sepal_width\[0\] must be a finite number/],
    ];
    for (const [sent, message] of bad) {
      assert.throws(
        () => checkFlowers(sent),
        (error) => error instanceof FlowersError && message.test(error.message),
      );
    }
  });
});
