import { ModeltapError } from '../kit/errors.ts';
import type { ConfigIssue } from './types.ts';

/** Most problems shown for one file. */
const MAX_SHOWN = 100;

/** A file a user wrote, or one it names, is not valid. `issues` has every error and warning found, in the order of `sortIssues`. */
export class ConfigError extends ModeltapError {
  readonly issues: readonly ConfigIssue[];

  constructor(issues: readonly ConfigIssue[], options: { cause?: unknown } = {}) {
    const sorted = sortIssues(issues);
    super('config_invalid', { issues: formatIssues(sorted) }, options);
    this.issues = sorted;
  }
}

/** One line an issue: `deployment.yml:4:21 error data_collector.sampling_rate: must be a number from 0 to 1, not 2`. */
export function formatIssues(issues: readonly ConfigIssue[]): string {
  const lines = issues.slice(0, MAX_SHOWN).map(formatIssue);
  if (issues.length > MAX_SHOWN) lines.push(`and ${issues.length - MAX_SHOWN} more`);
  return lines.join('\n');
}

/** Files in the order of their first issue, in each the order of the file; issues of one place keep their order. */
export function sortIssues(issues: readonly ConfigIssue[]): readonly ConfigIssue[] {
  const files = [...new Set(issues.map((issue) => issue.place.file))];
  const rank = new Map(files.map((file, index) => [file, index]));
  return issues.toSorted(
    (a, b) =>
      (rank.get(a.place.file) ?? 0) - (rank.get(b.place.file) ?? 0) ||
      a.place.line - b.place.line ||
      a.place.column - b.place.column,
  );
}

function formatIssue(issue: ConfigIssue): string {
  const { file, line, column } = issue.place;
  const key = issue.key === '' ? '' : ` ${issue.key}`;
  return `${file}:${line}:${column} ${issue.severity}${key}: ${issue.message}`;
}
