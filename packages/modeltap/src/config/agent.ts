import { resolve } from 'node:path';
import type { z } from 'zod';
import { isLoopback } from '../kit/loopback.ts';
import { ModeltapError } from '../kit/errors.ts';
import { parseSource, sourceOf } from '../record/source.ts';
import { DEFAULT_WORKSPACE, readDatastoreUri, type WorkspaceIdentity } from './azureml-uri.ts';
import type { Findings, Reader } from './check.ts';
import { closest } from './closest.ts';
import {
  buildDataCollector,
  isEnabled,
  checkDataCollector,
  DEFAULT_MAX_COLLECTIONS,
  dataCollectorSchema,
} from './data-collector.ts';
import { buildDatastore, checkDatastore, datastoreSchema } from './datastore.ts';
import { filled, listOf, mapping, matching, shown, size, text, whole } from './fields.ts';
import { DATA_COLLECTOR_KEYS } from './keys.ts';
import { resourceName, warnUnderscore } from './names.ts';
import { buildTap, checkTaps, tapSchema } from './tap.ts';
import type { AgentConfig, AgentDeploymentConfig } from './types.ts';
import type { KeyPath } from './yaml.ts';

/** The port Azure ML's SDK sends to. */
export const DEFAULT_AGENT_PORT = 50_011;
const MAX_DATASTORES = 100;
const MAX_DEPLOYMENTS = 500;
const MEGABYTE = 1024 ** 2;

const armPart = matching(
  /^[A-Za-z0-9_.()-]{1,90}$/,
  'it has letters, digits, hyphens, underscores, dots and brackets, at most 90',
);

const agentSchema = mapping({
  $schema: text().optional(),
  host: text((host) =>
    isLoopback(host) ? host : { problem: new ModeltapError('address_not_loopback', { address: shown(host) }).message },
  ).default('127.0.0.1'),
  port: whole({ min: 0, max: 65_535 }).default(DEFAULT_AGENT_PORT),
  spool: mapping({
    path: filled('a folder').default('./spool'),
    max_bytes: size(MEGABYTE).default(4096 * MEGABYTE),
  }).optional(),
  max_record_bytes: size(1).default(64 * MEGABYTE),
  inline_bytes: size(1).default(4 * MEGABYTE),
  max_collections: whole({ min: 1, max: 1000 }).default(DEFAULT_MAX_COLLECTIONS),
  workspace: mapping({ subscription_id: armPart, resource_group: armPart, name: armPart }).optional(),
  datastores: listOf(datastoreSchema, MAX_DATASTORES),
  deployments: listOf(
    mapping({
      endpoint_name: resourceName(),
      deployment_name: resourceName(),
      source: text((id) =>
        parseSource(id) === undefined ? { problem: `${shown(id)} is not the ARM id of a deployment` } : id,
      ).optional(),
      port: whole({ min: 1, max: 65_535 }).optional(),
      data_collector: dataCollectorSchema,
    }),
    MAX_DEPLOYMENTS,
  ),
  taps: listOf(tapSchema, MAX_DEPLOYMENTS).default([]),
  max_capture_bytes: size(MEGABYTE).default(64 * MEGABYTE),
});

type RawAgent = z.output<typeof agentSchema>;

/** Reads agent files whose relative paths begin at `directory`. */
export function agentReader(directory: string): Reader<typeof agentSchema, AgentConfig> {
  return {
    schema: agentSchema,
    keys: DATA_COLLECTOR_KEYS.map((row) => ({ ...row, key: `deployments[].${row.key}` })),
    check: checkAgent,
    build: (raw) => buildAgent(raw, directory),
  };
}

function buildAgent(raw: RawAgent, directory: string): AgentConfig {
  const workspace: WorkspaceIdentity = raw.workspace
    ? {
        subscriptionId: raw.workspace.subscription_id,
        resourceGroup: raw.workspace.resource_group,
        name: raw.workspace.name,
      }
    : DEFAULT_WORKSPACE;
  return {
    host: raw.host,
    port: raw.port,
    spool: {
      directory: resolve(directory, raw.spool?.path ?? './spool'),
      maxBytes: raw.spool?.max_bytes ?? 4096 * MEGABYTE,
    },
    maxRecordBytes: raw.max_record_bytes,
    inlineBytes: raw.inline_bytes,
    maxCollections: raw.max_collections,
    datastores: raw.datastores.map((datastore) => buildDatastore(datastore, directory)),
    deployments: raw.deployments.map((deployment): AgentDeploymentConfig => {
      const owner = { endpointName: deployment.endpoint_name, deploymentName: deployment.deployment_name };
      return {
        ...owner,
        source: deployment.source ?? buildSource(workspace, owner),
        ...(deployment.port === undefined ? {} : { port: deployment.port }),
        dataCollector: buildDataCollector(deployment.data_collector, owner),
      };
    }),
    taps: raw.taps.map(buildTap),
    maxCaptureBytes: raw.max_capture_bytes,
  };
}

function buildSource(
  workspace: WorkspaceIdentity,
  owner: { readonly endpointName: string; readonly deploymentName: string },
): string {
  return sourceOf({
    subscription: workspace.subscriptionId,
    resourceGroup: workspace.resourceGroup,
    workspace: workspace.name,
    endpoint: owner.endpointName,
    deployment: owner.deploymentName,
  });
}

function checkAgent(findings: Findings): void {
  const { document } = findings;
  const datastores = items(findings, 'datastores');
  for (const path of datastores) checkDatastore(findings, path);
  refuseRepeats(
    findings,
    datastores.map((path) => ({ path: [...path, 'name'], id: textAt(findings, [...path, 'name']) })),
    'datastore',
  );
  const known = datastores.map((path) => textAt(findings, [...path, 'name']) ?? '');
  const limit = Number(textAt(findings, ['max_collections']) ?? DEFAULT_MAX_COLLECTIONS);
  const deployments = items(findings, 'deployments');
  for (const path of deployments) {
    warnUnderscore(findings, [...path, 'endpoint_name']);
    warnUnderscore(findings, [...path, 'deployment_name']);
    checkDataCollector(
      findings,
      [...path, 'data_collector'],
      Number.isInteger(limit) ? limit : DEFAULT_MAX_COLLECTIONS,
    );
    checkDatastoreNames(findings, path, known);
  }
  const names = deployments.map((path) => {
    const endpoint = textAt(findings, [...path, 'endpoint_name']);
    const deployment = textAt(findings, [...path, 'deployment_name']);
    return { path: [...path, 'deployment_name'], id: endpoint && deployment && `${endpoint}/${deployment}` };
  });
  refuseRepeats(findings, names, 'deployment');
  const main = document.scalar(['port'])?.text ?? String(DEFAULT_AGENT_PORT);
  const ports = deployments.map((path) => ({ path: [...path, 'port'], id: textAt(findings, [...path, 'port']) }));
  const tapPorts = items(findings, 'taps').map((path) => ({
    path: [...path, 'port'],
    // Several may ask for any free one.
    id: textAt(findings, [...path, 'port'])?.replace(/^0$/, ''),
  }));
  refuseRepeats(findings, [{ path: ['port'], id: main }, ...ports, ...tapPorts], 'port');
  checkTaps(findings);
}

function checkDatastoreNames(findings: Findings, deployment: KeyPath, known: readonly string[]): void {
  const collections = [...deployment, 'data_collector', 'collections'];
  for (const name of findings.document.keys(collections)) {
    if (!isEnabled(findings.document, [...collections, name])) continue;
    const path = [...collections, name, 'data', 'path'];
    const text = textAt(findings, path);
    const reading = text === undefined ? undefined : readDatastoreUri(text);
    if (reading?.ok === false) continue;
    const datastore = reading?.value.datastore ?? 'workspaceblobstore';
    if (known.includes(datastore)) continue;
    const near = closest(datastore, known);
    const hint = near === undefined ? '' : `; did you mean "${near}"?`;
    const origin = reading === undefined ? ' (the default of data.path)' : '';
    findings.error(
      reading === undefined ? [...collections, name] : path,
      `the datastore "${datastore}"${origin} is not among datastores${hint}`,
      reading === undefined ? 'key' : 0,
    );
  }
}

function refuseRepeats(
  findings: Findings,
  entries: readonly { readonly path: KeyPath; readonly id: string | undefined }[],
  kind: string,
): void {
  const seen = new Map<string, KeyPath>();
  for (const { path, id } of entries) {
    if (id === undefined || id === '') continue;
    const first = seen.get(id);
    if (first === undefined) seen.set(id, path);
    else {
      const line =
        findings.document.get(first) === undefined ? 'the default' : `line ${findings.document.valuePlace(first).line}`;
      findings.error(path, `the ${kind} "${id}" is used already (${line})`);
    }
  }
}

function items(findings: Findings, key: string): readonly KeyPath[] {
  return Array.from({ length: findings.document.length([key]) }, (_, index) => [key, index]);
}

function textAt(findings: Findings, path: KeyPath): string | undefined {
  return findings.document.scalar(path)?.text.trim();
}
