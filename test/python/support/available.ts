import { interpreters } from './interpreters.ts';
import { lastLines, run } from './run.ts';

/** The package whose presence shows that PyPI (or the mirror pip is configured for) answers. */
const PROBE_PACKAGE = 'azureml-ai-monitoring';

let reason: Promise<string | undefined> | undefined;

/**
 * Why the Python tests cannot run here: no interpreter from 3.9 on with `venv`, or pip cannot reach PyPI. Undefined: they
 * can. Asked once a process. To be used as `{ skip }` of a test, so that the reason is printed and counted.
 */
export function pythonReason(): Promise<string | undefined> {
  reason ??= findReason();
  return reason;
}

async function findReason(): Promise<string | undefined> {
  const python = (await interpreters()).at(-1);
  if (python === undefined) return 'SKIPPED: there is no Python 3.9 or newer with venv on this machine';
  const versions = await publishedVersions(PROBE_PACKAGE);
  return typeof versions === 'string' ? `SKIPPED: pip cannot reach PyPI: ${versions}` : undefined;
}

/** All versions of a package that pip sees, newest first; pip's own words when it cannot tell. */
export async function publishedVersions(name: string): Promise<readonly string[] | string> {
  const python = (await interpreters()).at(-1);
  if (python === undefined) return 'there is no Python';
  const quick = ['--retries', '1', '--timeout', '20', '--disable-pip-version-check'];
  const args = ['-I', '-m', 'pip', 'index', 'versions', '--pre', ...quick, name];
  const asked = await run(python.path, args, { timeoutMs: 90_000 });
  const list = /^Available versions: (.+)$/m.exec(asked.stdout)?.[1];
  return asked.code === 0 && list !== undefined ? list.split(',').map((text) => text.trim()) : lastLines(asked, 1);
}
