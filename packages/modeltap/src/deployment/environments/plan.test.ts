import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import fc from 'fast-check';
import type { CondaConfig, CondaPackage, EnvironmentConfig } from '../../config/types.ts';
import { fingerprint } from './fingerprint.ts';
import { planRequirements } from './plan.ts';

const folder = mkdtempSync(join(tmpdir(), 'modeltap-plan-'));
after(() => rmSync(folder, { recursive: true }));

const place = (line: number) => ({ file: 'conda.yml', line, column: 5 });

/** `numpy=1.26` and the like; the place of the n-th is line n. */
function conda(packages: readonly string[], pip: readonly string[] = [], python?: string): EnvironmentConfig {
  const read = (text: string, index: number): CondaPackage => {
    const [, name = '', version = '', build] = /^([\w.-]+)\s*((?:[=<>!~]=?)?[^=]*)(?:=(.+))?$/.exec(text) ?? [];
    return { name, version, place: place(index + 1), ...(build === undefined ? {} : { build }) };
  };
  const config: CondaConfig = {
    name: 'x',
    channels: [],
    python,
    packages: packages.map(read),
    pip: pip.map((text, index) => ({ text, place: place(100 + index) })),
    directory: folder,
  };
  return environment({ conda: config });
}

function environment(given: Partial<EnvironmentConfig>): EnvironmentConfig {
  const empty = { name: undefined, version: undefined, image: undefined, conda: undefined, inferenceConfig: undefined };
  return { ...empty, description: '', tags: {}, ...given };
}

const lines = (packages: readonly string[]) =>
  planRequirements(conda(packages)).packages.filter((line) => line !== 'azureml-inference-server-http');
const refused = (config: EnvironmentConfig) => {
  try {
    planRequirements(config);
  } catch (error) {
    return error instanceof Error ? error.message.split('\n').slice(1) : [];
  }
  return assert.fail('nothing was refused');
};

describe('versions of conda', () => {
  for (const [written, wanted] of [
    ['numpy', 'numpy'],
    ['numpy=1.26', 'numpy==1.26.*'],
    ['numpy=1.26.4', 'numpy==1.26.4.*'],
    ['numpy==1.26.4', 'numpy==1.26.4'],
    ['numpy=1.26.*', 'numpy==1.26.*'],
    ['numpy==1.26.*', 'numpy==1.26.*'],
    ['numpy 1.26.*', 'numpy==1.26.*'],
    ['numpy 1.26.4', 'numpy==1.26.4'],
    ['numpy=1.2*', 'numpy==1.2.*'],
    ['numpy=*', 'numpy'],
    ['numpy>=1.20,<2', 'numpy>=1.20,<2'],
    ['numpy >=1.20, <2.*', 'numpy>=1.20,<2'],
    ['numpy!=1.25.*', 'numpy!=1.25.*'],
    ['numpy=1.26.4=py310h5f9d8c6_0', 'numpy==1.26.4'],
    ['numpy=2.0.0rc1', 'numpy==2.0.0rc1'],
    ['pytorch=2.1=*cpu*', 'torch==2.1'],
  ] as const) {
    test(`${written} is ${wanted}`, () => assert.deepEqual(lines([written]), [wanted]));
  }

  test('what pip has no form for is refused with its place', () => {
    assert.deepEqual(refused(conda(['numpy', 'pandas=1.5|2.0', 'openssl-tool=1.1.1k'])), [
      'conda.yml:2:5 error dependencies: pandas: "=1.5|2.0" offers a choice, which pip has no form for; name one range',
      'conda.yml:3:5 error dependencies: openssl-tool: "=1.1.1k" is not a version as PyPI has them (digits, dots, rc1, post1)',
    ]);
  });

  test('a fuzzy version of digits always becomes a star behind the same digits', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(3000), { minLength: 1, maxLength: 5 }), (numbers) => {
        const version = numbers.join('.');
        assert.deepEqual(lines([`numpy=${version}`]), [`numpy==${version}.*`]);
        assert.deepEqual(lines([`numpy==${version}`]), [`numpy==${version}`]);
      }),
    );
  });
});

describe('names of conda', () => {
  test('those that differ are those of PyPI, the others stay', () => {
    assert.deepEqual(
      lines(['pytorch', 'py-xgboost', 'matplotlib-base', 'opencv', 'msgpack-python', 'scikit-learn', 'ruamel_yaml']),
      ['torch', 'xgboost', 'matplotlib', 'opencv-python-headless', 'msgpack', 'scikit-learn', 'ruamel.yaml'],
    );
  });

  test('libraries that wheels bring are left out with one warning that names them', () => {
    const plan = planRequirements(
      conda(['_libgcc_mutex=0.1=main', 'numpy', 'mkl', 'cudatoolkit=11.3', 'cpuonly', 'librosa']),
    );
    assert.deepEqual(plan.packages, ['numpy', 'librosa', 'azureml-inference-server-http']);
    assert.equal(plan.warnings.length, 1);
    assert.match(
      plan.warnings[0] ?? '',
      /^conda\.yml:1:5 warning .*_libgcc_mutex \(line 1\), mkl \(line 3\), cudatoolkit \(line 4\), cpuonly/,
    );
  });

  test('what is no Python package is refused, each with its line and what to do', () => {
    const found = refused(conda(['numpy', 'r-base=4.1', 'openmpi', 'graphviz', 'cudf']));
    assert.equal(found.length, 4);
    assert.match(
      found[0] ?? '',
      /^conda\.yml:2:5 error dependencies: r-base cannot be installed from PyPI\. .*remove the line/,
    );
    assert.match(found[1] ?? '', /^conda\.yml:3:5 .*Install it on the machine/);
    assert.match(found[2] ?? '', /python-graphviz/);
    assert.match(found[3] ?? '', /Move it to "pip:"/);
  });
});

describe('the pip section', () => {
  test('lines stay as written; relative paths begin at the folder of the file', () => {
    writeFileSync(join(folder, 'own-1.0-py3-none-any.whl'), '');
    const written = [
      "pandas[excel]>=1.5 ; python_version < '3.12'",
      '--extra-index-url https://example.com/simple',
      '--pre',
      'tool @ https://example.com/tool.zip#sha256=00',
      'git+https://example.com/x.git@main#egg=From_Git',
      './own-1.0-py3-none-any.whl',
      '-e .[dev]',
      '-f .',
    ];
    const plan = planRequirements(conda([], written));
    assert.deepEqual(
      plan.pip.map(({ line }) => line),
      [
        ...written.slice(0, 5),
        join(folder, 'own-1.0-py3-none-any.whl'),
        `--editable ${folder}[dev]`,
        `--find-links ${folder}`,
      ],
    );
    assert.deepEqual(
      plan.pip.flatMap(({ name }) => name ?? []),
      ['pandas', 'tool', 'from-git'],
    );
  });

  test('a path that is not there is refused with its place', () => {
    assert.deepEqual(refused(conda([], ['./missing'])), [
      `conda.yml:100:5 error pip: ${join(folder, 'missing')} does not exist; a relative path begins at the folder of this file`,
    ]);
  });

  test('a package named twice is taken as the pip section has it', () => {
    const plan = planRequirements(conda(['numpy=1.26', 'scikit-learn'], ['NumPy==1.23.5', 'azureml_defaults']));
    assert.deepEqual(plan.packages, ['scikit-learn']);
    assert.match(plan.warnings[0] ?? '', /numpy is named by the pip section too, which wins/);
  });

  test('the inference server is added unless it or azureml-defaults is asked for', () => {
    const added = (pip: readonly string[]) => planRequirements(conda([], pip)).packages;
    assert.deepEqual(added([]), ['azureml-inference-server-http']);
    assert.deepEqual(added(['azureml-defaults~=1.50']), []);
    assert.deepEqual(added(['azureml-inference-server-http==1.0.0']), []);
  });

  test('hashes are seen, and a version of pip is kept apart', () => {
    const plan = planRequirements(conda(['pip=23'], ['six==1.16.0 --hash=sha256:00']));
    assert.equal(plan.hashed, true);
    assert.equal(plan.pipVersion, '==23.*');
  });
});

test('without a conda_file there is the server only, and an image is told to be of no effect', () => {
  assert.deepEqual(planRequirements(undefined).warnings, []);
  const plan = planRequirements(environment({ image: 'mcr.example/x:1' }));
  assert.deepEqual(plan.packages, ['azureml-inference-server-http']);
  assert.match(plan.warnings[0] ?? '', /mcr\.example\/x:1 is not run here; packages come from conda_file/);
});

test('a python that is no version is refused', () => {
  assert.match(refused(conda([], [], '=three'))[0] ?? '', /python =three: this is not a version/);
});

test('the same content has the same name; another version, line or local file has another', async () => {
  const file = join(folder, 'local-1.0-py3-none-any.whl');
  writeFileSync(file, 'one');
  const name = (config: EnvironmentConfig, python = '3.10.13') => fingerprint(planRequirements(config), python);
  const first = await name(conda(['numpy'], [file]));
  assert.match(first, /^[0-9a-f]{16}$/);
  assert.equal(await name(conda(['numpy'], [file])), first);
  assert.notEqual(await name(conda(['numpy'], [file]), '3.11.7'), first);
  assert.notEqual(await name(conda(['numpy=1'], [file])), first);
  writeFileSync(file, 'two');
  assert.notEqual(await name(conda(['numpy'], [file])), first);
});
