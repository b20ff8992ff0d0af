import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ByteWriter } from './byte-writer.ts';
import {
  createEnvelope,
  type EventFields,
  type InlineBody,
  writeBlobEvent,
  writeEvent,
  writeMergedEvent,
  writeReferenceEvent,
} from './envelope.ts';

const SOURCE =
  '/subscriptions/bbbb1b1b-cc2c-dd3d-ee4e-ffffff5f5f5f/resourceGroups/mire2etesting/providers/Microsoft.MachineLearningServices/workspaces/mirmasterws/onlineEndpoints/localdev-endpoint/deployments/localdev';

function fieldsOf(attributes: object, fields: Partial<EventFields> = {}): EventFields {
  const envelope = createEnvelope(fields.envelope ? '' : SOURCE, JSON.stringify(attributes));
  assert.ok(envelope);
  return { envelope, id: 'id-1', timeMs: 0, correlationId: 'c-1', ...fields };
}

function bodyOf(text: string, correlationId = 'c-1'): InlineBody {
  const body = Buffer.from(text);
  return {
    body,
    bodyBytes: body.length,
    correlationId,
    escapes: /[<>&]/.test(text),
    lineBreaks: /[\r\n]/.test(text),
  };
}

function line(write: (out: ByteWriter) => void): string {
  const out = new ByteWriter(16);
  write(out);
  return out.bytes.toString();
}

const ATTRIBUTES = {
  type: 'azureml.inference.inputs',
  datacontenttype: 'application/json',
  modelversion: 'default',
  collectdatatype: 'pandas.core.frame.DataFrame',
  agent: 'monitoring-sdk/0.1.2',
};

test('the custom logging sample of the product document is written with its 117 bytes of data, keys and values', () => {
  const data =
    '[{"label":"DRUG","pattern":"aspirin"},{"label":"DRUG","pattern":"trazodone"},{"label":"DRUG","pattern":"citalopram"}]';
  const fields = fieldsOf(ATTRIBUTES, {
    id: '725aa8af-0834-415c-aaf5-c76d0c08f694',
    timeMs: Date.parse('2022-12-01T08:51:30.999Z'),
    correlationId: 'bbbb1111-cc22-3333-44dd-555555eeeeee',
  });
  assert.equal(
    line((out) => writeEvent(out, fields, bodyOf(data))),
    `{"specversion":"1.0","id":"725aa8af-0834-415c-aaf5-c76d0c08f694","source":"${SOURCE}","type":"azureml.inference.inputs","datacontenttype":"application/json","time":"2022-12-01T08:51:30Z","data":${data},"contentrange":"bytes 0-116/117","correlationid":"bbbb1111-cc22-3333-44dd-555555eeeeee","xrequestid":"bbbb1111-cc22-3333-44dd-555555eeeeee","modelversion":"default","collectdatatype":"pandas.core.frame.DataFrame","agent":"monitoring-sdk/0.1.2"}\n`,
  );
});

test('the batched sample of the product document has its keys in their order and the length of the merged array', () => {
  const first = '{"LIMIT_BAL":502970,"AGE":54,"PAY_AMT5":-1155,"PAY_6":0}';
  const second = '{"LIMIT_BAL":293458,"AGE":35,"PAY_AMT5":1623,"PAY_6":-1}';
  const fields = fieldsOf({ ...ATTRIBUTES, agent: 'azureml-ai-monitoring/0.1.0b4' }, { correlationId: 'test' });
  const bodies = [bodyOf(`[${first}]`, 'test'), bodyOf(` [ ${second}\n] `, 'test')];
  const text = line((out) => writeMergedEvent(out, fields, bodies, false));
  const event = JSON.parse(text) as Record<string, unknown>;
  const keys =
    'specversion,id,source,type,datacontenttype,time,data,contentrange,correlationid,xrequestid,modelversion,collectdatatype,agent';
  assert.equal(Object.keys(event).join(), keys);
  const merged = `[${first},${second}]`;
  assert.ok(text.includes(`"data":${merged},"contentrange":"bytes 0-${merged.length - 1}/${merged.length}"`));
  assert.equal(event['xrequestid'], 'test');
});

test('the worked example of the wire facts keeps its escaped slash and counts the bytes before < is escaped', () => {
  const fields = fieldsOf(ATTRIBUTES, { timeMs: 1_704_164_645_000, correlationId: 'abc' });
  const text = line((out) => writeEvent(out, fields, bodyOf('[{"a\\/b":1.5,"c":"x<y","d":null}]')));
  assert.ok(
    text.includes(
      '"time":"2024-01-02T03:04:05Z","data":[{"a\\/b":1.5,"c":"x\\u003cy","d":null}],"contentrange":"bytes 0-32/33"',
    ),
  );
});

test('numbers, > and & keep their bytes or escapes, and line breaks between tokens become spaces', () => {
  const text = line((out) =>
    writeEvent(out, fieldsOf(ATTRIBUTES), bodyOf('[9007199254740993,\r\n1e400,-0,1.0,"&>é"]\n')),
  );
  assert.ok(
    text.includes('"data":[9007199254740993,  1e400,-0,1.0,"\\u0026\\u003eé"] ,"contentrange":"bytes 0-40/41"'),
    text,
  );
});

test('a reference stands in the place of data, and a blob event carries its address three ways', () => {
  const fields = fieldsOf({
    ...ATTRIBUTES,
    sampledrate: 10,
    extensions: { path: '/score?a=<"', id: 'no', method: 'POST' },
  });
  const reference = line((out) => writeReferenceEvent(out, fields, 'https://a/b.json', 5_000_000));
  assert.ok(reference.includes('Z","dataref":"https://a/b.json","contentrange":"bytes 0-4999999/5000000",'), reference);
  assert.equal('data' in (JSON.parse(reference) as object), false);
  const blob = line((out) => writeBlobEvent(out, fields, 'https://a/b', 80_771));
  assert.ok(
    blob.includes(
      '"datacontenttype":"text/plain","time":"1970-01-01T00:00:00Z","data":"https://a/b","contentrange":"bytes 0-80770/80771"',
    ),
  );
  assert.ok(
    blob.endsWith(
      '"sampledrate":10,"path":"/score?a=<\\"","method":"POST","datainblob":"true","dataref":"https://a/b"}\n',
    ),
    blob,
  );
  assert.equal((JSON.parse(blob) as { id: string }).id, 'id-1');
});

test('an empty body has a range without bytes, and no correlation id means neither of its two attributes', () => {
  const text = line((out) => writeBlobEvent(out, fieldsOf(ATTRIBUTES, { correlationId: '' }), 'u', 0));
  assert.ok(text.includes('"contentrange":"bytes */0","modelversion"'), text);
});

test('a request id of its own is kept, and a media type that is not JSON is not claimed for JSON data', () => {
  const fields = fieldsOf({ type: 't', datacontenttype: 'text/csv', xrequestid: 'r "1"' });
  const event = JSON.parse(line((out) => writeEvent(out, fields, bodyOf('[]')))) as Record<string, unknown>;
  assert.equal(event['xrequestid'], 'r "1"');
  assert.equal(event['datacontenttype'], 'application/json');
  assert.equal(createEnvelope(SOURCE, 'nonsense'), undefined);
  assert.equal(createEnvelope(SOURCE, '{}'), undefined);
});

test('any JSON body and any correlation id make one line that parses back to them', () => {
  fc.assert(
    fc.property(
      fc.json(),
      fc.string({ minLength: 1, unit: 'grapheme' }),
      fc.constantFrom('', '\n', '\r\n '),
      (json, id, space) => {
        const body = bodyOf(space + json + space, id);
        const text = line((out) => writeEvent(out, fieldsOf(ATTRIBUTES, { correlationId: id }), body));
        assert.equal(text.indexOf('\n'), text.length - 1);
        assert.equal(text.includes('\r'), false);
        const event = JSON.parse(text) as Record<string, unknown>;
        assert.deepEqual(event['data'], JSON.parse(json));
        assert.equal(event['correlationid'], id);
        assert.equal(event['contentrange'], `bytes 0-${body.bodyBytes - 1}/${body.bodyBytes}`);
      },
    ),
  );
});

const rows = fc.array(
  fc.oneof(fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 2 })), fc.jsonValue({ maxDepth: 2 })),
  {
    maxLength: 4,
  },
);

test('merging any arrays gives the concatenation of their elements', () => {
  fc.assert(
    fc.property(fc.array(rows, { minLength: 2, maxLength: 5 }), fc.boolean(), (arrays, pretty) => {
      const bodies = arrays.map((array) => bodyOf(JSON.stringify(array, undefined, pretty ? 2 : 0)));
      const text = line((out) => writeMergedEvent(out, fieldsOf(ATTRIBUTES), bodies, false));
      assert.equal(text.indexOf('\n'), text.length - 1);
      const event = JSON.parse(text) as { data: unknown[]; contentrange: string };
      assert.deepEqual(event.data, JSON.parse(JSON.stringify(arrays.flat())));
      if (!pretty) {
        const length = Buffer.byteLength(JSON.stringify(arrays.flat()));
        assert.equal(event.contentrange, `bytes 0-${length - 1}/${length}`);
      }
    }),
  );
});

test('across ids every row object gets the id of its record, unless it has one', () => {
  const withId = fc.record({ correlationid: fc.jsonValue({ maxDepth: 1 }) });
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.string({ minLength: 1 }), fc.array(fc.oneof(rows, withId)))), (records) => {
      const bodies = records.map(([id, elements]) => bodyOf(JSON.stringify(elements), id));
      const text = line((out) => writeMergedEvent(out, fieldsOf(ATTRIBUTES), bodies, true));
      const expected = records.flatMap(([id, elements]) =>
        elements.map((element) =>
          Array.isArray(element) || Object.hasOwn(element, 'correlationid')
            ? element
            : { ...element, correlationid: id },
        ),
      );
      assert.equal(/[<>&]/.test(text), false);
      assert.deepEqual((JSON.parse(text) as { data: unknown }).data, JSON.parse(JSON.stringify(expected)));
    }),
  );
});
