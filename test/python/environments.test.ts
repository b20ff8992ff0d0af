/** Environments are built for real: interpreters of this machine, packages of PyPI, with pip and with uv. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { ConfigError } from '../../packages/modeltap/src/config/issues.ts';
import type { EnvironmentConfig } from '../../packages/modeltap/src/config/types.ts';
import {
  createEnvironments,
  type PreparedEnvironment,
} from '../../packages/modeltap/src/deployment/environments/environments.ts';
import { isModeltapError, type ModeltapError } from '../../packages/modeltap/src/kit/errors.ts';
import { pythonReason } from './support/available.ts';
import { interpreters } from './support/interpreters.ts';
import { run } from './support/run.ts';
import { makeVenv } from './support/venv.ts';

const skip = (await pythonReason()) ?? false;
const folder = mkdtempSync(join(tmpdir(), 'modeltap-environments-'));
const children = new Set<ChildProcess>();
after(() => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

/** The PATH without uv, so that what is there by chance does not decide which builder is tested. */
const PATH = (process.env.PATH ?? '')
  .split(delimiter)
  .filter((part) => !existsSync(join(part, 'uv')))
  .join(delimiter);
const machineEnvironment = { ...process.env, PATH };
/** A minor version with wheels for everything here. */
const python = skip === false ? (await interpreters()).findLast(({ minor }) => minor <= 12)?.version : '3.11';

/** uv alone, in a folder for the PATH. */
const uvFolder = join(folder, 'uv-bin');
const uvReason = skip === false ? await installUv(uvFolder) : undefined;
const withUv = { ...machineEnvironment, PATH: `${uvFolder}${delimiter}${PATH}` };

interface Wanted {
  readonly pip?: readonly string[];
  readonly conda?: Readonly<Record<string, string>>;
  readonly python?: string | undefined;
}

function config({ pip = [], conda = {}, python: asked = `=${python}` }: Wanted): EnvironmentConfig {
  const place = { file: 'conda.yml', line: 7, column: 9 };
  const none = { name: undefined, version: undefined, image: undefined, inferenceConfig: undefined };
  return {
    ...none,
    description: '',
    tags: {},
    conda: {
      name: undefined,
      channels: [],
      python: asked,
      packages: Object.entries(conda).map(([name, version]) => ({ name, version, place })),
      pip: pip.map((text) => ({ text, place })),
      directory: folder,
    },
  };
}

async function versionsIn(environment: PreparedEnvironment, names: readonly string[]): Promise<readonly string[]> {
  const code = `from importlib.metadata import version; print(*[version(n) for n in ${JSON.stringify(names)}])`;
  const asked = await run(environment.python, ['-I', '-c', code]);
  assert.equal(asked.code, 0, asked.stderr);
  return asked.stdout.trim().split(' ');
}

async function failureOf(preparing: Promise<unknown>): Promise<ModeltapError> {
  try {
    await preparing;
  } catch (error) {
    if (isModeltapError(error)) return error;
    throw error;
  }
  return assert.fail('it was built');
}

/** Processes whose command line has the text, found in /proc. */
function processesWith(text: string): readonly string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .flatMap((pid) => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
        return line.includes(text) ? [line] : [];
      } catch {
        // It has ended meanwhile.
        return [];
      }
    });
}

describe('with venv and pip', { skip }, () => {
  const directory = join(folder, 'pip');
  const environments = createEnvironments({ directory, machineEnvironment });
  const small = config({ pip: ['idna==3.7'], conda: { six: '=1.16', mkl: '' } });
  let built: PreparedEnvironment | undefined;

  test('two that want the same at once get one, built once, with a progress and a log', async () => {
    const told: string[] = [];
    const onProgress = (text: string) => told.push(text);
    const second = createEnvironments({ directory, machineEnvironment });
    const both = await Promise.all([
      environments.prepare(small, { onProgress }),
      second.prepare(small, { onProgress }),
    ]);
    assert.deepEqual(new Set(both.map(({ reused }) => reused)), new Set([false, true]));
    assert.equal(both[0].directory, both[1].directory);
    built = both[0];
    assert.ok(built.pythonVersion.startsWith(`${python}.`));
    assert.deepEqual(await versionsIn(built, ['six', 'idna']), ['1.16.0', '3.7']);
    await versionsIn(built, ['azureml-inference-server-http']);
    assert.ok(told.includes('waiting for another build of the same environment'), told.join('\n'));
    assert.ok(told.some((text) => text.startsWith('creating the environment with Python 3.')));
    assert.match(told.at(-1) ?? '', /^installing \d+ packages \(pip\)$/);
    const log = readFileSync(built.logPath, 'utf8');
    assert.match(log, /note: azureml-inference-server-http is added/);
    assert.match(log, /^Successfully installed .*idna-3\.7/m);
    assert.match(built.warnings.join('\n'), /conda\.yml:7:9 warning .*mkl \(line 7\)/);
    assert.ok(!readdirSync(built.directory).includes('requirements.txt'));
  });

  test('the next time it is reused, by another process of Modeltap too, without an index', async () => {
    const offline = { ...machineEnvironment, PIP_INDEX_URL: 'http://127.0.0.1:9/simple', PIP_FIND_LINKS: '' };
    const again = await createEnvironments({ directory, machineEnvironment: offline }).prepare(small);
    assert.deepEqual(again, { ...built, reused: true });
  });

  test('one that lost its mark is built again', async () => {
    rmSync(join(built?.directory ?? '', 'complete'));
    writeFileSync(join(built?.directory ?? '', 'left-over'), '');
    // By uv if it is there: who builds is no part of what is built.
    const again = await createEnvironments({ directory, machineEnvironment: withUv }).prepare(small);
    assert.equal(again.reused, false);
    assert.equal(existsSync(join(again.directory, 'left-over')), false);
    assert.deepEqual(await versionsIn(again, ['six']), ['1.16.0']);
  });

  test("a package that does not exist fails with pip's own lines; the log stays, a password does not", async () => {
    const lines = ['--extra-index-url http://me:pass-word@127.0.0.1:9/simple', 'modeltap-no-such-package==9.9'];
    const machine = { ...machineEnvironment, PIP_RETRIES: '0' };
    const told: string[] = [];
    const failure = await failureOf(
      createEnvironments({ directory, machineEnvironment: machine }).prepare(config({ pip: lines }), {
        onProgress: (text) => told.push(text),
      }),
    );
    assert.equal(failure.code, 'environment_build_failed');
    assert.match(failure.message, /pip ended with exit code 1:\n/);
    assert.match(failure.message, /ERROR: No matching distribution found for modeltap-no-such-package==9\.9/);
    assert.ok(failure.message.split('\n').length <= 16);
    const logPath = /log is (\S+)\.$/.exec(failure.fix)?.[1] ?? '';
    assert.deepEqual(readdirSync(dirname(logPath)), ['build.log']);
    const log = readFileSync(logPath, 'utf8');
    assert.match(log, /http:\/\/\[redacted\]@127\.0\.0\.1:9\/simple/);
    assert.ok(![log, failure.message, ...told].join('\n').includes('pass-word'));
  });

  test('a build that is given up leaves no process and no folder', async () => {
    const stop = new AbortController();
    const wanted = config({ pip: ['idna==3.6'] });
    const started = performance.now();
    const failure = await failureOf(
      environments.prepare(wanted, {
        signal: stop.signal,
        onProgress: (text) => {
          if (text.startsWith('collecting')) stop.abort();
        },
      }),
    );
    assert.equal(failure.code, 'environment_build_cancelled');
    assert.ok(performance.now() - started < 60_000);
    assert.deepEqual(processesWith(`${directory}/`), []);
    const kept = readdirSync(directory).filter((name) => !name.endsWith('.lock'));
    for (const hash of kept) assert.ok(existsSync(join(directory, hash, 'build.log')));
    assert.equal(kept.length, 2, 'the one built and the log of the one that failed');
  });

  test('when the process that builds is killed, its pip ends too and the next one repairs', async () => {
    const wanted = config({ pip: ['idna==3.4'] });
    const place = join(folder, 'killed');
    const code = `
      import { createEnvironments } from ${JSON.stringify(new URL('../../packages/modeltap/src/deployment/environments/environments.ts', import.meta.url).href)};
      const { place, wanted } = JSON.parse(process.env.JOB);
      await createEnvironments({ directory: place }).prepare(wanted, { onProgress: (text) => console.log(text) });`;
    const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', code], {
      env: { ...machineEnvironment, JOB: JSON.stringify({ place, wanted }) },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    children.add(child);
    await new Promise<void>((resolve) => {
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        if (text.includes('collecting')) resolve();
      });
      child.once('exit', () => resolve());
    });
    assert.notDeepEqual(processesWith(`${place}/`), [], 'pip was at work');
    child.kill('SIGKILL');
    const until = Date.now() + 10_000;
    while (processesWith(`${place}/`).length > 0 && Date.now() < until) await wait(50);
    assert.deepEqual(processesWith(`${place}/`), []);
    const repaired = await createEnvironments({ directory: place, machineEnvironment: withUv }).prepare(wanted);
    assert.equal(repaired.reused, false);
    assert.deepEqual(await versionsIn(repaired, ['idna']), ['3.4']);
  });

  test('another Python than the one asked for comes with a warning', async () => {
    const found = { path: built?.python ?? '', version: built?.pythonVersion ?? '', hasVenv: true };
    const nearest = createEnvironments({ directory, machineEnvironment, interpreters: async () => [found] });
    const other = await nearest.prepare(
      config({ pip: ['idna==3.7'], conda: { six: '=1.16', mkl: '' }, python: '=3.99' }),
    );
    assert.equal(other.reused, true);
    assert.match(
      other.warnings[0] ?? '',
      /^Python 3\.99 is asked for and not on this machine; Python 3\.\d+\.\d+ is used$/,
    );
  });

  test('too long a build is ended and says so', async () => {
    const short = createEnvironments({ directory, machineEnvironment, buildTimeoutMs: 500 });
    const failure = await failureOf(short.prepare(config({ pip: ['idna==3.3'] })));
    assert.equal(failure.code, 'environment_build_failed');
    assert.match(failure.message, /it took too long/);
  });

  test('what conda only has is refused before anything is built', async () => {
    const place = join(folder, 'refused');
    const refused = createEnvironments({ directory: place, machineEnvironment }).prepare(
      config({ conda: { 'r-base': '=4' } }),
    );
    await assert.rejects(
      refused,
      (error) => error instanceof ConfigError && /conda\.yml:7:9 error .*r-base/.test(error.message),
    );
    assert.equal(existsSync(place), false);
  });
});

describe('with uv', { skip: skip || (uvReason ?? false) }, () => {
  const directory = join(folder, 'uv');
  const environments = createEnvironments({ directory, machineEnvironment: withUv });

  test('it builds what pip builds, options of pip included', async () => {
    const hash = 'sha256:8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254';
    const told: string[] = [];
    const prepared = await environments.prepare(
      config({
        pip: ['--pre', '--prefer-binary', `six==1.16.0 --hash=${hash}`],
        conda: { idna: '=3.7', pip: '=24.0' },
      }),
      { onProgress: (text) => told.push(text) },
    );
    const names = ['six', 'idna', 'pip', 'azureml-inference-server-http'];
    assert.deepEqual((await versionsIn(prepared, names)).slice(0, 3), ['1.16.0', '3.7', '24.0']);
    assert.ok(
      told.some((text) => text.endsWith('(uv)')),
      told.join('\n'),
    );
  });

  test("a version that does not exist fails with uv's own lines", async () => {
    const failure = await failureOf(environments.prepare(config({ pip: ['idna==3.99.99'] })));
    assert.equal(failure.code, 'environment_build_failed');
    assert.match(failure.message, /uv ended with exit code 1:\n[\s\S]*idna==3\.99\.99/);
  });

  test('lists that do not go together are installed as conda does it: its own, then pip over it', async () => {
    const prepared = await environments.prepare(config({ conda: { urllib3: '=2.2' }, pip: ['requests==2.28.2'] }));
    const [requests, urllib3] = await versionsIn(prepared, ['requests', 'urllib3']);
    assert.equal(requests, '2.28.2');
    assert.match(urllib3 ?? '', /^1\.26\./);
    assert.match(readFileSync(prepared.logPath, 'utf8'), /note: they do not go together/);
  });

  test('azureml-defaults brings the inference server', async () => {
    const prepared = await environments.prepare(config({ pip: ['azureml-defaults'] }));
    await versionsIn(prepared, ['azureml-defaults', 'azureml-inference-server-http']);
    assert.doesNotMatch(readFileSync(prepared.logPath, 'utf8'), /azureml-inference-server-http is added|; it is added/);
  });
});

/** Puts uv alone into a folder for the PATH; the reason when it does not install. */
async function installUv(bin: string): Promise<string | undefined> {
  const interpreter = (await interpreters()).at(-1);
  if (interpreter === undefined) return 'SKIPPED: there is no Python to install uv with';
  const made = await makeVenv({ interpreter, requirements: ['uv'] });
  if ('problem' in made) return `SKIPPED: uv does not install here: ${made.problem}`;
  mkdirSync(bin);
  symlinkSync(join(dirname(made.venv.python), 'uv'), join(bin, 'uv'));
  return undefined;
}
