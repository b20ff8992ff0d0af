import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { registerHooks, type ResolveHookSync } from 'node:module';
import { relative, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { errorText, ModeltapError, systemCode } from '../../kit/errors.ts';
import type { ScoringRequest } from './request.ts';

/** What a scoring script exports. */
export interface ScoringScript {
  /** Called once before the first request; may be async. */
  init(): unknown;
  /** Called for every request; may be async. */
  run(data: string, request: ScoringRequest): unknown;
}

const COLLECTOR = '@modeltap/collector';

/**
 * Imports a scoring script. Errors are `scoring_script` with the place (file:line) where Node names one: a file that
 * is missing, does not parse, imports what does not exist, throws while loading, or does not export `init` and `run`.
 */
export async function loadScript(appRoot: string, entryScript: string): Promise<ScoringScript> {
  const file = resolve(appRoot, entryScript);
  if (statSync(file, { throwIfNoEntry: false })?.isFile() !== true) {
    throw new ModeltapError('scoring_script', { script: entryScript, detail: `there is no such file in ${appRoot}` });
  }
  const loading = watchLoading();
  let module: Record<string, unknown>;
  try {
    module = (await import(pathToFileURL(file).href)) as Record<string, unknown>;
  } catch (error) {
    const detail = explainImportError(error, appRoot, loading.last() ?? file);
    throw new ModeltapError('scoring_script', { script: entryScript, detail }, { cause: error });
  } finally {
    loading.stop();
  }
  const found = exported(module);
  const missing = (['init', 'run'] as const).filter((name) => typeof found[name] !== 'function');
  if (missing.length > 0) {
    const detail = `it must export the functions init and run; ${missing.join(' and ')} ${missing.length === 1 ? 'is' : 'are'} missing`;
    throw new ModeltapError('scoring_script', { script: entryScript, detail });
  }
  return found as unknown as ScoringScript;
}

/** The collector packages a scoring script has loaded. */
export interface LoadedCollectors {
  /** Waits until what they hold is delivered, at most `timeoutMs`. Never rejects; says what is left. */
  flush(timeoutMs: number): Promise<number>;
}

/**
 * Lets a script outside any `node_modules` import `@modeltap/collector`: where Node finds none from the script, the
 * copy that this package depends on is taken. A copy installed beside the script wins.
 */
export function provideCollector(): LoadedCollectors {
  const loaded = new Set<string>();
  registerHooks({
    resolve(specifier, context, next) {
      if (specifier !== COLLECTOR && !specifier.startsWith(`${COLLECTOR}/`)) return next(specifier, context);
      const found = resolveCollector(specifier, context, next);
      if (specifier === COLLECTOR) loaded.add(found.url);
      return found;
    },
  });
  return {
    async flush(timeoutMs) {
      const left = await Promise.all([...loaded].map((url) => flushCollector(url, timeoutMs)));
      return left.reduce((sum, pending) => sum + pending, 0);
    },
  };
}

const resolveCollector: ResolveHookSync = (specifier, context, next) => {
  try {
    return next(specifier, context);
  } catch (error) {
    if (systemCode(error) !== 'ERR_MODULE_NOT_FOUND') throw error;
    return next(specifier, { ...context, parentURL: import.meta.url });
  }
};

/** The module is loaded already, so the import gives the script's own copy. Another version may have no `flush`. */
async function flushCollector(url: string, timeoutMs: number): Promise<number> {
  try {
    const { flush } = (await import(url)) as { flush?: (options: { timeoutMs: number }) => Promise<unknown> };
    const result = (await flush?.({ timeoutMs })) as { pending?: unknown } | undefined;
    return typeof result?.pending === 'number' ? result.pending : 0;
  } catch {
    // A copy that failed to load has nothing to flush.
    return 0;
  }
}

/** Remembers the last file Node began to load: a syntax error of plain JavaScript does not say where it is. */
function watchLoading(): { last(): string | undefined; stop(): void } {
  let url: string | undefined;
  const hooks = registerHooks({
    load(next, context, load) {
      url = next;
      return load(next, context);
    },
  });
  return {
    last: () => (url?.startsWith('file:') ? fileURLToPath(url) : undefined),
    stop: () => hooks.deregister(),
  };
}

/** ES modules export by name; CommonJS scripts may hold both functions in `module.exports`. */
function exported(module: Record<string, unknown>): Record<string, unknown> {
  const { default: main } = module;
  if (typeof module.run === 'function' || typeof main !== 'object' || main === null) return module;
  return main as Record<string, unknown>;
}

function explainImportError(error: unknown, appRoot: string, lastFile: string): string {
  const text = errorText(error);
  const place = placeOf(error) ?? (error instanceof SyntaxError ? checkedPlace(lastFile) : undefined);
  const where = place === undefined ? '' : `${shortPlace(place, appRoot)}: `;
  switch (systemCode(error)) {
    case 'ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX':
      return `${where}${text}; types are stripped, not compiled, so write enum, namespace and parameter properties in plain JavaScript, or deploy the compiled .js file`;
    case 'ERR_MODULE_NOT_FOUND':
      return `${text.replaceAll(`${appRoot}/`, '')}; name files with their extension (./model.ts), and install packages in a node_modules folder beside the script or above it`;
    default:
      return `${where}${text}`;
  }
}

/** `file:line[:column]` of an error: the head Node puts above a code frame, or else the first frame in a file. */
function placeOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || error.stack === undefined) return undefined;
  const head = /^((?:file:\/\/)?\/[^\n]*?:\d+)\n/.exec(error.stack)?.[1];
  if (head !== undefined || error instanceof SyntaxError) return head;
  return /\((file:\/\/[^)]+:\d+:\d+)\)|at (file:\/\/\S+:\d+:\d+)/.exec(error.stack)?.slice(1).find(Boolean);
}

/** Asks Node where a file does not parse; only on the way to a failure, so its time does not matter. */
function checkedPlace(file: string): string | undefined {
  const { stderr } = spawnSync(process.execPath, ['--check', file], { encoding: 'utf8', timeout: 10_000 });
  return /^((?:file:\/\/)?\/[^\n]*?:\d+)\n/m.exec(stderr ?? '')?.[1];
}

function shortPlace(place: string, appRoot: string): string {
  const [, file = place, rest = ''] = /^(.*?)((?::\d+){1,2})$/.exec(place) ?? [];
  const path = file.startsWith('file:') ? fileURLToPath(file) : file;
  const short = relative(appRoot, path);
  return `${short.startsWith('..') ? path : short}${rest}`;
}
