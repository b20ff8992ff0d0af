/** A conda version as a pip specifier, or why it has no equivalent. */
export type ConvertedVersion = { readonly specifier: string; readonly note?: string } | { readonly problem: string };

/** A version of PEP 440; conda's own extra forms (`1.1.1k`, dates with letters) are not versions on PyPI. */
const VERSION =
  /^v?(?:\d+!)?\d+(?:\.\d+)*(?:[-_.]?(?:a|b|c|rc|alpha|beta|pre|preview)[-_.]?\d*)?(?:-\d+|[-_.]?(?:post|rev|r)[-_.]?\d*)?(?:[-_.]?dev[-_.]?\d*)?(?:\+[a-z0-9]+(?:[-_.][a-z0-9]+)*)?$/i;
/** Only digits: what conda's fuzzy `=1.2` and pip's `==1.2.*` agree about. */
const PLAIN = /^(?:\d+!)?\d+(?:\.\d+)*$/;
const CLAUSE = /^(===|==|~=|!=|>=|<=|>|<|=|)(.*)$/;

/**
 * The pip specifier for what stands behind a name in a conda specification: `=1.2` → `==1.2.*` (conda's fuzzy equals),
 * `==1.2`, `1.2` → `==1.2`, `1.2.*` → `==1.2.*`, ranges as they are, `=1.2.3` with a build → `==1.2.3`. Empty for any.
 */
export function pipSpecifier(version: string, build?: string): ConvertedVersion {
  const text = version.replace(/\s+/g, '');
  if (text.includes('|')) {
    return { problem: `"${version.trim()}" offers a choice, which pip has no form for; name one range` };
  }
  const specifiers: string[] = [];
  const notes: string[] = [];
  for (const clause of text.split(',').filter((part) => part !== '')) {
    const converted = convertClause(clause, build !== undefined);
    if ('problem' in converted) return converted;
    if (converted.specifier !== '') specifiers.push(converted.specifier);
    if (converted.note !== undefined) notes.push(converted.note);
  }
  if (build !== undefined) notes.push(`the build string ${build} means nothing on PyPI`);
  const specifier = specifiers.join(',');
  return notes.length === 0 ? { specifier } : { specifier, note: notes.join('; ') };
}

function convertClause(clause: string, hasBuild: boolean): ConvertedVersion {
  const [, operator = '', operand = ''] = CLAUSE.exec(clause) ?? [];
  if (operand === '*') return { specifier: '' };
  const starred = operand.endsWith('*');
  const bare = starred ? operand.replace(/\.?\*$/, '') : operand;
  if (!VERSION.test(bare)) {
    return { problem: `"${clause}" is not a version as PyPI has them (digits, dots, rc1, post1)` };
  }
  const fuzzy = (operator === '=' && !hasBuild) || starred;
  if (operator === '' || operator === '=' || operator === '==' || operator === '===') {
    if (!fuzzy || !PLAIN.test(bare)) return { specifier: `==${bare}` };
    const loose = starred && !operand.endsWith('.*');
    return loose
      ? { specifier: `==${bare}.*`, note: `"${clause}" is taken as ${bare}.*` }
      : { specifier: `==${bare}.*` };
  }
  if (operator === '!=' && starred) return { specifier: `!=${bare}.*` };
  // Conda allows a star behind a comparison and ignores it; pip does not.
  return { specifier: `${operator}${bare}` };
}
