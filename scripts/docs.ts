/**
 * Writes the pages that are made from code: `docs/errors.md` and `docs/cli.md`. `npm run docs` runs it; the docs test
 * fails when a page and its source differ.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { ERRORS as SDK_ERRORS } from '../packages/collector/src/errors.ts';
import { createProgram } from '../packages/modeltap/src/cli/main.ts';
import { ERRORS } from '../packages/modeltap/src/kit/error-codes.ts';
import type { ErrorRow } from '../packages/modeltap/src/kit/error-row.ts';

const root = resolve(import.meta.dirname, '..');

/** The text of `docs/errors.md`. */
export function errorsPage(): string {
  const rows = Object.entries<ErrorRow>(ERRORS).map(
    ([code, row]) => `| \`${code}\` | ${escape(row.message)} | ${escape(row.fix)} | ${row.http} | ${row.exit} |`,
  );
  const sdk = Object.entries(SDK_ERRORS).map(
    ([code, row]) => `| \`${code}\` | ${escape(row.message)} | ${escape(row.fix)} |`,
  );
  return `# Errors

Made from the error registries by \`npm run docs\`. \`{name}\` stands for a value filled in where the error is raised.

## modeltap

The command line prints \`error <code>: <message>\` and \`fix: …\` and exits with the exit code; HTTP answers carry the
status and \`{"error":{"code","message","fix"}}\`. Exit codes: 1 failed, 2 bad usage or input, 3 not found, 4 conflict,
5 unavailable.

| code | message | fix | HTTP | exit |
|---|---|---|---:|---:|
${rows.join('\n')}

## @modeltap/collector

\`CollectorError\` has \`code\`, \`message\` and \`fix\`.

| code | message | fix |
|---|---|---|
${sdk.join('\n')}
`;
}

/** The text of `docs/cli.md`. */
export function cliPage(): string {
  const parts = [
    '# Command line',
    '',
    'Made from the command table by `npm run docs`. Every command answers `--help`.',
    'In a checkout: `npx modeltap …`. Commands that talk to a workspace find it by `--workspace` (default `.modeltap`, or',
    '`MODELTAP_WORKSPACE`), or by `MODELTAP_URL`. Exit codes are on [the errors page](errors.md).',
    '',
  ];
  for (const command of createProgram().commands) section(command, ['modeltap'], parts);
  return `${parts.join('\n').trimEnd()}\n`;
}

function section(command: Command, path: readonly string[], parts: string[]): void {
  const here = [...path, command.name()];
  if (command.commands.length > 0) {
    parts.push(`## ${here.join(' ')}`, '', command.description(), '');
    for (const child of command.commands) section(child, here, parts);
    return;
  }
  const help = command.createHelp();
  const wanted = command.registeredArguments.map((argument) => ` <${argument.name()}>`).join('');
  parts.push(`${path.length > 1 ? '###' : '##'} ${here.join(' ')}${wanted}`, '', `${command.description()}.`, '');
  parts.push('| option | meaning |', '|---|---|');
  for (const option of help.visibleOptions(command)) {
    parts.push(`| \`${option.flags.replaceAll('|', '\\|')}\` | ${escape(help.optionDescription(option))} |`);
  }
  parts.push('');
}

function escape(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('<', '&lt;').replaceAll('\n', ' ');
}

/** Every generated page: file below the root and its text. */
export const PAGES: readonly { readonly file: string; readonly text: () => string }[] = [
  { file: 'docs/errors.md', text: errorsPage },
  { file: 'docs/cli.md', text: cliPage },
];

if (import.meta.main) {
  for (const { file, text } of PAGES) {
    const target = resolve(root, file);
    const before = readFileSync(target, { encoding: 'utf8', flag: 'a+' });
    const after = text();
    if (before !== after) writeFileSync(target, after);
    console.log(`${before === after ? 'same   ' : 'written'} ${file}`);
  }
}
