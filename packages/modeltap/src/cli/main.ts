import { Command, CommanderError } from 'commander';
import { isModeltapError, toModeltapError } from '../kit/errors.ts';
import { version } from '../kit/version.ts';
import { ApiError } from './client.ts';
import { COMMANDS } from './index.ts';
import { printable } from './output.ts';

/** Builds the whole command line. Exported so that the docs test can hold it against `docs/cli.md`. */
export function createProgram(): Command {
  const program = new Command('modeltap')
    .description('Collects what your models are asked and what they answer.')
    .version(version)
    // Else --version would mean Modeltap's own also behind a command that has a --version of its own.
    .enablePositionalOptions()
    .showHelpAfterError('(run with --help for the options)')
    .exitOverride();
  for (const command of COMMANDS) command.register(program);
  return program;
}

/** Runs one command line and sets the exit code: 0 done, 1 failed, 2 bad usage or input, 3 not found, 4 conflict, 5 unavailable. */
export async function main(argv: readonly string[]): Promise<void> {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
  });
  try {
    await createProgram().parseAsync([...argv], { from: 'user' });
  } catch (error) {
    process.exitCode = report(error);
  }
}

function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (error instanceof ApiError) {
    say(error.code, error.message, error.fix);
    return error.exitCode;
  }
  const known = toModeltapError(error);
  say(known.code, known.message, known.fix);
  if (!isModeltapError(error) && error instanceof Error && process.env.MODELTAP_DEBUG)
    process.stderr.write(`${error.stack}\n`);
  return known.exitCode;
}

function say(code: string, message: string, fix: string): void {
  const lines = [`error ${code}: ${message}`, ...(fix === '' ? [] : [`fix: ${fix}`])];
  process.stderr.write(`${lines.map((line) => line.split('\n').map(printable).join('\n')).join('\n')}\n`);
}
