const CREDENTIALS = /([a-z][a-z0-9+.-]*:\/\/)[^\s/]+@/gi;
const SIGNATURES =
  /([?&](?:sig|signature|x-amz-signature|x-goog-signature|token|access_token|password|api_key)=)[^&\s#]+/gi;

/** The text without passwords: what stands before the `@` of a URL, and signatures and tokens in its query. */
export function redact(text: string): string {
  return text.replace(CREDENTIALS, '$1[redacted]@').replace(SIGNATURES, '$1[redacted]');
}
