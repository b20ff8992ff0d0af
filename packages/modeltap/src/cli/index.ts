import type { Command } from 'commander';
import { registerAgent } from './agent.ts';
import { registerData } from './data.ts';
import { registerDatastore } from './datastore.ts';
import { registerEnvironment } from './environment.ts';
import { registerLedger } from './ledger.ts';
import { registerModel } from './model.ts';
import { registerOnlineDeployment } from './online-deployment.ts';
import { registerOnlineEndpoint } from './online-endpoint.ts';
import { registerTail } from './tail.ts';
import { registerTap } from './tap.ts';
import { registerUp } from './up.ts';

/** Every command, in the order `--help` shows them. A new command is a new file and a row here. */
export const COMMANDS: readonly { readonly name: string; readonly register: (program: Command) => void }[] = [
  { name: 'up', register: registerUp },
  { name: 'online-endpoint', register: registerOnlineEndpoint },
  { name: 'online-deployment', register: registerOnlineDeployment },
  { name: 'model', register: registerModel },
  { name: 'environment', register: registerEnvironment },
  { name: 'tail', register: registerTail },
  { name: 'ledger', register: registerLedger },
  { name: 'data', register: registerData },
  { name: 'datastore', register: registerDatastore },
  { name: 'agent', register: registerAgent },
  { name: 'tap', register: registerTap },
];
