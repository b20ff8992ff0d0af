import type { BlockBlobClient, ContainerClient, StoragePipelineOptions } from '@azure/storage-blob';
import { type AzureContext, azureError, hideSecrets } from './azure-errors.ts';
import { type DatastoreOptions, StorageError } from './store.ts';

type AzureOptions = Extract<DatastoreOptions, { type: 'azure_blob' }>;

/** Longest wait for an answer, before the time the body needs is added. */
const REQUEST_TIMEOUT_MS = 30_000;
/** Slowest uplink a request is sized for. */
const SLOWEST_BYTES_PER_MS = 256;

/** What one request is about. */
export interface AzureCall {
  readonly action: string;
  readonly key: string;
  /** Bytes that go or come with it: they lengthen the time limit. */
  readonly bytes?: number;
}

/** The container, and the one way to ask it for something. */
export interface AzureContainer {
  readonly client: ContainerClient;
  readonly timeoutMs: number;
  blob(key: string): BlockBlobClient;
  /**
   * Runs one request with a time limit; what goes wrong is a `StorageError`. The request gets the signal that ends it
   * and a way to end it later (for a body that is still read when the call is over).
   */
  call<T>(what: AzureCall, request: (signal: AbortSignal, abort: () => void) => Promise<T>): Promise<T>;
  error(what: AzureCall, error: unknown): StorageError;
}

/**
 * Makes the client of a container. The SDK is loaded here, so that nobody pays for it who has no Azure datastore. It
 * tries once: retrying belongs to the delivery loop, which knows about the other datastores and shows what it waits for.
 */
export async function openContainer(
  options: AzureOptions,
  timeoutMs: number = REQUEST_TIMEOUT_MS,
): Promise<AzureContainer> {
  const client = await makeClient(options);
  const context = { store: options.name, container: options.containerName, secrets: secretsOf(options) };
  const call = async <T>(
    what: AzureCall,
    request: (signal: AbortSignal, abort: () => void) => Promise<T>,
  ): Promise<T> => {
    const controller = new AbortController();
    const limitMs = timeoutMs + Math.ceil((what.bytes ?? 0) / SLOWEST_BYTES_PER_MS);
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      controller.abort();
    }, limitMs);
    try {
      return await request(controller.signal, () => controller.abort());
    } catch (error) {
      if (error instanceof StorageError || !timedOut) throw azureError({ ...context, ...what }, error);
      const late = `no answer within ${limitMs} ms`;
      const timed: AzureContext = { ...context, ...what, timedOutMs: limitMs };
      throw azureError(timed, new DOMException(late, 'TimeoutError'));
    } finally {
      clearTimeout(timer);
    }
  };
  return {
    client,
    timeoutMs,
    blob: (key) => client.getBlockBlobClient(key),
    call,
    error: (what, error) => azureError({ ...context, ...what }, error),
  };
}

async function makeClient(options: AzureOptions): Promise<ContainerClient> {
  const sdk = await import('@azure/storage-blob');
  const pipeline: StoragePipelineOptions = {
    retryOptions: { maxTries: 1 },
    userAgentOptions: { userAgentPrefix: 'modeltap' },
  };
  const { credentials, containerName } = options;
  try {
    const url = `${options.serviceUrl.replace(/\/+$/, '')}/${encodeURIComponent(containerName)}`;
    if (credentials.kind === 'connection_string') {
      return new sdk.ContainerClient(credentials.connectionString, containerName, pipeline);
    }
    if (credentials.kind === 'sas_token') {
      return new sdk.ContainerClient(`${url}?${credentials.sasToken.replace(/^\?/, '')}`, undefined, pipeline);
    }
    const key = new sdk.StorageSharedKeyCredential(options.accountName, credentials.accountKey);
    return new sdk.ContainerClient(url, key, pipeline);
  } catch (error) {
    const reason = hideSecrets(error instanceof Error ? error.message : String(error), secretsOf(options));
    throw new StorageError(
      'invalid',
      `datastore ${options.name}: its address or credentials cannot be used: ${reason}`,
      {
        fix: 'Correct endpoint, account name and credentials of the datastore.',
      },
    );
  }
}

/** The parts of the credentials that must not appear in any text, as given and percent-decoded. */
function secretsOf(options: AzureOptions): string[] {
  const { credentials } = options;
  if (credentials.kind === 'account_key') return [credentials.accountKey];
  if (credentials.kind === 'sas_token') return signatures(credentials.sasToken);
  const key = /AccountKey=([^;]+)/i.exec(credentials.connectionString)?.[1];
  return [credentials.connectionString, ...(key ? [key] : []), ...signatures(credentials.connectionString)];
}

function signatures(text: string): string[] {
  const found = /(?:^|[?&;=])sig=([^&;\s]+)/i.exec(text)?.[1];
  if (found === undefined) return [];
  // URLSearchParams decodes without throwing on a bad escape; a plus sign is itself in a SAS.
  return [found, new URLSearchParams(`v=${found.replaceAll('+', '%2B')}`).get('v') ?? found];
}
