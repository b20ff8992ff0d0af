import { type Command, InvalidArgumentError, Option } from 'commander';
import { type Column, FORMATS, type Format, render } from './output.ts';
import { type Client, connect } from './client.ts';

/** Options that every command that talks to a workspace has. */
export interface CommonOptions {
  readonly workspace: string;
  readonly output: Format;
}

/** Adds `--workspace` and `-o`, and accepts the words of `az ml` that mean nothing here. */
export function withCommon(command: Command, defaultFormat: Format = 'json'): Command {
  return command
    .addOption(
      new Option('--workspace <dir>', 'directory of the workspace').default('.modeltap').env('MODELTAP_WORKSPACE'),
    )
    .addOption(new Option('-o, --output <format>', 'output format').choices(FORMATS).default(defaultFormat))
    .addOption(new Option('-g, --resource-group <name>', 'accepted for az ml; no effect here').hideHelp())
    .addOption(new Option('-w, --workspace-name <name>', 'accepted for az ml; no effect here').hideHelp())
    .addOption(new Option('--subscription <id>', 'accepted for az ml; no effect here').hideHelp())
    .hook('preAction', (_parent, action) => {
      for (const name of ['resourceGroup', 'workspaceName', 'subscription']) {
        if (action.getOptionValue(name) === undefined) continue;
        const flag = action.options.find((option) => option.attributeName() === name)?.long;
        process.stderr.write(
          `warning: ${flag} has no effect here: the workspace is the directory given with --workspace\n`,
        );
      }
    });
}

/** The client for the workspace of these options. */
export function clientOf(options: CommonOptions): Promise<Client> {
  return connect(options.workspace);
}

/** Prints an answer in the chosen format on standard output. With an empty table, `empty` says on standard error what to do next. */
export function show<T>(
  value: T | readonly T[],
  options: CommonOptions,
  columns: readonly Column<T>[],
  empty = '',
): void {
  process.stdout.write(render(value, options.output, columns));
  const none = Array.isArray(value) && value.length === 0;
  if (none && empty !== '' && options.output === 'table') process.stderr.write(`${empty}\n`);
}

/** Reads a whole number within bounds from the command line. */
export function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < min || value > max) {
      throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`);
    }
    return value;
  };
}

/** Progress for a person: rewrites one line on a terminal, prints each distinct text once elsewhere. On standard error. */
export function progress(): { say(text: string): void; end(): void } {
  const terminal = process.stderr.isTTY;
  let last = '';
  return {
    say(text) {
      if (text === last) return;
      last = text;
      process.stderr.write(terminal ? `\r\x1b[2K${text}` : `${text}\n`);
    },
    end() {
      if (terminal && last !== '') process.stderr.write('\n');
    },
  };
}
