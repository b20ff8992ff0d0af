import { createReadStream } from 'node:fs';
import { fileKeyOf, suffixOf } from '../record/object-key.ts';
import { type ObjectBody, type ObjectStore, StorageError } from '../storage/store.ts';
import { testStore } from '../storage/stores.ts';
import type { Batch, RawPut, Target } from './batch.ts';
import type { Intent, IntentObject, Journal, ObjectState } from './journal.ts';
import { inParallel } from './parallel.ts';

/** A file is sealed before it would grow above this, whatever the store allows. Azure's readers open files whole. */
const MAX_FILE_BYTES = 256 * 1024 * 1024;
/** Objects written at once. */
const PARALLEL = 4;
/** Times the store must call one object invalid before it is given up. */
const INVALID_TRIES = 3;
const LINES_TYPE = 'application/x-ndjson';

/** The places of a cycle where a crash is tested: behind the intent, behind the raw objects, behind one append, before the end of the cycle. */
export type CycleStep = 'intent' | 'raws' | 'append' | 'finish';

/** What writing a batch needs. */
export interface ApplyOptions {
  readonly store: ObjectStore;
  readonly journal: Journal;
  readonly spoolId: string;
  /** Called at each step; tests throw here. */
  readonly onStep: (step: CycleStep) => void;
  /** Called when another writer was found on a file of this lane. */
  readonly onConflict: (key: string, error: StorageError) => void;
}

/** What is known of the present cycle, kept over its retries. */
export interface CycleProgress {
  intent: Intent;
  readonly objects: Map<string, IntentObject>;
  /** Raw keys and folders that are done. */
  readonly done: Set<string>;
  /** Folders whose file must not be appended to any more. */
  readonly sealed: Set<string>;
  /** Folders whose lines the store never takes. */
  readonly poisoned: Set<string>;
  /** Answers `invalid` by raw key or folder. */
  readonly invalid: Map<string, number>;
}

/** Progress at the start of a cycle, or of its repetition after a crash. */
export function progressOf(intent: Intent): CycleProgress {
  return {
    intent,
    objects: new Map(intent.objects),
    done: new Set(),
    sealed: new Set(),
    poisoned: new Set(),
    invalid: new Map(),
  };
}

/** Where the lines of each target go: the folder's newest file, or the next one when it is full. */
export async function placeTargets(
  options: ApplyOptions,
  targets: readonly Target[],
): Promise<ReadonlyMap<string, IntentObject>> {
  const objects = new Map<string, IntentObject>();
  const failures = await inParallel(targets, PARALLEL, async (target) => {
    const state = options.journal.object(target.folder) ?? (await freshState(options, target.folder));
    objects.set(target.folder, place(options, target, state));
  });
  if (failures.length > 0) throw failures[0];
  return objects;
}

function place(options: ApplyOptions, target: Target, state: ObjectState): IntentObject {
  const { appends, appendBytes } = options.store.limits;
  const bytes = target.lines.length;
  const full =
    state.bytes > 0 && (state.appends + 1 > appends || state.bytes + bytes > Math.min(appendBytes, MAX_FILE_BYTES));
  const at = full ? { suffix: state.suffix + 1, bytes: 0, appends: 0 } : state;
  return {
    folder: target.folder,
    suffix: at.suffix,
    offset: at.bytes,
    appends: at.appends,
    bytes,
    crc: target.crc,
  };
}

/**
 * A file that this lane has not begun: behind the highest number found in the folder. What is found there is from before
 * the journal forgot it, may end in half a line, and is left alone.
 */
async function freshState(options: ApplyOptions, folder: string): Promise<ObjectState> {
  let suffix = 0;
  let after: string | undefined;
  do {
    const page = await options.store
      .list({ prefix: `${folder}/${options.spoolId}`, ...(after === undefined ? {} : { after }) })
      .catch((error: unknown) => {
        // A prefix the store calls wrong has no objects; the append that follows decides.
        if (error instanceof StorageError && error.kind === 'invalid') return undefined;
        throw error;
      });
    for (const { key } of page?.objects ?? []) suffix = Math.max(suffix, (suffixOf(key, options.spoolId) ?? -1) + 1);
    after = page?.next;
  } while (after !== undefined);
  return { suffix, bytes: 0, appends: 0 };
}

/**
 * Writes a batch whose intent is journaled: raw objects first, then lines. May be called again with the same progress
 * until it resolves; whatever was written before, by this process or one before it, is not written twice. Throws the
 * first failure after everything under way has ended. `replan` asks for the batch to be made again without the records
 * that were excluded.
 */
export async function applyBatch(
  options: ApplyOptions,
  batch: Batch,
  progress: CycleProgress,
): Promise<'applied' | 'replan'> {
  const rawFailures = await inParallel(batch.raws, PARALLEL, (raw) => putRaw(options, raw, progress));
  if (rawFailures.length > 0) {
    if (await excludePoison(options, batch.raws, progress)) return 'replan';
    throw worst(rawFailures);
  }
  options.onStep('raws');
  const failures = await inParallel(batch.targets, PARALLEL, (target) => appendLines(options, target, progress));
  if (failures.length > 0) {
    const poison = batch.targets.map(({ folder }) => folder).filter((folder) => isPoison(progress, folder));
    if (poison.length === 0 || !(await takesWrites(options))) throw worst(failures);
    for (const folder of poison) {
      progress.poisoned.add(folder);
      progress.done.add(folder);
    }
    if (batch.targets.some(({ folder }) => !progress.done.has(folder))) throw worst(failures);
  }
  return 'applied';
}

/**
 * Object states after a batch was applied. A file is left for the next one when it must not be appended to, and also
 * when the intent names it but the batch made again has no lines for it: then its length is not known.
 */
export function statesAfter(
  store: ObjectStore,
  batch: Batch,
  progress: CycleProgress,
): readonly (ObjectState & { readonly folder: string })[] {
  const written = new Set(batch.targets.map((target) => target.folder));
  const states: (ObjectState & { readonly folder: string })[] = [];
  for (const { folder, suffix, offset, bytes, appends } of progress.objects.values()) {
    if (progress.poisoned.has(folder)) continue;
    const closed = !written.has(folder) || progress.sealed.has(folder) || store.limits.appends === 0;
    states.push(
      closed
        ? { folder, suffix: suffix + 1, bytes: 0, appends: 0 }
        : { folder, suffix, bytes: offset + bytes, appends: appends + 1 },
    );
  }
  return states;
}

/** The failure that says most: one that can be mended from outside before one of a single object. */
function worst(failures: readonly unknown[]): unknown {
  return failures.find((failure) => !(failure instanceof StorageError) || failure.retryable) ?? failures[0];
}

function noteInvalid(progress: CycleProgress, name: string, error: unknown): void {
  if (error instanceof StorageError && error.kind === 'invalid') {
    progress.invalid.set(name, (progress.invalid.get(name) ?? 0) + 1);
  }
}

function isPoison(progress: CycleProgress, name: string): boolean {
  return !progress.done.has(name) && (progress.invalid.get(name) ?? 0) >= INVALID_TRIES;
}

/** Whether the store takes an object at all. If not, `invalid` is the store's trouble and everything is held. */
async function takesWrites(options: ApplyOptions): Promise<boolean> {
  return (await testStore(options.store)) === undefined;
}

/** Takes out the records whose raw object the store never takes, durably. True when there were any. */
async function excludePoison(
  options: ApplyOptions,
  raws: readonly RawPut[],
  progress: CycleProgress,
): Promise<boolean> {
  const poison = raws.filter((raw) => isPoison(progress, raw.key)).map((raw) => raw.position);
  if (poison.length === 0 || !(await takesWrites(options))) return false;
  const excluded = [...progress.intent.excluded, ...poison];
  progress.intent = { ...progress.intent, excluded, objects: progress.objects };
  options.journal.begin(progress.intent);
  return true;
}

async function putRaw(options: ApplyOptions, raw: RawPut, progress: CycleProgress): Promise<void> {
  if (progress.done.has(raw.key)) return;
  const { source } = raw;
  const body: ObjectBody =
    'body' in source ? source.body : { bytes: raw.bytes, open: () => createReadStream(source.path) };
  try {
    // The key is made of the spool position, so an object that is there already is this one.
    await options.store.put(raw.key, body, { ifAbsent: true, contentType: raw.contentType });
  } catch (error) {
    noteInvalid(progress, raw.key, error);
    throw error;
  }
  progress.done.add(raw.key);
}

async function appendLines(options: ApplyOptions, target: Target, progress: CycleProgress): Promise<void> {
  const { folder } = target;
  if (progress.done.has(folder)) return;
  const chunk = target.lines;
  const object = await reconcile(options, target, progress);
  if (object === 'written') {
    progress.done.add(folder);
    return;
  }
  const key = fileKeyOf(folder, options.spoolId, object.suffix);
  try {
    await write(options, key, chunk, object.offset);
  } catch (error) {
    noteInvalid(progress, folder, error);
    if (!(error instanceof StorageError) || error.kind !== 'conflict') throw error;
    options.onConflict(key, error);
    // The bytes may be there, followed by someone else's: then they are stored, and only the file is lost to us.
    if (await holds(options.store, key, chunk, object.offset)) progress.sealed.add(folder);
    else {
      await moveOn(options, target, progress, object.suffix);
      throw error;
    }
  }
  progress.done.add(folder);
  options.onStep('append');
}

/** Appends, or where a store cannot, puts the chunk as an object of its own. */
async function write(options: ApplyOptions, key: string, chunk: Buffer, offset: number): Promise<void> {
  const { store } = options;
  if (store.limits.appends > 0) {
    await store.append(key, chunk, offset);
    return;
  }
  const { created } = await store.put(key, chunk, { ifAbsent: true, contentType: LINES_TYPE });
  if (!created && !(await holds(store, key, chunk, 0))) {
    throw new StorageError('conflict', `${key} exists with other content`);
  }
}

/**
 * What the journal says about a target, checked against the bytes just made. They differ only when the program or its
 * settings changed between a crash and now: then the object's length tells whether the old bytes are in it. When it
 * ends in between, the lines go to the next file, whole.
 */
async function reconcile(
  options: ApplyOptions,
  target: Target,
  progress: CycleProgress,
): Promise<IntentObject | 'written'> {
  const { crc } = target;
  const bytes = target.lines.length;
  const object = progress.objects.get(target.folder);
  if (object?.bytes === bytes && object.crc === crc) return object;
  if (!object) return redirect(options, progress, place(options, target, await freshState(options, target.folder)));
  const key = fileKeyOf(target.folder, options.spoolId, object.suffix);
  const length = (await options.store.head(key))?.bytes ?? 0;
  if (length === object.offset + object.bytes) return 'written';
  if (length === object.offset) return redirect(options, progress, { ...object, bytes, crc });
  return moveOn(options, target, progress, object.suffix);
}

/** Sends a target's lines to a file that does not exist yet. */
async function moveOn(
  options: ApplyOptions,
  target: Target,
  progress: CycleProgress,
  past: number,
): Promise<IntentObject> {
  const fresh = await freshState(options, target.folder);
  const suffix = Math.max(fresh.suffix, past + 1);
  return redirect(options, progress, place(options, target, { suffix, bytes: 0, appends: 0 }));
}

function redirect(options: ApplyOptions, progress: CycleProgress, object: IntentObject): IntentObject {
  options.journal.redirect(object);
  progress.objects.set(object.folder, object);
  return object;
}

/** Whether the object has exactly these bytes at `offset`. */
async function holds(store: ObjectStore, key: string, chunk: Buffer, offset: number): Promise<boolean> {
  const info = await store.head(key);
  if (!info || info.bytes < offset + chunk.length) return false;
  const stream = await store.get(key, { start: offset, end: offset + chunk.length });
  if (!stream) return false;
  let at = 0;
  for await (const part of stream as AsyncIterable<Buffer>) {
    if (!part.equals(chunk.subarray(at, at + part.length))) {
      stream.destroy();
      return false;
    }
    at += part.length;
  }
  return at === chunk.length;
}
