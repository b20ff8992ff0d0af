import assert from 'node:assert/strict';
import { buffer } from 'node:stream/consumers';
import { after, test } from 'node:test';
import { startAzurite } from '../../../../test/support/azurite.ts';
import type { ObjectStore } from '../storage/store.ts';
import { openStore } from '../storage/stores.ts';
import { openFixture, type StoredEvent } from './fixture.test.ts';

const azurite = await startAzurite();
after(() => azurite.stop());

async function read(store: ObjectStore, key: string): Promise<Buffer> {
  const stream = await store.get(key);
  assert.ok(stream, key);
  return buffer(stream);
}

test('on Azure Blob, crashes between the steps leave every record stored exactly once and large rows beside', async (t) => {
  await azurite.createContainer('delivery');
  const { accountName, accountKey, serviceUrl } = azurite;
  const store = await openStore({
    type: 'azure_blob',
    name: 'disk',
    accountName,
    containerName: 'delivery',
    serviceUrl,
    credentials: { kind: 'account_key', accountKey },
  });
  const fixture = await openFixture(t);
  const large = JSON.stringify([{ text: 'é'.repeat(3_000_000) }]);
  const ids: string[] = [];
  for (const step of ['intent', 'raws', 'append', 'finish'] as const) {
    for (let n = 0; n < 5; n += 1) {
      const correlationId = `${step}${n}`;
      ids.push(correlationId);
      await fixture.append({ correlationId, ...(n === 3 && { body: large, beside: true }) });
    }
    const crash = new Error('crash');
    const run = await fixture.lane({
      store,
      onStep: (at) => {
        if (at === step) throw crash;
      },
    });
    await assert.rejects(async () => {
      // The first cycle may be the one that the crash before left unfinished.
      for (let n = 0; n < 2; n += 1) await run.lane.cycle();
    }, crash);
    await run.kill();
  }
  const last = await fixture.lane({ store });
  last.lane.drain();
  await last.lane.run();
  const { objects } = await store.list();
  const files = objects.filter(({ key }) => key.endsWith('.jsonl'));
  assert.equal(files.length, 1);
  const text = (await read(store, files[0]?.key ?? '')).toString();
  const events = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as StoredEvent);
  assert.deepEqual(
    events.map((event) => event.correlationid),
    ids,
  );
  for (const { dataref } of events) {
    if (dataref === undefined) continue;
    const key = objects.find((object) => store.url(object.key) === dataref)?.key;
    assert.equal((await read(store, String(key))).equals(Buffer.from(large)), true);
  }
  assert.equal(objects.length, 1 + 4);
  assert.deepEqual(await fixture.ledger().check(), []);
});
