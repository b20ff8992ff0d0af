import assert from 'node:assert/strict';
import { test } from 'node:test';
import { oipV2 } from './oip-v2.ts';
import { exchangeOf, inputsOf, outputsOf, rowsOf, type Side } from './support.test-suite.ts';
import type { CapturedMessage } from './types.ts';

const PATH = '/v2/models/m/versions/1/infer';
const inputs = (body: Side) => inputsOf(oipV2, PATH, body);

function tensor(name: string, shape: readonly number[], datatype: string, rest: string): string {
  return `{"name":"${name}","shape":[${shape.join(',')}],"datatype":"${datatype}",${rest}}`;
}

/** A message of the binary extension: JSON, then the bytes. */
function binary(tensors: readonly (readonly [string, readonly number[], string, Buffer])[]): Buffer {
  const list = tensors.map(([name, shape, datatype, raw]) =>
    tensor(name, shape, datatype, `"parameters":{"binary_data_size":${raw.length}}`),
  );
  return Buffer.concat([Buffer.from(`{"inputs":[${list.join(',')}]}`), ...tensors.map(([, , , raw]) => raw)]);
}

function octets(body: Buffer, inferenceHeaderBytes?: number): CapturedMessage {
  const contentType = 'application/octet-stream';
  return inferenceHeaderBytes === undefined ? { contentType, body } : { contentType, body, inferenceHeaderBytes };
}

test('tensors become columns: one, several, or one of nested lists; data may be flat or nested', () => {
  const list = [
    tensor('id', [2], 'INT64', '"data": [9223372036854775807, 1]'),
    tensor('x', [2, 2], 'FP32', '"data": [1.0, 1.10, 2.0, 2.1]'),
    tensor('y', [2, 2], 'FP64', '"data": [[1.0, 1e400], [2.0, 2]]'),
    tensor('one', [2, 1], 'BYTES', '"data": [["a"], ["b"]]'),
    tensor('cube', [2, 1, 2], 'UINT8', '"data": [1, 2, 3, 4]'),
  ];
  assert.equal(
    inputs(`{"id": "42", "inputs": [${list.join(', ')}], "outputs": [{"name": "o"}]}`),
    '[{"id":9223372036854775807,"x_0":1.0,"x_1":1.10,"y_0":1.0,"y_1":1e400,"one":"a","cube":[[1,2]]},' +
      '{"id":1,"x_0":2.0,"x_1":2.1,"y_0":2.0,"y_1":2,"one":"b","cube":[[3,4]]}]',
  );
  assert.equal(
    outputsOf(
      oipV2,
      PATH,
      `{"model_name": "m", "outputs": [${tensor('p', [3], 'BOOL', '"data": [true, false, true]')}]}`,
    ),
    '[{"p":true},{"p":false},{"p":true}]',
  );
  assert.equal(inputs(`{"inputs": [${tensor('s', [], 'FP32', '"data": [1.0]')}]}`), '[{"s":1.0}]');
  assert.equal(inputs(`{"inputs": [${tensor('s', [0, 4], 'FP32', '"data": []')}]}`), '[]');
});

test('binary tensors of every datatype are read, with the length of the JSON given or not', () => {
  const number = (bytes: number, write: (buffer: Buffer) => void) => {
    const buffer = Buffer.alloc(bytes);
    write(buffer);
    return buffer;
  };
  const cases: readonly (readonly [string, Buffer, string])[] = [
    ['BOOL', Buffer.from([1]), 'true'],
    ['UINT8', Buffer.from([255]), '255'],
    ['INT8', Buffer.from([255]), '-1'],
    ['UINT16', Buffer.from([1, 2]), '513'],
    ['INT16', Buffer.from([0, 0x80]), '-32768'],
    ['UINT32', Buffer.from([255, 255, 255, 255]), '4294967295'],
    ['INT32', Buffer.from([254, 255, 255, 255]), '-2'],
    ['UINT64', Buffer.alloc(8, 255), '18446744073709551615'],
    ['INT64', number(8, (buffer) => buffer.writeBigInt64LE(-9007199254740993n)), '-9007199254740993'],
    ['FP16', Buffer.from([0x00, 0x3e]), '1.5'],
    ['FP16', Buffer.from([0x01, 0x80]), '-5.960464477539063e-8'],
    ['BF16', Buffer.from([0xf7, 0xc2]), '-123.5'],
    ['FP32', number(4, (buffer) => buffer.writeFloatLE(0.1)), '0.1'],
    ['FP32', number(4, (buffer) => buffer.writeFloatLE(-0)), '-0'],
    ['FP64', number(8, (buffer) => buffer.writeDoubleLE(0.1 + 0.2)), '0.30000000000000004'],
    ['FP64', number(8, (buffer) => buffer.writeDoubleLE(1e21)), '1e+21'],
    ['BYTES', Buffer.from([3, 0, 0, 0, 0x61, 0x22, 0x62]), '"a\\"b"'],
    ['BYTES', Buffer.from([1, 0, 0, 0, 0xff]), '{"b64":"/w=="}'],
  ];
  for (const [datatype, raw, text] of cases) {
    assert.equal(inputs(octets(binary([['x', [1], datatype, raw]]))), `[{"x":${text}}]`, datatype);
  }
  const all = binary(cases.map(([datatype, raw], at) => [`c${at}`, [1], datatype, raw]));
  const row = `[{${cases.map(([, , text], at) => `"c${at}":${text}`).join(',')}}]`;
  assert.equal(inputs(octets(all)), row);
  assert.equal(inputs(octets(all, all.length - Buffer.concat(cases.map(([, raw]) => raw)).length)), row);
});

test('every single-precision value is written as a text that reads back to it', () => {
  const values = [1 / 3, 1e-8, 16777216, 3.4028234663852886e38, 1.401298464324817e-45, 8.5899735e9].map(Math.fround);
  const raw = Buffer.alloc(values.length * 4);
  for (const [at, value] of values.entries()) raw.writeFloatLE(value, at * 4);
  const rows = JSON.parse(String(inputs(octets(binary([['x', [values.length], 'FP32', raw]]))))) as { x: number }[];
  assert.deepEqual(
    rows.map(({ x }) => Math.fround(x)),
    values,
  );
  assert.ok(
    rows.some(({ x }, at) => x !== values[at]),
    'none was written shorter than its double',
  );
});

test('NaN in a tensor is null and said', () => {
  const raw = Buffer.alloc(8);
  raw.writeFloatLE(Number.NaN);
  const { inputs, issues } = oipV2.decode(exchangeOf(PATH, octets(binary([['x', [2], 'FP32', raw]]))));
  assert.equal(rowsOf(inputs), '[{"x":null},{"x":0}]');
  assert.equal(issues[0], 'request: NaN or infinite values became null, because JSON has none (1 in all)');
});

test('tensors that do not fit are refused by name', () => {
  const cases: readonly (readonly [string, string])[] = [
    ['{"inputs": {}}', 'inputs is missing or not a list'],
    ['{"inputs": [{"shape": [1]}]}', 'inputs[0] has no name'],
    ['{"inputs": [{"name": "x", "shape": [-1]}]}', 'tensor "x": shape is not a list of sizes'],
    [`{"inputs": [${tensor('x', [1], 'FP32', '"data": 1')}]}`, 'tensor "x": data is missing or not a list'],
    [`{"inputs": [${tensor('x', [3], 'BOOL', '"data": [true]')}]}`, 'tensor "x" has 1 elements, its shape says 3'],
    [
      `{"inputs": [${tensor('x', [1], 'FP32', '"data": [{}]')}]}`,
      'tensor "x": data is not of values in at most 16 levels of lists',
    ],
    [
      `{"inputs": [${tensor('a', [2], 'FP32', '"data":[1,2]')}, ${tensor('b', [1], 'FP32', '"data":[1]')}]}`,
      'tensor "b" has 1 rows, the first tensor has 2',
    ],
    [
      `{"inputs": [${tensor('a', [1], 'FP32', '"data":[1]')}, ${tensor('a', [1], 'FP32', '"data":[1]')}]}`,
      'the column "a" is there twice',
    ],
    [
      `{"inputs": [${tensor('a', [1, 4097], 'FP32', `"data":[${'1,'.repeat(4096)}1]`)}]}`,
      'a table is limited to 4096 columns, and this one has 4097',
    ],
  ];
  for (const [body, issue] of cases) assert.deepEqual(inputs(body), [`request: ${issue}`], body);
});

test('binary data that is cut off, of an unknown type or without its JSON is refused', () => {
  const whole = binary([['x', [2], 'FP32', Buffer.alloc(8)]]);
  const issue = (body: Buffer, header?: number) => inputs(octets(body, header));
  assert.deepEqual(issue(whole.subarray(0, whole.length - 1)), ['request: tensor "x": its binary data is not there']);
  assert.deepEqual(issue(whole, whole.length + 1), ['request: the JSON in front of the binary tensors does not end']);
  assert.deepEqual(issue(Buffer.from('{"inputs"')), ['request: the JSON in front of the binary tensors does not end']);
  assert.deepEqual(issue(binary([['x', [1], 'FP8', Buffer.alloc(1)]])), [
    'request: tensor "x": unknown datatype "FP8"',
  ]);
  assert.deepEqual(issue(binary([['x', [1], 'FP32', Buffer.alloc(3)]])), [
    'request: tensor "x": 3 bytes are not a whole number of FP32 elements',
  ]);
  assert.deepEqual(issue(binary([['x', [1], 'BYTES', Buffer.from([9, 0, 0, 0, 1])]])), [
    'request: tensor "x": element 0 is cut off',
  ]);
});
