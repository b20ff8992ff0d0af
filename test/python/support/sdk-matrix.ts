import { publishedVersions } from './available.ts';
import { type Interpreter, interpreters } from './interpreters.ts';
import { makeVenv, type Venv, type VenvResult } from './venv.ts';

/** A line of pandas releases the SDK is tested with. */
export interface PandasLine {
  readonly name: '1.5' | '2' | '3';
  readonly requirements: readonly string[];
  /** Minor versions of Python 3 that have its wheels, the preferred one first: together the lines cover old and new ones. */
  readonly minors: readonly number[];
}

/** The lines, oldest first. */
export const PANDAS_LINES: readonly PandasLine[] = [
  { name: '1.5', requirements: ['pandas==1.5.*', 'numpy<2'], minors: [10, 9, 11] },
  { name: '2', requirements: ['pandas>=2,<3'], minors: [12, 11, 10, 9, 13, 14] },
  { name: '3', requirements: ['pandas>=3,<4'], minors: [13, 12, 11, 14] },
];

/** Combinations that installed when this was written, on the versions of Python that `minors` prefers. */
export const MUST_INSTALL: Readonly<Record<string, readonly PandasLine['name'][]>> = {
  '1.0.0': ['1.5', '2', '3'],
  '0.1.0b4': ['1.5', '2', '3'],
  '0.1.0b3': ['1.5', '2', '3'],
  '0.1.0b2': ['1.5', '2', '3'],
  '0.1.0b1': ['1.5', '2', '3'],
};

/** One version of the SDK with one line of pandas. */
export interface Combination {
  readonly sdk: string;
  readonly pandas: PandasLine;
  /** Undefined when no Python here has wheels of this pandas. */
  readonly interpreter: Interpreter | undefined;
  readonly result: VenvResult;
}

/** Every published version of the SDK, newest first, or what pip said. */
export function publishedSdks(): Promise<readonly string[] | string> {
  return publishedVersions('azureml-ai-monitoring');
}

const bases = new Map<string, Promise<VenvResult>>();

async function baseOf(pandas: PandasLine, interpreter: Interpreter): Promise<VenvResult> {
  const made = bases.get(pandas.name) ?? makeVenv({ interpreter, requirements: pandas.requirements });
  bases.set(pandas.name, made);
  return made;
}

/** Installs one combination, or finds out why it does not install. */
export async function combination(sdk: string, pandas: PandasLine): Promise<Combination> {
  const found = await interpreters();
  const [interpreter] = pandas.minors.flatMap((minor) => found.filter((one) => one.minor === minor));
  if (interpreter === undefined) {
    const wanted = pandas.minors.map((minor) => `3.${minor}`).join(', ');
    return { sdk, pandas, interpreter, result: { problem: `needs one of Python ${wanted}` } };
  }
  const base = await baseOf(pandas, interpreter);
  if ('problem' in base) return { sdk, pandas, interpreter, result: base };
  // The line of pandas again, so that pip says no instead of replacing it.
  const requirements = [`azureml-ai-monitoring==${sdk}`, ...pandas.requirements];
  return { sdk, pandas, interpreter, result: await makeVenv({ interpreter, requirements, base: base.venv }) };
}

/** The environment of a combination, or undefined when it did not install. */
export function venvOf({ result }: Combination): Venv | undefined {
  return 'venv' in result ? result.venv : undefined;
}

/** Each published version of the SDK, newest first, with the newest pandas it installs with here. */
export async function newestPandas(): Promise<ReadonlyMap<string, Venv>> {
  const found = new Map<string, Venv>();
  const published = await publishedSdks();
  for (const sdk of typeof published === 'string' ? [] : published) {
    for (const pandas of PANDAS_LINES.toReversed()) {
      const venv = found.get(sdk) ?? venvOf(await combination(sdk, pandas));
      if (venv !== undefined) found.set(sdk, venv);
    }
  }
  return found;
}
