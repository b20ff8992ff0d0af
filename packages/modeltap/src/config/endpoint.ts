import type { Findings, Reader } from './check.ts';
import {
  filled,
  freeMapping,
  listOf,
  mapping,
  mappingOf,
  oneOf,
  scalarOr,
  text,
  textMapping,
  whole,
} from './fields.ts';
import { ENDPOINT_KEYS } from './keys.ts';
import { resourceName, warnUnderscore } from './names.ts';
import type { EndpointConfig } from './types.ts';

const percent = whole({ min: 0, max: 100, unit: 'percent' });
const readOnly = text().optional();
const MAX_IDENTITIES = 100;

const endpointSchema = mapping({
  $schema: text().optional(),
  name: resourceName(),
  description: text().default(''),
  tags: textMapping(),
  properties: textMapping(),
  traffic: mappingOf(percent).default({}),
  mirror_traffic: mappingOf(whole({ min: 0, max: 50, unit: 'percent' })).default({}),
  auth_mode: oneOf('key', 'aml_token', 'aad_token').default('key'),
  compute: filled('azureml:<name>').optional(),
  identity: mapping({
    type: oneOf('system_assigned', 'user_assigned').optional(),
    user_assigned_identities: listOf(
      scalarOr(filled('a resource id'), mapping({ resource_id: filled('a resource id') })),
      MAX_IDENTITIES,
    ).optional(),
  }).optional(),
  public_network_access: oneOf('enabled', 'disabled').optional(),
  location: readOnly,
  kind: readOnly,
  provisioning_state: readOnly,
  scoring_uri: readOnly,
  openapi_uri: readOnly,
  id: readOnly,
  creation_context: freeMapping().optional(),
});

/** Reads endpoint files. */
export const endpointReader: Reader<typeof endpointSchema, EndpointConfig> = {
  schema: endpointSchema,
  keys: ENDPOINT_KEYS,
  check(findings) {
    warnUnderscore(findings, ['name']);
    checkTraffic(findings);
    const [, second] = findings.document.keys(['mirror_traffic']);
    if (second !== undefined) {
      findings.error(['mirror_traffic', second], 'is one too many: traffic is mirrored to one deployment only', 'key');
    }
    checkMirror(findings);
  },
  build: (raw) => ({
    name: raw.name,
    description: raw.description,
    tags: raw.tags,
    properties: raw.properties,
    authMode: raw.auth_mode,
    traffic: raw.traffic,
    mirrorTraffic: raw.mirror_traffic,
  }),
};

function checkTraffic(findings: Findings): void {
  const { document } = findings;
  const values = document.keys(['traffic']).map((name) => Number(document.scalar(['traffic', name])?.text));
  const sum = values.reduce((total, value) => total + value, 0);
  // A value that is no number has an error of its own.
  if (Number.isNaN(sum) || sum === 0 || sum === 100) return;
  findings.error(['traffic'], `the percentages add up to ${sum}; they must add up to 100, or to 0`, 'key');
}

/** As in Azure ML: a deployment answers clients or gets copies of what others answer. */
function checkMirror(findings: Findings): void {
  const { document } = findings;
  const percent = (of: string, name: string) => Number(document.scalar([of, name])?.text ?? 0);
  for (const name of document.keys(['mirror_traffic'])) {
    if (!(percent('mirror_traffic', name) > 0 && percent('traffic', name) > 0)) continue;
    const why = 'gets traffic; a deployment gets traffic or copies of it, not both: set one of the two to 0';
    findings.error(['mirror_traffic', name], why, 'key');
  }
}
