import { X509Certificate } from 'node:crypto';
import { Agent, fetch as undiciFetch } from 'undici';

/**
 * `fetch` for a running workspace: the certificate it has left beside its address is trusted, whoever signed it and
 * whatever names it has, and no other. Without one it is the `fetch` of Node.
 */
export function trustingFetch(running: { readonly certificate?: string }): typeof fetch {
  const { certificate } = running;
  if (certificate === undefined) return fetch;
  const pinned = new X509Certificate(certificate).fingerprint256;
  const dispatcher = new Agent({
    connect: {
      ca: certificate,
      allowPartialTrustChain: true,
      // Names are for clients elsewhere: this one knows the certificate itself.
      checkServerIdentity: (_host, { fingerprint256 }) =>
        fingerprint256 === pinned ? undefined : new Error('the certificate is not that of the workspace'),
    },
  });
  // The fetch of Node may be of another version of undici, whose dispatchers do not fit.
  return ((input: string, init: object = {}) => undiciFetch(input, { ...init, dispatcher })) as unknown as typeof fetch;
}
