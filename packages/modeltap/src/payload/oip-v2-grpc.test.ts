import assert from 'node:assert/strict';
import { test } from 'node:test';
import { modelInferToJson, oipV2Grpc } from './oip-v2-grpc.ts';
import { exchangeOf, inputsOf, outputsOf } from './support.test-suite.ts';
import type { CapturedMessage } from './types.ts';

const PATH = '/inference.GRPCInferenceService/ModelInfer';

/*
 * Both messages were written by the protobuf library of Python from the protocol's definition. The request has typed
 * contents of every kind, parameters of every kind and a requested output; the response has raw contents.
 */
const REQUEST = Buffer.from(
  '0a04697269731201331a03722d31220e0a01641209219a9999999999b93f220a0a04666c61671202080122100a0169120b10ffffffffffffffefff' +
    '01220a0a017312051a0361226222100a0175120b28ffffffffffffffffff012a3b0a0269641205494e5436341a010222140a0c636f6e74656e74' +
    '5f7479706512041a026e702a151a13ffffffffffffffff7f808080808080808080012a240a0473697a651204465033321a0202022a1232103333' +
    'a3400000c07f00000080caf249712a250a0565786163741204465036341a0202012a123a109a9999999999b93f000000000000f07f2a1f0a0573' +
    '6d616c6c1204494e54381a01022a0d120b80ffffffffffffffff017f2a1a0a05636f756e74120655494e5431361a01022a06220400ffff032a1f' +
    '0a03626967120655494e5436341a01022a0d2a0b00ffffffffffffffffff012a130a026f6b1204424f4f4c1a01022a040a0201002a1c0a046e61' +
    '6d65120542595445531a01022a0a420468c3a9224202ff0032070a056c6162656c',
  'hex',
);
const RESPONSE = Buffer.from(
  '0a04697269731a03722d312a110a056c6162656c1205494e5436341a01022a0d0a01701204465033321a0202032a0c0a01681204465031361a01' +
    '022a0c0a01621204424631361a01022a0d0a0174120542595445531a01022a120a0463756265120555494e54381a030202023210010000000000' +
    '2000ffffffffffffffff3218cdcccc3dcdcc4c3e3333333fabaaaa3e77cc2b320000807f32040038ff7b3204c03ff7c2320a020000006f6b0000' +
    '000032080001020304050607',
  'hex',
);

function grpc(messages: readonly Buffer[]): CapturedMessage {
  return { contentType: 'application/grpc+proto', body: undefined, grpcMessages: messages };
}

function frame(payload: Buffer, flag = 0): Buffer {
  const head = Buffer.alloc(5);
  head[0] = flag;
  head.writeUInt32BE(payload.length, 1);
  return Buffer.concat([head, payload]);
}

const ROWS_IN =
  '[{"id":9223372036854775807,"size_0":5.1,"size_1":null,"exact":0.1,"small":-128,"count":0,"big":0,"ok":true,"name":"hé\\""},' +
  '{"id":-9223372036854775808,"size_0":-0,"size_1":1e+30,"exact":null,"small":127,"count":65535,"big":18446744073709551615,' +
  '"ok":false,"name":{"b64":"/wA="}}]';
const ROWS_OUT =
  '[{"label":9007199254740993,"p_0":0.1,"p_1":0.2,"p_2":0.7,"h":0.5,"b":1.5,"t":"ok","cube":[[0,1],[2,3]]},' +
  '{"label":-1,"p_0":0.33333334,"p_1":1e-8,"p_2":null,"h":65504,"b":-123.5,"t":"","cube":[[4,5],[6,7]]}]';

test('typed and raw contents give the rows, from messages and from frames', () => {
  assert.equal(inputsOf(oipV2Grpc, PATH, grpc([REQUEST])), ROWS_IN);
  assert.equal(outputsOf(oipV2Grpc, PATH, grpc([RESPONSE])), ROWS_OUT);
  const framed = { contentType: 'application/grpc', body: frame(REQUEST) };
  assert.equal(inputsOf(oipV2Grpc, PATH, framed), ROWS_IN);
});

test('a message as JSON has the form of the REST API', () => {
  const request = modelInferToJson(REQUEST, 'request');
  assert.equal(
    request.json,
    '{"model_name":"iris","model_version":"3","id":"r-1",' +
      '"parameters":{"d":0.1,"flag":true,"i":-9007199254740993,"s":"a\\"b","u":18446744073709551615},"inputs":[' +
      '{"name":"id","datatype":"INT64","shape":[2],"parameters":{"content_type":"np"},"data":[9223372036854775807,-9223372036854775808]},' +
      '{"name":"size","datatype":"FP32","shape":[2,2],"data":[5.1,null,-0,1e+30]},' +
      '{"name":"exact","datatype":"FP64","shape":[2,1],"data":[0.1,null]},' +
      '{"name":"small","datatype":"INT8","shape":[2],"data":[-128,127]},' +
      '{"name":"count","datatype":"UINT16","shape":[2],"data":[0,65535]},' +
      '{"name":"big","datatype":"UINT64","shape":[2],"data":[0,18446744073709551615]},' +
      '{"name":"ok","datatype":"BOOL","shape":[2],"data":[true,false]},' +
      '{"name":"name","datatype":"BYTES","shape":[2],"data":["hé\\"",{"b64":"/wA="}]}],"outputs":[{"name":"label"}]}',
  );
  assert.deepEqual(request.issues, ['request: NaN or infinite values became null, because JSON has none (2 in all)']);
  const response = modelInferToJson(RESPONSE, 'response').json ?? '';
  assert.match(
    response,
    /^\{"model_name":"iris","id":"r-1","outputs":\[\{"name":"label","datatype":"INT64","shape":\[2\],"data":\[9007199254740993,-1\]\},/,
  );
  assert.match(response, /\{"name":"cube","datatype":"UINT8","shape":\[2,2,2\],"data":\[0,1,2,3,4,5,6,7\]\}\]\}$/);
});

test('lists that are not packed are read too', () => {
  // x: INT32 [1], with the 7 as a field of its own: 10 07 instead of 12 01 07.
  const unpacked = Buffer.from('0a016d2a110a01781205494e5433321a01012a021007', 'hex');
  assert.equal(inputsOf(oipV2Grpc, PATH, grpc([unpacked])), '[{"x":7}]');
});

test('what is no message, or not one, is refused with the reason', () => {
  const issues = (message: CapturedMessage) => inputsOf(oipV2Grpc, PATH, message);
  assert.deepEqual(issues(grpc([])), ['request: expected one message, found 0']);
  assert.deepEqual(issues(grpc([REQUEST, REQUEST])), ['request: expected one message, found 2']);
  assert.deepEqual(issues({ contentType: undefined, body: undefined }), ['request: the body was not captured']);
  const body = (bytes: Buffer) => issues({ contentType: 'application/grpc', body: bytes });
  assert.deepEqual(body(frame(REQUEST, 1)), ['request: gRPC frame 0 is compressed']);
  assert.deepEqual(body(frame(REQUEST).subarray(0, 20)), ['request: gRPC frame 0 is cut off']);
  assert.match(
    String(issues(grpc([REQUEST.subarray(0, 300)]))),
    /^request: the message is not a ModelInfer request: it is cut off/,
  );
  assert.match(String(issues(grpc([Buffer.from([0x0b])]))), /a field has wire type 3/);
  assert.match(String(issues(grpc([Buffer.alloc(12, 0xff)]))), /a varint has more than 10 bytes/);
  // Raw contents one byte short, and none at all.
  const short = Buffer.from('0a016d2a0c0a01781204465033321a01013a03000000', 'hex');
  assert.deepEqual(issues(grpc([short])), ['request: tensor "x": 3 bytes are not a whole number of FP32 elements']);
  assert.deepEqual(issues(grpc([short.subarray(0, 17)])), ['request: tensor "x" has no contents']);
  assert.equal(
    modelInferToJson(short.subarray(0, 17), 'request').json,
    '{"model_name":"m","inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}',
  );
  assert.equal(modelInferToJson(Buffer.from([0x0a]), 'response').json, undefined);
});

test('only ModelInfer over gRPC is taken', () => {
  const matches = (path: string, contentType: string) =>
    oipV2Grpc.matches(exchangeOf(path, { contentType, body: undefined }));
  assert.ok(matches(PATH, 'application/grpc'));
  assert.ok(!matches(PATH, 'application/json'));
  assert.ok(!matches('/inference.GRPCInferenceService/ModelReady', 'application/grpc'));
});
