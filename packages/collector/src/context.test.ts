import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BasicCorrelationContext } from './context.ts';
import { sampledRate, samplePoint } from './sampling.ts';

const POINTS: Readonly<Record<string, number>> = {
  '': 0.6689221884589642,
  a: 0.10352621669881046,
  'request-42': 0.9449298614636064,
  'é€😀': 0.9407682865858078,
};

test('a context generates what it is not given', () => {
  const before = Math.floor(Date.now() / 1000);
  const context = new BasicCorrelationContext();
  assert.match(context.id, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.equal(context.getId(), context.id);
  assert.equal(String(context), context.id);
  assert.ok(Number.isInteger(context.timestamp) && Number(context.getTimestamp()) >= before);
  assert.deepEqual(context.headers, {});
  context.headers['k'] = 'v';
  assert.deepEqual(context.getHeaders(), { k: 'v' });
  assert.deepEqual(new BasicCorrelationContext().headers, {});
});

test('a context keeps what it is given; an empty id and time 0 are generated', () => {
  const headers = { a: 'b' };
  const context = new BasicCorrelationContext({ id: 'x', timestamp: 12.5, headers });
  assert.deepEqual([context.id, context.timestamp, context.headers], ['x', 12.5, headers]);
  const empty = new BasicCorrelationContext({ id: '', timestamp: 0 });
  assert.equal(empty.id.length, 36);
  assert.ok(Number(empty.timestamp) > 1_700_000_000);
});

test('generated ids never repeat', () => {
  const ids = new Set(Array.from({ length: 20_000 }, () => new BasicCorrelationContext().id));
  assert.equal(ids.size, 20_000);
});

test('the sampling point of an id is the documented function', () => {
  // Values of an independent implementation in Python; see docs/collector.md.
  assert.equal(samplePoint(''), POINTS['']);
  assert.equal(samplePoint('a'), POINTS['a']);
  assert.equal(samplePoint('request-42'), POINTS['request-42']);
  assert.equal(samplePoint('é€😀'), POINTS['é€😀']);
});

test('the point of a generated id is that of its text', () => {
  for (let i = 0; i < 10_000; i++) {
    const context = new BasicCorrelationContext();
    assert.equal(BasicCorrelationContext.point(context), samplePoint(context.id));
  }
  fc.assert(
    fc.property(fc.string({ unit: 'binary', minLength: 1 }), (id) => {
      const point = BasicCorrelationContext.point(new BasicCorrelationContext({ id }));
      assert.ok(point >= 0 && point < 1 && point === samplePoint(id));
    }),
  );
});

test('points of consecutive and of generated ids are spread evenly', () => {
  for (const id of [(i: number) => `request-${i}`, () => new BasicCorrelationContext().id, String]) {
    const bins = Array.from({ length: 20 }, () => 0);
    for (let i = 0; i < 20_000; i++) {
      const bin = Math.floor(samplePoint(id(i)) * 20);
      bins[bin] = (bins[bin] ?? 0) + 1;
    }
    // 1000 expected; seven standard deviations.
    assert.ok(
      bins.every((count) => Math.abs(count - 1000) < 220),
      String(bins),
    );
  }
});

test('sampledrate is the rounded inverse of the rate, and absent when nothing is dropped', () => {
  assert.deepEqual([1, 0.5, 0.3, 0.01, 0.9, 0].map(sampledRate), [undefined, 2, 3, 100, 1, undefined]);
});
