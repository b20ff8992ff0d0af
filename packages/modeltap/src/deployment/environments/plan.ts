import { ConfigError, formatIssues } from '../../config/issues.ts';
import type { CondaConfig, CondaPackage, ConfigIssue, EnvironmentConfig, SourcePlace } from '../../config/types.ts';
import { condaFate, normalName } from './conda-names.ts';
import { pipSpecifier } from './conda-version.ts';
import { isThere, type PipRequirement, readPipLine } from './pip-lines.ts';
import { isPythonVersion } from './python-version.ts';

/** The package that serves scoring scripts; Azure's inference images bring it. */
export const INFERENCE_SERVER = 'azureml-inference-server-http';

/** What to install for an environment, before an interpreter is chosen. Everything in it follows from the file alone. */
export interface RequirementPlan {
  /** As asked for; undefined: any. */
  readonly python: string | undefined;
  /** From conda's list and ours: lines for pip, in their order. */
  readonly packages: readonly string[];
  /** From the pip section, in its order, options included. */
  readonly pip: readonly PipRequirement[];
  /** Specifier of the pip that was asked for, e.g. `==23.*`; undefined: any. */
  readonly pipVersion: string | undefined;
  /** True when lines carry hashes: pip then wants one for every line, so the others are installed after them. */
  readonly hashed: boolean;
  /** For the user. */
  readonly warnings: readonly string[];
  /** For the build log. */
  readonly notes: readonly string[];
}

/**
 * Turns an environment into what pip has to install. Throws a `ConfigError` with every line that has no equivalent on
 * PyPI, each with its place and what to do.
 */
export function planRequirements(environment: EnvironmentConfig | undefined): RequirementPlan {
  const conda = environment?.conda;
  if (conda === undefined) return serverOnly(environment);
  const issues: ConfigIssue[] = [];
  if (conda.python !== undefined && !isPythonVersion(conda.python)) {
    const file = [...conda.packages, ...conda.pip][0]?.place.file ?? conda.directory;
    const message = `python ${conda.python}: this is not a version; write for example python=3.10`;
    issues.push(error({ file, line: 1, column: 1 }, message));
  }
  const pip = readPip(conda, issues);
  const named = new Set(pip.flatMap(({ name, constraint }) => (name === undefined || constraint ? [] : [name])));
  const packages = readPackages(conda, named, issues);
  const errors = issues.filter(({ severity }) => severity === 'error');
  if (errors.length > 0) throw new ConfigError(errors);
  const notes = [...packages.notes];
  const asked = (name: string) => named.has(name) || packages.names.has(name);
  const lines = [...packages.lines];
  if (!asked(INFERENCE_SERVER) && !asked('azureml-defaults')) {
    lines.push(INFERENCE_SERVER);
    notes.push(`${INFERENCE_SERVER} is added, as Azure's inference images bring it`);
  }
  return {
    python: conda.python,
    packages: lines,
    pip,
    pipVersion: packages.pipVersion,
    hashed: pip.some(
      ({ hashed, option, constraint }) => !constraint && (hashed || option?.name === '--require-hashes'),
    ),
    warnings: formatWarnings(issues),
    notes,
  };
}

function serverOnly(environment: EnvironmentConfig | undefined): RequirementPlan {
  return {
    python: undefined,
    packages: [INFERENCE_SERVER],
    pip: [],
    pipVersion: undefined,
    hashed: false,
    warnings: imageWarning(environment),
    notes: [`there is no conda_file: only ${INFERENCE_SERVER} and what it needs`],
  };
}

/** Only without a conda_file: with one, the deployment file has been warned about already. */
function imageWarning(environment: EnvironmentConfig | undefined): readonly string[] {
  if (environment?.image === undefined) return [];
  return [
    `the image ${environment.image} is not run here; packages come from conda_file, and there is none: only ${INFERENCE_SERVER} is installed`,
  ];
}

function readPip(conda: CondaConfig, issues: ConfigIssue[]): readonly PipRequirement[] {
  const list: PipRequirement[] = [];
  for (const { text, place, constraint } of conda.pip) {
    const requirement = readPipLine(text, conda.directory, constraint);
    if (requirement === undefined) continue;
    if (isThere(requirement)) list.push(requirement);
    else {
      const path = requirement.local?.path ?? text;
      issues.push(error(place, `${path} does not exist; a relative path begins at the folder of this file`, 'pip'));
    }
  }
  return list;
}

interface CondaPart {
  readonly lines: readonly string[];
  readonly names: ReadonlySet<string>;
  readonly pipVersion: string | undefined;
  readonly notes: readonly string[];
}

function readPackages(conda: CondaConfig, inPip: ReadonlySet<string>, issues: ConfigIssue[]): CondaPart {
  const lines: string[] = [];
  const names = new Set<string>();
  const notes: string[] = [];
  const dropped: CondaPackage[] = [];
  let pipVersion: string | undefined;
  for (const one of conda.packages) {
    const fate = condaFate(one.name);
    if (fate.kind === 'dropped') {
      dropped.push(one);
      continue;
    }
    if (fate.kind === 'refused') {
      issues.push(error(one.place, `${one.name} cannot be installed from PyPI. ${fate.fix}`));
      continue;
    }
    const version = pipSpecifier(one.version, one.build);
    if ('problem' in version) {
      issues.push(error(one.place, `${one.name}: ${version.problem}`));
      continue;
    }
    const name = normalName(fate.name.replace(/\[.*$/, ''));
    for (const note of [fate.note, version.note]) if (note !== undefined) notes.push(`${one.name}: ${note}`);
    if (name === 'pip') {
      pipVersion = version.specifier;
      continue;
    }
    if (inPip.has(name)) {
      issues.push(warning(one.place, `${one.name} is named by the pip section too, which wins`));
      continue;
    }
    names.add(name);
    lines.push(`${fate.name}${version.specifier}`);
  }
  if (dropped[0] !== undefined) issues.push(warning(dropped[0].place, droppedText(dropped)));
  return { lines, names, pipVersion, notes };
}

/** One warning for all of them: an exported environment names dozens. */
function droppedText(dropped: readonly CondaPackage[]): string {
  const list = dropped.map(({ name, place }) => `${name} (line ${place.line})`).join(', ');
  return `not installed, because they are not Python packages and packages of PyPI bring the libraries they need: ${list}`;
}

function error(place: SourcePlace, message: string, key = 'dependencies'): ConfigIssue {
  return { severity: 'error', place, key, message };
}

function warning(place: SourcePlace, message: string): ConfigIssue {
  return { severity: 'warning', place, key: 'dependencies', message };
}

function formatWarnings(issues: readonly ConfigIssue[]): readonly string[] {
  return issues.filter(({ severity }) => severity === 'warning').map((issue) => formatIssues([issue]));
}
