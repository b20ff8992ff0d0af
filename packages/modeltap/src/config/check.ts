import type { z } from 'zod';
import { ConfigError, sortIssues } from './issues.ts';
import type { ConfigIssue, Loaded } from './types.ts';
import { type KeyPath, type SourceDocument, toInput } from './yaml.ts';

/** One key of a file. `<name>` stands for any key, `[]` for any item of a list. */
export interface KeyRow {
  readonly key: string;
  /** `honoured`: does what Azure ML's does. `silent`: accepted, needs no effect. `warning`: accepted, no effect, said so. `refused`: an error that says what to use instead. */
  readonly effect: 'honoured' | 'silent' | 'warning' | 'refused';
  readonly note: string;
}

/** Everything found wrong or noteworthy in one file. */
export class Findings {
  readonly document: SourceDocument;
  readonly #issues: ConfigIssue[] = [];
  /** Of files that this one names; shown behind its own. */
  readonly #named: ConfigIssue[] = [];

  constructor(document: SourceDocument) {
    this.document = document;
  }

  /** At the value; `at` counts characters into its text, `'key'` means the key itself. */
  error(path: KeyPath, message: string, at: number | 'key' = 0): void {
    this.#add('error', path, message, at);
  }

  /** At the key. */
  warning(path: KeyPath, message: string): void {
    this.#add('warning', path, message, 'key');
  }

  /** Takes over what was found in a file that this one names. */
  include(issues: readonly ConfigIssue[]): void {
    this.#named.push(...issues);
  }

  /** Everything found so far: this file's first, then that of the files it names. */
  get issues(): readonly ConfigIssue[] {
    return [...this.#issues, ...this.#named];
  }

  /** Throws `ConfigError` when there is an error; else gives the warnings in the order of the file. */
  settle(): readonly ConfigIssue[] {
    const { issues } = this;
    if (issues.some((issue) => issue.severity === 'error')) throw new ConfigError(issues);
    return sortIssues(issues);
  }

  #add(severity: ConfigIssue['severity'], path: KeyPath, message: string, at: number | 'key'): void {
    const place = at === 'key' ? this.document.keyPlace(path) : this.document.valuePlace(path, at);
    this.#issues.push({ severity, place, key: keyText(path), message });
  }
}

/** What makes a checked value from a file. */
export interface Reader<S extends z.ZodType, T> {
  readonly schema: S;
  readonly keys: readonly KeyRow[];
  /** Rules the schema cannot express. Runs also when the schema failed, so it reads the document, not the result. */
  check(findings: Findings): void;
  /** Only called when there is no error. */
  build(raw: z.output<S>, document: SourceDocument): T;
}

/**
 * Runs every rule over a document and gives the checked value, or throws `ConfigError` with everything found.
 * `overrides` win over its top-level keys.
 */
export function readConfig<S extends z.ZodType, T>(
  reader: Reader<S, T>,
  document: SourceDocument,
  overrides: Readonly<Record<string, string | undefined>> = {},
): Loaded<T> {
  const findings = new Findings(document.with(overrides));
  const parsed = reader.schema.safeParse(toInput(findings.document.root));
  for (const issue of parsed.error?.issues ?? []) {
    const at: unknown = issue.code === 'custom' ? issue.params?.['at'] : undefined;
    findings.error(issue.path as KeyPath, issue.message, typeof at === 'number' || at === 'key' ? at : 0);
  }
  reader.check(findings);
  for (const row of reader.keys) {
    const path = row.effect === 'warning' ? findKey(findings.document, row.key) : undefined;
    if (path !== undefined) findings.warning(path, `has no effect in Modeltap: ${row.note}`);
  }
  const warnings = findings.settle();
  // `settle` has thrown when the schema found anything.
  return { value: reader.build(parsed.data as z.output<S>, findings.document), warnings, text: document.text };
}

/** `data_collector.collections.model_inputs.enabled`, `deployments[0].port`. */
export function keyText(path: KeyPath): string {
  return path.reduce<string>((text, step) => {
    if (typeof step === 'number') return `${text}[${step}]`;
    const shown = /[\s\p{C}]/u.test(step) ? JSON.stringify(step) : step;
    return text === '' ? shown : `${text}.${shown}`;
  }, '');
}

/** The first place in the document that a key of a table names. */
function findKey(document: SourceDocument, key: string): KeyPath | undefined {
  let paths: KeyPath[] = [[]];
  for (const step of key.split(/\.|(?=\[\])/)) {
    paths = paths.flatMap((path) => children(document, path, step));
  }
  return paths[0];
}

function children(document: SourceDocument, path: KeyPath, step: string): KeyPath[] {
  if (step === '[]') return Array.from({ length: document.length(path) }, (_, index) => [...path, index]);
  const keys = document.keys(path);
  return keys.filter((key) => step.startsWith('<') || key === step).map((key) => [...path, key]);
}
