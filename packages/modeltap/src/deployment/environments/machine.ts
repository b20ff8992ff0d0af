/** What building an environment inherits from the machine: what pip and uv read to find and trust an index, and no more. */
const INHERITED =
  /^(?:PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|TEMP|TMP|NETRC|LD_LIBRARY_PATH|XDG_\w+|SSL_CERT_\w+|SSL_CLIENT_CERT|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|(?:https?|no|all|ftp)_proxy|PIP_\w+|UV_\w+)$/i;

/** Settings that would put packages elsewhere, take another interpreter, or change what is printed. */
const NOT_INHERITED =
  /^(?:PIP_(?:TARGET|PREFIX|ROOT|USER|PYTHON|REQUIREMENT|EDITABLE|DRY_RUN|REPORT|LOG|QUIET|VERBOSE|UPGRADE|IGNORE_INSTALLED|NO_DEPS|PROGRESS_BAR|REQUIRE_VIRTUALENV)|UV_(?:PYTHON|PROJECT|SYSTEM_PYTHON|BREAK_SYSTEM_PACKAGES|VENV_\w+|MANAGED_PYTHON|NO_MANAGED_PYTHON|WORKING_DIR\w*|DIRECTORY|LOG_CONTEXT|PYTHON_DOWNLOADS))$/;

/** Variables of a process. */
export type Variables = Readonly<Record<string, string>>;

/** The variables of the commands that build an environment. */
export function buildVariables(machine: Readonly<Record<string, string | undefined>>): Variables {
  const variables: Record<string, string> = {};
  for (const [name, value] of Object.entries(machine)) {
    if (value !== undefined && INHERITED.test(name) && !NOT_INHERITED.test(name)) variables[name] = value;
  }
  return {
    ...variables,
    PIP_DISABLE_PIP_VERSION_CHECK: '1',
    PIP_NO_INPUT: '1',
    PIP_USER: '0',
    // Only interpreters that are present: fetching one is the decision of whoever runs the machine.
    UV_PYTHON_DOWNLOADS: 'never',
    NO_COLOR: '1',
  };
}

/** pip's settings, from its files and variables, as `pip config list` prints them: `index-url`, `cert`, … */
export type PipSettings = ReadonlyMap<string, string>;

/** Reads the output of `pip config list`. A variable wins over `[install]`, which wins over `[global]`, as in pip. */
export function readPipSettings(output: string): PipSettings {
  const rank = (section: string) => [':env:', 'install'].indexOf(section) + 1 || 3;
  const found = new Map<string, { rank: number; value: string }>();
  for (const match of output.matchAll(/^(:env:|[\w-]+)\.([\w-]+)=(['"])(.*)\3\s*$/gm)) {
    const [, section = '', key = '', , value = ''] = match;
    if (section !== ':env:' && section !== 'install' && section !== 'global') continue;
    const earlier = found.get(key);
    if (earlier !== undefined && earlier.rank <= rank(section)) continue;
    found.set(key, { rank: rank(section), value: value.replace(/\\n/g, '\n').replace(/\\(['"\\])/g, '$1') });
  }
  return new Map([...found].map(([key, { value }]) => [key, value.trim()]));
}

/** pip's settings that uv has under another name: [pip's key, uv's variable, its other names, separator of lists]. */
const FOR_UV: readonly (readonly [key: string, name: string, others: readonly string[], separator?: string])[] = [
  ['index-url', 'UV_DEFAULT_INDEX', ['UV_INDEX_URL']],
  ['extra-index-url', 'UV_INDEX', ['UV_EXTRA_INDEX_URL'], ' '],
  ['find-links', 'UV_FIND_LINKS', [], ','],
  ['trusted-host', 'UV_INSECURE_HOST', [], ' '],
  ['constraint', 'UV_CONSTRAINT', [], ' '],
  ['cert', 'SSL_CERT_FILE', []],
  ['client-cert', 'SSL_CLIENT_CERT', []],
  ['timeout', 'UV_HTTP_TIMEOUT', []],
  ['default-timeout', 'UV_HTTP_TIMEOUT', []],
  ['proxy', 'ALL_PROXY', ['all_proxy', 'HTTPS_PROXY', 'https_proxy']],
];

/**
 * What uv gets on top: the settings of pip, which uv does not read by itself, where the machine sets none for uv. Indexes
 * are searched as pip does it: the best version of all of them.
 */
export function uvVariables(variables: Variables, settings: PipSettings): Variables {
  const added: Record<string, string> = {};
  for (const [key, name, others, separator] of FOR_UV) {
    const value = settings.get(key);
    if (value === undefined || [name, ...others].some((one) => one in variables)) continue;
    added[name] = separator === undefined ? value : value.split(/\s+/).join(separator);
  }
  if (/^(?:1|true|yes|on)$/i.test(settings.get('no-index') ?? '')) added.UV_NO_INDEX = '1';
  if (/^(?:1|true|yes|on)$/i.test(settings.get('pre') ?? '')) added.UV_PRERELEASE = 'allow';
  const bundle = variables.REQUESTS_CA_BUNDLE ?? variables.CURL_CA_BUNDLE;
  if (bundle !== undefined) added.SSL_CERT_FILE ??= bundle;
  return { UV_INDEX_STRATEGY: 'unsafe-best-match', ...added, ...variables };
}
