/**
 * Runs the project's test suites and counts them: `node scripts/test.ts unit|polars|crash|e2e|python`.
 * Prints what each suite prints, and last a line `<name>: N passed, N failed, N skipped` over all of them.
 */
import { spawn } from 'node:child_process';
import { existsSync, globSync } from 'node:fs';
import { delimiter, join } from 'node:path';

interface Suite {
  readonly title: string;
  readonly node: string;
  readonly files: readonly string[];
  /** Files run one after the other (fault tests measure themselves and must not share the machine). */
  readonly serial?: boolean;
}

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

const [name = 'unit'] = process.argv.slice(2);

function versionOf(path: string): Promise<number> {
  return new Promise((resolve) => {
    const child = spawn(path, ['--version'], { stdio: ['ignore', 'pipe', 'ignore'] });
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    child.on('close', () => resolve(Number(/^v(\d+)\./.exec(text.trim())?.[1] ?? Number.NaN)));
    child.on('error', () => resolve(Number.NaN));
  });
}

/** A Node 20 of this machine: the one that runs npm, or one behind the pinned Node 24 on the PATH. */
async function node20(): Promise<string | undefined> {
  const onPath = (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, 'node'));
  const candidates = [process.env.npm_node_execpath ?? '', ...onPath].filter((path) => path !== '' && existsSync(path));
  for (const path of new Set(candidates)) if ((await versionOf(path)) === 20) return path;
  return undefined;
}

async function suites(): Promise<{ list: Suite[]; notes: string[] }> {
  if (name === 'crash' || name === 'e2e' || name === 'python') {
    return {
      list: [{ title: name, node: process.execPath, files: globSync(`test/${name}/*.test.ts`), serial: true }],
      notes: [],
    };
  }
  if (name === 'polars') {
    const files = ['packages/collector/dist/data.test.js', 'test/collector-agent.test.ts'];
    return { list: [{ title: name, node: process.execPath, files }], notes: [] };
  }
  const collector = globSync('packages/collector/dist/**/*.test.js');
  const list: Suite[] = [
    { title: 'collector on Node 24', node: process.execPath, files: collector },
    {
      title: 'modeltap on Node 24',
      node: process.execPath,
      files: [
        ...globSync('packages/modeltap/src/**/*.test.ts'),
        ...globSync('test/*.test.ts'),
        ...globSync('examples/**/*.test.ts').filter((file) => !file.includes('node_modules')),
      ],
    },
  ];
  const notes: string[] = [];
  const old = await node20();
  if (old !== undefined) list.unshift({ title: 'collector on Node 20', node: old, files: collector });
  else notes.push('SKIPPED: the collector on Node 20, which is not on the PATH here.');
  return { list, notes };
}

function run(suite: Suite): Promise<Counts> {
  const options = ['--test', '--test-reporter=spec', ...(suite.serial ? ['--test-concurrency=1'] : [])];
  return new Promise((resolve, reject) => {
    const child = spawn(suite.node, [...options, ...suite.files], { stdio: ['ignore', 'pipe', 'inherit'] });
    let tail = '';
    child.stdout.on('data', (chunk: Buffer) => {
      process.stdout.write(chunk);
      tail = (tail + chunk.toString()).slice(-200_000);
    });
    child.on('error', reject);
    child.on('close', (code) => {
      const count = (word: string) => Number(new RegExp(`^. ${word} (\\d+)$`, 'm').exec(tail)?.[1] ?? 0);
      const counts = { passed: count('pass'), failed: count('fail') + count('cancelled'), skipped: count('skipped') };
      if (code !== 0 && counts.failed === 0) counts.failed = 1;
      if (counts.passed + counts.failed + counts.skipped === 0) counts.failed = 1;
      resolve(counts);
    });
  });
}

const { list, notes } = await suites();
const total: Counts = { passed: 0, failed: 0, skipped: 0 };
for (const suite of list) {
  console.log(`\n== ${suite.title}: ${suite.files.length} files`);
  const counts = await run(suite);
  total.passed += counts.passed;
  total.failed += counts.failed;
  total.skipped += counts.skipped;
}
for (const note of notes) console.log(`\n${note}`);
console.log(`\n${name}: ${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exitCode = total.failed === 0 ? 0 : 1;
