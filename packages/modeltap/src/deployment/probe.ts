import { request } from 'node:http';

/** Asks an instance on loopback whether it is well: true for a 2xx within the timeout. Never rejects. */
export function probe(port: number, path: string, timeoutMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const call = request({ host: '127.0.0.1', port, path, agent: false }, (response) => {
      response.resume();
      const status = response.statusCode ?? 0;
      response.once('close', () => settle(status >= 200 && status < 300 && response.complete));
    });
    // The socket's own timeout counts idle time only; this one is for the whole probe.
    const timer = setTimeout(() => {
      call.destroy();
      settle(false);
    }, timeoutMs);
    const settle = (passed: boolean) => {
      clearTimeout(timer);
      resolve(passed);
    };
    call.once('error', () => settle(false));
    call.end();
  });
}
