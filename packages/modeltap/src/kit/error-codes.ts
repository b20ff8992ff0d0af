/** One row of the error registry. `{name}` in a text is filled from the parameters given at the throw. */
export interface ErrorRow {
  /** What is wrong, naming the thing. */
  readonly message: string;
  /** What the reader can do about it. */
  readonly fix: string;
  /** HTTP status an API answers with. */
  readonly http: number;
  /** Exit code of the command line: 1 failure, 2 bad usage or input, 3 not found, 4 conflict, 5 unavailable. */
  readonly exit: number;
}

/**
 * Every error Modeltap raises, by code. `docs/errors.md` is generated from this table (`npm run docs`) and the docs
 * test proves that both agree. Keep it sorted by code.
 */
export const ERRORS = {
  address_not_loopback: {
    message: 'refusing to listen on {address}: there is no access control yet, so only loopback addresses are allowed',
    fix: 'Use 127.0.0.1, ::1 or localhost.',
    http: 400,
    exit: 2,
  },
  agent_failed: {
    message: 'the agent did not start: {detail}',
    fix: 'Its whole log is {log}.',
    http: 500,
    exit: 1,
  },
  agent_refused_config: {
    message: 'the agent did not take the new settings: {detail}',
    fix: 'Correct what it names; it goes on with the settings it had.',
    http: 500,
    exit: 1,
  },
  agent_unreachable: {
    message: 'the agent at {url} does not answer',
    fix: 'It is started again by itself; look at agent/agent.log in the workspace.',
    http: 503,
    exit: 5,
  },
  already_exists: {
    message: '{kind} "{name}" already exists',
    fix: 'Choose another name, or look at the one there is with "modeltap {command} show".',
    http: 409,
    exit: 4,
  },
  asset_version_taken: {
    message: 'data asset "{name}" version {version} already points to {path}',
    fix: 'A version never changes its path. Leave the version out to get the next one, choose another version, or use the path it has.',
    http: 409,
    exit: 4,
  },
  bad_json: {
    message: 'the body is not valid JSON: {reason}, at byte {offset}',
    fix: 'Send JSON text as RFC 8259 has it, UTF-8, without a byte order mark; or another Content-Type for other data.',
    http: 400,
    exit: 2,
  },
  bad_object_key: {
    message: 'object key {key} is not allowed: {reason}',
    fix: 'Use 1 to 1024 bytes of text, parts separated by single slashes, no part "." or "..", no control characters.',
    http: 400,
    exit: 2,
  },
  batch_too_many: {
    message: 'the request holds more than {maxEvents} events',
    fix: 'Send several requests with fewer events each.',
    http: 413,
    exit: 2,
  },
  body_timeout: {
    message: 'the body of the request stood still for too long',
    fix: 'Send the body without pauses.',
    http: 408,
    exit: 5,
  },
  catalog_busy: {
    message: 'the catalog {file} is locked by another process',
    fix: 'Try again. If it stays so, stop the other Modeltap process that uses this workspace.',
    http: 503,
    exit: 5,
  },
  catalog_too_new: {
    message: 'the catalog {file} has schema version {found}; this version of Modeltap knows up to {known}',
    fix: 'Use the version of Modeltap that wrote it, or a newer one.',
    http: 500,
    exit: 1,
  },
  catalog_unreadable: {
    message: 'the catalog {file} cannot be opened: {detail}',
    fix: 'Check that the path is right, that it is a Modeltap catalog, and that you may read and write it.',
    http: 500,
    exit: 1,
  },
  collection_disabled: {
    message: 'collection "{collection}" is not enabled; enabled here: {enabled}',
    fix: 'Enable it under data_collector.collections of the deployment.',
    http: 403,
    exit: 2,
  },
  collection_unknown: {
    message: 'collection "{collection}" is not known; enabled here: {enabled}',
    fix: 'Check the name of the collection and the port of the deployment.',
    http: 404,
    exit: 3,
  },
  config_invalid: {
    message: 'the configuration is not valid:\n{issues}',
    fix: 'Correct the places named, then try again.',
    http: 400,
    exit: 2,
  },
  datastore_not_writable: {
    message: 'datastore "{name}" cannot be written: {detail}',
    fix: '{hint}',
    http: 400,
    exit: 1,
  },
  datastore_unknown: {
    message: 'collection "{collection}" goes to datastore "{datastore}", which does not exist',
    fix: 'Create it with "modeltap datastore create -f FILE", or name another one in data.path.',
    http: 400,
    exit: 3,
  },
  delivery_failed: {
    message: 'delivery cannot start: {detail}',
    fix: 'Look at the spool directory of the agent: delivery.db and destinations.json must be readable and writable.',
    http: 500,
    exit: 1,
  },
  deployment_ambiguous: {
    message: 'collection "{collection}" is enabled for several deployments: {enabled}',
    fix: 'Send to the port of the deployment, or name the deployment as the source of the event.',
    http: 400,
    exit: 2,
  },
  deployment_busy: {
    message: 'deployment {deployment} is being changed at this moment',
    fix: 'Wait until its provisioning_state is neither Creating nor Updating.',
    http: 409,
    exit: 4,
  },
  deployment_failed: {
    message: 'deployment {deployment} did not become ready: {detail}',
    fix: 'Look at "modeltap online-deployment get-logs". An earlier version, if there was one, keeps serving.',
    http: 500,
    exit: 1,
  },
  deployment_stopped: {
    message: 'deployment {deployment} of endpoint {endpoint} was stopped or removed before it became ready',
    fix: 'Deploy it again if that was not meant.',
    http: 409,
    exit: 4,
  },
  deployment_unavailable: {
    message: 'deployment {deployment} of endpoint {endpoint} has no instance that is ready',
    fix: 'Try again shortly; "modeltap online-deployment get-logs" tells why its instances are not ready.',
    http: 503,
    exit: 5,
  },
  destinations_damaged: {
    message: 'cannot read the list of destinations {path}',
    fix: 'Restore the file from a copy. Without it the records in this spool cannot be told apart.',
    http: 500,
    exit: 1,
  },
  destinations_full: {
    message: 'this spool directory already remembers {limit} destinations',
    fix: 'Start the agent on a new spool directory.',
    http: 500,
    exit: 1,
  },
  endpoint_empty: {
    message: 'endpoint {endpoint} has no deployment',
    fix: 'Create one with "modeltap online-deployment create -f FILE".',
    http: 404,
    exit: 3,
  },
  endpoint_has_deployments: {
    message: 'endpoint "{name}" still has deployments: {deployments}',
    fix: 'Delete its deployments first.',
    http: 409,
    exit: 4,
  },
  endpoint_no_traffic: {
    message: 'endpoint {endpoint} sends its traffic to no deployment',
    fix: 'Set the traffic of the endpoint, or name a deployment in the header azureml-model-deployment.',
    http: 503,
    exit: 5,
  },
  endpoint_overloaded: {
    message: 'more than {limit} requests to endpoints are in flight',
    fix: 'Try again shortly, with fewer requests at once.',
    http: 503,
    exit: 5,
  },
  event_invalid: {
    message: '{event}: attribute {attribute} {problem}',
    fix: 'Send events as CloudEvents 1.0 has them.',
    http: 400,
    exit: 2,
  },
  file_unreadable: {
    message: 'cannot read {file}: {detail}',
    fix: 'Check the path and the rights of the file.',
    http: 400,
    exit: 2,
  },
  host_refused: {
    message: 'requests for host "{host}" are not answered here',
    fix: 'Use the loopback address: 127.0.0.1, [::1] or localhost.',
    http: 403,
    exit: 2,
  },
  ingest_busy: {
    message: 'too many bytes of records are on their way',
    fix: 'Try again shortly, with fewer requests at a time.',
    http: 503,
    exit: 5,
  },
  instance_unreachable: {
    message: 'an instance of deployment {deployment} broke the connection: {detail}',
    fix: 'Send the request again; "modeltap online-deployment get-logs" tells what happened to the instance.',
    http: 502,
    exit: 5,
  },
  internal: {
    message: 'unexpected failure: {detail}',
    fix: 'This is a defect of Modeltap. Please report it with the log lines around it.',
    http: 500,
    exit: 1,
  },
  launcher_missing: {
    message: 'deployment {deployment} cannot be run here: {detail}',
    fix: 'This version runs scoring scripts in TypeScript or JavaScript: code_configuration.scoring_script must end in .ts, .mts, .js, .mjs or .cjs.',
    http: 400,
    exit: 2,
  },
  limit_reached: {
    message: 'there are already {limit} {kind}, the most allowed',
    fix: 'Delete some that are no longer needed.',
    http: 409,
    exit: 4,
  },
  method_not_allowed: {
    message: '{method} is not possible here, only {allow}',
    fix: 'Use one of the methods named.',
    http: 405,
    exit: 2,
  },
  model_missing: {
    message: 'the model path {path} cannot be read: {detail}',
    fix: 'Correct "model.path" in the deployment YAML; a relative path begins at the folder of the file.',
    http: 400,
    exit: 2,
  },
  model_reference: {
    message: 'the model "{reference}" is a reference to a registry, and this version takes models by path only',
    fix: 'Write "model: { path: ./folder }".',
    http: 400,
    exit: 2,
  },
  not_found: {
    message: '{kind} "{name}" does not exist',
    fix: 'List what exists with "modeltap {command} list".',
    http: 404,
    exit: 3,
  },
  origin_refused: {
    message: 'requests from {origin} are refused: only programs on this machine and pages of this address may ask',
    fix: 'Use the loopback address that "modeltap up" printed.',
    http: 403,
    exit: 2,
  },
  port_in_use: {
    message: 'port {port} on {host} is already in use',
    fix: 'Stop the other program or choose another port with {option}.',
    http: 500,
    exit: 4,
  },
  record_too_large: {
    message: 'the body is larger than {maxBytes} bytes',
    fix: 'Send less at a time, or raise the limit of the agent.',
    http: 413,
    exit: 2,
  },
  request_invalid: {
    message: 'the request is not valid: {detail}',
    fix: "See docs/cli.md, or the API's answer for the field it names.",
    http: 400,
    exit: 2,
  },
  request_timeout: {
    message: 'deployment {deployment} did not answer within {timeout} ms',
    fix: 'Raise request_settings.request_timeout_ms of the deployment, or make the model answer faster.',
    http: 408,
    exit: 1,
  },
  revision_conflict: {
    message: '{kind} "{name}" was changed by someone else in the meantime',
    fix: 'Read it again and repeat the change.',
    http: 409,
    exit: 4,
  },
  route_unknown: {
    message: '{method} {path} is not a route',
    fix: 'See docs/operations.md and docs/ingest-protocol.md for the routes.',
    http: 404,
    exit: 3,
  },
  scoring_failed: {
    message: '{uri} answered {status}: {text}',
    fix: 'Look at "modeltap online-deployment get-logs".',
    http: 502,
    exit: 1,
  },
  scoring_script: {
    message: 'scoring script {script}: {detail}',
    fix: 'Correct the script and deploy it again.',
    http: 400,
    exit: 2,
  },
  secret_unresolved: {
    message: 'datastore "{datastore}": {problem}',
    fix: 'Provide the value where the reference says, then try again.',
    http: 400,
    exit: 2,
  },
  spool_busy: {
    message: 'the disk is slower than the records that come in',
    fix: 'Try again shortly. If it lasts, use a faster disk or several agents.',
    http: 503,
    exit: 5,
  },
  spool_closed: {
    message: 'the spool is closed, the agent is stopping',
    fix: 'Try again when the agent runs again.',
    http: 503,
    exit: 5,
  },
  spool_disk_error: {
    message: 'the disk of the spool failed: {detail}',
    fix: 'Check the disk and the permissions of the spool directory. Nothing that was acknowledged depends on this attempt.',
    http: 503,
    exit: 5,
  },
  spool_foreign: {
    message: 'segment {segment} belongs to spool {found}, not to {expected}',
    fix: 'Move the file out of the directory, or start an agent on a directory that holds its spool alone.',
    http: 500,
    exit: 4,
  },
  spool_format: {
    message: 'the spool in {directory} has format {found}, this version reads up to {known}',
    fix: 'Run the version of Modeltap that wrote it, or a newer one.',
    http: 500,
    exit: 4,
  },
  spool_full: {
    message: 'the spool {directory} is full',
    fix: 'Records leave it as soon as storage takes them: check the storage. Or raise the limit of the spool, or free the disk.',
    http: 503,
    exit: 5,
  },
  spool_locked: {
    message: 'the spool in {directory} is in use by another process',
    fix: 'Stop the other agent, or give this one a directory of its own.',
    http: 409,
    exit: 4,
  },
  spool_too_large: {
    message: 'the record can never fit in one frame of the spool',
    fix: 'Send it in parts, or raise the limit of the spool.',
    http: 413,
    exit: 2,
  },
  spool_too_small: {
    message: 'a spool of {maxBytes} bytes is too small',
    fix: 'Give it at least {least} bytes.',
    http: 400,
    exit: 2,
  },
  too_many_followers: {
    message: '{limit} followers are connected already',
    fix: 'End another "modeltap tail" first.',
    http: 429,
    exit: 5,
  },
  unsupported_content_type: {
    message: 'Content-Type "{type}" is not supported here',
    fix: 'Send application/cloudevents+json, application/cloudevents-batch+json, application/x-ndjson, or binary mode with ce- headers.',
    http: 415,
    exit: 2,
  },
  unsupported_encoding: {
    message: 'Content-Encoding "{encoding}" is not supported',
    fix: 'Send the body without compression.',
    http: 415,
    exit: 2,
  },
  uri_invalid: {
    message: '"{uri}" is not valid at character {column}: {problem}',
    fix: 'Write azureml://datastores/<datastore>/paths/<path> or azureml:<name>:<version>.',
    http: 400,
    exit: 2,
  },
  workspace_not_running: {
    message: 'no workspace is running in {directory}',
    fix: 'Start one with "modeltap up --workspace DIR", or name its directory with --workspace.',
    http: 503,
    exit: 5,
  },
  workspace_running: {
    message: 'a workspace is already running in {directory} (process {pid})',
    fix: 'Use it, or stop it first.',
    http: 409,
    exit: 4,
  },
} as const satisfies Record<string, ErrorRow>;

/** A code of the registry. */
export type ErrorCode = keyof typeof ERRORS;
