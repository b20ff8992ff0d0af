import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';
import { chmod, open, readFile } from 'node:fs/promises';
import { errorText, ModeltapError, systemCode } from '../kit/errors.ts';

const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
/** First part of what is sealed; a later form would get another. */
const FORM = 'v1';

/** The secret of a workspace: seals what lies in the catalog and signs tokens. It is in a file of its own, never in the catalog. */
export class WorkspaceKey {
  readonly #file: string;
  readonly #bytes: Buffer;

  /** Use `loadWorkspaceKey`. */
  constructor(file: string, bytes: Buffer) {
    this.#file = file;
    this.#bytes = bytes;
  }

  /** AES-256-GCM. `place` says where the result is kept; it can be opened for that place only. */
  seal(text: string, place: string): string {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv('aes-256-gcm', this.#derive('seal', ''), nonce).setAAD(Buffer.from(place));
    const sealed = Buffer.concat([nonce, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]);
    return `${FORM}.${sealed.toString('base64url')}`;
  }

  /** Throws `workspace_key_unusable` for what another key sealed, or was sealed for another place or changed. */
  open(sealed: string, place: string): string {
    try {
      const bytes = Buffer.from(sealed.slice(FORM.length + 1), 'base64url');
      const decipher = createDecipheriv('aes-256-gcm', this.#derive('seal', ''), bytes.subarray(0, NONCE_BYTES))
        .setAAD(Buffer.from(place))
        .setAuthTag(bytes.subarray(-TAG_BYTES));
      const text = decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES), undefined, 'utf8');
      return text + decipher.final('utf8');
    } catch (cause) {
      const detail = `it does not open what the catalog holds for ${place}`;
      throw new ModeltapError('workspace_key_unusable', { file: this.#file, detail }, { cause });
    }
  }

  /** 32 bytes to sign with; another purpose or salt gives others, and none of them tells the key. */
  derive(purpose: string, salt: string): Buffer {
    return this.#derive(`derive ${purpose}`, salt);
  }

  #derive(purpose: string, salt: string): Buffer {
    return Buffer.from(hkdfSync('sha256', this.#bytes, salt, `modeltap ${purpose}`, KEY_BYTES));
  }
}

/**
 * Reads the key from its file, readable by its owner only. `made` is true when there was no file and a new key was made:
 * what an earlier one sealed is lost. Throws `workspace_key_unusable`.
 */
export async function loadWorkspaceKey(file: string): Promise<{ readonly key: WorkspaceKey; readonly made: boolean }> {
  try {
    const made = await makeKeyFile(file);
    const text = (await readFile(file, 'utf8')).trim();
    const bytes = Buffer.from(text, 'base64url');
    if (bytes.length !== KEY_BYTES || bytes.toString('base64url') !== text) {
      throw new ModeltapError('workspace_key_unusable', { file, detail: 'it does not hold a key' });
    }
    await chmod(file, 0o600);
    return { key: new WorkspaceKey(file, bytes), made };
  } catch (cause) {
    if (cause instanceof ModeltapError) throw cause;
    throw new ModeltapError(
      'workspace_key_unusable',
      { file, detail: systemCode(cause) ?? errorText(cause) },
      { cause },
    );
  }
}

/** False when there is a file already. */
async function makeKeyFile(file: string): Promise<boolean> {
  try {
    const handle = await open(file, 'wx', 0o600);
    try {
      await handle.writeFile(`${randomBytes(KEY_BYTES).toString('base64url')}\n`);
      await handle.sync();
    } finally {
      await handle.close();
    }
    return true;
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false;
    throw error;
  }
}
