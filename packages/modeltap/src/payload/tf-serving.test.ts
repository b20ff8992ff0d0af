import assert from 'node:assert/strict';
import { test } from 'node:test';
import { exchangeOf, inputsOf, outputsOf } from './support.test-suite.ts';
import { tfServing } from './tf-serving.ts';

const PREDICT = '/v1/models/half:predict';
const inputs = (body: string, path = PREDICT) => inputsOf(tfServing, path, body);
const outputs = (body: string, path = PREDICT) => outputsOf(tfServing, path, body);

test('it takes predict, classify and regress of a model, a version or a label, and nothing else', () => {
  const matches = (path: string) => tfServing.matches(exchangeOf(path, '{}'));
  for (const path of [PREDICT, '/v1/models/m/versions/3:classify', '/tf/v1/models/m/labels/stable:regress?x=1']) {
    assert.ok(matches(path), path);
  }
  for (const path of ['/v1/models/m', '/v1/models/m/metadata', '/v1/models/m:explain', '/v2/models/m/infer']) {
    assert.ok(!matches(path), path);
  }
});

test('row format and column format give the same rows', () => {
  const rows =
    '[{"tag":"foo","signal":[1,2.0],"img":{"b64":"AA=="}},{"tag":"bar","signal":[3,4],"img":{"b64":"AQ=="}}]';
  assert.equal(inputs(`{"signature_name": "s", "instances": ${rows}}`), rows);
  assert.equal(
    inputs(
      '{"inputs": {"tag": ["foo", "bar"], "signal": [[1, 2.0], [3, 4]], "img": [{"b64": "AA=="}, {"b64": "AQ=="}]}}',
    ),
    rows,
  );
  assert.equal(inputs('{"instances": [1.0, 2.0, 5e3]}'), '[{"0":1.0},{"0":2.0},{"0":5e3}]');
  assert.equal(inputs('{"instances": [[[1, 2]], [[3, 4]]]}'), '[{"0":[1,2]},{"0":[3,4]}]');
  assert.equal(inputs('{"instances": [{"b64": "AA=="}]}'), '[{"0":{"b64":"AA=="}}]');
  assert.equal(inputs('{"inputs": {"x": 1, "y": "t"}}'), '[{"x":1,"y":"t"}]');
});

test('predictions and outputs', () => {
  assert.equal(outputs('{"predictions": [3.5, 4.0]}'), '[{"0":3.5},{"0":4.0}]');
  assert.equal(outputs('{"predictions": [{"c": 1, "p": [0.1, 0.9]}]}'), '[{"c":1,"p":[0.1,0.9]}]');
  assert.equal(outputs('{"outputs": {"c": [1, 2], "p": [[0.1], [0.2]]}}'), '[{"c":1,"p":[0.1]},{"c":2,"p":[0.2]}]');
  assert.equal(outputs('{"outputs": [[1, 2]]}'), '[{"0":1,"1":2}]');
});

test('examples have the features of the context; classes and values are their rows', () => {
  const classify = '/v1/models/m:classify';
  const body = '{"context": {"shop": 7}, "examples": [{"x": 1.0}, {"x": 2, "y": "b"}]}';
  assert.equal(inputs(body, classify), '[{"x":1.0,"shop":7},{"x":2,"y":"b","shop":7}]');
  assert.equal(
    outputs('{"result": [[["cat", 0.90], ["dog", 0.1]], [["", 1.0]]]}', classify),
    '[{"labels":["cat","dog"],"scores":[0.90,0.1]},{"labels":[""],"scores":[1.0]}]',
  );
  assert.equal(outputs('{"results": [3.5, 4.0]}', '/v1/models/m:regress'), '[{"0":3.5},{"0":4.0}]');
});

test('bodies of another form are refused with what was expected', () => {
  assert.deepEqual(inputs('{"inputs": [1], "instances": [1]}'), [
    'request: expected exactly one of instances, inputs, found 2',
  ]);
  assert.deepEqual(inputs('{"inputs": {"a": [1, 2], "b": [1]}}'), [
    'request: the members of inputs are not lists of one length (see "a")',
  ]);
  assert.deepEqual(outputs('{"error": "x"}'), ['response: expected exactly one of predictions, outputs, found 0']);
  assert.deepEqual(inputs('{"examples": {}}', '/v1/models/m:regress'), ['request: examples is missing or not a list']);
  assert.deepEqual(outputs('{"result": [[["cat"]]]}', '/v1/models/m:classify'), [
    'response: result[0] is not a list of label and score pairs',
  ]);
});
