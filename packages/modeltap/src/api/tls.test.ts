import assert from 'node:assert/strict';
import { once } from 'node:events';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { connect } from 'node:tls';
import { writeCertificate } from '../../../../test/support/certificate.ts';
import { silentLogger } from '../kit/logger.ts';
import { createFront } from './front.ts';
import { TlsFiles } from './tls.ts';

const directory = mkdtempSync(join(tmpdir(), 'modeltap-tls-'));
after(() => rmSync(directory, { recursive: true }));
for (const name of ['one', 'two']) writeCertificate(directory, name);
const files = { cert: join(directory, 'tls.cert.pem'), key: join(directory, 'tls.key.pem') };
const use = (name: string, part: 'cert' | 'key') => copyFileSync(join(directory, `${name}.${part}.pem`), files[part]);

/** The common name of the certificate that is served. */
async function served(port: number): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  const { CN } = socket.getPeerCertificate().subject;
  socket.destroy();
  return String(CN);
}

test('a certificate is served, and a new one as soon as its key is there too', async () => {
  use('one', 'cert');
  use('one', 'key');
  const tls = new TlsFiles({ ...files, logger: silentLogger, lookEveryMs: 20 });
  const server = createFront({ tls }, (_request, response) => response.end()).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  assert.equal(await served(port), 'one.models.test');
  const changed = new Promise<void>((done) => tls.onChange(done));
  use('two', 'cert');
  tls.reload();
  assert.equal(await served(port), 'one.models.test', 'half a change is not taken');
  use('two', 'key');
  await changed;
  assert.equal(await served(port), 'two.models.test');
  tls.close();
  server.close();
});

test('files that cannot be used are refused by name', () => {
  use('one', 'cert');
  use('two', 'key');
  const open = () => new TlsFiles({ ...files, logger: silentLogger });
  assert.throws(open, { code: 'tls_unusable', message: /tls\.cert\.pem with the key .*tls\.key\.pem .*mismatch/ });
  writeFileSync(files.cert, 'no certificate');
  assert.throws(open, { code: 'tls_unusable' });
  rmSync(files.cert);
  assert.throws(open, { code: 'file_unreadable', message: /tls\.cert\.pem: ENOENT/ });
});
