import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mlflowInvocations } from './mlflow-invocations.ts';
import { exchangeOf, inputsOf, message, outputsOf, rowsOf, sideOf } from './support.test-suite.ts';

const inputs = (body: string) => inputsOf(mlflowInvocations, '/invocations', body);
const outputs = (body: string) => outputsOf(mlflowInvocations, '/invocations', body);
const csv = (text: string) => inputsOf(mlflowInvocations, '/invocations', message(text, 'text/csv; charset=utf-8'));

test('the four forms of request, parameters left aside', () => {
  const forms: readonly (readonly [string, string])[] = [
    [
      '{"dataframe_split": {"columns": ["a", "b"], "data": [[1.0, "x"], [2, null]]}, "params": {"alpha": 0.5}}',
      '[{"a":1.0,"b":"x"},{"a":2,"b":null}]',
    ],
    ['{"dataframe_records": [{"a": 1.0, "b": 2}, {"a": 3}]}', '[{"a":1.0,"b":2},{"a":3}]'],
    ['{"instances": [[1.0, 2], [3, 4]]}', '[{"0":1.0,"1":2},{"0":3,"1":4}]'],
    ['{"instances": [{"a": 1, "b": [1, 2]}]}', '[{"a":1,"b":[1,2]}]'],
    ['{"inputs": {"x": [1, 2], "y": [[3], [4]]}}', '[{"x":1,"y":[3]},{"x":2,"y":[4]}]'],
    ['{"inputs": {"question": "q", "k": 3}}', '[{"question":"q","k":3}]'],
    ['{"inputs": ["a", "b"]}', '[{"0":"a"},{"0":"b"}]'],
    ['{"inputs": "a"}', '[{"0":"a"}]'],
    ['{"messages": [{"role": "user"}], "temperature": 0.50}', '[{"messages":[{"role":"user"}],"temperature":0.50}]'],
  ];
  for (const [body, rows] of forms) assert.equal(inputs(body), rows, body);
});

test('answers: predictions of every form, and answers without them', () => {
  const forms: readonly (readonly [string, string])[] = [
    ['{"predictions": [1.0, 2]}', '[{"0":1.0},{"0":2}]'],
    ['{"predictions": [{"y": 1, "p": 0.10}]}', '[{"y":1,"p":0.10}]'],
    ['{"predictions": {"y": [1, 2]}}', '[{"y":1},{"y":2}]'],
    ['{"predictions": "text"}', '[{"0":"text"}]'],
    ['{"id": "c", "choices": []}', '[{"id":"c","choices":[]}]'],
    ['[1, 2]', '[{"0":1},{"0":2}]'],
  ];
  for (const [body, rows] of forms) assert.equal(outputs(body), rows, body);
});

test('requests of no known form are refused with what was expected', () => {
  const expected = 'expected exactly one of dataframe_split, dataframe_records, instances, inputs, found';
  const cases: readonly (readonly [string, string])[] = [
    ['{"data": [1]}', `${expected} 0`],
    ['[[1, 2]]', `${expected} 0`],
    ['{"inputs": [1], "instances": [1]}', `${expected} 2`],
    ['{"dataframe_split": [1]}', 'dataframe_split is not an object'],
    ['{"dataframe_split": {"data": [[1]]}}', 'dataframe_split.columns is missing or not a list'],
    ['{"dataframe_records": {"a": 1}}', 'dataframe_records is not a list'],
    ['{"inputs": {"a": [1, 2], "b": [1]}}', 'the members of inputs are not lists of one length (see "a")'],
  ];
  for (const [body, issue] of cases) assert.deepEqual(inputs(body), [`request: ${issue}`], body);
});

test('CSV is read as pandas reads it, and numbers keep their text', () => {
  assert.equal(
    csv(',a,b,c,d\r\n0,1.50,x,True,\r\n\r\n1, 9007199254740993,"say ""hi"", twice\nok",False,NaN\n'),
    '[{"Unnamed: 0":0,"a":1.50,"b":"x","c":true,"d":null},' +
      '{"Unnamed: 0":1,"a":9007199254740993,"b":"say \\"hi\\", twice\\nok","c":false,"d":null}]',
  );
  assert.equal(csv('a,b\n1,x\nn/a\n007,2'), '[{"a":"1","b":"x"},{"a":null,"b":null},{"a":"007","b":"2"}]');
  assert.equal(csv('a'), '[]');
});

test('CSV that does not fit its header has no table', () => {
  const cases: readonly (readonly [string, string])[] = [
    ['', 'the CSV text has no header'],
    ['a,b\n1,2\n1,2,3\n', 'row 2 has 3 fields, the header has 2'],
    ['a,a\n1,2\n', 'the column "a" is there twice'],
    ['a\n"x\n', 'a quote in row 1 does not end'],
  ];
  for (const [text, issue] of cases) assert.deepEqual(csv(text), [`request: ${issue}`], text);
});

test('infinite numbers of a CSV are null and said', () => {
  const request = message('a\n-inf\n1\n', 'text/csv');
  const { inputs, issues } = mlflowInvocations.decode(exchangeOf('/invocations', request, '{"predictions":[]}'));
  assert.equal(rowsOf(inputs), '[{"a":null},{"a":1}]');
  assert.deepEqual(sideOf(issues, 'request'), [
    'request: NaN or infinite values became null, because JSON has none (1 in all)',
  ]);
});
