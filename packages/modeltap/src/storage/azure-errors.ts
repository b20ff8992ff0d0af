import { errorText, systemCode } from '../kit/errors.ts';
import { showKey } from './object-key-check.ts';
import { StorageError, type StorageErrorKind } from './store.ts';

/** What a failed request was about. */
export interface AzureContext {
  /** Name of the datastore. */
  readonly store: string;
  /** `put`, `append`, … */
  readonly action: string;
  readonly key: string;
  readonly container: string;
  /** Texts that must never be shown: account key, SAS signature. */
  readonly secrets: readonly string[];
  /** Set when our own time limit ended the request. */
  readonly timedOutMs?: number;
}

/** A `StorageError` that also says what the service answered, for the code that decides what to do about it. */
export class AzureStorageError extends StorageError {
  /** HTTP status; undefined when there was no answer. */
  readonly status: number | undefined;
  /** The service's error code, e.g. `BlobAlreadyExists`; or that of the socket. */
  readonly code: string | undefined;

  constructor(
    kind: StorageErrorKind,
    message: string,
    options: { fix: string; retryAfterMs?: number; cause?: unknown; status?: number; code?: string },
  ) {
    super(kind, message, options);
    this.status = options.status;
    this.code = options.code;
  }
}

/** True when `error` is an answer with one of these codes. */
export function hasCode(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof AzureStorageError && error.code !== undefined && codes.includes(error.code);
}

/** The parts of the SDK's `RestError` that are read here. */
interface Failure {
  readonly status: number | undefined;
  readonly code: string | undefined;
  readonly text: string;
  readonly header: (name: string) => string | undefined;
}

type Verdict = readonly [kind: StorageErrorKind, fix: string];

const ROLE = 'Give the identity the role "Storage Blob Data Contributor" on the container, or a SAS with racwdl.';
const LOOK = 'Look at the account in the Azure portal: it answers, but does not do what was asked.';
const WAIT = 'Modeltap waits and tries again by itself. If it lasts, look at the network and the state of the service.';
const OTHER_WRITER = 'Another program wrote to the object. Let only one agent write in a folder.';
const LEASE = 'Another program holds a lease on the object: break the lease.';
const WRONG_REQUEST = 'The same request cannot succeed. This is a defect of Modeltap: please report it.';

/** What the codes of the Blob service mean (learn.microsoft.com/rest/api/storageservices/blob-service-error-codes). */
const BY_CODE: Readonly<Record<string, Verdict>> = {
  AuthenticationFailed: [
    'refused',
    'Check the account key; with a SAS token its expiry; and the clock of this machine (15 minutes are tolerated).',
  ],
  InvalidAuthenticationInfo: ['refused', 'Check the account key or SAS token of the datastore.'],
  NoAuthenticationInformation: ['refused', 'Give the datastore an account key, a SAS token or a connection string.'],
  AuthorizationFailure: ['refused', `${ROLE} Also check the firewall of the storage account.`],
  AuthorizationPermissionMismatch: ['refused', ROLE],
  AuthorizationSourceIPMismatch: ['refused', 'The SAS token is for other IP addresses: make one for this machine.'],
  AuthorizationProtocolMismatch: ['refused', 'The SAS token is for https only: use an https endpoint.'],
  InsufficientAccountPermissions: ['refused', ROLE],
  KeyBasedAuthenticationNotPermitted: [
    'refused',
    'The account does not allow keys: enable them or use another account.',
  ],
  PublicAccessNotPermitted: ['refused', 'Give the datastore an account key, a SAS token or a connection string.'],
  AccountIsDisabled: ['refused', 'Enable the storage account.'],
  AccountRequiresHttps: ['refused', 'Use an https endpoint: the account does not allow http.'],
  InvalidHeaderValue: ['refused', LOOK],
  InvalidQueryParameterValue: ['refused', 'Check that the SAS token is complete; otherwise look at the account.'],
  UnauthorizedBlobOverwrite: ['refused', 'The SAS token may create but not overwrite: it needs the permission w.'],
  BlobImmutableDueToPolicy: [
    'refused',
    'An immutability policy or legal hold protects the object: use a container without.',
  ],
  BlobArchived: ['refused', 'The object is in the archive tier: rehydrate it.'],
  LeaseIdMissing: ['refused', LEASE],
  LeaseNotPresentWithBlobOperation: ['refused', LEASE],
  ContainerNotFound: ['no_container', 'Make the container, or correct its name in the datastore.'],
  ContainerBeingDeleted: ['no_container', 'The container is being deleted: make it again when that is over.'],
  ContainerDisabled: ['no_container', 'The container is disabled: look at it in the Azure portal.'],
  ResourceNotFound: ['no_container', 'Make the container, or correct its name and the endpoint of the datastore.'],
  BlobNotFound: ['conflict', OTHER_WRITER],
  InvalidBlockList: ['conflict', OTHER_WRITER],
  ServerBusy: ['throttled', WAIT],
  TooManyRequests: ['throttled', WAIT],
  OperationTimedOut: ['unreachable', WAIT],
  InternalError: ['unreachable', WAIT],
  AccountBeingCreated: ['unreachable', WAIT],
};

/**
 * Turns anything the SDK throws into a `StorageError`: by the service's code, else by the status, else by the socket's
 * error. An answer nobody planned for counts as `refused`, which is retried for ever with an alarm, rather than as
 * `invalid`, which gives the data up.
 */
export function azureError(context: AzureContext, error: unknown): StorageError {
  if (error instanceof StorageError) return error;
  const failure = readFailure(error);
  const [kind, fix] = verdict(context, failure, error);
  const answer = [failure.status, failure.code, failure.text].filter((part) => part !== undefined && part !== '');
  const place = `datastore ${context.store} (container ${context.container}): ${context.action} ${showKey(context.key)}`;
  const message = hideSecrets(`${place} failed: ${answer.join(' ')}`, context.secrets);
  const wait = kind === 'throttled' || kind === 'unreachable' ? retryAfterMs(failure.header) : undefined;
  return new AzureStorageError(kind, message, {
    fix,
    ...(wait === undefined ? {} : { retryAfterMs: wait }),
    ...(failure.status === undefined ? {} : { status: failure.status }),
    ...(failure.code === undefined ? {} : { code: failure.code }),
  });
}

function verdict(context: AzureContext, failure: Failure, error: unknown): Verdict {
  if (context.timedOutMs !== undefined) return ['unreachable', WAIT];
  const { status, code = '' } = failure;
  const known = Object.hasOwn(BY_CODE, code) ? BY_CODE[code] : undefined;
  if (known) return known;
  if (status === undefined) {
    // Not an answer and not the network: a programming error of ours or an address that is none.
    const wrong = error instanceof TypeError || error instanceof RangeError || error instanceof URIError;
    return wrong && systemCode(error) !== 'REQUEST_SEND_ERROR' ? ['invalid', WRONG_REQUEST] : ['unreachable', WAIT];
  }
  if (/Immutab|LegalHold/i.test(code)) return BY_CODE['BlobImmutableDueToPolicy'] ?? ['refused', LOOK];
  if (/Quota|Capacity|InsufficientStorage/i.test(code) || status === 507) {
    return ['full', 'The storage account is full: delete data, or have its capacity raised.'];
  }
  return byStatus(status);
}

function byStatus(status: number): Verdict {
  if (status === 401 || status === 403) return ['refused', ROLE];
  if (status === 404) return ['no_container', 'Check container and endpoint of the datastore: nothing is there.'];
  if (status === 429 || status === 503) return ['throttled', WAIT];
  if (status === 408 || status >= 500) return ['unreachable', WAIT];
  if (status === 409 || status === 412) return ['conflict', OTHER_WRITER];
  if (status === 400 || status === 411 || status === 413 || status === 416) return ['invalid', WRONG_REQUEST];
  return ['refused', LOOK];
}

function readFailure(error: unknown): Failure {
  const raw = (typeof error === 'object' && error !== null ? error : {}) as {
    statusCode?: number;
    code?: unknown;
    details?: { errorCode?: string; code?: string };
    response?: { headers?: { get(name: string): string | undefined } };
  };
  const header = (name: string) => raw.response?.headers?.get(name);
  // A HEAD answer has no body: its code is in a header.
  const own = typeof raw.code === 'string' ? raw.code : undefined;
  const code = header('x-ms-error-code') ?? raw.details?.errorCode ?? raw.details?.code ?? own;
  // The SDK calls a connection that broke while a body was read an abort, which would read as if we had ended it.
  const broke = error instanceof Error && error.name === 'AbortError';
  const text = broke ? 'the connection broke' : serviceText(errorText(error));
  return { status: raw.statusCode, code: broke ? undefined : code, text, header };
}

/** The sentence of an answer without the request id and time the service adds on lines of their own. */
function serviceText(text: string): string {
  const first = text.split(/\r?\n/, 1)[0] ?? '';
  return first.length > 300 ? `${first.slice(0, 300)}…` : first;
}

/** `x-ms-retry-after-ms`, `retry-after-ms`, or `Retry-After` as seconds or as a date; milliseconds, never negative. */
function retryAfterMs(header: (name: string) => string | undefined): number | undefined {
  for (const name of ['x-ms-retry-after-ms', 'retry-after-ms']) {
    const ms = header(name);
    if (ms !== undefined && /^\d+$/.test(ms)) return Number(ms);
  }
  const value = header('retry-after');
  if (value === undefined) return undefined;
  if (/^\d+$/.test(value)) return Number(value) * 1000;
  const at = Date.parse(value);
  return Number.isNaN(at) ? undefined : Math.max(0, at - Date.now());
}

/** Takes signatures, keys and the given texts out of a message. */
export function hideSecrets(text: string, secrets: readonly string[]): string {
  let shown = text.replace(/\b(sig|signature|AccountKey|SharedAccessSignature)=[^&;\s"']*/gi, '$1=[hidden]');
  for (const secret of secrets) {
    if (secret.length >= 4) shown = shown.replaceAll(secret, '[hidden]');
  }
  return shown;
}
