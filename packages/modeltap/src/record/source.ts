/** The names in the ARM id of a deployment. */
export interface DeploymentSource {
  readonly subscription: string;
  readonly resourceGroup: string;
  readonly workspace: string;
  readonly endpoint: string;
  readonly deployment: string;
}

const PATTERN =
  /^\/subscriptions\/([^/]*)\/resourceGroups\/([^/]*)\/providers\/Microsoft\.MachineLearningServices\/workspaces\/([^/]+)\/onlineEndpoints\/([^/]+)\/deployments\/([^/]+)$/i;

/** CloudEvents `source` of a deployment: its ARM id, in the spelling Azure ML writes. Names must not hold `/`. */
export function sourceOf(names: DeploymentSource): string {
  return (
    `/subscriptions/${names.subscription}/resourceGroups/${names.resourceGroup}` +
    `/providers/Microsoft.MachineLearningServices/workspaces/${names.workspace}` +
    `/onlineEndpoints/${names.endpoint}/deployments/${names.deployment}`
  );
}

/**
 * Reads the ARM id of a deployment. Letter case of the fixed parts does not matter, and subscription and resource group
 * may be empty, as in the product document's binary sample. Undefined for any other text.
 */
export function parseSource(source: string): DeploymentSource | undefined {
  const match = PATTERN.exec(source);
  if (!match) return undefined;
  const [, subscription = '', resourceGroup = '', workspace = '', endpoint = '', deployment = ''] = match;
  return { subscription, resourceGroup, workspace, endpoint, deployment };
}
