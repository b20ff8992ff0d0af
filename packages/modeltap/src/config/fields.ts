import { z } from 'zod';
import { parseBytes } from '../kit/bytes.ts';
import { closest } from './closest.ts';
import { PlainScalar } from './yaml.ts';

/*
 * Building blocks of the schemas. They exist because zod's own scalars know neither the text a number was written as nor
 * how to tell a reader of a YAML file what is allowed. Every one of them reports `is required` for a missing value; add
 * `.optional()` or `.default(value)` where it may be missing.
 */

/** With a suggestion, a list of known keys longer than this is left out. */
const MAX_LISTED = 8;

/** What is wrong with a value, optionally `at` characters into its text, or with its key. */
export interface Problem {
  readonly problem: string;
  readonly at?: number | 'key';
}

/** A field made from a function that gives the value or a problem. */
export function field<T>(read: (value: unknown) => T | Problem) {
  return z.unknown().transform((value, context): T => {
    const result = value === undefined ? { problem: 'is required' } : read(value);
    if (!isProblem(result)) return result;
    context.addIssue({ code: 'custom', message: result.problem, params: { at: result.at } });
    return z.NEVER;
  });
}

/** Text; numbers and booleans are taken as they were written. */
export function text(check: (text: string) => string | Problem = (value) => value) {
  return field((value) => {
    const read = asText(value);
    return read === undefined ? { problem: mustBe('text', value) } : check(read);
  });
}

/** Text that must not be empty. */
export function filled(what: string) {
  return text((value) => (value.trim() === '' ? { problem: `must be ${what}, not empty` } : value));
}

/** Text that must match; `rule` says what is allowed. */
export function matching(pattern: RegExp, rule: string) {
  return text((value) => (pattern.test(value) ? value : { problem: `${shown(value)} is not allowed: ${rule}` }));
}

/** `true` or `false`, also as text, in any case. Azure ML's own examples write `'True'`. */
export function flag() {
  return field((value): boolean | Problem => {
    const word = asText(value)?.trim().toLowerCase();
    if (word === 'true') return true;
    return word === 'false' ? false : { problem: mustBe('true or false', value) };
  });
}

/** A number, also as text, from `min` to `max`. */
export function number(range: { readonly min: number; readonly max: number; readonly unit?: string }) {
  return numeric(range, 'a number', Number.isFinite);
}

/** A whole number, also as text, from `min` to `max`. */
export function whole(range: { readonly min: number; readonly max: number; readonly unit?: string }) {
  return numeric(range, 'a whole number', Number.isSafeInteger);
}

/** A size such as `4MB`, as bytes. */
export function size(min: number) {
  return field((value): number | Problem => {
    const bytes = parseBytes(asText(value) ?? '');
    if (bytes === undefined) return { problem: mustBe('a size such as 64MB or 4GB', value) };
    return bytes < min ? { problem: `must be at least ${min} bytes` } : bytes;
  });
}

/** One of `words`, in any case. */
export function oneOf<const W extends string>(...words: readonly W[]) {
  return field((value): W | Problem => {
    const given = asText(value)?.trim();
    const word = words.find((each) => each.toLowerCase() === given?.toLowerCase());
    if (word !== undefined) return word;
    return { problem: `${mustBe(`one of ${words.join(', ')}`, value)}${didYouMean(given, words)}` };
  });
}

/** A key that is known but must not be used here; `why` says what to do instead. */
export function refused(why: string) {
  return field((): undefined | Problem => ({ problem: why, at: 'key' })).optional();
}

/** Any mapping; kept as written. */
export function freeMapping() {
  return field((value): Readonly<Record<string, unknown>> | Problem =>
    isMapping(value) ? value : { problem: mustBeMapping(value) },
  );
}

/** A mapping of text to text. */
export function textMapping() {
  return mappingOf(text()).default({});
}

/** A mapping with free keys and one kind of value. */
export function mappingOf<S extends z.ZodType>(value: S) {
  return nested(z.record(z.string(), value), (input) => (isMapping(input) ? undefined : mustBeMapping(input)));
}

/** A list. */
export function listOf<S extends z.ZodType>(item: S, max: number) {
  return nested(z.array(item), (input) => {
    if (!Array.isArray(input)) return mustBe('a list', input);
    return input.length > max ? `has ${input.length} items; at most ${max} are allowed` : undefined;
  });
}

/** A mapping with exactly these keys. `hint` may explain an unknown key; otherwise the nearest known key is suggested. */
export function mapping<S extends z.ZodRawShape>(shape: S, hint?: (key: string) => string | undefined) {
  const object = z.object(shape);
  const known = Object.keys(shape);
  return z.unknown().transform((value, context): z.output<typeof object> => {
    const wrong = value === undefined ? 'is required' : mustBeMapping(value);
    if (!isMapping(value)) {
      context.addIssue({ code: 'custom', message: wrong });
      return z.NEVER;
    }
    for (const key of Object.keys(value)) {
      if (Object.hasOwn(shape, key)) continue;
      const message = hint?.(key) ?? unknownKey(key, known);
      context.addIssue({ code: 'custom', path: [key], message, params: { at: 'key' } });
    }
    return forward(object.safeParse(value), context);
  });
}

/** Text read by `scalar`, anything else by `other`. */
export function scalarOr<A extends z.ZodType, B extends z.ZodType>(scalar: A, other: B) {
  return z.unknown().transform((value, context): z.output<A> | z.output<B> => {
    const parsed = asText(value) === undefined ? other.safeParse(value) : scalar.safeParse(value);
    return forward<z.output<A> | z.output<B>>(parsed, context);
  });
}

/** The text of a scalar, or undefined for anything else. */
export function asText(value: unknown): string | undefined {
  if (value instanceof PlainScalar) return value.text;
  return typeof value === 'string' ? value : undefined;
}

/** `must be <what>, not <value>`. */
export function mustBe(what: string, value: unknown): string {
  if (value === null) return `is empty; it must be ${what}, or be left out`;
  const given = asText(value);
  if (given !== undefined) return `must be ${what}, not ${shown(given)}`;
  return `must be ${what}, not ${Array.isArray(value) ? 'a list' : 'a mapping'}`;
}

/** The text for anything but a mapping. Does not repeat the value, which may be a secret with its key left out. */
export function mustBeMapping(value: unknown): string {
  const rule = 'a mapping (key: value lines)';
  if (asText(value) !== undefined) return `must be ${rule}, not one value`;
  return mustBe(rule, value);
}

/** A value for an error text, quoted and cut. */
export function shown(value: string): string {
  return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
}

function unknownKey(key: string, known: readonly string[]): string {
  const hint = didYouMean(key, known);
  const list = hint !== '' && known.length > MAX_LISTED ? '' : `; known keys: ${known.join(', ')}`;
  return `is not a key that can stand here${hint}${list}`;
}

function didYouMean(given: string | undefined, words: readonly string[]): string {
  const near = given === undefined ? undefined : closest(given, words);
  return near === undefined ? '' : `; did you mean "${near}"?`;
}

function numeric(
  range: { readonly min: number; readonly max: number; readonly unit?: string },
  what: string,
  valid: (value: number) => boolean,
) {
  const unit = range.unit === undefined ? '' : ` ${range.unit}`;
  const rule = `${what} from ${range.min} to ${range.max}${unit}`;
  return field((value): number | Problem => {
    const given = asText(value)?.trim() ?? '';
    const read =
      given === '' || (value instanceof PlainScalar && typeof value.value === 'boolean') ? Number.NaN : Number(given);
    return valid(read) && read >= range.min && read <= range.max ? read : { problem: mustBe(rule, value) };
  });
}

function nested<S extends z.ZodType>(schema: S, check: (input: unknown) => string | undefined) {
  return z.unknown().transform((value, context): z.output<S> => {
    const wrong = value === undefined ? 'is required' : check(value);
    if (wrong === undefined) return forward(schema.safeParse(value), context);
    context.addIssue({ code: 'custom', message: wrong });
    return z.NEVER;
  });
}

function forward<T>(parsed: z.ZodSafeParseResult<T>, context: z.core.$RefinementCtx): T {
  if (parsed.success) return parsed.data;
  for (const issue of parsed.error.issues) {
    const { message, path } = issue;
    context.addIssue({ code: 'custom', message, path: [...path], params: issue.code === 'custom' ? issue.params : {} });
  }
  return z.NEVER;
}

function isProblem(value: unknown): value is Problem {
  return typeof value === 'object' && value !== null && 'problem' in value;
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof PlainScalar);
}
