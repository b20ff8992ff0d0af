import { type Document, isAlias, isMap, isPair, isScalar, isSeq, type Node, type Pair, type Scalar } from 'yaml';

/** A value of a YAML file with the place it was written at. Aliases lead to the node of their anchor. */
export type SourceNode = SourceMap | SourceList | SourceScalar;

/** A mapping. Offsets are UTF-16 units from the start of the text. */
export interface SourceMap {
  readonly kind: 'map';
  readonly offset: number;
  readonly entries: ReadonlyMap<string, SourceEntry>;
}

/** One key of a mapping. */
export interface SourceEntry {
  readonly keyOffset: number;
  readonly node: SourceNode;
}

/** A list. */
export interface SourceList {
  readonly kind: 'list';
  readonly offset: number;
  readonly items: readonly SourceNode[];
}

/** Text, a number, true, false or nothing. */
export interface SourceScalar {
  readonly kind: 'scalar';
  readonly offset: number;
  /** Undefined where nothing was written (`key:`). */
  readonly value: string | number | boolean | null;
  /** As written, without quotes: `1.10` stays `1.10` where `value` is 1.1. */
  readonly text: string;
  /** Offset of the first character of `text` when it stands in the file as it is (no escapes, one line). */
  readonly textOffset: number | undefined;
}

/** Told about everything that a tree cannot hold. */
export type TreeProblem = (offset: number, message: string) => void;

/** Levels of nesting; the files read here have at most six. */
const MAX_DEPTH = 64;
/** Nodes after every alias is followed, so that nested aliases cannot make a short file huge ("billion laughs"). */
const MAX_NODES = 50_000;

/** Turns a parsed document into a tree. Duplicate keys, keys that are not text, endless aliases and too many nodes are reported. */
export function buildTree(document: Document, text: string, report: TreeProblem): SourceNode | undefined {
  const builder = new TreeBuilder(text, report);
  const root = document.contents === null ? undefined : builder.build(document.contents, 0);
  if (root !== undefined && expandedNodes(root, new Map()) > MAX_NODES) {
    report(root.offset, `has more than ${MAX_NODES} values (what aliases stand for counts each time)`);
    return undefined;
  }
  return root;
}

class TreeBuilder {
  readonly #text: string;
  readonly #report: TreeProblem;
  readonly #built = new Map<Node, SourceNode>();
  readonly #open = new Set<Node>();
  /** Filled in the order of the text, so an alias finds the nearest anchor before it. */
  readonly #anchors = new Map<string, Node>();

  constructor(text: string, report: TreeProblem) {
    this.#text = text;
    this.#report = report;
  }

  build(node: Node, depth: number): SourceNode {
    const known = this.#built.get(node);
    if (known) return known;
    const offset = offsetOf(node);
    if (depth > MAX_DEPTH) {
      this.#report(offset, `is nested more than ${MAX_DEPTH} levels deep`);
      return emptyScalar(offset);
    }
    if (this.#open.has(node)) {
      this.#report(offset, 'contains itself through an alias');
      return emptyScalar(offset);
    }
    this.#open.add(node);
    if (!isAlias(node) && node.anchor !== undefined) this.#anchors.set(node.anchor, node);
    const built = this.#buildNew(node, offset, depth);
    this.#open.delete(node);
    this.#built.set(node, built);
    return built;
  }

  #buildNew(node: Node, offset: number, depth: number): SourceNode {
    if (isAlias(node)) {
      const target = this.#anchors.get(node.source);
      if (target !== undefined) return this.build(target, depth);
      this.#report(offset, 'an alias (*name) has no anchor (&name) before it; quote text that begins with an asterisk');
      return emptyScalar(offset);
    }
    if (isMap(node)) return { kind: 'map', offset, entries: this.#entries(node.items, depth) };
    if (isSeq(node)) {
      const items = node.items.map((item) =>
        isPair(item)
          ? ({ kind: 'map', offset, entries: this.#entries([item], depth) } as const)
          : this.build(item as Node, depth + 1),
      );
      return { kind: 'list', offset, items };
    }
    return isScalar(node) ? this.#scalar(node, offset) : emptyScalar(offset);
  }

  #entries(pairs: readonly Pair[], depth: number): ReadonlyMap<string, SourceEntry> {
    const entries = new Map<string, SourceEntry>();
    const merged: SourceMap[] = [];
    for (const pair of pairs) {
      const key = isScalar(pair.key) ? this.#scalar(pair.key, offsetOf(pair.key)) : undefined;
      const keyOffset = offsetOf(pair.key as Node | null);
      if (isScalar(pair.key) && pair.key.anchor !== undefined) this.#anchors.set(pair.key.anchor, pair.key);
      if (key === undefined || key.value === null) {
        this.#report(keyOffset, 'a key must be plain text');
        continue;
      }
      const value = pair.value === null ? emptyScalar(keyOffset) : this.build(pair.value as Node, depth + 1);
      if (key.text === '<<') merged.push(...this.#mergeSources(value));
      else if (key.text === '__proto__') this.#report(keyOffset, 'a key must not be "__proto__"');
      else if (entries.has(key.text))
        this.#report(keyOffset, `the key "${key.text}" is written twice; keep one of them`);
      else entries.set(key.text, { keyOffset, node: isWritten(value) ? value : { ...value, offset: keyOffset } });
    }
    // Keys written here win over merged ones, and of those the first source wins.
    for (const source of merged) {
      for (const [name, entry] of source.entries) if (!entries.has(name)) entries.set(name, entry);
    }
    return entries;
  }

  #mergeSources(value: SourceNode): readonly SourceMap[] {
    const sources = value.kind === 'list' ? value.items : [value];
    return sources.filter((source) => {
      if (source.kind === 'map') return true;
      this.#report(source.offset, '"<<" takes a mapping, or a list of mappings');
      return false;
    }) as readonly SourceMap[];
  }

  #scalar(node: Scalar, offset: number): SourceScalar {
    const value = scalarValue(node);
    const text = typeof value === 'string' ? value : (node.source ?? '');
    const at = offset + (node.type === 'QUOTE_DOUBLE' || node.type === 'QUOTE_SINGLE' ? 1 : 0);
    return { kind: 'scalar', offset, value, text, textOffset: this.#text.startsWith(text, at) ? at : undefined };
  }
}

function scalarValue(node: Scalar): SourceScalar['value'] {
  const { value } = node;
  if (typeof value === 'string' || typeof value === 'boolean' || typeof value === 'number') return value;
  return typeof value === 'bigint' ? Number(value) : null;
}

function isWritten(node: SourceNode): boolean {
  return node.kind !== 'scalar' || node.value !== null || node.text !== '';
}

function emptyScalar(offset: number): SourceScalar {
  return { kind: 'scalar', offset, value: null, text: '', textOffset: undefined };
}

function offsetOf(node: Node | null | undefined): number {
  return node?.range?.[0] ?? 0;
}

function expandedNodes(node: SourceNode, known: Map<SourceNode, number>): number {
  const seen = known.get(node);
  if (seen !== undefined) return seen;
  let count = 1;
  if (node.kind === 'list') for (const item of node.items) count += expandedNodes(item, known);
  if (node.kind === 'map') for (const entry of node.entries.values()) count += expandedNodes(entry.node, known);
  known.set(node, count);
  return count;
}
