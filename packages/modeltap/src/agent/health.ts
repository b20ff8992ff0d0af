import type { AgentHealth } from './admin.ts';
import type { AgentLane } from './lane.ts';

/** Above this share of its limit a spool is reported, so that there is time to act. */
const NEARLY_FULL = 0.8;

/** What is wrong with the lanes, and what mends it. `closed`: datastores whose lane could not be opened, and why. */
export function agentHealth(lanes: readonly AgentLane[], closed: ReadonlyMap<string, string>): AgentHealth {
  const problems: { problem: string; fix: string }[] = [];
  for (const [name, why] of closed) {
    problems.push({
      problem: `datastore ${name} could not be opened: ${why}`,
      fix: 'Correct the datastore and reload.',
    });
  }
  for (const { datastore, writer, delivery } of lanes) {
    for (const { trouble } of delivery.state()) {
      if (trouble === undefined) continue;
      const since = new Date(trouble.sinceMs).toISOString();
      problems.push({
        problem: `datastore ${datastore} does not take records since ${since} (${trouble.kind}, ${trouble.attempts} attempts): ${trouble.message}`,
        fix: trouble.fix || 'Records wait in the spool and are stored when it is back.',
      });
    }
    if (writer.pendingBytes > writer.maxBytes * NEARLY_FULL) {
      problems.push({
        problem: `the spool of datastore ${datastore} holds ${writer.pendingBytes} of ${writer.maxBytes} bytes`,
        fix: 'Bring the store back or raise spool.max_bytes: a full spool refuses records.',
      });
    }
  }
  return { status: problems.length === 0 ? 'ok' : 'degraded', problems };
}
