// A host of the SDK for fault tests: collects a row every few milliseconds until its standard input ends, then flushes.
// Prints one JSON line: what flush said, how many calls failed, and the slowest call.
import { Collector } from '@modeltap/collector';

const port = Number(process.argv[2]);
let failures = 0;
const errors = new Set();
const collector = new Collector({
  name: 'model_inputs',
  port,
  enabled: true,
  onError: (error) => {
    failures += 1;
    errors.add(error.code);
  },
});
let n = 0;
let slowestMs = 0;
const timer = setInterval(() => {
  for (let i = 0; i < 5; i += 1) {
    n += 1;
    const started = performance.now();
    collector.collect([{ n: `s${n}`, value: n / 3 }]);
    slowestMs = Math.max(slowestMs, performance.now() - started);
  }
}, 5);
process.stdin.resume();
process.stdin.on('end', () => {
  clearInterval(timer);
  void collector.flush({ timeoutMs: 60_000 }).then(report);
});

function report(result) {
  process.stdout.write(`${JSON.stringify({ collected: n, failures, errors: [...errors], slowestMs, result })}\n`);
}
