import { resolve } from 'node:path';
import type { Command } from 'commander';
import { Option } from 'commander';
import { runAgent } from '../agent/run.ts';

/** `modeltap agent -f FILE`: the agent alone, as a sidecar. */
export function registerAgent(program: Command): void {
  program
    .command('agent')
    .description('Run the agent alone, as a sidecar beside a model server')
    .requiredOption('-f, --file <yaml>', 'agent YAML (docs/agent-yaml.md)')
    .addOption(
      new Option('--log-level <level>', 'what is logged').choices(['debug', 'info', 'warn', 'error']).default('info'),
    )
    .option('--check', 'read and check the file, print what it means, and stop')
    .action(async (options: { file: string; logLevel: string; check?: boolean }) => {
      await runAgent({ file: resolve(options.file), logLevel: options.logLevel, checkOnly: options.check === true });
    });
}
