import { type Issues, named } from './issues.ts';
import type { JsonValue } from './json-text.ts';
import { headsOf, TableBuilder } from './table.ts';
import { LIMITS, type Table } from './types.ts';

/*
 * The shapes in which JSON protocols write tables. Columns without a name are called by their position, as pandas and so
 * Azure's own collector call them: "0", "1", …
 */

/** Whether a value is one cell rather than something to take apart: a scalar, or bytes as `{"b64": …}`. */
export function isCell(value: JsonValue): boolean {
  if (value.isScalar) return true;
  if (value.kind !== 'object') return false;
  const members = value.members();
  const first = members.next();
  return first.done !== true && first.value[0] === 'b64' && members.next().done === true;
}

type RowKind = 'a list' | 'an object' | 'a value';

function rowKind(value: JsonValue): RowKind {
  if (isCell(value)) return 'a value';
  return value.kind === 'array' ? 'a list' : 'an object';
}

const positions: string[] = [];

function positionName(at: number): string {
  positions[at] ??= String(at);
  return positions[at];
}

/** Adds a list as a row of columns "0", "1", …; it may be shorter than others. */
function addList(builder: TableBuilder, list: JsonValue): boolean {
  const cells: [string, string][] = [];
  for (const item of list.items()) {
    // One more than allowed is enough for the builder to refuse.
    if (cells.length > LIMITS.columns) break;
    cells.push([positionName(cells.length), item.text]);
  }
  return builder.add(cells);
}

/** A list of objects, of lists or of values, one row each. They must be of one kind; `where` names the list in issues. */
export function tableFromList(list: JsonValue, where: string, issues: Issues): Table | undefined {
  const builder = new TableBuilder(issues);
  let kind: RowKind | undefined;
  let at = 0;
  for (const item of list.items()) {
    if (!builder.hasRoom()) break;
    const own = rowKind(item);
    kind ??= own;
    if (own !== kind) return nothing(issues, `${where}[${at}] is ${own}, but ${where}[0] is ${kind}`);
    const more =
      own === 'a list'
        ? addList(builder, item)
        : own === 'an object'
          ? builder.addObject(item)
          : builder.add([[positionName(0), item.text]]);
    if (!more) break;
    at += 1;
  }
  return builder.finish();
}

/** One object, one row; an object without members is no row. */
export function tableFromRecord(record: JsonValue, issues: Issues): Table | undefined {
  const builder = new TableBuilder(issues);
  if (record.members().next().done !== true) builder.addObject(record);
  return builder.finish();
}

/** One value, one row, one column "0". */
export function tableFromCell(cell: JsonValue, issues: Issues): Table | undefined {
  const builder = new TableBuilder(issues);
  builder.add([[positionName(0), cell.text]]);
  return builder.finish();
}

/** Whether an object has the members `columns` and `data` of pandas' `split` form, both lists. */
export function isSplit(fields: ReadonlyMap<string, JsonValue>): boolean {
  return fields.get('columns')?.kind === 'array' && fields.get('data')?.kind === 'array';
}

/** pandas' `split` form: `{"columns": […], "index": […], "data": [[…], …]}`. The index is left out. */
export function tableFromSplit(
  fields: ReadonlyMap<string, JsonValue>,
  where: string,
  issues: Issues,
): Table | undefined {
  const columns = fields.get('columns');
  const data = fields.get('data');
  if (columns?.kind !== 'array') return nothing(issues, `${where}.columns is missing or not a list`);
  if (data?.kind !== 'array') return nothing(issues, `${where}.data is missing or not a list`);
  const names: string[] = [];
  for (const name of columns.items()) {
    if (names.length > LIMITS.columns) break;
    names.push(name.string);
  }
  const builder = new TableBuilder(issues);
  if (!builder.declare(names)) return undefined;
  const heads = headsOf(names);
  let at = 0;
  for (const row of data.items()) {
    if (!builder.hasRoom()) break;
    if (row.kind !== 'array') return nothing(issues, `${where}.data[${at}] is not a list`);
    const texts: string[] = [];
    for (const cell of row.items()) {
      if (texts.length === names.length) return nothing(issues, `${where}.data[${at}] has more values than columns`);
      texts.push(cell.text);
    }
    if (texts.length < names.length) {
      return nothing(issues, `${where}.data[${at}] has ${texts.length} values for ${names.length} columns`);
    }
    builder.addCells(heads, texts);
    at += 1;
  }
  return builder.finish();
}

function lengthOf(list: JsonValue): number {
  let length = 0;
  for (const _ of list.items()) length += 1;
  return length;
}

/** How many rows lists of columns have: undefined when members are not all lists, or differ in length. */
export function commonLength(fields: ReadonlyMap<string, JsonValue>): number | undefined {
  let common: number | undefined;
  for (const value of fields.values()) {
    if (value.kind !== 'array') return undefined;
    const length = lengthOf(value);
    common ??= length;
    if (length !== common) return undefined;
  }
  return common;
}

function tableFromLists(fields: ReadonlyMap<string, JsonValue>, rows: number, issues: Issues): Table | undefined {
  const names = [...fields.keys()];
  const builder = new TableBuilder(issues);
  if (!builder.declare(names)) return undefined;
  const heads = headsOf(names);
  const columns = [...fields.values()].map((value) => value.items());
  for (let row = 0; row < rows && builder.hasRoom(); row += 1) {
    builder.addCells(
      heads,
      columns.map((column) => column.next().value?.text ?? 'null'),
    );
  }
  return builder.finish();
}

/** Whether every member is an object under whole numbers: pandas' `columns` form, `{"a": {"0": 1, "1": 2}}`. */
function isIndexed(fields: ReadonlyMap<string, JsonValue>): boolean {
  for (const value of fields.values()) {
    if (value.kind !== 'object') return false;
    let empty = true;
    for (const [name] of value.members()) {
      if (!/^\d{1,15}$/.test(name)) return false;
      empty = false;
    }
    if (empty) return false;
  }
  return fields.size > 0;
}

function tableFromIndexed(fields: ReadonlyMap<string, JsonValue>, issues: Issues): Table | undefined {
  const builder = new TableBuilder(issues);
  if (!builder.declare([...fields.keys()])) return undefined;
  const rows = new Map<string, Map<string, string>>();
  for (const [name, column] of fields) {
    for (const [index, value] of column.members()) {
      const row = rows.get(index) ?? new Map<string, string>();
      rows.set(index, row.set(name, value.text));
    }
  }
  for (const row of rows.values()) if (!builder.hasRoom() || !builder.add(row)) break;
  return builder.finish();
}

/** Columns by name: lists of one length, or pandas' `columns` form. Undefined, without an issue, when it is neither. */
export function tableFromColumns(
  fields: ReadonlyMap<string, JsonValue>,
  issues: Issues,
): { readonly table: Table | undefined } | undefined {
  const rows = commonLength(fields);
  if (rows !== undefined) return { table: tableFromLists(fields, rows, issues) };
  return isIndexed(fields) ? { table: tableFromIndexed(fields, issues) } : undefined;
}

/**
 * Whatever somebody passed for a table: `split` form, a list, columns by name, or else one row (an object's members, or
 * a single value). `where` names the value in issues.
 */
export function tableFromAny(value: JsonValue, where: string, issues: Issues): Table | undefined {
  if (isCell(value)) return tableFromCell(value, issues);
  if (value.kind === 'array') return tableFromList(value, where, issues);
  const fields = value.fields();
  if (isSplit(fields)) return tableFromSplit(fields, where, issues);
  const columns = tableFromColumns(fields, issues);
  return columns === undefined ? tableFromRecord(value, issues) : columns.table;
}

/** Columns by name where nothing else is allowed: lists of one length, or single values for one row. */
export function tableFromTensors(value: JsonValue, where: string, issues: Issues): Table | undefined {
  const fields = value.fields();
  if (fields.size === 0) return nothing(issues, `${where} has no members`);
  const columns = tableFromColumns(fields, issues);
  if (columns !== undefined) return columns.table;
  const odd = [...fields].find(([, member]) => !isCell(member));
  if (odd === undefined) return tableFromRecord(value, issues);
  return nothing(issues, `the members of ${where} are not lists of one length (see ${named(odd[0])})`);
}

/** Says why there is no table. */
export function nothing(issues: Issues, issue: string): undefined {
  issues.add(issue);
  return undefined;
}
