import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { SpoolWriter } from '../spool/types.ts';
import { DedupeWindow, DUPLICATE, PENDING } from './dedupe.ts';

const spool = {} as SpoolWriter;
const other = {} as SpoolWriter;

/** What the window should do, written as plainly as possible. */
class Model {
  readonly events: { key: string; claim: number; durable: boolean }[] = [];
  readonly size: number;
  next = 0;

  constructor(size: number) {
    this.size = size;
  }

  claim(key: string): number {
    const known = this.events.find((event) => event.key === key);
    if (known) return known.durable ? DUPLICATE : PENDING;
    const claim = this.next++;
    const old = this.events.findIndex((event) => event.claim === claim - this.size);
    if (old >= 0) this.events.splice(old, 1);
    this.events.push({ key, claim, durable: false });
    return claim;
  }

  settle(claim: number, good: boolean): void {
    const at = this.events.findIndex((event) => event.claim === claim);
    const event = this.events[at];
    if (event === undefined) return;
    if (good) event.durable = true;
    else this.events.splice(at, 1);
  }
}

test('the window does what a plain list of the last events does', () => {
  const step = fc.record({ id: fc.nat(12), destination: fc.nat(1), body: fc.nat(1), settle: fc.option(fc.boolean()) });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 6 }), fc.array(step, { maxLength: 60 }), (size, steps) => {
      const window = new DedupeWindow(size);
      const model = new Model(size);
      const open: number[] = [];
      for (const { id, destination, body, settle } of steps) {
        const salt = window.saltOf(destination === 0 ? spool : other, 7);
        const claim = window.claim(salt, `id-${id}`, 10 + body, 99);
        assert.equal(claim, model.claim(`${destination} ${id} ${body}`));
        if (claim >= 0) open.push(claim);
        if (settle === null) continue;
        const settled = open.shift();
        if (settled === undefined) continue;
        window.settle(settled, settle ? undefined : 'spool_full');
        model.settle(settled, settle);
      }
    }),
  );
});

test('who waits for an event is told once what became of it', () => {
  const window = new DedupeWindow(10);
  const salt = window.saltOf(spool, 1);
  const told: unknown[] = [];
  const claim = window.claim(salt, 'a', 1, 1);
  for (let turn = 0; turn < 2; turn += 1) {
    assert.equal(window.claim(salt, 'a', 1, 1), PENDING);
    window.wait((refusal) => told.push(refusal));
  }
  window.settle(claim, 'spool_busy');
  assert.deepEqual(told, ['spool_busy', 'spool_busy']);
  assert.ok(window.claim(salt, 'a', 1, 1) >= 0);
});

test('ids that differ in one character are different events', () => {
  const window = new DedupeWindow(200_000);
  const salt = window.saltOf(spool, 1);
  for (let index = 0; index < 150_000; index += 1)
    assert.ok(window.claim(salt, `event-${index}`, 5, 5) >= 0, String(index));
});
