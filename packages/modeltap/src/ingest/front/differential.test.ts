import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Pair } from './differential.test.kit.ts';
import { fuzzRuns, goodRequests, requests, wire } from './wire.test.kit.ts';

const SEED = 20_261_123;

const manner = fc.record({
  cuts: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 6 }),
  slowly: fc.boolean(),
});

/** Whatever is bad comes behind what is good. */
const sequence = fc.tuple(fc.array(goodRequests, { maxLength: 4 }), fc.array(requests, { maxLength: 2 }));

for (const seed of [SEED, Math.floor(Math.random() * 2 ** 31)]) {
  test(`any bytes, cut anywhere, get the answers, the end and the records that they get from node:http (seed ${seed})`, async () => {
    const pair = await Pair.start();
    const seen = { stored: 0, over: 0, pipelined: 0 };
    try {
      await fc.assert(
        fc.asyncProperty(sequence, manner, async (texts, how) => {
          const bytes = Buffer.concat(texts.flat().map(wire));
          const { marks, used, ...judged } = await pair.judge(bytes);
          assert.deepEqual(await pair.send(bytes, how, { marks, used, ...judged }), judged);
          seen.stored += judged.stored.length;
          seen.over += Number(judged.over);
          seen.pipelined += Number(judged.stored.length > 1);
        }),
        { seed, numRuns: fuzzRuns(400) },
      );
    } finally {
      await pair.close();
    }
    // Bytes of which nothing is ever taken, or nothing refused, would prove nothing.
    const least = fuzzRuns(400) / 10;
    assert.ok(seen.stored > least && seen.over > least && seen.pipelined > least, JSON.stringify(seen));
  });
}
