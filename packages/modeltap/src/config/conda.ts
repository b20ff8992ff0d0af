import { readFileSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { errorText, systemCode } from '../kit/errors.ts';
import { Findings, keyText } from './check.ts';
import { closest } from './closest.ts';
import { type CondaSpec, readCondaSpec } from './conda-spec.ts';
import { mustBe } from './fields.ts';
import { ConfigError } from './issues.ts';
import { PipSection, type WrittenLine } from './pip-lines.ts';
import type { CondaConfig, CondaPackage, PipLine } from './types.ts';
import { type KeyPath, MAX_CONFIG_BYTES, parseSource, toInput } from './yaml.ts';

const KEYS = ['name', 'channels', 'dependencies'];
/** What other known keys do elsewhere, and what to use here. */
const WITHOUT_EFFECT: Readonly<Record<string, string>> = {
  prefix: 'where an environment lies is decided here',
  variables: 'write environment_variables in the deployment',
  platforms: 'packages are installed for this machine',
};

/**
 * Reads what `conda_file` at `path` gives: a file named relative to `directory`, or a mapping in place. What is wrong goes
 * to `findings`, with the place in the file it stands in. Undefined when nothing can be read.
 */
export function readCondaFile(findings: Findings, path: KeyPath, directory: string): CondaConfig | undefined {
  const node = findings.document.get(path);
  if (node?.kind === 'map') return readConda(findings, path, directory);
  const name = findings.document.scalar(path)?.text.trim() ?? '';
  if (name === '') return undefined;
  const file = resolve(directory, name);
  const text = readText(file);
  if ('problem' in text) {
    findings.error(path, text.problem);
    return undefined;
  }
  try {
    const inner = new Findings(parseSource(text.text, file));
    const conda = readConda(inner, [], dirname(file));
    findings.include(inner.issues);
    return conda;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    findings.include(error.issues);
    return undefined;
  }
}

/** Blocking, like the other checks of files that a configuration names. */
function readText(file: string): { readonly text: string } | { readonly problem: string } {
  try {
    const info = file.includes('\0') ? undefined : statSync(file, { throwIfNoEntry: false });
    if (info === undefined) return { problem: `there is no file ${file}` };
    if (!info.isFile()) return { problem: `${file} is not a file; give a conda file in YAML` };
    if (info.size > MAX_CONFIG_BYTES) {
      return {
        problem: `${file} is larger than ${MAX_CONFIG_BYTES / 1024 ** 2} MiB, the most that is read as configuration`,
      };
    }
    return { text: readFileSync(file, 'utf8') };
  } catch (error) {
    return { problem: `${file} cannot be read: ${systemCode(error) ?? errorText(error)}` };
  }
}

function readConda(findings: Findings, base: KeyPath, directory: string): CondaConfig {
  const { document } = findings;
  const keys = document.keys(base);
  for (const key of keys) {
    if (KEYS.includes(key)) continue;
    const near = closest(key, KEYS);
    const why =
      WITHOUT_EFFECT[key] ?? (near === undefined ? 'it is not a key of conda files' : `did you mean "${near}"?`);
    findings.warning([...base, key], `has no effect in Modeltap: ${why}`);
  }
  const name = [...base, 'name'];
  if (keys.includes('name') && document.scalar(name) === undefined) {
    findings.error(name, mustBe('text', inputAt(findings, name)));
  }
  return {
    name: document.scalar(name)?.text || undefined,
    channels: readChannels(findings, [...base, 'channels']),
    ...readDependencies(findings, [...base, 'dependencies'], directory),
    directory,
  };
}

function readChannels(findings: Findings, path: KeyPath): readonly string[] {
  const { document } = findings;
  const node = document.get(path);
  if (node === undefined) return [];
  if (node.kind !== 'list') {
    findings.error(path, mustBe('a list of channels', inputAt(findings, path)));
    return [];
  }
  return node.items.flatMap((item, index) => {
    if (item.kind === 'scalar' && item.text.trim() !== '') return [item.text.trim()];
    findings.error([...path, index], mustBe('the name of a channel', toInput(item)));
    return [];
  });
}

/** The parts of `CondaConfig` that come from `dependencies`. */
interface Dependencies {
  readonly python: string | undefined;
  readonly packages: readonly CondaPackage[];
  readonly pip: readonly PipLine[];
}

function readDependencies(findings: Findings, path: KeyPath, directory: string): Dependencies {
  const { document } = findings;
  const node = document.get(path);
  const packages: CondaPackage[] = [];
  const pythons: CondaPackage[] = [];
  const pip: PipLine[] = [];
  if (node === undefined) {
    findings.error(path, 'is required: a list such as [python=3.10, pip, {pip: [azureml-defaults]}]');
  } else if (node.kind !== 'list') {
    findings.error(path, mustBe('a list', inputAt(findings, path)));
  }
  let section: KeyPath | undefined;
  for (let index = 0; index < document.length(path); index += 1) {
    const here = [...path, index];
    if (document.get(here)?.kind === 'map') {
      const found = pipSection(findings, here, section);
      if (found !== undefined) pip.push(...readPip(findings, found, directory));
      section ??= found;
      continue;
    }
    const spec = readSpec(findings, here);
    if (spec === undefined) continue;
    const entry = { ...spec, place: document.valuePlace(here) };
    if (spec.name === 'python') {
      if (pythons.length > 0) findings.error(here, 'asks for python a second time; keep one of them');
      if (/[|!]/.test(spec.version.replaceAll('!=', '')))
        findings.error(here, `must be one version of python or a range such as >=3.9,<3.12, not "${spec.version}"`);
      pythons.push(entry);
    } else if (spec.name !== 'pip' || spec.version !== '') packages.push(entry);
  }
  return { python: pythons[0]?.version || undefined, packages, pip };
}

function readSpec(findings: Findings, path: KeyPath): CondaSpec | undefined {
  const text = findings.document.scalar(path)?.text ?? '';
  if (text.trim() === '') {
    findings.error(path, mustBe('text such as numpy=1.26, or a mapping with the key pip', inputAt(findings, path)));
    return undefined;
  }
  const reading = readCondaSpec(text);
  if (reading.ok) return reading.value;
  findings.error(path, reading.problem, reading.at);
  return undefined;
}

/** The path of the list in a `pip:` mapping; undefined when the mapping is something else, which is reported. */
function pipSection(findings: Findings, path: KeyPath, earlier: KeyPath | undefined): KeyPath | undefined {
  const { document } = findings;
  const list = [...path, 'pip'];
  for (const key of document.keys(path)) {
    if (key !== 'pip') {
      findings.error(
        [...path, key],
        'is not a key that can stand here; a mapping in dependencies has the one key pip',
        'key',
      );
    }
  }
  if (document.get(list) === undefined) {
    if (document.keys(path).length === 0)
      findings.error(path, 'must be text such as numpy=1.26, or a mapping with the key pip');
    return undefined;
  }
  if (earlier !== undefined) {
    findings.error(list, 'is written a second time; put all lines of pip under one key', 'key');
    return undefined;
  }
  if (document.get(list)?.kind === 'list') return list;
  findings.error(list, mustBe('a list of lines for pip', inputAt(findings, list)));
  return undefined;
}

function readPip(findings: Findings, path: KeyPath, directory: string): readonly PipLine[] {
  const { document } = findings;
  const written: WrittenLine[] = [];
  for (let index = 0; index < document.length(path); index += 1) {
    const here = [...path, index];
    const scalar = document.scalar(here);
    if (scalar === undefined || typeof scalar.value !== 'string') {
      findings.error(here, mustBe('a line for pip such as pandas==2.2.3', inputAt(findings, here)));
      continue;
    }
    const place = document.placeAt(scalar.textOffset ?? scalar.offset);
    for (const text of scalar.value.split('\n')) written.push({ text, place });
  }
  const section = new PipSection(keyText(path));
  const lines = section.read(written, directory);
  findings.include(section.issues);
  return lines;
}

function inputAt(findings: Findings, path: KeyPath): unknown {
  const node = findings.document.get(path);
  return node === undefined ? undefined : toInput(node);
}
