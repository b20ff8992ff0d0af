import { open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { ModeltapError, systemCode } from '../kit/errors.ts';
import type { Destination } from './types.ts';

const FILE = 'destinations.json';
const VERSION = 1;

/** Most destinations one spool directory remembers: each is a deployment's collection with one set of settings. */
const MAX_DESTINATIONS = 100_000;

/** The settings of a destination, before it has its number. */
export type DestinationSettings = Omit<Destination, 'id'>;

/** The numbered destinations of one spool directory. Numbers are given once and rows are never removed or changed. */
export interface Destinations {
  /**
   * The destination with exactly these settings, with its number. A new one is on disk (fsync of file and folder) before
   * this resolves, so a record may name it. `destinations_full` beyond 100 000.
   */
  intern(settings: DestinationSettings): Promise<Destination>;
  get(id: number): Destination | undefined;
  all(): readonly Destination[];
}

/** Settings as text, in one key order: equal text means equal settings. */
function identity(settings: DestinationSettings): string {
  const { endpoint, deployment, collection, source, datastore, path, rollingRate, batch, batchWindowMs } = settings;
  return JSON.stringify([endpoint, deployment, collection, source, datastore, path, rollingRate, batch, batchWindowMs]);
}

/** Reads the destinations of a spool directory; none when it has no file yet. `destinations_damaged` when the file cannot be read as one. */
export async function readDestinations(directory: string): Promise<readonly Destination[]> {
  const path = join(directory, FILE);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return [];
    throw error;
  }
  try {
    const file = JSON.parse(text) as { version?: unknown; destinations?: unknown };
    if (file.version === VERSION && Array.isArray(file.destinations)) return file.destinations as Destination[];
  } catch (error) {
    throw new ModeltapError('destinations_damaged', { path }, { cause: error });
  }
  throw new ModeltapError('destinations_damaged', { path });
}

/** Replaces the file whole: written beside, fsynced, renamed, folder fsynced. */
async function writeDestinations(directory: string, destinations: readonly Destination[]): Promise<void> {
  const path = join(directory, FILE);
  const beside = `${path}.new`;
  const rows = destinations.map((row) => JSON.stringify(row)).join(',\n');
  const file = await open(beside, 'w');
  try {
    await file.writeFile(`{"version":${VERSION},"destinations":[\n${rows}\n]}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(beside, path);
  const folder = await open(directory, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** Opens the destinations of an existing spool directory. One process writes them: the one that owns the spool. */
export async function openDestinations(directory: string): Promise<Destinations> {
  const byId = new Map<number, Destination>();
  const bySettings = new Map<string, Destination>();
  const add = (row: Destination) => {
    byId.set(row.id, row);
    bySettings.set(identity(row), row);
  };
  for (const row of await readDestinations(directory)) add(row);
  let writing: Promise<unknown> = Promise.resolve();

  const store = async (settings: DestinationSettings): Promise<Destination> => {
    const found = bySettings.get(identity(settings));
    if (found) return found;
    if (byId.size >= MAX_DESTINATIONS) throw new ModeltapError('destinations_full', { limit: MAX_DESTINATIONS });
    const row: Destination = { ...settings, id: byId.size + 1 };
    await writeDestinations(directory, [...byId.values(), row]);
    add(row);
    return row;
  };
  return {
    intern(settings) {
      const found = bySettings.get(identity(settings));
      if (found) return Promise.resolve(found);
      const next = writing.then(() => store(settings));
      writing = next.catch(() => undefined);
      return next;
    },
    get: (id) => byId.get(id),
    all: () => [...byId.values()],
  };
}
