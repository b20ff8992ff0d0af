import type { Findings } from './check.ts';
import { shown, text } from './fields.ts';
import type { KeyPath } from './yaml.ts';

const MIN_NAME = 3;
const MAX_NAME = 32;

/**
 * The name of an endpoint or deployment: 3 to 32 characters, a letter first, letters, digits and hyphens, a letter or digit
 * last. Underscores are allowed as well, because Azure ML's own documentation uses `my_endpoint`; see `warnUnderscore`.
 */
export function resourceName() {
  return text((name) => {
    if (name.length < MIN_NAME || name.length > MAX_NAME) {
      return { problem: `${shown(name)} has ${name.length} characters; a name has ${MIN_NAME} to ${MAX_NAME}` };
    }
    if (/^[A-Za-z][A-Za-z0-9_-]*[A-Za-z0-9]$/.test(name)) return name;
    return {
      problem: `${shown(name)} is not a name: it begins with a letter, has letters, digits and hyphens, and ends with a letter or digit`,
    };
  });
}

/** Warns when a name would be refused by Azure ML itself. */
export function warnUnderscore(findings: Findings, path: KeyPath): void {
  const name = findings.document.scalar(path)?.text;
  if (name?.includes('_'))
    findings.warning(
      path,
      'Azure ML does not take underscores in this name; use hyphens if the file is to work there too',
    );
}
