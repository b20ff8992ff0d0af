import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DECODERS, decoderFor } from './decoders.ts';
import { modelInferToJson } from './oip-v2-grpc.ts';
import { exchangeOf, message, rowsOf } from './support.test-suite.ts';
import { tableJson } from './table.ts';
import { type CapturedMessage, type DecodedExchange, LIMITS, type Table } from './types.ts';

const GRPC_PATH = '/inference.GRPCInferenceService/ModelInfer';

/** One good exchange of each protocol, and the content types its bodies may have. */
const SAMPLES: readonly (readonly [string, string, string, string, readonly string[]])[] = [
  ['azure-score', '/score', '{"input_data":{"columns":["a"],"data":[[1.0]]}}', '{"result":[1]}', []],
  ['azure-score', '/score', '{"data":{"a":{"0":1,"1":2}}}', '"[{\\"a\\":1}]"', []],
  ['mlflow-invocations', '/invocations', '{"dataframe_records":[{"a":1}]}', '{"predictions":[{"y":1}]}', []],
  ['mlflow-invocations', '/invocations', 'a,b\n1,"x ""y"""\nnan,2', '{"predictions":[1]}', ['text/csv']],
  [
    'oip-v2',
    '/v2/models/m/infer',
    '{"inputs":[{"name":"x","shape":[1,2],"datatype":"BYTES","parameters":{"binary_data_size":10},"data":[1]}]}\u0001\0\0\0a\u0001\0\0\0b',
    '{"outputs":[{"name":"y","shape":[2,2,1],"datatype":"FP32","data":[[1.0,2],[3,4]]}]}',
    ['application/octet-stream'],
  ],
  [
    'oip-v2-grpc',
    GRPC_PATH,
    '\n\u0001m*\u0011\n\u0001x\u0012\u0005INT32\u001a\u0001\u0001*\u0002\u0010\u0007',
    '',
    ['application/grpc'],
  ],
  ['tf-serving', '/v1/models/m:predict', '{"instances":[{"a":{"b64":"AA=="}}]}', '{"predictions":[[1,2]]}', []],
  ['tf-serving', '/v1/models/m:classify', '{"context":{"c":1},"examples":[{"a":1}]}', '{"result":[[["x",1]]]}', []],
  [
    'openai',
    '/v1/chat/completions',
    '{"model":"m","messages":[]}',
    'data: {"choices":[{"delta":{"content":"x","tool_calls":[{"index":0,"function":{"arguments":"{"}}]}}]}\n\ndata: [DONE]\n\n',
    ['text/event-stream'],
  ],
  [
    'openai',
    '/v1/responses',
    '{"input":[{}]}',
    '{"output":[{"type":"message","content":[{"text":"a"}]}],"usage":{"a":{"b":1}}}',
    [],
  ],
  ['openai', '/v1/embeddings', '{"input":["a",[1]]}', '{"data":[{"embedding":[1]}]}', []],
];

function messageOf(body: Buffer, types: readonly string[], grpc: boolean): CapturedMessage {
  const [contentType = 'application/json'] = types;
  return grpc ? { contentType, body: undefined, grpcMessages: [body] } : { contentType, body };
}

/** What holds for every result: tables of valid JSON within the limits, and an issue for each one that is missing. */
function check({ inputs, outputs, issues }: DecodedExchange): void {
  for (const [side, table] of [
    ['request', inputs],
    ['response', outputs],
  ] as const) {
    if (table === undefined)
      assert.ok(
        issues.some((issue) => issue.startsWith(`${side}: `)),
        `no issue: ${side}`,
      );
    else checkTable(table);
  }
  assert.ok(issues.length <= 2 * (LIMITS.issues + 1));
  for (const issue of issues) assert.ok(issue.length < 300 && !issue.includes('\n'), issue);
}

function checkTable(table: Table): void {
  assert.ok(table.rows.length <= LIMITS.rows && table.columns.length <= LIMITS.columns);
  assert.ok(!tableJson(table).includes('\n'));
  const rows = JSON.parse(tableJson(table)) as object[];
  for (const row of rows) {
    assert.ok(!Array.isArray(row) && typeof row === 'object');
    for (const name of Object.keys(row)) assert.ok(table.columns.includes(name), name);
  }
}

test('each protocol is taken by its decoder, and other exchanges by none', () => {
  for (const [protocol, path, request, , types] of SAMPLES) {
    const exchange = exchangeOf(path, messageOf(Buffer.from(request), types, false));
    assert.equal(decoderFor(exchange)?.protocol, protocol, path);
    assert.equal(decoderFor({ ...exchange, method: 'GET' })?.protocol, path === GRPC_PATH ? protocol : undefined);
  }
  for (const path of ['/', '/scores', '/v1/models/m', '*', '', '/score/x?/score']) {
    assert.equal(decoderFor(exchangeOf(path, '{}')), undefined, path);
  }
});

test('bytes of any kind, in any place, never throw and leave nothing unsaid', () => {
  const side = fc.record({
    contentType: fc.constantFrom(
      undefined,
      'application/json',
      'text/csv',
      'application/octet-stream',
      'text/event-stream',
      ';',
    ),
    body: fc.option(
      fc.uint8Array().map((bytes) => Buffer.from(bytes)),
      { nil: undefined },
    ),
  });
  const paths = SAMPLES.map(([, path]) => path);
  fc.assert(
    fc.property(
      fc.constantFrom(...DECODERS),
      fc.constantFrom(...paths),
      side,
      side,
      (decoder, path, request, response) => {
        check(decoder.decode(exchangeOf(path, request, response)));
        for (const kind of ['request', 'response'] as const) modelInferToJson(request.body ?? Buffer.alloc(0), kind);
      },
    ),
    { numRuns: 2000 },
  );
});

test('JSON of any kind never throws and leaves nothing unsaid', () => {
  const keys =
    'data input_data columns index Inputs result inputs instances outputs examples context dataframe_split predictions name shape datatype parameters choices message usage input output b64 0'.split(
      ' ',
    );
  const json = fc.letrec((tie) => ({
    value: fc.oneof(
      { depthSize: 'small' },
      fc.constantFrom('1', '-1.0', '"x"', 'null', 'true', '""', '[]', '{}', 'NaN', '2'),
      fc.array(tie('value')).map((items) => `[${items.join(',')}]`),
      fc
        .array(fc.tuple(fc.constantFrom(...keys), tie('value')))
        .map((members) => `{${members.map(([name, value]) => `"${name}":${String(value)}`).join(',')}}`),
    ),
  })).value;
  const paths = SAMPLES.map(([, path]) => path);
  fc.assert(
    fc.property(
      fc.constantFrom(...DECODERS),
      fc.constantFrom(...paths),
      json,
      json,
      (decoder, path, request, response) => {
        check(decoder.decode(exchangeOf(path, request, response)));
      },
    ),
    { numRuns: 3000 },
  );
});

test('good bodies with damage never throw and leave nothing unsaid', () => {
  const damage = fc.array(fc.tuple(fc.nat(), fc.constantFrom('set', 'cut', 'repeat', 'insert'), fc.nat(255)), {
    minLength: 1,
    maxLength: 4,
  });
  const damaged = (text: string, edits: readonly (readonly [number, string, number])[]) =>
    edits.reduce<Buffer>((body, [place, edit, byte]) => {
      const at = place % (body.length + 1);
      if (edit === 'cut') return body.subarray(0, at);
      if (edit === 'repeat') return Buffer.concat([body, body.subarray(at)]);
      return Buffer.concat([body.subarray(0, at), Buffer.from([byte]), body.subarray(edit === 'set' ? at + 1 : at)]);
    }, Buffer.from(text));
  fc.assert(
    fc.property(
      fc.constantFrom(...SAMPLES),
      damage,
      damage,
      ([protocol, path, request, response, types], first, second) => {
        const decoder = DECODERS.find((one) => one.protocol === protocol);
        assert.ok(decoder);
        const grpc = protocol === 'oip-v2-grpc';
        const [one, two] = [damaged(request, first), damaged(response, second)];
        check(decoder.decode(exchangeOf(path, messageOf(one, types, grpc), messageOf(two, types, grpc))));
        check(decoder.decode(exchangeOf(path, messageOf(one, [], false), messageOf(two, [], false))));
      },
    ),
    { numRuns: 3000 },
  );
});

test('the text of every number survives every JSON form', () => {
  const digits = (options: object) =>
    fc.string({ unit: fc.constantFrom(...Array.from('0123456789')), minLength: 1, ...options });
  const number = fc
    .tuple(
      fc.constantFrom('', '-'),
      fc.oneof(
        fc.constant('0'),
        digits({ maxLength: 30 }).map((text) => `7${text}`),
      ),
      fc.option(digits({})),
      fc.option(fc.tuple(fc.constantFrom('e', 'E', 'e+', 'E-'), digits({ maxLength: 4 }))),
    )
    .map(
      ([sign, whole, fraction, power]) =>
        `${sign}${whole}${fraction === null ? '' : `.${fraction}`}${power?.join('') ?? ''}`,
    );
  const rows = fc.array(fc.tuple(number, number), { minLength: 1, maxLength: 5 });
  const forms: readonly (readonly [string, (rows: readonly (readonly [string, string])[]) => string])[] = [
    [
      '/score',
      (rows) => `{"input_data":{"columns":["a","b"],"data":[${rows.map((row) => `[${row.join(', ')}]`).join()}]}}`,
    ],
    ['/score', (rows) => `[${rows.map(([a, b]) => `{"a": ${a},"b":${b}}`).join()}]`],
    ['/score', (rows) => `{"a":[${rows.map(([a]) => a).join()}],"b":[${rows.map(([, b]) => b).join()}]}`],
    [
      '/score',
      (rows) =>
        `{"data":{"a":{${rows.map(([a], at) => `"${at}":${a}`).join()}},"b":{${rows.map(([, b], at) => `"${at}":${b}`).join()}}}}`,
    ],
    ['/invocations', (rows) => `{"dataframe_records":[${rows.map(([a, b]) => `{"a":${a},"b":${b}}`).join()}]}`],
    [
      '/v1/models/m:predict',
      (rows) => `{"inputs":{"a":[${rows.map(([a]) => a).join()}],"b":[${rows.map(([, b]) => b).join()}]}}`,
    ],
    [
      '/v2/models/m/infer',
      (rows) =>
        `{"inputs":[${['a', 'b'].map((name, at) => `{"name":"${name}","datatype":"FP64","shape":[${rows.length}],"data":[${rows.map((row) => row[at]).join()}]}`).join()}]}`,
    ],
  ];
  fc.assert(
    fc.property(fc.constantFrom(...forms), rows, ([path, render], rows) => {
      const exchange = exchangeOf(path, render(rows));
      const expected = `[${rows.map(([a, b]) => `{"a":${a},"b":${b}}`).join()}]`;
      assert.equal(rowsOf(decoderFor(exchange)?.decode(exchange).inputs), expected);
      const csv = exchangeOf('/invocations', message(`a,b\n${rows.map((row) => row.join()).join('\n')}\n`, 'text/csv'));
      assert.equal(rowsOf(decoderFor(csv)?.decode(csv).inputs), expected);
    }),
    { numRuns: 500 },
  );
});

/** Rows kept and what was said, of a request body. */
function limited(path: string, body: string, type?: string): readonly [number | undefined, string | undefined] {
  const exchange = exchangeOf(path, message(body, type));
  const { inputs, issues } = decoderFor(exchange)?.decode(exchange) ?? { inputs: undefined, issues: [] };
  return [inputs?.rows.length, issues.find((issue) => issue.startsWith('request'))];
}

test('a table has at most so many rows: the first are kept, in every form', () => {
  const many = LIMITS.rows + 1;
  const list = (item: string) => `[${Array.from({ length: many }, () => item).join()}]`;
  const issue = 'request: a table is limited to 100000 rows: the first 100000 rows are kept';
  const bodies: readonly (readonly [string, string, string?])[] = [
    ['/score', list('1')],
    ['/score', list('[1]')],
    ['/score', list('{"a":1}')],
    ['/score', `{"columns":["a"],"data":${list('[1]')}}`],
    ['/score', `{"data":{"a":${list('1')}}}`],
    ['/score', `{"data":{"a":{${Array.from({ length: many }, (_, at) => `"${at}":1`).join()}}}}`],
    ['/invocations', `a\n${'1\n'.repeat(many)}`, 'text/csv'],
    ['/v1/models/m:classify', `{"context":{"c":1},"examples":${list('{"a":1}')}}`],
    ['/v2/models/m/infer', `{"inputs":[{"name":"x","datatype":"INT8","shape":[${many}],"data":${list('1')}}]}`],
    ['/v1/embeddings', `{"input":${list('"a"')}}`],
  ];
  for (const [path, body, type] of bodies)
    assert.deepEqual(limited(path, body, type), [LIMITS.rows, issue], body.slice(0, 40));
});

test('a table has at most so many columns: with more there is none', () => {
  const many = LIMITS.columns + 1;
  const numbers = Array.from({ length: many }, (_, at) => at);
  const object = `{${numbers.map((at) => `"c${at}":1`).join()}}`;
  const bodies: readonly (readonly [string, string, string?])[] = [
    ['/score', `[[${numbers.join()}]]`],
    ['/score', `[${object}]`],
    ['/score', object],
    ['/score', `{"columns":[${numbers.join()}],"data":[]}`],
    ['/score', `[${numbers.map((at) => `{"c${at}":1}`).join()}]`],
    ['/invocations', `${numbers.join()}\n`, 'text/csv'],
  ];
  for (const [path, body, type] of bodies) {
    const [rows, issue] = limited(path, body, type);
    assert.equal(rows, undefined);
    assert.match(String(issue), /^request: a table is limited to 4096 columns, and this one has (?:more|4097)$/);
  }
  assert.deepEqual(limited('/score', `[[${numbers.slice(1).join()}]]`), [1, undefined]);
});

test('long names cannot blow a small body up: the text of a table has a limit', () => {
  const name = 'x'.repeat(10_000);
  const [rows, issue] = limited('/score', `{"columns":["${name}"],"data":[${'[1],'.repeat(50_000)}[1]]}`);
  assert.ok(rows !== undefined && rows * name.length < LIMITS.textChars + 2 * name.length, String(rows));
  assert.equal(issue, `request: a table is limited to ${LIMITS.textChars} characters: the first ${rows} rows are kept`);
});

test('a body beyond the limit is not read', () => {
  const exchange = exchangeOf('/score', { contentType: 'application/json', body: Buffer.alloc(LIMITS.bodyBytes + 1) });
  assert.deepEqual(decoderFor(exchange)?.decode(exchange).issues.slice(0, 1), [
    `request: the body has ${LIMITS.bodyBytes + 1} bytes, and ${LIMITS.bodyBytes} are read at most`,
  ]);
});

test('time grows with the length of a body and not faster, whatever it is made of', () => {
  const MiB = 1024 * 1024;
  const fill = (piece: string, bytes: number) => piece.repeat(Math.ceil(bytes / piece.length));
  const makers: readonly (readonly [string, string, (bytes: number) => string])[] = [
    ['escaped quotes', '/score', (bytes) => `["${fill('\\"', bytes)}"]`],
    ['backslashes', '/score', (bytes) => `["${fill('\\\\', bytes)}","x"]`],
    [
      'nested lists',
      '/v2/models/m/infer',
      (bytes) =>
        `{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":${'['.repeat(500)}${fill('1,', bytes)}1${']'.repeat(500)}}]}`,
    ],
    [
      'nested objects',
      '/v1/chat/completions',
      (bytes) => `{"usage":${'{"a":'.repeat(500)}"${fill('x', bytes)}"${'}'.repeat(500)}}`,
    ],
    ['white space', '/score', (bytes) => `[${fill(' 1 ,\n', bytes)}1]`],
    ['one long number', '/score', (bytes) => fill('7', bytes)],
    ['wide and short rows', '/score', (bytes) => `[${fill('{"a":1,"b":2},', bytes)}{}]`],
    ['empty events', '/v1/completions', (bytes) => fill('data:\n\n:\r\n', bytes)],
    [
      'short records',
      '/invocations',
      (bytes) => `${Array.from({ length: 4096 }, (_, at) => at).join()}\n${fill('1\n', bytes)}`,
    ],
  ];
  for (const [name, path, make] of makers) {
    const body = make(MiB);
    const types = ['application/json', 'text/event-stream', 'text/csv'];
    for (const type of types) {
      const exchange = exchangeOf(path, message(body, type), message(body, type));
      const started = performance.now();
      decoderFor(exchange)?.decode(exchange);
      const took = performance.now() - started;
      // What is quadratic takes many minutes at this size; what is linear takes about a second on a busy machine.
      assert.ok(took < 20_000, `${name} as ${type}: ${took} ms`);
    }
  }
});
