import type { IncomingMessage, ServerResponse } from 'node:http';
import { basename, dirname } from 'node:path';
import { formatIssues } from '../config/issues.ts';
import type { ConfigIssue } from '../config/types.ts';

/** Answers scoring requests, taken off before the API looks at them. */
export type ScoringRoute = (request: IncomingMessage, response: ServerResponse) => void;

/** An endpoint may be made from a file, a name, or both. */
export interface GivenEndpoint {
  readonly file?: string | undefined;
  readonly text?: string | undefined;
  readonly name?: string | undefined;
}

/** A change of an endpoint: from a file, from values given beside it, or both. What is not given stays as it is. */
export interface GivenEndpointChange extends GivenEndpoint {
  /** Deployment name → percent; replaces all shares there are. */
  readonly traffic?: Readonly<Record<string, number | string>> | undefined;
  readonly mirror_traffic?: Readonly<Record<string, number | string>> | undefined;
  /** Single values, with keys such as `tags.team` or `traffic.blue`. */
  readonly set?: readonly { readonly key: string; readonly value: string }[] | undefined;
}

/** A YAML file as the API takes it. */
export interface GivenFile {
  /** Absolute path: relative paths inside begin at its folder. */
  readonly file: string;
  readonly text: string;
  readonly name?: string | undefined;
}

/** A deployment file, and what the command line says beside it. */
export interface GivenDeployment extends GivenFile {
  readonly endpoint_name?: string | undefined;
  readonly all_traffic: boolean;
}

/** A model or an environment: from a file, from values given beside it, or both. */
export interface GivenAsset {
  /** Absolute path: relative paths inside begin at its folder. */
  readonly file?: string | undefined;
  readonly text?: string | undefined;
  /** Win over the keys of the text; paths among them should be absolute. */
  readonly overrides: Readonly<Record<string, string | undefined>>;
}

/** An answer with what the user should know about the file it came from. */
export interface Answered<T> {
  readonly value: T;
  readonly warnings: readonly string[];
}

/** Warnings as lines, each with the file's own name instead of its whole path. */
export function texts(warnings: readonly ConfigIssue[]): readonly string[] {
  return warnings.map((issue) =>
    formatIssues([{ ...issue, place: { ...issue.place, file: shortName(issue.place.file) } }]),
  );
}

function shortName(file: string): string {
  return dirname(file) === '.' ? file : basename(file);
}
