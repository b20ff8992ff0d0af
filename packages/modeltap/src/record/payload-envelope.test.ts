import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ByteWriter } from './byte-writer.ts';
import { createEnvelope, writeBlobEvent, writeEvent } from './envelope.ts';
import type { RecordAttributes } from './types.ts';

/* Events of captured HTTP exchanges, against the samples of the product document (line breaks between members removed). */

const SOURCE =
  '/subscriptions/aaaa0a0a-bb1b-cc2c-dd3d-eeeeee4e4e4e/resourceGroups/mire2etesting/providers/Microsoft.MachineLearningServices/workspaces/mirmasterenvws/onlineEndpoints/localdev-endpoint/deployments/localdev';
const CORRELATION = 'aaaa0000-bb11-2222-33cc-444444dddddd';
const TIME = Date.parse('2022-05-25T08:59:48Z');

function lineOf(attributes: RecordAttributes, body: string, id: string, bytes = body.length): string {
  const envelope = createEnvelope(SOURCE, JSON.stringify(attributes));
  assert.ok(envelope);
  const out = new ByteWriter();
  const fields = { envelope, id, timeMs: TIME, correlationId: CORRELATION };
  const record = { body: Buffer.from(body), bodyBytes: bytes, correlationId: CORRELATION };
  writeEvent(out, fields, { ...record, escapes: false, lineBreaks: false });
  return out.bytes.toString();
}

test('the request sample of the product document comes out byte for byte', () => {
  const data = '{"data": [  [1,2,3,4,5,6,7,8,9,10], [10,9,8,7,6,5,4,3,2,1]]}';
  const attributes: RecordAttributes = {
    type: 'azureml.inference.request',
    datacontenttype: 'application/json',
    path: '/score',
    method: 'POST',
    contentrange: 'bytes 0-59/*',
  };
  assert.equal(
    lineOf(attributes, data, '19790b87-a63c-4295-9a67-febb2d8fbce0'),
    `{"specversion":"1.0","id":"19790b87-a63c-4295-9a67-febb2d8fbce0","source":"${SOURCE}","type":"azureml.inference.request","datacontenttype":"application/json","time":"2022-05-25T08:59:48Z","data":{"data": [  [1,2,3,4,5,6,7,8,9,10], [10,9,8,7,6,5,4,3,2,1]]},"path":"/score","method":"POST","contentrange":"bytes 0-59/*","correlationid":"${CORRELATION}","xrequestid":"${CORRELATION}"}\n`,
  );
});

test('the response sample of the product document comes out byte for byte', () => {
  const attributes = { type: 'azureml.inference.response', datacontenttype: 'application/json' };
  assert.equal(
    lineOf(attributes, '[11055.977245525679, 4503.079536107787]', 'bbd80e51-8855-455f-a719-970023f41e7d'),
    `{"specversion":"1.0","id":"bbd80e51-8855-455f-a719-970023f41e7d","source":"${SOURCE}","type":"azureml.inference.response","datacontenttype":"application/json","time":"2022-05-25T08:59:48Z","data":[11055.977245525679, 4503.079536107787],"contentrange":"bytes 0-38/39","correlationid":"${CORRELATION}","xrequestid":"${CORRELATION}"}\n`,
  );
});

test('a binary request has path and method behind its address, as the sample of binary data has', () => {
  const attributes = {
    type: 'azureml.inference.request',
    datacontenttype: 'image/png',
    path: '/score?size=1',
    method: 'POST',
  };
  const envelope = createEnvelope(SOURCE, JSON.stringify(attributes));
  assert.ok(envelope);
  const out = new ByteWriter();
  writeBlobEvent(out, { envelope, id: 'ba99', timeMs: TIME, correlationId: '' }, 'https://a/b', 80_771);
  assert.equal(
    out.bytes.toString(),
    `{"specversion":"1.0","id":"ba99","source":"${SOURCE}","type":"azureml.inference.request","datacontenttype":"text/plain","time":"2022-05-25T08:59:48Z","data":"https://a/b","path":"/score?size=1","method":"POST","contentrange":"bytes 0-80770/80771","datainblob":"true","dataref":"https://a/b"}\n`,
  );
});

test('text keeps its media type, and an empty body makes an event without data', () => {
  const text = lineOf(
    { type: 't', datacontenttype: 'text/event-stream', text: true, contentrange: 'bytes 0-8/9' },
    '"data: 1\\n\\n"',
    'i',
  );
  assert.ok(
    text.includes('"datacontenttype":"text/event-stream","time":"2022-05-25T08:59:48Z","data":"data: 1\\n\\n"'),
  );
  assert.ok(text.includes('"contentrange":"bytes 0-8/9"'));
  const empty = lineOf({ type: 't', datacontenttype: '', text: true, path: '/', method: 'GET' }, '', 'i');
  assert.ok(
    empty.includes('"type":"t","time":"2022-05-25T08:59:48Z","path":"/","method":"GET","contentrange":"bytes */0"'),
  );
  const event = JSON.parse(empty) as object;
  assert.equal('data' in event || 'datacontenttype' in event, false);
});

test('an extension that is called path stays one, unless the record has a path of its own', () => {
  const extensions = { path: 'p', method: 'm' };
  const foreign = lineOf({ type: 't', datacontenttype: 'application/json', extensions }, '1', 'i');
  assert.ok(foreign.endsWith('"path":"p","method":"m"}\n'));
  const own = lineOf(
    { type: 't', datacontenttype: 'application/json', path: '/x', method: 'GET', extensions },
    '1',
    'i',
  );
  assert.equal(own.match(/"(path|method)":/g)?.length, 2);
  assert.equal((JSON.parse(own) as { path: string }).path, '/x');
});
