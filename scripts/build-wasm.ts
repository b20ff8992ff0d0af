import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { main } from 'assemblyscript/asc';

const root = fileURLToPath(new URL('..', import.meta.url));
const source = 'packages/modeltap/assembly/scan.ts';
const target = join(root, 'packages/modeltap/src/ingest/scan.wasm.ts');

/** The text of `scan.wasm.ts` for the assembly source as it is now. Throws what the compiler printed when it fails. */
export async function renderScanModule(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'modeltap-wasm-'));
  try {
    const file = join(directory, 'scan.wasm');
    const flags = ['-O3', '--enable', 'simd', '--runtime', 'stub', '--noAssert', '--initialMemory', '10'];
    let printed = '';
    const stderr = {
      write(text: string | Uint8Array) {
        printed += String(text);
      },
    };
    const { error } = await main([source, ...flags, '--baseDir', root, '-o', file], { stderr });
    if (error) throw new TypeError(`${error.message}\n${printed}`, { cause: error });
    const bytes = await readFile(file);
    return [
      `// Made from ${source} by scripts/build-wasm.ts. Do not edit.`,
      '',
      '/** Size of the module, bytes. */',
      `export const SCAN_WASM_BYTES = ${bytes.length};`,
      '',
      '/** The module, base64. */',
      `export const SCAN_WASM = '${bytes.toString('base64')}';`,
      '',
    ].join('\n');
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await writeFile(target, await renderScanModule());
  console.log(`wrote ${target}`);
}
