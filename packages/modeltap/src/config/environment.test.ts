import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { after, test } from 'node:test';
import { ConfigError } from './issues.ts';
import { ENVIRONMENT_KEYS } from './keys.ts';
import { parseDeployment, parseEnvironment } from './load.ts';

const directory = mkdtempSync(join(tmpdir(), 'modeltap-environment-'));
after(() => rmSync(directory, { recursive: true }));

const file = (name: string, text: string) => {
  mkdirSync(dirname(join(directory, name)), { recursive: true });
  writeFileSync(join(directory, name), text);
};
const parse = (text: string) => parseEnvironment(text, { file: join(directory, 'env.yml'), directory });

/** The issues of a text that must be refused, one line each, files relative to the folder. */
function refusal(text: string): readonly string[] {
  try {
    parse(text);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.issues.map(
      ({ place, severity, key, message }) =>
        `${relative(directory, place.file)}:${place.line}:${place.column} ${severity} ${key}: ${message.replaceAll(directory, '')}`,
    );
  }
  return assert.fail('the text was not refused');
}

/** The errors of a conda file with this text. */
function condaErrors(text: string): readonly string[] {
  file('conda.yml', text);
  return refusal('name: e\nconda_file: conda.yml\n').map((line) => line.replace(/^conda\.yml:/, ''));
}

const lines = (text: string) => parse(text).value.conda?.pip.map(({ text }) => text);

test('an environment file of Azure ML loads with what its conda file asks for', () => {
  file(
    'conda-yamls/pydata.yml',
    `name: pydata-example
channels:
  - conda-forge
dependencies:
  - python=3.8
  - pip=21.2.4
  - conda-forge::numpy=1.26.4=py310hb13e2d6_0
  - scipy
  - pip:
    - kaggle==1.5  # comment

    - "azureml-defaults"
    # another
    - --extra-index-url https://host.example/simple
    - pandas[excel]>=1.5,<3 ; python_version >= "3.8"
    - git+https://host.example/x.git@main#egg=x
    - ./local
    - wheels/a-1.0-py3-none-any.whl
`,
  );
  const { value, warnings } = parse(`$schema: https://azuremlschemas.azureedge.net/latest/environment.schema.json
name: docker-image-plus-conda-example
version: 1.10
image: mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04
conda_file: conda-yamls/pydata.yml
description: Environment created from a Docker image plus Conda environment.
tags: {a: 1}
`);
  const inConda = (line: number, column: number) => ({
    place: { file: join(directory, 'conda-yamls/pydata.yml'), line, column },
  });
  assert.deepEqual(value, {
    name: 'docker-image-plus-conda-example',
    version: '1.10',
    description: 'Environment created from a Docker image plus Conda environment.',
    tags: { a: '1' },
    image: 'mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04',
    conda: {
      name: 'pydata-example',
      channels: ['conda-forge'],
      python: '=3.8',
      packages: [
        { name: 'pip', version: '=21.2.4', ...inConda(6, 5) },
        { name: 'numpy', version: '=1.26.4', build: 'py310hb13e2d6_0', channel: 'conda-forge', ...inConda(7, 5) },
        { name: 'scipy', version: '', ...inConda(8, 5) },
      ],
      pip: [
        { text: 'kaggle==1.5', ...inConda(10, 7) },
        { text: 'azureml-defaults', ...inConda(12, 8) },
        { text: '--extra-index-url https://host.example/simple', ...inConda(14, 7) },
        { text: 'pandas[excel]>=1.5,<3 ; python_version >= "3.8"', ...inConda(15, 7) },
        { text: 'git+https://host.example/x.git@main#egg=x', ...inConda(16, 7) },
        { text: './local', ...inConda(17, 7) },
        { text: 'wheels/a-1.0-py3-none-any.whl', ...inConda(18, 7) },
      ],
      directory: join(directory, 'conda-yamls'),
    },
    inferenceConfig: undefined,
  });
  assert.deepEqual(
    warnings.map(({ key }) => key),
    ['image'],
  );
});

test('the conda file may stand in the environment itself; its paths begin at the YAML file', () => {
  const { value } = parse('name: e\nconda_file:\n  dependencies:\n    - python\n    - {pip: [a, -e ., b]}\n');
  assert.deepEqual(value.conda, {
    name: undefined,
    channels: [],
    python: undefined,
    packages: [],
    pip: ['a', '-e .', 'b'].map((text, index) => ({
      text,
      place: { file: join(directory, 'env.yml'), line: 5, column: [14, 17, 23][index] },
    })),
    directory,
  });
});

test('routes of a container are kept, and say that they do nothing', () => {
  const { value, warnings } = parse(
    'name: e\nimage: i\ninference_config:\n  liveness_route: {path: /live, port: 8501}\n  scoring_route: {path: /score, port: 8501}\n',
  );
  assert.deepEqual(value.inferenceConfig, {
    liveness: { path: '/live', port: 8501 },
    readiness: undefined,
    scoring: { path: '/score', port: 8501 },
  });
  assert.deepEqual(
    warnings.map(({ key }) => key),
    ['image', 'inference_config'],
  );
});

test('bad conda files are named with their own file, line and column', () => {
  const cases: [string, readonly string[]][] = [
    ['', ['1:1 error : is empty; it must be a mapping (key: value lines)']],
    [
      'dependencies: [a\n',
      [
        '2:1 error : is not valid YAML: Flow sequence in block collection must be sufficiently indented and end with a ]',
      ],
    ],
    ['- numpy\n', ['1:1 error : must be a mapping (key: value lines), not a list']],
    [
      'name: e\n',
      ['1:1 error dependencies: is required: a list such as [python=3.10, pip, {pip: [azureml-defaults]}]'],
    ],
    ['dependencies: numpy\n', ['1:15 error dependencies: must be a list, not "numpy"']],
    [
      'dependencies:\n  - numpy >=1.20 <2\n  - 3\n  -\n  - [a]\n  - pandas=\n',
      [
        '2:17 error dependencies[0]: several conditions need a comma between them: >=1.20,<2',
        '3:5 error dependencies[1]: must begin with the name of a package, e.g. numpy=1.26',
        '4:4 error dependencies[2]: is empty; it must be text such as numpy=1.26, or a mapping with the key pip, or be left out',
        '5:5 error dependencies[3]: must be text such as numpy=1.26, or a mapping with the key pip, not a list',
        '6:11 error dependencies[4]: a version is expected here, such as =1.26 or >=1.20,<2',
      ],
    ],
    [
      'dependencies:\n  - pipp: [a]\n  - pip: a\n  - {}\n',
      [
        '2:5 error dependencies[0].pipp: is not a key that can stand here; a mapping in dependencies has the one key pip',
        '3:10 error dependencies[1].pip: must be a list of lines for pip, not "a"',
        '4:5 error dependencies[2]: must be text such as numpy=1.26, or a mapping with the key pip',
      ],
    ],
    [
      'dependencies:\n  - pip: [a]\n  - pip: [b]\n',
      ['3:5 error dependencies[1].pip: is written a second time; put all lines of pip under one key'],
    ],
    [
      'dependencies:\n  - pip:\n    - pandas=2.2\n    - 1.0\n    - "=2"\n    - numpy 1.26\n    - {a: b}\n    - -r\n',
      [
        '3:13 error dependencies[0].pip: pip takes two equals signs: pandas==2.2',
        '4:7 error dependencies[0].pip[1]: must be a line for pip such as pandas==2.2.3, not "1.0"',
        '5:8 error dependencies[0].pip: must begin with the name of a package, e.g. pandas==2.2.3',
        '6:13 error dependencies[0].pip: "1.26" cannot stand behind the name of a package',
        '7:7 error dependencies[0].pip[4]: must be a line for pip such as pandas==2.2.3, not a mapping',
        '8:7 error dependencies[0].pip: -r needs the name of a file',
      ],
    ],
    [
      'dependencies: [python=3.10, python=3.11]\nchannels: conda-forge\nname: [a]\n',
      [
        '1:29 error dependencies[1]: asks for python a second time; keep one of them',
        '2:11 error channels: must be a list of channels, not "conda-forge"',
        '3:7 error name: must be text, not a list',
      ],
    ],
    [
      'channels: [{a: b}, ""]\ndependencies: []\n',
      [
        '1:12 error channels[0]: must be the name of a channel, not a mapping',
        '1:20 error channels[1]: must be the name of a channel, not ""',
      ],
    ],
  ];
  for (const [text, said] of cases) assert.deepEqual(condaErrors(text), said, text);
});

test('keys of a conda file that do nothing here are said, each with what to do', () => {
  file('conda.yml', 'prefix: /x\nvariables: {A: b}\ndependancies: []\nfoo: bar\ndependencies: []\n');
  const { warnings } = parse('name: e\nconda_file: conda.yml\n');
  assert.deepEqual(
    warnings.map(({ place, key, message }) => `${place.line}:${place.column} ${key}: ${message}`),
    [
      '1:1 prefix: has no effect in Modeltap: where an environment lies is decided here',
      '2:1 variables: has no effect in Modeltap: write environment_variables in the deployment',
      '3:1 dependancies: has no effect in Modeltap: did you mean "dependencies"?',
      '4:1 foo: has no effect in Modeltap: it is not a key of conda files',
    ],
  );
});

test('all errors of an environment and of the files it names come at once, those of its own first', () => {
  file('conda.yml', 'dependencies:\n  - numpy=\n  - pip:\n    - -r req.txt\n');
  file('req.txt', '# packages\npandas==2\n  scipy=1\n');
  assert.deepEqual(refusal('conda_file: conda.yml\nos_type: dos\ndependencies: [a]\n'), [
    'env.yml:1:1 error name: is required',
    'env.yml:2:1 warning os_type: has no effect in Modeltap: instances run on this machine',
    'env.yml:2:10 error os_type: must be one of linux, windows, not "dos"',
    'env.yml:3:1 error dependencies: belongs into the conda file: write conda_file: FILE, or put it below conda_file',
    'conda.yml:2:10 error dependencies[0]: a version is expected here, such as =1.26 or >=1.20,<2',
    'req.txt:3:8 error dependencies[1].pip: pip takes two equals signs: scipy==1',
  ]);
});

test('what an environment cannot be is refused', () => {
  assert.deepEqual(refusal('name: e\n'), [
    'env.yml:1:1 error : must have a conda_file with the packages it needs (or an image)',
  ]);
  assert.deepEqual(refusal('name: e\nimage: i\nbuild: {path: .}\n'), [
    'env.yml:2:1 warning image: has no effect in Modeltap: packages are installed on this machine, in no container',
    'env.yml:3:1 error build: cannot stand beside image; keep one of them',
    'env.yml:3:1 warning build: has no effect in Modeltap: no image is built; write the packages as conda_file',
  ]);
  assert.deepEqual(refusal('name: e\nconda_file: nope.yml\n'), [
    'env.yml:2:13 error conda_file: there is no file /nope.yml',
  ]);
  assert.deepEqual(refusal('name: e\nconda_file: .\n'), [
    'env.yml:2:13 error conda_file:  is not a file; give a conda file in YAML',
  ]);
  assert.deepEqual(refusal('name: a/b\nversion: 1:2\nimage: i\ninference_config: {scoring_route: {port: 0}}\n'), [
    'env.yml:1:7 error name: "a/b" is not allowed: a name has letters, digits, hyphens, underscores and dots, at most 255',
    'env.yml:2:10 error version: "1:2" is not allowed: a version has letters, digits, hyphens, underscores and dots, at most 64',
    'env.yml:3:1 warning image: has no effect in Modeltap: packages are installed on this machine, in no container',
    'env.yml:4:1 warning inference_config: has no effect in Modeltap: no container is run, so there are no routes into one',
    'env.yml:4:20 error inference_config.scoring_route.path: is required',
    'env.yml:4:42 error inference_config.scoring_route.port: must be a whole number from 1 to 65535, not "0"',
  ]);
});

test('requirements files are read in place, nested, with their own folders, and constraints are marked', () => {
  file(
    'deps/req.txt',
    '\uFEFFpandas==2.2.3 \\\n  --hash=sha256:aa\n-r more/req.txt\r\n--constraint=limits.txt # c\nscipy\n',
  );
  file('deps/more/req.txt', 'numpy\n-c ../limits2.txt\n');
  file('deps/limits.txt', 'numpy<2\n-r limits2.txt\n');
  file('deps/limits2.txt', 'scipy<1.12\n');
  const { value } = parse(
    'name: e\nconda_file: {dependencies: [{pip: ["-r deps/req.txt", -rdeps/limits2.txt, last]}]}\n',
  );
  const short = value.conda?.pip.map(({ text, place, constraint }) => [
    text,
    `${relative(directory, place.file)}:${place.line}:${place.column}`,
    constraint ?? false,
  ]);
  assert.deepEqual(short, [
    ['pandas==2.2.3   --hash=sha256:aa', 'deps/req.txt:1:1', false],
    ['numpy', 'deps/more/req.txt:1:1', false],
    ['scipy<1.12', 'deps/limits2.txt:1:1', true],
    ['numpy<2', 'deps/limits.txt:1:1', true],
    ['scipy<1.12', 'deps/limits2.txt:1:1', true],
    ['scipy', 'deps/req.txt:5:1', false],
    ['scipy<1.12', 'deps/limits2.txt:1:1', false],
    ['last', 'env.yml:2:75', false],
  ]);
  // The value does not change with the files.
  file('deps/req.txt', 'changed\n');
  assert.equal(value.conda?.pip[0]?.text, 'pandas==2.2.3   --hash=sha256:aa');
});

test('a requirements file that is missing, a folder, endless or of another machine is named', () => {
  const pip = (line: string) => `name: e\nconda_file: {dependencies: [{pip: ["${line}"]}]}\n`;
  const key = 'conda_file.dependencies[0].pip';
  assert.deepEqual(refusal(pip('-r nope.txt')), [`env.yml:2:37 error ${key}: there is no file /nope.txt`]);
  assert.deepEqual(refusal(pip('-c .')), [`env.yml:2:37 error ${key}: there is no file `]);
  file('a.txt', 'numpy\n-r sub/b.txt\n');
  file('sub/b.txt', 'scipy\n  -r ../a.txt\n');
  assert.deepEqual(refusal(pip('-r a.txt')), [
    `sub/b.txt:2:3 error ${key}: includes /a.txt, which is being read already`,
  ]);
  file('long.txt', 'a\n'.repeat(5_001));
  assert.deepEqual(refusal(pip('-r long.txt')), [
    `long.txt:5001:1 error ${key}: is one too many: a pip section may have 5000 lines with those of the files it names`,
  ]);
  const { value, warnings } = parse(pip('-r https://host.example/req.txt'));
  assert.deepEqual(
    value.conda?.pip.map(({ text }) => text),
    ['-r https://host.example/req.txt'],
  );
  assert.match(warnings[0]?.message ?? '', /may change/);
});

test('lines that only pip can judge are left to it', () => {
  const given = [
    'a@ https://host.example/a.whl',
    'a>=1,!=1.5',
    'a~=1.0',
    'a===1',
    'a (>=1)',
    'a;os_name=="nt"',
    '--pre',
    '-i https://u:p@h.example/s',
  ];
  assert.deepEqual(lines(`name: e\nconda_file: {dependencies: [{pip: ${JSON.stringify(given)}}]}\n`), given);
});

test('no text of an error repeats what may be a password', () => {
  const found = refusal(
    'name: e\nconda_file:\n  channels: [{t: hunter2}]\n  dependencies:\n    - https://u:hunter2@h.example/x\n    - pip: ["https://u:hunter2@h.example/a.whl", "-r https"]\n',
  );
  assert.equal(found.length, 3);
  assert.doesNotMatch(found.join('\n'), /hunter2/);
});

test('every key of the table is known, and every key without effect gives one warning', () => {
  const text = `$schema: s
name: n
version: 1
description: d
tags: {}
properties: {}
conda_file: {dependencies: []}
inference_config: {liveness_route: {path: /, port: 1}}
os_type: windows
datastore: d
stage: s
id: i
creation_context: {a: b}
`;
  const warned = (text: string) => parse(text).warnings.map(({ key }) => key);
  const all = [
    ...warned(text),
    ...warned('name: e\nimage: x\n'),
    ...warned('name: e\nbuild: {path: ., dockerfile_path: f}\n'),
  ];
  const expected = ENVIRONMENT_KEYS.filter((row) => row.effect === 'warning').map((row) => row.key);
  assert.deepEqual(all.toSorted(), expected.toSorted());
  const known = refusal(`${text}zzzzzzzzzzzz: 1\n`)
    .find((line) => line.includes('zzzz'))
    ?.split('known keys: ')[1];
  const rows = new Set(ENVIRONMENT_KEYS.map((row) => row.key.replace(/\..*/, '')));
  assert.deepEqual(known?.split(', ').toSorted(), [...rows].toSorted());
});

test('values given beside the file win over it, and are checked as if they stood there', () => {
  file('other.yml', 'dependencies: [other]\n');
  const { value } = parseEnvironment('name: e\nconda_file: nope.yml\n', {
    file: 'env.yml',
    directory,
    overrides: { version: '7', conda_file: join(directory, 'other.yml'), image: undefined },
  });
  assert.deepEqual([value.name, value.version, value.conda?.packages[0]?.name], ['e', '7', 'other']);
});

test('an environment in a deployment says its places in the deployment and in the conda file', () => {
  file('conda.yml', 'dependencies:\n  - numpy=\n');
  const text = 'name: blue\nendpoint_name: my-endpoint\nenvironment:\n  conda_file: conda.yml\n  os_typ: linux\n';
  assert.throws(
    () => parseDeployment(text, { file: 'deployment.yml', directory }),
    (error) => {
      assert.ok(error instanceof ConfigError);
      assert.deepEqual(
        error.issues.map(({ place, key }) => `${place.file}:${place.line}:${place.column} ${key}`),
        ['deployment.yml:5:3 environment.os_typ', `${join(directory, 'conda.yml')}:2:10 dependencies[0]`],
      );
      return true;
    },
  );
});
