import { generateKeyPairSync, randomBytes, sign } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/*
 * Node makes keys but no certificates. This writes the few structures of RFC 5280 that a self-signed one needs, so that
 * no key has to be kept in the repository and no other program is needed.
 */

function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
}

const sequence = (...parts: readonly Uint8Array[]) => der(0x30, ...parts);
const COMMON_NAME = Buffer.from('0603550403', 'hex');
const ALT_NAME = Buffer.from('0603551d11', 'hex');
const ECDSA_SHA256 = sequence(Buffer.from('06082a8648ce3d040302', 'hex'));

/** GeneralizedTime, whole seconds. */
const time = (date: Date) => der(0x18, Buffer.from(date.toISOString().replace(/[-:T]|\.\d+/g, '')));

/** Writes `<name>.cert.pem` and `<name>.key.pem`: a self-signed certificate for `<name>.models.test`, good for a day. */
export function writeCertificate(directory: string, name: string): void {
  const host = Buffer.from(`${name}.models.test`);
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const subject = sequence(der(0x31, sequence(COMMON_NAME, der(0x0c, host))));
  const serial = randomBytes(16);
  serial[0] = 0x40;
  const now = Date.now();
  const toSign = sequence(
    der(0xa0, der(0x02, Buffer.of(2))),
    der(0x02, serial),
    ECDSA_SHA256,
    subject,
    sequence(time(new Date(now - 3_600_000)), time(new Date(now + 86_400_000))),
    subject,
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(sequence(ALT_NAME, der(0x04, sequence(der(0x82, host)))))),
  );
  const signature = sign('sha256', toSign, privateKey);
  const certificate = sequence(toSign, ECDSA_SHA256, der(0x03, Buffer.of(0), signature));
  const lines = certificate.toString('base64').match(/.{1,64}/g) ?? [];
  mkdirSync(directory, { recursive: true });
  writeFileSync(
    join(directory, `${name}.cert.pem`),
    `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`,
  );
  writeFileSync(join(directory, `${name}.key.pem`), privateKey.export({ type: 'pkcs8', format: 'pem' }));
}
