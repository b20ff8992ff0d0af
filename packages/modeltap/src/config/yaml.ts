import { readFile, stat } from 'node:fs/promises';
import { LineCounter, parseAllDocuments } from 'yaml';
import { errorText, systemCode } from '../kit/errors.ts';
import { ConfigError } from './issues.ts';
import { buildTree, type SourceEntry, type SourceMap, type SourceNode, type SourceScalar } from './source-tree.ts';
import type { ConfigIssue, SourcePlace } from './types.ts';

/** Largest file that is read as configuration. */
export const MAX_CONFIG_BYTES = 1024 ** 2;

/** Keys and list positions from the root down. */
export type KeyPath = readonly (string | number)[];

/** A number or boolean as written, kept with its text because `version: 1.10` must not become `1.1`. */
export class PlainScalar {
  readonly value: number | boolean;
  readonly text: string;

  constructor(value: number | boolean, text: string) {
    this.value = value;
    this.text = text;
  }
}

/** A YAML file that is one mapping, with the place of every key and value. */
export class SourceDocument {
  readonly file: string;
  readonly text: string;
  readonly root: SourceMap;
  readonly #lines: LineCounter;

  constructor(file: string, text: string, root: SourceMap, lines: LineCounter) {
    this.file = file;
    this.text = text;
    this.root = root;
    this.#lines = lines;
  }

  /** The same document with these top-level texts instead of what is written; their place is the start of the document. */
  with(texts: Readonly<Record<string, string | undefined>>): SourceDocument {
    const given = Object.entries(texts).filter((entry): entry is [string, string] => entry[1] !== undefined);
    if (given.length === 0) return this;
    const { offset } = this.root;
    const entries = given.map(([key, text]): [string, SourceEntry] => [
      key,
      { keyOffset: offset, node: { kind: 'scalar', offset, value: text, text, textOffset: undefined } },
    ]);
    const root: SourceMap = { ...this.root, entries: new Map([...this.root.entries, ...entries]) };
    return new SourceDocument(this.file, this.text, root, this.#lines);
  }

  /** The node at `path`, or undefined. */
  get(path: KeyPath): SourceNode | undefined {
    return path.length === 0 ? this.root : this.#entry(path)?.node;
  }

  /** The scalar at `path`, or undefined when there is none. */
  scalar(path: KeyPath): SourceScalar | undefined {
    const node = this.get(path);
    return node?.kind === 'scalar' ? node : undefined;
  }

  /** The keys of the mapping at `path`; none when it is not a mapping. */
  keys(path: KeyPath): readonly string[] {
    const node = this.get(path);
    return node?.kind === 'map' ? [...node.entries.keys()] : [];
  }

  /** Number of items of the list at `path`; 0 when it is not a list. */
  length(path: KeyPath): number {
    const node = this.get(path);
    return node?.kind === 'list' ? node.items.length : 0;
  }

  /** Where the value at `path` is written, `at` characters into its text; for a missing one, the place of what should hold it. */
  valuePlace(path: KeyPath, at = 0): SourcePlace {
    const node = this.get(path);
    if (node === undefined) return this.keyPlace(path.slice(0, -1));
    const exact = node.kind === 'scalar' ? node.textOffset : undefined;
    return this.placeAt(at > 0 && exact !== undefined ? exact + at : node.offset);
  }

  /** Where the last key of `path` is written; for a missing one, the place of what should hold it. */
  keyPlace(path: KeyPath): SourcePlace {
    for (let length = path.length; length > 0; length -= 1) {
      const entry = this.#entry(path.slice(0, length));
      if (entry !== undefined) return this.placeAt(entry.keyOffset);
    }
    return this.placeAt(this.root.offset);
  }

  placeAt(offset: number): SourcePlace {
    const { line, col } = this.#lines.linePos(offset);
    return { file: this.file, line: Math.max(1, line), column: Math.max(1, col) };
  }

  #entry(path: KeyPath): SourceEntry | undefined {
    let entry: SourceEntry = { keyOffset: this.root.offset, node: this.root };
    for (const step of path) {
      const { node } = entry;
      const next: SourceEntry | undefined =
        node.kind === 'map' ? node.entries.get(String(step)) : listEntry(node, step);
      if (next === undefined) return undefined;
      entry = next;
    }
    return entry;
  }
}

/** Reads a configuration file as text. Throws `ConfigError` when there is none or it is too large. */
export async function readConfigText(file: string): Promise<string> {
  try {
    const info = await stat(file);
    if (info.isDirectory()) throw fileProblem(file, 'is a folder; give a YAML file');
    if (info.size > MAX_CONFIG_BYTES) throw tooLarge(file);
    return await readFile(file, 'utf8');
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    const code = systemCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') throw fileProblem(file, 'there is no such file');
    if (code === 'EACCES' || code === 'EPERM') throw fileProblem(file, 'you have no right to read this file');
    throw fileProblem(file, `cannot be read: ${errorText(error)}`);
  }
}

/**
 * Parses YAML 1.2 text that must be one mapping. Throws `ConfigError` with every syntax error, duplicate key and
 * unknown tag, each with its place. `file` is only the name used in places.
 */
export function parseSource(text: string, file: string): SourceDocument {
  if (Buffer.byteLength(text) > MAX_CONFIG_BYTES) throw tooLarge(file);
  const clean = text.startsWith('\uFEFF') ? text.slice(1) : text;
  const nul = clean.indexOf('\0');
  const lines = new LineCounter();
  const issues: ConfigIssue[] = [];
  const report = (offset: number, message: string) => {
    const { line, col } = lines.linePos(offset);
    const place = { file, line: Math.max(1, line), column: Math.max(1, col) };
    issues.push({ severity: 'error', place, key: '', message });
  };
  const documents = parseDocuments(clean, file, lines);
  if (nul >= 0) report(nul, 'has a NUL character; a YAML file is text');
  const [document, second] = documents;
  if (document === undefined) throw fileProblem(file, 'is empty; it must be a mapping (key: value lines)');
  for (const each of documents) {
    for (const problem of [...each.errors, ...each.warnings]) report(problem.pos[0], sentence(problem.message));
  }
  if (second !== undefined) {
    report(
      second.contents?.range?.[0] ?? second.range[0],
      'a second YAML document begins here; a file may have only one',
    );
  }
  const tree = issues.length > 0 ? undefined : buildTree(document, clean, report);
  if (issues.length > 0) throw new ConfigError(issues);
  if (tree === undefined || (tree.kind === 'scalar' && tree.value === null)) {
    throw fileProblem(file, 'is empty; it must be a mapping (key: value lines)');
  }
  if (tree.kind !== 'map') {
    report(tree.offset, `must be a mapping (key: value lines), not ${tree.kind === 'list' ? 'a list' : 'one value'}`);
    throw new ConfigError(issues);
  }
  return new SourceDocument(file, clean, tree, lines);
}

/** A tree as plain data: mappings as objects, lists as arrays, numbers and booleans as `PlainScalar`. */
export function toInput(node: SourceNode): unknown {
  if (node.kind === 'list') return node.items.map(toInput);
  if (node.kind === 'map') {
    return Object.fromEntries([...node.entries].map(([key, entry]) => [key, toInput(entry.node)]));
  }
  const { value } = node;
  return typeof value === 'number' || typeof value === 'boolean' ? new PlainScalar(value, node.text) : value;
}

/** Takes the `PlainScalar`s out of what `toInput` made. */
export function toPlain(input: unknown): unknown {
  if (input instanceof PlainScalar) return input.value;
  if (Array.isArray(input)) return input.map(toPlain);
  if (typeof input !== 'object' || input === null) return input;
  return Object.fromEntries(Object.entries(input).map(([key, value]) => [key, toPlain(value)]));
}

function parseDocuments(text: string, file: string, lineCounter: LineCounter) {
  try {
    const documents = parseAllDocuments(text, {
      lineCounter,
      // Snippets of the file do not belong in error texts: the line may hold a secret.
      prettyErrors: false,
      // The library's own check takes time quadratic in the number of keys; the tree finds duplicates in one pass.
      uniqueKeys: false,
      resolveKnownTags: false,
      logLevel: 'silent',
    });
    return Array.isArray(documents) ? documents : [];
  } catch (error) {
    // Deep nesting can exhaust the stack of the parser, which is recursive.
    if (error instanceof RangeError) throw fileProblem(file, 'is nested too deeply to be read');
    throw error;
  }
}

function listEntry(node: SourceNode, step: string | number): SourceEntry | undefined {
  const item = node.kind === 'list' && typeof step === 'number' ? node.items[step] : undefined;
  return item && { keyOffset: item.offset, node: item };
}

function fileProblem(file: string, message: string): ConfigError {
  return new ConfigError([{ severity: 'error', place: { file, line: 1, column: 1 }, key: '', message }]);
}

function tooLarge(file: string): ConfigError {
  return fileProblem(
    file,
    `is larger than ${MAX_CONFIG_BYTES / 1024 ** 2} MiB, the most that is read as configuration`,
  );
}

function sentence(message: string): string {
  // The parser is recursive and reports its own exhausted stack as a syntax error.
  if (message.includes('call stack')) return 'is nested too deeply to be read';
  // What follows is from the file and may be a secret that begins with an exclamation mark.
  if (message.startsWith('Unresolved tag')) return 'tags (!name) are not read; quote text that begins with "!"';
  const line = message.split('\n')[0] ?? message;
  return `is not valid YAML: ${line}`;
}
