import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openai } from './openai.ts';
import { exchangeOf, inputsOf, message, outputsOf } from './support.test-suite.ts';

const CHAT = '/v1/chat/completions';
const inputs = (body: string, path = CHAT) => inputsOf(openai, path, body);
const outputs = (body: string, path = CHAT) => outputsOf(openai, path, body);
/** The only row, as a value. */
const row = (rows: string | readonly string[]) => (JSON.parse(String(rows)) as object[])[0];

test('it takes the four operations under the paths of OpenAI and Azure, and nothing else', () => {
  const matches = (path: string) => openai.matches(exchangeOf(path, '{}'));
  for (const path of [
    CHAT,
    '/v1/completions?x=1',
    '/api/v1/embeddings',
    '/v1/responses/',
    '/openai/deployments/gpt/chat/completions?api-version=2024-10-21',
    '/openai/responses',
  ]) {
    assert.ok(matches(path), path);
  }
  for (const path of ['/v1/models', '/v1/responses/r-1', '/chat/completions', '/v1/chat'])
    assert.ok(!matches(path), path);
});

test('a chat is one row in and one a choice out; usage is in the first only', () => {
  assert.equal(
    inputs(
      '{"messages": [{"role": "user", "content": "2 > 1.0?"}], "model": "m", "temperature": 0.70, "seed": 9007199254740993}',
    ),
    '[{"model":"m","messages":"[{\\"role\\":\\"user\\",\\"content\\":\\"2 > 1.0?\\"}]","temperature":0.70,"seed":9007199254740993}]',
  );
  const choice = (index: number, content: string, more = '') =>
    `{"index": ${index}, "message": {"role": "assistant", "content": ${content}${more}}, "finish_reason": "stop"}`;
  const calls = ', "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]';
  const usage = '{"prompt_tokens": 3, "total_tokens": 5, "prompt_tokens_details": {"cached_tokens": 1.0}}';
  assert.equal(
    outputs(
      `{"id": "c", "model": "m", "choices": [${choice(0, '"hi"')}, ${choice(1, 'null', calls)}], "usage": ${usage}}`,
    ),
    '[{"id":"c","model":"m","index":0,"role":"assistant","content":"hi","finish_reason":"stop","usage.prompt_tokens":3,' +
      '"usage.total_tokens":5,"usage.prompt_tokens_details.cached_tokens":1.0},' +
      '{"id":"c","model":"m","index":1,"role":"assistant","content":null,' +
      '"tool_calls":"[{\\"id\\":\\"a\\",\\"function\\":{\\"name\\":\\"f\\",\\"arguments\\":\\"{}\\"}}]","finish_reason":"stop"}]',
  );
});

test('a streamed answer has the row of the same answer not streamed, and says when it was cut', () => {
  const chunk = (rest: string) => `data: {"id":"c","model":"m","object":"chat.completion.chunk",${rest}}\n\n`;
  const chunks =
    chunk('"choices":[{"index":0,"delta":{"role":"assistant","content":"h"},"finish_reason":null}]') +
    chunk('"choices":[{"index":0,"delta":{"content":"i"},"finish_reason":"stop"}]') +
    chunk('"choices":[],"usage":{"total_tokens":5}');
  const whole =
    '{"id":"c","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"total_tokens":5}}';
  const streamed = message(`${chunks}data: [DONE]\n\n`, 'text/event-stream; charset=utf-8');
  assert.equal(outputsOf(openai, CHAT, streamed), outputs(whole));
  const cut = message(chunks.slice(0, chunks.indexOf('\n\n') + 20), 'text/event-stream');
  const { issues } = openai.decode(exchangeOf(CHAT, '{}', cut));
  assert.ok(issues.includes('response: the stream ended before the answer was complete'), issues.join('; '));
});

test('plain completions have their text as content', () => {
  assert.equal(
    inputs('{"model": "m", "prompt": "a", "max_tokens": 4}', '/v1/completions'),
    '[{"model":"m","prompt":"a","max_tokens":4}]',
  );
  assert.equal(
    outputs(
      '{"id": "t", "model": "m", "choices": [{"text": "b", "index": 0, "finish_reason": "length"}]}',
      '/v1/completions',
    ),
    '[{"id":"t","model":"m","index":0,"content":"b","finish_reason":"length"}]',
  );
});

test('each input of an embedding is a row, and each vector too', () => {
  const path = '/v1/embeddings';
  assert.equal(
    inputs('{"input": ["a", "b"], "model": "e", "dimensions": 2}', path),
    '[{"model":"e","input":"a","dimensions":2},{"model":"e","input":"b","dimensions":2}]',
  );
  assert.equal(inputs('{"input": [1, 2], "model": "e"}', path), '[{"model":"e","input":"[1,2]"}]');
  assert.equal(inputs('{"input": "a", "model": "e"}', path), '[{"model":"e","input":"a"}]');
  assert.equal(
    outputs(
      '{"model": "e", "data": [{"index": 0, "embedding": [0.10, 1e-9]}, {"index": 1, "embedding": "AA=="}], "usage": {"total_tokens": 2}}',
      path,
    ),
    '[{"model":"e","index":0,"embedding":[0.10,1e-9],"usage.total_tokens":2},{"model":"e","index":1,"embedding":"AA=="}]',
  );
});

test('an answer of the Responses API is one row', () => {
  const output = [
    '{"type": "reasoning", "id": "x", "summary": []}',
    '{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a\\n"}, {"type": "output_text", "text": "b"}]}',
    '{"type": "function_call", "name": "f", "arguments": "{}"}',
    '{"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}',
  ];
  const body = `{"id": "r", "model": "m", "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": [${output.join(',')}], "usage": {"input_tokens": 3}}`;
  assert.deepEqual(row(outputs(body, '/v1/responses')), {
    id: 'r',
    model: 'm',
    role: 'assistant',
    content: 'a\nb',
    refusal: 'no',
    tool_calls: '[{"type":"function_call","name":"f","arguments":"{}"}]',
    status: 'incomplete',
    finish_reason: 'max_output_tokens',
    'usage.input_tokens': 3,
  });
});

test('bodies of another form are refused with what was expected', () => {
  assert.deepEqual(inputs('[1]'), ['request: the body is not an object']);
  assert.deepEqual(outputs('{"id": "c"}'), ['response: choices is missing or not a list']);
  assert.deepEqual(outputs('{"data": {}}', '/v1/embeddings'), ['response: data is missing or not a list']);
  assert.deepEqual(outputs('[]', '/v1/responses'), ['response: output is missing or not a list']);
});
