import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { RUNNING_FILE, type RunningWorkspace } from './client.ts';
import { trustingFetch } from './trust.ts';

/** The workspace that runs in this directory, or undefined. A file that a killed `modeltap up` left behind does not count. */
export async function readRunning(directory: string): Promise<RunningWorkspace | undefined> {
  try {
    const found = JSON.parse(await readFile(join(directory, RUNNING_FILE), 'utf8')) as RunningWorkspace;
    const answer = await trustingFetch(found)(`${found.url}/api/v1/workspace`, { signal: AbortSignal.timeout(2_000) });
    const info = (await answer.json()) as { directory?: string; pid?: number };
    return info.directory === directory && info.pid === found.pid ? found : undefined;
  } catch {
    // No file, not JSON, nobody listens, somebody else listens: nothing of ours runs there.
    return undefined;
  }
}
