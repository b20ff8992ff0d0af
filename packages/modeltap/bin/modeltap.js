#!/usr/bin/env node
// Plain JavaScript on purpose: it must parse on a Node that is too old, to be able to say so.
import process from 'node:process';

const major = Number(process.versions.node.split('.')[0]);
if (major < 24) {
  process.stderr.write(
    `modeltap needs Node 24 or newer; this is ${process.versions.node}. In a checkout, run it as "npx modeltap" so that the pinned Node is used.\n`,
  );
  process.exit(1);
}
await import('../dist/cli/entry.js');
