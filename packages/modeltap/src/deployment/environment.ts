import { delimiter } from 'node:path';
import type { DeploymentConfig } from '../config/types.ts';
import type { ProcessSpec } from './process-spec.ts';

/**
 * What an instance inherits from the machine. Not the rest: the workspace process may hold storage keys in its
 * environment, and in Azure ML a deployment sees only what its file declares.
 */
const INHERITED =
  /^(?:PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|TEMP|TMP|SSL_CERT_FILE|SSL_CERT_DIR|NODE_EXTRA_CA_CERTS|LD_LIBRARY_PATH|SYSTEMROOT|(?:https?|no|HTTPS?|NO)_(?:proxy|PROXY))$/;

/** How a process is handed its channel to the parent and its listening socket. */
const OTHERS = /^(?:NODE_CHANNEL_\w+|LISTEN_(?:FDS|PID|FDNAMES))$/;

/** The environment of one instance, and the names of the user's variables that were not taken. */
export interface InstanceEnvironment {
  readonly variables: Readonly<Record<string, string>>;
  /** Reserved names the file tried to set, sorted. */
  readonly refused: readonly string[];
}

/**
 * Environment of an instance: the machine's (few names), `SERVICE_NAME` and `SERVICE_VERSION`, then the user's
 * `environment_variables`, then what the launcher and the caller set (the model folder, the collector's address), which
 * nobody may override. The folder a launcher wants first on the PATH comes before the user's own PATH.
 */
export function instanceEnvironment(
  config: DeploymentConfig,
  plan: ProcessSpec,
  given: Readonly<Record<string, string>>,
  machine: Readonly<Record<string, string | undefined>>,
): InstanceEnvironment {
  const reserved = { ...plan.environment, ...given };
  const variables: Record<string, string> = {};
  for (const [name, value] of Object.entries(machine)) {
    if (value !== undefined && INHERITED.test(name)) variables[name] = value;
  }
  variables.SERVICE_NAME = config.endpointName;
  variables.SERVICE_VERSION = config.name;
  const refused: string[] = [];
  for (const [name, value] of Object.entries(config.environmentVariables)) {
    if (name in reserved || OTHERS.test(name)) refused.push(name);
    else variables[name] = value;
  }
  if (plan.pathFirst !== undefined) {
    variables.PATH = [plan.pathFirst, ...(variables.PATH ? [variables.PATH] : [])].join(delimiter);
  }
  return { variables: { ...variables, ...reserved }, refused: refused.toSorted() };
}
