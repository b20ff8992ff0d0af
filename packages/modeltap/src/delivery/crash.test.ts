import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type ObjectStore, StorageError } from '../storage/store.ts';
import { events, HOUR, openFixture, settings } from './fixture.test.ts';

const fault = fc.record({
  crash: fc.nat(20),
  lost: fc.nat(12),
  refused: fc.nat(12),
  records: fc.integer({ min: 1, max: 6 }),
});

/** A store that refuses its n-th write and loses the answer to its m-th. */
function flaky(store: ObjectStore, refused: number, lost: number): ObjectStore {
  let writes = 0;
  const write = async <T>(work: () => Promise<T>): Promise<T> => {
    writes += 1;
    const n = writes;
    if (n === refused) throw new StorageError('refused', 'not now');
    const result = await work();
    if (n === lost) throw new StorageError('unreachable', 'no answer');
    return result;
  };
  return {
    kind: store.kind,
    limits: { appends: 4, appendBytes: 4000 },
    url: (key) => store.url(key),
    put: (key, body, options) => write(() => store.put(key, body, options)),
    append: (key, chunk, offset) => write(() => store.append(key, chunk, offset)),
    get: (key, range) => store.get(key, range),
    head: (key) => store.head(key),
    list: (options) => store.list(options),
    delete: (key) => store.delete(key),
  };
}

test('whatever crashes, refuses and answers get lost, every record is stored exactly once', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(fault, { minLength: 1, maxLength: 6 }), async (faults) => {
      const fixture = await openFixture(t, { batch: 'across_ids' });
      const other = await fixture.destinations.intern(settings({ collection: 'b', path: 'b', rollingRate: 'minute' }));
      const ids: string[] = [];
      for (const { crash, lost, refused, records } of [...faults, { crash: 0, lost: 0, refused: 0, records: 1 }]) {
        for (let n = 0; n < records; n += 1) {
          const id = `id${String(ids.length).padStart(3, '0')}`;
          ids.push(id);
          const body = n % 4 === 3 ? `<opaque ${id}>` : `[{"id":"${id}"}]`;
          await fixture.append({
            body,
            correlationId: id,
            destinationId: n % 2 === 0 ? 1 : other.id,
            timeMs: HOUR + (n % 3) * 40_000,
            beside: n % 3 === 1 || n === 3,
          });
        }
        let steps = 0;
        const run = await fixture.lane({
          store: flaky(fixture.store, refused, lost),
          onStep: () => {
            steps += 1;
            if (steps === crash) throw new Error('crash');
          },
        });
        // A thrown step is not the store's fault: `cycle` fails and the lane is abandoned as a crash would leave it.
        for (let tries = 0; tries < 8; tries += 1) {
          const more = await run.lane.cycle().catch((error: unknown) => error instanceof StorageError);
          if (!more) break;
        }
        await run.kill();
      }
      const found = (await events(fixture.blobs)).flatMap((event) =>
        Array.isArray(event.data) ? event.data.map((row: { id: string }) => row.id) : [event.correlationid],
      );
      assert.deepEqual(found.sort(), ids);
      const ledger = fixture.ledger();
      assert.deepEqual(await ledger.check(), []);
      assert.equal(
        ledger.rows().reduce((sum, row) => sum + row.stored, 0),
        ids.length,
      );
    }),
    { numRuns: 12, seed: 20_261_123 },
  );
});
