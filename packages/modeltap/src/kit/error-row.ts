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
