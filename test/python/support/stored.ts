import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Recording } from './recorder.ts';

/** What the agent of these tests names as the deployment. */
export const SOURCE =
  '/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/modeltap/providers/Microsoft.MachineLearningServices/workspaces/modeltap/onlineEndpoints/iris/deployments/blue';

/** The prefix of all lines: fixed keys up to the id, which the agent makes. */
const LINE_START = /^\{"specversion":"1\.0","id":"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})",/;

/** The stored lines of a collection, as bytes without the line feed. */
export function storedLines(store: string, collection: string): Buffer[] {
  return globSync(join(store, `modelDataCollector/iris/blue/${collection}/**/*.jsonl`)).flatMap((file) => {
    const bytes = readFileSync(file);
    const lines: Buffer[] = [];
    for (let from = 0; from < bytes.length; ) {
      const end = bytes.indexOf(0x0a, from);
      assert.notEqual(end, -1, `${file} does not end with a line break`);
      lines.push(bytes.subarray(from, end));
      from = end + 1;
    }
    return lines;
  });
}

/** `<`, `>` and `&` as Azure's agent writes them; nothing else may differ from what was sent. */
function escaped(body: Buffer): string {
  const names: Readonly<Record<string, string>> = { '<': '\\u003c', '>': '\\u003e', '&': '\\u0026' };
  return body.toString('latin1').replace(/[<>&]/g, (character) => names[character] ?? '');
}

/** JSON text of a header's value: Latin-1 on the wire, UTF-8 in the file; given as the characters of its bytes. */
function quoted(text: string): string {
  return Buffer.from(JSON.stringify(text), 'utf8').toString('latin1');
}

/** What stands for the body in a line. */
export type Body =
  | 'inline'
  /** An array too long for a line, in an object beside: `dataref`. */
  | 'reference'
  /** Bytes that are not JSON: `data` is the address of an object. */
  | 'blob';

/**
 * Compares the stored line of a recorded request, byte for byte, with what the description of the wire and of the files says
 * about it; nothing of the agent's own code is used. `extensions`: the members at the end of the line, as text.
 */
export function assertStored(store: string, sent: Recording, options: { body?: Body; extensions?: string } = {}): void {
  const type = sent.headers.get('ce-type') ?? '';
  const collection = type.replace('azureml.inference.', '').toLowerCase();
  const id = sent.headers.get('ce-x-request-id') ?? '';
  const member = `"correlationid":${quoted(id)},`;
  const lines = storedLines(store, collection).filter((line) => line.includes(Buffer.from(member, 'latin1')));
  assert.equal(lines.length, 1, `${collection} ${id}: one line for one request`);
  const line = (lines[0] as Buffer).toString('latin1');
  assert.match(line, LINE_START);
  const blob = options.body === 'blob';
  const time = new Date(Number(sent.headers.get('ce-time')) * 1000).toISOString().replace(/\.\d+Z$/, 'Z');
  const bytes = sent.body.length;
  const before =
    `"source":${quoted(SOURCE)},"type":${quoted(type)},` +
    `"datacontenttype":"${blob ? 'text/plain' : 'application/json'}","time":"${time}",`;
  const header = (name: string) => quoted(sent.headers.get(name) ?? '');
  const after =
    `,"contentrange":"bytes 0-${bytes - 1}/${bytes}","correlationid":${quoted(id)},"xrequestid":${quoted(id)},` +
    `"modelversion":${header('ce-model-version')},"collectdatatype":${header('ce-collect-data-type')},` +
    `"agent":${header('ce-agent')}${options.extensions ?? ''}`;
  const rest = line.replace(LINE_START, '');
  if (options.body === undefined || options.body === 'inline') {
    // Not assert.equal: its message would repeat megabytes.
    const expected = `${before}"data":${escaped(sent.body)}${after}}`;
    assert.ok(rest === expected, `stored ${excerpt(rest, expected)}`);
    return;
  }
  const name = blob ? 'data' : 'dataref';
  const address = new RegExp(`"${name}":"([^"]+)"`).exec(rest)?.[1] ?? '';
  const tail = blob ? `,"datainblob":"true","dataref":"${address}"` : '';
  assert.equal(rest, `${before}"${name}":"${address}"${after}${tail}}`);
  assert.ok(address.startsWith(join(store, `modelDataCollector/iris/blue/${collection}/`)), address);
  assert.ok(readFileSync(address).equals(sent.body), `${address} holds other bytes than were sent`);
}

/** The first place where two texts differ. */
function excerpt(actual: string, expected: string): string {
  let at = 0;
  while (at < actual.length && actual[at] === expected[at]) at += 1;
  const part = (text: string) => text.slice(Math.max(0, at - 60), at + 60);
  return `…${part(actual)}… instead of …${part(expected)}… at byte ${at}`;
}
