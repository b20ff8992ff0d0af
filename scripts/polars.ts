/**
 * Puts the binary of nodejs-polars beside it when npm left it out (npm on Node 20 does, because the binary asks for Node
 * 22, while the tests run on Node 24). Ends with status 0 also when it cannot: the tests then say that they were skipped.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');

function loads(): boolean {
  try {
    execFileSync(process.execPath, ['-e', "require('nodejs-polars')"], { cwd: root, stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

if (!loads()) {
  const manifest = createRequire(import.meta.url).resolve('nodejs-polars/package.json');
  const { optionalDependencies } = JSON.parse(readFileSync(manifest, 'utf8')) as {
    optionalDependencies: Record<string, string>;
  };
  const name = `nodejs-polars-${process.platform}-${process.arch}${process.platform === 'linux' ? '-gnu' : ''}`;
  const version = optionalDependencies[name];
  const target = join(root, 'node_modules', name);
  if (version !== undefined && !existsSync(target)) {
    const scratch = mkdtempSync(join(tmpdir(), 'modeltap-polars-'));
    try {
      execFileSync('npm', ['pack', '--silent', `${name}@${version}`], {
        cwd: scratch,
        stdio: ['ignore', 'ignore', 'inherit'],
      });
      mkdirSync(target);
      const [archive = ''] = readdirSync(scratch);
      execFileSync('tar', ['-xzf', join(scratch, archive), '-C', target, '--strip-components=1']);
    } catch (error) {
      rmSync(target, { recursive: true, force: true });
      console.log(`could not fetch ${name}: ${String(error)}`);
    } finally {
      rmSync(scratch, { recursive: true, force: true });
    }
  }
}
console.log(loads() ? 'nodejs-polars loads' : 'SKIPPED: nodejs-polars cannot be loaded here; its tests are skipped');
