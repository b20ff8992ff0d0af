import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { mergeChatStream } from './chat-stream.ts';
import { LIMITS } from './types.ts';

const HEAD = '"id":"c-1","object":"chat.completion.chunk","created":1700000000,"model":"m"';
const chunk = (choices: string, more = '') => `data: {${HEAD},"choices":[${choices}]${more}}\n\n`;
const delta = (members: string, finish = 'null', index = 0) =>
  chunk(`{"index":${index},"delta":{${members}},"finish_reason":${finish}}`);
const DONE = 'data: [DONE]\n\n';

/** The merged message as a value, and the issues. */
function merged(text: string): { message: unknown; issues: readonly string[] } {
  const { message, issues } = mergeChatStream(text);
  return { message: message === undefined ? undefined : JSON.parse(message), issues };
}

function answer(choices: readonly unknown[], more: object = {}): object {
  return { id: 'c-1', object: 'chat.completion', created: 1_700_000_000, model: 'm', choices, ...more };
}

test('content deltas are joined and the usage of the last chunk is kept, number text and all', () => {
  const text =
    delta('"role":"assistant","content":"","refusal":null') +
    delta('"content":"Hel"') +
    delta('"content":"lo \\ud83d"') +
    delta('"content":"\\ude00\\n"') +
    delta('', '"stop"') +
    chunk('', ',"usage":{"prompt_tokens":9007199254740993,"cost":1.50}') +
    DONE;
  const { message, issues } = mergeChatStream(text);
  assert.equal(
    message,
    '{"id":"c-1","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,"finish_reason":"stop",' +
      '"message":{"role":"assistant","content":"Hello \\ud83d\\ude00\\n","refusal":null}}],' +
      '"usage":{"prompt_tokens":9007199254740993,"cost":1.50}}',
  );
  assert.equal(
    (JSON.parse(message) as { choices: { message: { content: string } }[] }).choices[0]?.message.content,
    'Hello 😀\n',
  );
  assert.deepEqual(issues, []);
});

test('several choices, refusals and reasoning are kept apart', () => {
  const text =
    delta('"role":"assistant","reasoning_content":"hm"', 'null', 1) +
    delta('"role":"assistant","content":"a"') +
    delta('"reasoning_content":"m","content":"b"', '"stop"', 1) +
    delta('"refusal":"no"', '"stop"') +
    DONE;
  assert.deepEqual(merged(text), {
    message: answer([
      { index: 1, finish_reason: 'stop', message: { role: 'assistant', content: 'b', reasoning_content: 'hmm' } },
      { index: 0, finish_reason: 'stop', message: { role: 'assistant', content: 'a', refusal: 'no' } },
    ]),
    issues: [],
  });
});

test('calls of tools are merged by index, and by id where a server has no index', () => {
  const call = (members: string) => delta(`"tool_calls":[${members}]`);
  const expected = {
    message: answer([
      {
        index: 0,
        finish_reason: 'tool_calls',
        message: {
          role: 'assistant',
          content: null,
          tool_calls: [
            { id: 'a', type: 'function', function: { name: 'add', arguments: '{"x": 1.0}' } },
            { id: 'b', type: 'function', function: { name: 'sub', arguments: '{}' } },
          ],
        },
      },
    ]),
    issues: [],
  };
  const start = delta('"role":"assistant","content":null');
  const end = delta('', '"tool_calls"') + DONE;
  assert.deepEqual(
    merged(
      start +
        call('{"index":0,"id":"a","type":"function","function":{"name":"add","arguments":""}}') +
        call('{"index":0,"function":{"arguments":"{\\"x\\": "}}') +
        call('{"index":1,"id":"b","type":"function","function":{"name":"sub","arguments":"{"}}') +
        call('{"index":0,"function":{"arguments":"1.0}"}},{"index":1,"function":{"arguments":"}"}}') +
        end,
    ),
    expected,
  );
  assert.deepEqual(
    merged(
      start +
        call('{"id":"a","type":"function","function":{"name":"add","arguments":"{\\"x\\": "}}') +
        call('{"id":"","function":{"arguments":"1.0}"}}') +
        call('{"id":"b","type":"function","function":{"name":"sub","arguments":"{}"}}') +
        end,
    ),
    expected,
  );
});

test('log probabilities are strung together; the older function_call is merged', () => {
  const logprobs = (token: string) =>
    chunk(
      `{"index":0,"delta":{"content":"${token}"},"logprobs":{"content":[{"token":"${token}","logprob":-0.10}],"refusal":null}}`,
    );
  const text =
    logprobs('a') +
    logprobs('b') +
    delta('"function_call":{"name":"f","arguments":"{"}') +
    delta('"function_call":{"arguments":"}"}', '"function_call"') +
    DONE;
  const { message } = mergeChatStream(text);
  assert.match(
    message ?? '',
    /"logprobs":\{"content":\[\{"token":"a","logprob":-0\.10\},\{"token":"b","logprob":-0\.10\}\],"refusal":null\}/,
  );
  assert.match(message ?? '', /"function_call":\{"name":"f","arguments":"\{\}"\}/);
});

test("Azure's chunks without choices and with filter results are merged into the rest", () => {
  const text =
    'data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0}]}\n\n' +
    delta('"content":"x","role":"assistant"') +
    chunk('{"index":0,"finish_reason":null,"content_filter_results":{"hate":{"filtered":false}}}') +
    delta('', '"stop"') +
    DONE;
  assert.deepEqual(merged(text), {
    message: answer(
      [
        {
          index: 0,
          finish_reason: 'stop',
          content_filter_results: { hate: { filtered: false } },
          message: { role: 'assistant', content: 'x' },
        },
      ],
      { prompt_filter_results: [{ prompt_index: 0 }] },
    ),
    issues: [],
  });
});

test('plain completions are merged by their text', () => {
  const part = (text: string, finish: string) =>
    `data: {"id":"t","object":"text_completion","choices":[{"text":"${text}","index":0,"logprobs":{"tokens":["${text}"]},"finish_reason":${finish}}]}\n\n`;
  assert.deepEqual(merged(part('a', 'null') + part('b', '"length"') + DONE).message, {
    id: 't',
    object: 'text_completion',
    choices: [{ index: 0, finish_reason: 'length', text: 'ab', logprobs: { tokens: ['a', 'b'] } }],
  });
});

test('a stream of the Responses API gives the answer of its last event', () => {
  const event = (type: string, members: string) => `event: ${type}\ndata: {"type":"${type}",${members}}\n\n`;
  const steps =
    event('response.created', '"response":{"id":"r","status":"in_progress"}') +
    event('response.output_text.delta', '"delta":"x"');
  const last = event('response.completed', '"response":{"id":"r","status":"completed","usage":{"total_tokens":1.0}}');
  assert.deepEqual(mergeChatStream(steps + last), {
    message: '{"id":"r","status":"completed","usage":{"total_tokens":1.0}}',
    issues: [],
  });
  assert.deepEqual(mergeChatStream(steps), {
    message: undefined,
    issues: ['response: the stream ended before the answer was complete'],
  });
});

test('errors and streams that stop early are said, and what there was is given', () => {
  const cut = merged(`${delta('"role":"assistant","content":"half"')}data: {"id":"c-1","cho`);
  assert.deepEqual(
    cut.message,
    answer([{ index: 0, finish_reason: null, message: { role: 'assistant', content: 'half' } }]),
  );
  assert.deepEqual(cut.issues, [
    'response: an event of the stream is not a JSON object: it was cut off or is not of this protocol',
    'response: the stream ended before the answer was complete',
  ]);
  const failed = mergeChatStream(
    `${delta('"content":"x"')}data: {"error":{"message":"key sk-123 is wrong","type":"server_error","code":null}}\n\n${DONE}`,
  );
  assert.deepEqual(failed.issues, ['response: the stream holds an error ("server_error")']);
  assert.deepEqual(mergeChatStream(': ping\n\n'), {
    message: undefined,
    issues: ['response: the stream holds no chunk of an answer'],
  });
});

test('however the lines of a stream end, and with comments between, the message is the same', () => {
  const text =
    delta('"role":"assistant","content":"a"') + delta('"content":"b"', '"stop"') + chunk('', ',"usage":{"n":1}') + DONE;
  const expected = mergeChatStream(text);
  for (const end of ['\r\n', '\r']) assert.deepEqual(mergeChatStream(text.replaceAll('\n', end)), expected);
  const commented = text.replaceAll('data: ', ': OPENROUTER PROCESSING\n\nid: 7\nretry: 3\ndata:').trimEnd();
  assert.deepEqual(mergeChatStream(`\uFEFF${commented}`), expected);
  const split = text.replaceAll('"choices"', '\ndata: "choices"');
  assert.deepEqual(mergeChatStream(split), expected);
});

test('a stream has at most so many choices, and as many calls of tools in each', () => {
  const many = Array.from({ length: LIMITS.parallel + 1 }, (_, at) => at);
  const choices = merged(many.map((at) => delta('"content":"x"', '"stop"', at)).join('') + DONE);
  assert.equal((choices.message as { choices: unknown[] }).choices.length, LIMITS.parallel);
  assert.deepEqual(choices.issues, [`response: of the choices the first ${LIMITS.parallel} are kept`]);
  const calls = delta(`"tool_calls":[${many.map((at) => `{"index":${at},"id":"c${at}"}`).join()}]`, '"tool_calls"');
  assert.deepEqual(merged(calls + DONE).issues, [
    `response: of the calls of tools the first ${LIMITS.parallel} are kept`,
  ]);
  const { message } = merged(calls + DONE) as { message: { choices: { message: { tool_calls: unknown[] } }[] } };
  assert.equal(message.choices[0]?.message.tool_calls.length, LIMITS.parallel);
});

test('any content, cut into any deltas, is whole again', () => {
  fc.assert(
    fc.property(fc.array(fc.string({ unit: 'binary' })), (parts) => {
      const text =
        parts.map((part) => delta(`"content":${JSON.stringify(part)}`)).join('') + delta('', '"stop"') + DONE;
      const { message } = merged(text) as { message: { choices: { message: { content: string | null } }[] } };
      assert.equal(message.choices[0]?.message.content, parts.length === 0 ? null : parts.join(''));
    }),
    { numRuns: 50 },
  );
});
