import { readFileSync } from 'node:fs';

/** One line of `data/iris.csv`. `measures` are in the order of the model's input; `test` rows were not trained on. */
export interface Flower {
  readonly measures: readonly [number, number, number, number];
  readonly species: string;
  readonly split: 'train' | 'test';
}

/** Reads the data set that lies beside this file: 150 flowers. */
export function readFlowers(): Flower[] {
  const text = readFileSync(new URL('./data/iris.csv', import.meta.url), 'utf8');
  return text
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => {
      const cells = line.split(',');
      const [a = NaN, b = NaN, c = NaN, d = NaN] = cells.slice(0, 4).map(Number);
      return { measures: [a, b, c, d], species: cells[4] ?? '', split: cells[5] === 'test' ? 'test' : 'train' };
    });
}
