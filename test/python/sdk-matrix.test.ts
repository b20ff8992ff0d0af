/**
 * Every published version of the real azureml-ai-monitoring, with each line of pandas, against a real agent: what the SDK
 * puts on the wire is what the file holds, byte for byte. Which combinations there are is found out at run time.
 */
import assert from 'node:assert/strict';
import { after, suite, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { killAgents, ledgerOf, untilDelivered } from '../support/agent.ts';
import { pythonReason } from './support/available.ts';
import { FRAME_TEXTS, frameText } from './support/frames.ts';
import type { Recording } from './support/recorder.ts';
import {
  type Combination,
  combination,
  MUST_INSTALL,
  PANDAS_LINES,
  publishedSdks,
  venvOf,
} from './support/sdk-matrix.ts';
import { type Collected, type Opened, type PythonError, type SdkRig, startRig } from './support/sdk-rig.ts';
import { assertStored, storedLines } from './support/stored.ts';

const reason = await pythonReason();
const published = reason === undefined ? await publishedSdks() : [];
const sdks = typeof published === 'string' ? [] : published;
const combinations: Combination[] = [];
for (const sdk of sdks) for (const pandas of PANDAS_LINES) combinations.push(await combination(sdk, pandas));
if (reason === undefined) printTable();
after(killAgents);

/** The table that a reader of the log looks for: what installs here, and why the rest does not. */
function printTable(): void {
  const rows = combinations.map(({ sdk, pandas, interpreter, result }) => {
    const outcome =
      'venv' in result ? (result.venv.reused ? 'installed (kept)' : 'installed') : `no: ${result.problem}`;
    return `${sdk.padEnd(10)}${pandas.name.padEnd(8)}${(interpreter?.version ?? '-').padEnd(8)}${outcome}`;
  });
  console.log([`${'SDK'.padEnd(10)}${'pandas'.padEnd(8)}${'Python'.padEnd(8)}`, ...rows].join('\n'));
}

test('every published version of the SDK installs with the pandas it must', { skip: reason }, () => {
  assert.notEqual(typeof published, 'string', String(published));
  const missing = Object.keys(MUST_INSTALL).filter((sdk) => !sdks.includes(sdk));
  assert.deepEqual(missing, [], 'PyPI no longer lists them');
  const failed = combinations.filter(
    ({ sdk, pandas, interpreter, result }) =>
      'problem' in result && interpreter !== undefined && (MUST_INSTALL[sdk] ?? []).includes(pandas.name),
  );
  assert.deepEqual(failed, []);
});

/** What does not depend on pandas and takes long: once for each beta, and with every pandas for the newest version. */
function isWhole({ sdk, pandas }: Combination): boolean {
  const installed = combinations.filter((other) => other.sdk === sdk && venvOf(other) !== undefined);
  return sdk === sdks[0] || pandas === (installed.find(({ pandas }) => pandas.name === '2') ?? installed[0])?.pandas;
}

// Three at a time: half of each is waiting.
suite('the matrix', { concurrency: 3, skip: reason }, () => {
  for (const one of combinations) {
    const problem = 'problem' in one.result ? `SKIPPED: does not install: ${one.result.problem}` : undefined;
    test(`azureml-ai-monitoring ${one.sdk} with pandas ${one.pandas.name}`, { skip: problem }, async (t) => {
      const venv = venvOf(one);
      assert.ok(venv);
      const rig = await startRig(venv);
      const check = (title: string, body: (rig: SdkRig) => Promise<void>) =>
        t.test(title, () =>
          body(rig).catch(async (error: unknown) => {
            // What is still queued must not be taken for the next test's.
            await rig.python.ask({ do: 'flush' });
            await rig.recorder.take();
            throw error;
          }),
        );
      try {
        await check('is what it says', () => sameVersions(rig, one));
        await check('every kind of column is stored with the bytes that were sent', () => columns(rig, one));
        await check('100 000 rows go into the line, ten megabytes beside it', largeFrames);
        await check('an own context keeps its id, time and headers', contexts);
        await check('sampling follows the config file', sampling);
        await check('a disabled collection refuses, and nothing is sent', () => disabled(rig));
        await check('what is no frame is refused as a TypeError', wrongType);
        await check('a name in mixed case is stored in its collection', mixedCase);
        if (!isWhole(one)) return;
        await check('a full queue tells the caller, and what was queued is stored', () => fullQueue(rig, one.sdk));
        await check('an agent that went away and came back takes what is collected then', awayAndBack);
      } finally {
        await rig.close();
      }
    });
  }
});

/** Sends what is queued and gives what went over the wire. */
async function flushed(rig: SdkRig): Promise<readonly Recording[]> {
  await rig.python.ask({ do: 'flush' });
  const sent = await rig.recorder.take();
  assert.deepEqual(
    sent.filter(({ status }) => status !== 204).map(({ status }) => status),
    [],
  );
  await untilDelivered(rig.agent());
  return sent;
}

async function opened(rig: SdkRig, collection: string): Promise<void> {
  assert.deepEqual(await rig.python.ask<Opened>({ do: 'open', collection }), { raised: null, errors: [] });
}

async function sameVersions(rig: SdkRig, { sdk, pandas, interpreter }: Combination): Promise<void> {
  const versions = await rig.python.ask<Record<string, string>>({ do: 'versions' });
  assert.equal(versions.sdk, sdk);
  assert.equal(versions.python, interpreter?.version);
  assert.ok(versions.pandas?.startsWith(`${pandas.name}.`), versions.pandas);
}

async function columns(rig: SdkRig, { sdk, pandas }: Combination): Promise<void> {
  await rig.useConfig({});
  await opened(rig, 'model_inputs');
  const names = Object.keys(FRAME_TEXTS);
  for (const frame of names) {
    const context = { id: `frame ${frame}` };
    const { raised } = await rig.python.ask<Collected>({ do: 'collect', collection: 'model_inputs', frame, context });
    assert.equal(raised, null, frame);
  }
  const sent = await flushed(rig);
  assert.equal(sent.length, names.length);
  for (const [index, name] of names.entries()) {
    const one = sent[index] as Recording;
    assert.equal(one.body.toString('latin1'), frameText(name, pandas.name), name);
    const type = pandas.name === '3' ? 'pandas.DataFrame' : 'pandas.core.frame.DataFrame';
    assert.equal(one.headers.get('ce-collect-data-type'), name === 'subclass' ? 'frames.OwnFrame' : type);
    assert.equal(one.headers.get('ce-agent'), `azureml-ai-monitoring/${sdk}`);
    assert.equal(Number(one.headers.get('content-length')), one.body.length, 'one payload a connection');
    assertStored(rig.store, one);
  }
}

async function largeFrames(rig: SdkRig): Promise<void> {
  await rig.useConfig({});
  await opened(rig, 'large');
  for (const frame of ['rows_100000', 'ten_megabytes'])
    await rig.python.ask({ do: 'collect', collection: 'large', frame, context: { id: frame } });
  const [rows, bytes, ...more] = await flushed(rig);
  assert.ok(rows && bytes);
  assert.equal(more.length, 0);
  const text = rows.body.toString('latin1');
  assert.ok(text.startsWith('[{"i":9007199254740992},{"i":9007199254740993},'), text.slice(0, 80));
  assert.ok(text.endsWith(',{"i":9007199254840991}]'), text.slice(-80));
  assertStored(rig.store, rows);
  assert.ok(bytes.body.length > 10_000_000, String(bytes.body.length));
  assertStored(rig.store, bytes, { body: 'reference' });
}

async function contexts(rig: SdkRig): Promise<void> {
  await rig.useVariables({});
  await opened(rig, 'model_outputs');
  const headers = { 'X-Tenant_Id.2': 'acme', Note: 'grüße "1" \\', count: 7, time: 'never', 'x-request-id': 'never' };
  const context = { id: 'Auftrag é/ü "1"', timestamp: 1_704_164_645.9, headers };
  const collect = { do: 'collect', collection: 'model_outputs', frame: 'one_row' };
  const own = await rig.python.ask<Collected>({ ...collect, context });
  const made = await rig.python.ask<Collected>(collect);
  assert.deepEqual([own.raised, own.id, own.same], [null, context.id, true]);
  const [first, second, ...more] = await flushed(rig);
  assert.ok(first && second);
  assert.equal(more.length, 0);
  assert.equal(first.headers.get('ce-x-request-id'), context.id);
  const extensions = ',"xtenantid2":"acme","note":"grüße \\"1\\" \\\\","count":"7"';
  assertStored(rig.store, first, { extensions: Buffer.from(extensions).toString('latin1') });
  const [line] = storedLines(rig.store, 'model_outputs/2024/01/02/03');
  assert.ok(line?.includes('"time":"2024-01-02T03:04:05Z"'), line?.toString());
  assert.match(made.id, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  assert.equal(second.headers.get('ce-x-request-id'), made.id);
  assertStored(rig.store, second);
}

async function sampling(rig: SdkRig): Promise<void> {
  // No more than the queue of the first betas holds.
  const calls = 90;
  for (const [samplingRate, least, most] of [
    [0, 0, 0],
    // Nearly nine standard deviations around a half.
    [0.5, 3, 87],
    [1, calls, calls],
  ] as const) {
    const before = storedLines(rig.store, 'model_outputs').length;
    await rig.useConfig({ samplingRate });
    await opened(rig, 'model_outputs');
    const collect = { do: 'collect', collection: 'model_outputs', frame: 'one_row', times: calls };
    const { outcomes, raised } = await rig.python.ask<Collected>(collect);
    assert.equal(raised, null);
    const { accepted = 0, dropped_sampling: dropped = 0 } = outcomes;
    assert.equal(accepted + dropped, calls);
    assert.ok(accepted >= least && accepted <= most, `${accepted} of ${calls} at ${samplingRate}`);
    assert.equal((await flushed(rig)).length, accepted);
    assert.equal(storedLines(rig.store, 'model_outputs').length - before, accepted);
  }
}

async function disabled(rig: SdkRig): Promise<void> {
  const off = { enabled: false, data: { name: 'n', version: '1', path: 'p' } };
  const on = { ...off, enabled: true };
  const refusals: readonly [() => Promise<void>, string][] = [
    [
      () => rig.useConfig({ collections: { model_inputs: off, model_outputs: on } }),
      'collection model_inputs is not enabled, drop the data',
    ],
    [() => rig.useConfig({ collections: { model_inputs: off } }), 'custom logging is not enabled, drop the data'],
    [() => rig.useVariables({ AZUREML_MDC_ENABLED: 'false' }), 'custom logging is not enabled, drop the data'],
  ];
  for (const [configure, message] of refusals) {
    await configure();
    const error = { type: 'Exception', message };
    const open = { do: 'open', collection: 'model_inputs' };
    assert.deepEqual((await rig.python.ask<Opened>(open)).raised, error);
    assert.deepEqual(await rig.python.ask<Opened>({ ...open, on_error: true }), { raised: null, errors: [error] });
    const collect = { do: 'collect', collection: 'model_inputs', frame: 'one_row' };
    const { raised, errors } = await rig.python.ask<Collected>(collect);
    assert.deepEqual([raised, errors], [null, [error]]);
    assert.equal((await flushed(rig)).length, 0);
  }
}

async function wrongType(rig: SdkRig): Promise<void> {
  await rig.useConfig({});
  const error = { type: 'TypeError', message: 'data type (list) not supported, supported types: pandas.DataFrame' };
  const collect = { do: 'collect', collection: 'model_inputs', data: [1, 2] };
  await opened(rig, 'model_inputs');
  assert.deepEqual((await rig.python.ask<Collected>(collect)).raised, error);
  await rig.python.ask({ do: 'open', collection: 'model_inputs', on_error: true });
  const { raised, errors } = await rig.python.ask<Collected>(collect);
  assert.deepEqual([raised, errors], [null, [error]]);
  assert.equal((await flushed(rig)).length, 0);
}

async function mixedCase(rig: SdkRig): Promise<void> {
  await rig.useVariables({});
  await opened(rig, 'Model_INPUTS');
  await rig.python.ask({ do: 'collect', collection: 'Model_INPUTS', frame: 'one_row', context: { id: 'mixed' } });
  const [sent] = await flushed(rig);
  assert.equal(sent?.headers.get('ce-type'), 'azureml.inference.Model_INPUTS');
  assertStored(rig.store, sent as Recording);
  // With a config file the SDK compares the name as it is.
  await rig.useConfig({});
  const { raised } = await rig.python.ask<Opened>({ do: 'open', collection: 'Model_INPUTS' });
  assert.equal(raised?.message, 'collection Model_INPUTS is not enabled, drop the data');
}

async function fullQueue(rig: SdkRig, sdk: string): Promise<void> {
  const late = !['0.1.0b1', '0.1.0b2', '0.1.0b3'].includes(sdk);
  const capacity = late ? 1500 : 100;
  await rig.useConfig({});
  await opened(rig, 'held');
  const agent = rig.agent();
  // Alive and deaf: connections are made, nothing is answered, and the SDK has no timeout.
  agent.child.kill('SIGSTOP');
  let full: { accepted: number; error: PythonError | null };
  try {
    full = await rig.python.ask({ do: 'fill', collection: 'held', limit: 5000 });
  } finally {
    agent.child.kill('SIGCONT');
  }
  const message = late
    ? 'Too many requests lead to message queue is full, please reduce the number of requests.'
    : 'queue full';
  assert.deepEqual(full.error, { type: 'Exception', message });
  // One more than the queue holds when the worker had taken one out of it.
  assert.ok(full.accepted === capacity || full.accepted === capacity + 1, String(full.accepted));
  assert.equal((await flushed(rig)).length, full.accepted);
  const stored = storedLines(rig.store, 'held').map((line) => (JSON.parse(line.toString()) as { data: unknown }).data);
  assert.deepEqual(
    stored,
    Array.from({ length: full.accepted }, (_, n) => [{ n }]),
  );
}

async function awayAndBack(rig: SdkRig): Promise<void> {
  const before = await ledgerOf(rig.agent());
  // Straight to the agent: an address where nobody listens must look like one.
  await rig.useConfig({}, rig.agent().port);
  await opened(rig, 'restarts');
  const collect = async (id: string) => {
    const context = { id };
    const job = { do: 'collect', collection: 'restarts', frame: 'one_row', context };
    assert.deepEqual((await rig.python.ask<Collected>(job)).outcomes, { accepted: 1 }, id);
  };
  await collect('before 1');
  await collect('before 2');
  await until(async () => (await ledgerOf(rig.agent())).accepted === before.accepted + 2);
  assert.equal(await rig.agent().end('SIGTERM'), 0);
  await collect('away 1');
  await collect('away 2');
  // The caller hears nothing; the SDK's own log does.
  const lost = () => rig.python.log().split('mdc request raise exception').length - 1;
  await until(() => lost() >= 2);
  await rig.restartAgent();
  await collect('after 1');
  await collect('after 2');
  await rig.python.ask({ do: 'flush' });
  await untilDelivered(rig.agent());
  const ids = storedLines(rig.store, 'restarts').map(
    (line) => (JSON.parse(line.toString()) as { correlationid: string }).correlationid,
  );
  assert.deepEqual(ids.toSorted(), ['after 1', 'after 2', 'before 1', 'before 2']);
  const ledger = await ledgerOf(rig.agent());
  assert.deepEqual([ledger.accepted, ledger.dropped, ledger.broken], [before.accepted + 4, before.dropped, []]);
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; !(await condition()); tries += 1) {
    assert.ok(tries < 1500, 'the condition did not come true within thirty seconds');
    await wait(20);
  }
}
