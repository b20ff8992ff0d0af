/** One row of the error registry. `{name}` in a text is filled from the parameters given at the throw. */
export interface ErrorRow {
  /** What is wrong, naming the thing. */
  readonly message: string;
  /** What the reader can do about it. */
  readonly fix: string;
  /** HTTP status an API answers with. */
  readonly http: number;
  /** Exit code of the command line: 1 failure, 2 bad usage or input, 3 not found, 4 conflict, 5 unavailable. */
  readonly exit: number;
}

/**
 * Every error Modeltap raises, by code. `docs/errors.md` is generated from this table (`npm run docs`) and the docs
 * test proves that both agree. Keep it sorted by code.
 */
export const ERRORS = {
  address_not_loopback: {
    message: 'refusing to listen on {address}: there is no access control yet, so only loopback addresses are allowed',
    fix: 'Use 127.0.0.1, ::1 or localhost.',
    http: 400,
    exit: 2,
  },
  internal: {
    message: 'unexpected failure: {detail}',
    fix: 'This is a defect of Modeltap. Please report it with the log lines around it.',
    http: 500,
    exit: 1,
  },
  not_found: {
    message: '{kind} "{name}" does not exist',
    fix: 'List what exists with "modeltap {command} list".',
    http: 404,
    exit: 3,
  },
  port_in_use: {
    message: 'port {port} on {host} is already in use',
    fix: 'Stop the other program or choose another port with {option}.',
    http: 500,
    exit: 4,
  },
} as const satisfies Record<string, ErrorRow>;

/** A code of the registry. */
export type ErrorCode = keyof typeof ERRORS;
