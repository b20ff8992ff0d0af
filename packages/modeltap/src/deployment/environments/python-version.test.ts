import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseInterpreter, isPythonVersion } from './python-version.ts';

const found = (...versions: string[]) =>
  versions.map((version) => ({ path: `/usr/bin/python${version}`, version, hasVenv: true }));
const chosen = (wanted: string | undefined, ...versions: string[]) =>
  chooseInterpreter(wanted, found(...versions))?.interpreter.version;

for (const [wanted, versions, expected] of [
  ['=3.10', ['3.11.7', '3.10.13', '3.9.18'], '3.10.13'],
  ['3.10', ['3.11.7', '3.10.13'], '3.10.13'],
  ['=3.10.4', ['3.11.7', '3.10.13'], '3.10.13'],
  ['=3.10.*', ['3.11.7', '3.10.13'], '3.10.13'],
  ['>=3.8,<3.11', ['3.12.1', '3.11.7', '3.9.18', '3.10.13'], '3.10.13'],
  ['<3.10.9', ['3.11.7', '3.10.2'], '3.10.2'],
  ['~=3.9', ['3.8.1', '3.11.7'], '3.11.7'],
  ['=3', ['3.13.0', '3.11.7'], '3.11.7'],
  ['=3.8', ['3.12.1', '3.11.7', '3.10.13'], '3.10.13'],
  ['=3.13', ['3.8.18', '3.11.7', '3.9.18'], '3.11.7'],
  ['=3.6', ['3.6.15', '3.7.16', '3.9.18', '3.8.18'], '3.8.18'],
  [undefined, ['3.14.0', '3.12.1', '3.9.18'], '3.12.1'],
  [undefined, ['3.14.0', '3.13.0'], '3.13.0'],
  ['', ['3.11.2', '3.11.7'], '3.11.2'],
] as const) {
  test(`python ${wanted ?? 'unspecified'} among ${versions.join(', ')} is ${expected}`, () => {
    assert.equal(chosen(wanted, ...versions), expected);
  });
}

test('another minor version comes with a warning that names both', () => {
  const other = chooseInterpreter('=3.8', found('3.11.7'));
  assert.equal(other?.warning, 'Python 3.8 is asked for and not on this machine; Python 3.11.7 is used');
  assert.equal(chooseInterpreter('=3.11.2', found('3.11.7'))?.warning, undefined);
});

test('too old ones do not count', () => assert.equal(chosen('=3.7', '3.7.16', '3.6.15'), undefined));

test('what can stand behind python in a conda file', () => {
  for (const text of ['', '=3.10', '3.10.*', '>=3.8,<3.12', '3', '~=3.9', '=*']) assert.ok(isPythonVersion(text), text);
  for (const text of ['=three', '>=', '3.10 and more', '=3.10|3.11']) assert.ok(!isPythonVersion(text), text);
});
