import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort, startAgent, type TestAgent, writeAgentFile } from '../../support/agent.ts';

/** A real agent with a store on disk. */
export interface Place {
  readonly agent: TestAgent;
  readonly store: string;
  readonly close: () => Promise<void>;
}

/** Starts one that takes `collections`; its folder goes away with it. */
export async function startPlace(collections: readonly string[] = ['model_inputs', 'model_outputs']): Promise<Place> {
  const directory = mkdtempSync(join(tmpdir(), 'modeltap-python-'));
  const store = join(directory, 'store');
  const port = await freePort();
  const agent = await startAgent(
    writeAgentFile({ directory, port, datastore: { type: 'local', path: store }, collections }),
    port,
  );
  return {
    agent,
    store,
    close: async () => {
      await agent.end('SIGTERM');
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
