import assert from 'node:assert/strict';
import { test } from 'node:test';
import { azureScore } from './azure-score.ts';
import { exchangeOf, inputsOf, outputsOf, rowsOf, sideOf } from './support.test-suite.ts';
import type { CapturedMessage } from './types.ts';

const inputs = (body: string) => inputsOf(azureScore, '/score', body);
const outputs = (body: string) => outputsOf(azureScore, '/score', body);

test('the rows of every form of request are found, numbers as they were sent', () => {
  const forms: readonly (readonly [string, string])[] = [
    ['{"data": [[1.0, 9223372036854775807], [2.50, -1]]}', '[{"0":1.0,"1":9223372036854775807},{"0":2.50,"1":-1}]'],
    ['{"data": [{"a": 1.0, "b": "x/y\\/z"}, {"a": 2}], "method": "predict"}', '[{"a":1.0,"b":"x/y\\/z"},{"a":2}]'],
    ['{"data": {"a": [1, 2], "b": [null, "q"]}}', '[{"a":1,"b":null},{"a":2,"b":"q"}]'],
    ['{"data": {"a": {"0": 1, "7": 2}, "b": {"7": true}}}', '[{"a":1},{"a":2,"b":true}]'],
    ['{"data": {"a": 1, "b": [1, 2]}}', '[{"a":1,"b":[1,2]}]'],
    ['{"data": "some text"}', '[{"data":"some text"}]'],
    [
      '{"input_data": {"columns": ["a", 1], "index": [0, 1], "data": [[1, "x"], [2.0, null]]}, "params": {"k": 1}}',
      '[{"a":1,"1":"x"},{"a":2.0,"1":null}]',
    ],
    ['{"input_data": ["one", "two"]}', '[{"0":"one"},{"0":"two"}]'],
    ['{"input_data": {"x": [[1, 2], [3, 4]], "y": [5, 6]}}', '[{"x":[1,2],"y":5},{"x":[3,4],"y":6}]'],
    ['{"Inputs": {"data": [{"a": 1}]}, "GlobalParameters": 1.0}', '[{"a":1}]'],
    ['{"Inputs": {"WebServiceInput0": [{"a": 1}, {"a": 2}]}}', '[{"a":1},{"a":2}]'],
    ['{"columns": ["a"], "data": [[1e400]]}', '[{"a":1e400}]'],
    ['[{"a": 1}, {"b": 2}]', '[{"a":1},{"b":2}]'],
    ['[[1, 2], [3]]', '[{"0":1,"1":2},{"0":3}]'],
    ['[1, null, "x"]', '[{"0":1},{"0":null},{"0":"x"}]'],
    ['{"question": "why?", "chat_history": []}', '[{"question":"why?","chat_history":[]}]'],
    ['{"a": [1, 2], "b": [3, 4]}', '[{"a":1,"b":3},{"a":2,"b":4}]'],
    ['[{"a": 1, "b": 0, "a": 2}]', '[{"a":2,"b":0}]'],
    ['[{"b64": "AA=="}, {"b64": "AQ=="}]', '[{"0":{"b64":"AA=="}},{"0":{"b64":"AQ=="}}]'],
    ['3.0', '[{"0":3.0}]'],
    ['[]', '[]'],
    ['{}', '[]'],
  ];
  for (const [body, rows] of forms) assert.equal(inputs(body), rows, body);
});

test('the rows of every form of answer are found', () => {
  const forms: readonly (readonly [string, string])[] = [
    ['[0.10, 1]', '[{"0":0.10},{"0":1}]'],
    ['[[0.1, 0.9], [0.8, 0.2]]', '[{"0":0.1,"1":0.9},{"0":0.8,"1":0.2}]'],
    ['[{"label": "a", "p": 1.0}]', '[{"label":"a","p":1.0}]'],
    ['{"label": ["a", "b"], "p": [1.0, 0.5]}', '[{"label":"a","p":1.0},{"label":"b","p":0.5}]'],
    [
      '{"result": [1, 0], "probability": [0.5, 0.25]}',
      '[{"result":1,"probability":0.5},{"result":0,"probability":0.25}]',
    ],
    ['{"result": [1, 0]}', '[{"0":1},{"0":0}]'],
    ['{"result": 4.0, "took": 3}', '[{"result":4.0,"took":3}]'],
    ['{"predictions": [{"y": 1}], "model": "m"}', '[{"y":1}]'],
    ['{"Results": {"WebServiceOutput0": [{"Scored Labels": 1}]}}', '[{"Scored Labels":1}]'],
    ['{"Results": [12.0, 13]}', '[{"0":12.0},{"0":13}]'],
    ['"{\\"result\\": [1.0]}"', '[{"0":1.0}]'],
    ['"just text"', '[{"0":"just text"}]'],
    ['{}', '[]'],
  ];
  for (const [body, rows] of forms) assert.equal(outputs(body), rows, body);
});

test('what cannot be read gives no table and an issue that names the place', () => {
  const cases: readonly (readonly [string, string])[] = [
    ['{"data": [[1], {"a": 1}]}', 'data[1] is an object, but data[0] is a list'],
    ['[{"a": 1}, null]', 'the body[1] is a value, but the body[0] is an object'],
    ['{"input_data": {"columns": ["a", "b"], "data": [[1, 2], [3]]}}', 'input_data.data[1] has 1 values for 2 columns'],
    ['{"columns": ["a"], "data": [[1, 2]]}', 'the body.data[0] has more values than columns'],
    ['{"input_data": {"columns": ["a", "a"], "data": []}}', 'the column "a" is there twice'],
    ['{"columns": ["a"], "data": [1]}', 'the body.data[0] is not a list'],
    ['{"data": [1, "é", x]}', 'the body is not valid JSON: expected a value, at byte 19'],
    ['', 'the body is not valid JSON: the text ends early, at byte 0'],
  ];
  for (const [body, issue] of cases) assert.deepEqual(inputs(body), [`request: ${issue}`], body);
});

test('bodies that were not captured, not UTF-8 or not JSON by their type are said to be so', () => {
  const decode = (contentType: string | undefined, body: CapturedMessage['body']) =>
    sideOf(azureScore.decode(exchangeOf('/score', { contentType, body }, '[1]')).issues, 'request');
  assert.deepEqual(decode('application/json', undefined), ['request: the body was not captured']);
  assert.deepEqual(decode('application/json', Buffer.from([0x22, 0xff, 0x22])), ['request: the body is not UTF-8']);
  assert.deepEqual(decode('image/png', Buffer.from('[1]')), ['request: the content type is not JSON']);
  for (const type of [
    'application/x-www-form-urlencoded',
    undefined,
    'text/plain; charset=utf-8',
    'application/vnd.x+json',
  ]) {
    assert.deepEqual(decode(type, Buffer.from('[1]')), [], type);
  }
});

test('an error or a missing answer has no outputs, but the inputs are there', () => {
  const failed = azureScore.decode(exchangeOf('/score?a=b', '[1]', '{"message": "bad"}', 400));
  assert.equal(rowsOf(failed.inputs), '[{"0":1}]');
  assert.equal(failed.outputs, undefined);
  assert.deepEqual(failed.issues, ['response: status 400, so there are no outputs']);
  const none = azureScore.decode(exchangeOf('/score', '[1]'));
  assert.equal(none.outputs, undefined);
  assert.deepEqual(none.issues, ['response: there was none']);
});

test('NaN, which Python writes, is null and said', () => {
  const { outputs, issues } = azureScore.decode(exchangeOf('/score', '[1]', '[NaN, 1.0, -Infinity]'));
  assert.equal(rowsOf(outputs), '[{"0":null},{"0":1.0},{"0":null}]');
  assert.deepEqual(issues, ['response: NaN or infinite values became null, because JSON has none (2 in all)']);
});
