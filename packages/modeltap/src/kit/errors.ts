import { ERRORS, type ErrorCode } from './error-codes.ts';
import type { ErrorRow } from './error-row.ts';

/** Values for the `{name}` slots of a registry text. */
export type ErrorParams = Readonly<Record<string, string | number | bigint | boolean>>;

/** The only error class Modeltap raises on purpose. Everything about it but the parameters comes from the registry. */
export class ModeltapError extends Error {
  override readonly name = 'ModeltapError';
  readonly code: ErrorCode;
  /** What the reader can do about it. */
  readonly fix: string;
  readonly httpStatus: number;
  readonly exitCode: number;
  /** The parameters that filled the texts. Never holds a secret. */
  readonly params: ErrorParams;

  constructor(code: ErrorCode, params: ErrorParams = {}, options: { cause?: unknown } = {}) {
    const row: ErrorRow = ERRORS[code];
    super(fill(row.message, params), options);
    this.code = code;
    this.fix = fill(row.fix, params);
    this.httpStatus = row.http;
    this.exitCode = row.exit;
    this.params = params;
  }
}

/** True for an error of this class, also across two copies of the package. */
export function isModeltapError(error: unknown): error is ModeltapError {
  return error instanceof Error && error.name === 'ModeltapError' && 'code' in error && 'httpStatus' in error;
}

/** The body every HTTP answer with an error has: `{"error":{code,message,fix}}`. */
export interface ErrorBody {
  readonly error: { readonly code: ErrorCode; readonly message: string; readonly fix: string };
}

/** Turns anything thrown into an error of the registry; what is not one becomes `internal` with the cause kept. */
export function toModeltapError(error: unknown): ModeltapError {
  if (isModeltapError(error)) return error;
  return new ModeltapError(
    'internal',
    { detail: error instanceof Error ? error.message : String(error) },
    { cause: error },
  );
}

/** The answer body for an error. */
export function toErrorBody(error: ModeltapError): ErrorBody {
  return { error: { code: error.code, message: error.message, fix: error.fix } };
}

/** The text of anything thrown, for a log line. */
export function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The `code` of a Node system error (`ENOENT`, `EADDRINUSE`), or undefined. */
export function systemCode(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

function fill(text: string, params: ErrorParams): string {
  return text.replace(/\{(\w+)\}/g, (slot, name: string) => (name in params ? String(params[name]) : slot));
}
