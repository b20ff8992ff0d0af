import type { KeyRow } from './check.ts';

const honoured = (key: string, note: string): KeyRow => ({ key, effect: 'honoured', note });
const warning = (key: string, note: string): KeyRow => ({ key, effect: 'warning', note });
const silent = (key: string, note: string): KeyRow => ({ key, effect: 'silent', note });
const refused = (key: string, note: string): KeyRow => ({ key, effect: 'refused', note });

const PROBE_KEYS = (probe: string, what: string): readonly KeyRow[] => [
  honoured(`${probe}.initial_delay`, `seconds before the first ${what} check; at least 1, default 10`),
  honoured(`${probe}.period`, 'seconds between checks; at least 1, default 10'),
  honoured(`${probe}.timeout`, 'seconds a check may take; at least 1, default 2'),
  honoured(
    `${probe}.success_threshold`,
    probe === 'liveness_probe' ? 'always 1' : 'successes in a row that count; at least 1, default 1',
  ),
  honoured(`${probe}.failure_threshold`, 'failures in a row that count; at least 1, default 30'),
];

/** Every key of `data_collector`. */
export const DATA_COLLECTOR_KEYS: readonly KeyRow[] = [
  honoured(
    'data_collector.collections',
    'required; one key for each collection, lower-cased; at most 5 custom ones enabled',
  ),
  honoured(
    'data_collector.collections.<name>.enabled',
    'required; true or false in any spelling: \'True\', "true", true',
  ),
  honoured(
    'data_collector.collections.<name>.data',
    'where the collection goes: a mapping, or azureml:<name>:<version>',
  ),
  honoured('data_collector.collections.<name>.data.name', 'data asset; default <endpoint>-<deployment>-<collection>'),
  honoured(
    'data_collector.collections.<name>.data.path',
    'azureml://datastores/<datastore>/paths/<path>; default azureml://datastores/workspaceblobstore/paths/modelDataCollector/<endpoint>/<deployment>/<collection>',
  ),
  honoured('data_collector.collections.<name>.data.version', 'version of the data asset; default 1'),
  warning('data_collector.collections.<name>.data.data_id', 'the asset is found by data.name and data.version'),
  warning('data_collector.collections.<name>.client_id', 'a datastore is written with its own credentials'),
  refused('data_collector.collections.<name>.sampling_rate', 'set data_collector.sampling_rate, which counts for all'),
  honoured('data_collector.sampling_rate', '0 to 1; default 1'),
  honoured(
    'data_collector.rolling_rate',
    'minute, hour, day, month or year in any case; default hour, the one monitors read',
  ),
  honoured(
    'data_collector.request_logging.capture_headers',
    'names of headers that the collector records; at most 100',
  ),
  honoured(
    'data_collector.request_logging.capture_secret_headers',
    "Modeltap's own: true collects headers that carry secrets (authorization, cookies, keys) too, when they are named; default false",
  ),
  honoured(
    'data_collector.sampling.errors',
    "Modeltap's own: share of the failed requests that is collected, 0 to 1; default 1",
  ),
  honoured('data_collector.batch', "Modeltap's own: same_id (default), across_ids or off"),
  honoured('data_collector.batch_window_ms', "Modeltap's own: 0 to 60000; default 500"),
];

const ENVIRONMENT_ROWS = (base: string, registered: boolean): readonly KeyRow[] => [
  silent(`${base}$schema`, 'for editors'),
  registered
    ? honoured(`${base}name`, 'required; letters, digits, hyphens, underscores and dots')
    : warning(`${base}name`, 'an environment written in a deployment is not registered'),
  registered
    ? honoured(`${base}version`, 'left out: the highest number so far plus 1')
    : warning(`${base}version`, 'an environment written in a deployment is not registered'),
  registered
    ? honoured(`${base}description`, 'kept and shown')
    : silent(`${base}description`, 'kept with the deployment'),
  registered ? honoured(`${base}tags`, 'kept and shown') : silent(`${base}tags`, 'kept with the deployment'),
  warning(`${base}properties`, 'an environment keeps description and tags'),
  warning(`${base}image`, 'packages are installed on this machine, in no container'),
  honoured(`${base}conda_file`, 'file, relative to the YAML file, or the same as a mapping'),
  warning(`${base}build`, 'no image is built; write the packages as conda_file'),
  silent(`${base}build.path`, 'see build'),
  silent(`${base}build.dockerfile_path`, 'see build'),
  warning(`${base}inference_config`, 'no container is run, so there are no routes into one'),
  silent(`${base}inference_config.liveness_route`, 'path and port'),
  silent(`${base}inference_config.readiness_route`, 'path and port'),
  silent(`${base}inference_config.scoring_route`, 'path and port'),
  warning(`${base}os_type`, 'instances run on this machine'),
  warning(`${base}datastore`, 'an environment is kept in the workspace'),
  warning(`${base}stage`, 'an environment has no stage here'),
  warning(`${base}id`, 'it is read-only'),
  warning(`${base}creation_context`, 'it is read-only'),
];

/** Every key of an environment file and what it does here. */
export const ENVIRONMENT_KEYS: readonly KeyRow[] = ENVIRONMENT_ROWS('', true);

/** Every key of a model file and what it does here. */
export const MODEL_KEYS: readonly KeyRow[] = [
  silent('$schema', 'for editors'),
  honoured('name', 'required; letters, digits, hyphens, underscores and dots'),
  honoured('version', 'left out: the highest number so far plus 1'),
  honoured('type', 'custom_model (default), mlflow_model or triton_model; kept and shown'),
  honoured(
    'path',
    'required; file or folder, relative to the YAML file, or azureml://datastores/<datastore>/paths/<path>',
  ),
  honoured('description', 'kept and shown'),
  honoured('tags', 'kept and shown'),
  honoured('properties', 'kept and shown'),
  warning('flavors', 'a model is given to the script as its files'),
  warning('stage', 'a model has no stage here'),
  warning('datastore', 'a model is kept in the workspace'),
  warning('job_name', 'it is read-only'),
  warning('latest_version', 'it is read-only'),
  warning('utc_time_created', 'it is read-only'),
  warning('id', 'it is read-only'),
  warning('creation_context', 'it is read-only'),
];

/** Every key of a deployment file and what it does here. */
export const DEPLOYMENT_KEYS: readonly KeyRow[] = [
  silent('$schema', 'for editors'),
  honoured('name', 'required; 3 to 32 letters, digits and hyphens; underscores with a warning'),
  honoured('endpoint_name', 'required; as name'),
  honoured('type', 'managed (default) or kubernetes; decides which limits are checked'),
  honoured('description', 'kept and shown'),
  honoured('tags', 'kept and shown'),
  honoured('properties', 'kept and shown'),
  honoured('model', 'azureml:<name>:<version>, azureml:<name>@latest, a path, or a mapping'),
  honoured('model.name', 'with model.version: the model reference'),
  honoured('model.version', 'see model.name'),
  honoured('model.path', 'file or folder, relative to the YAML file; or a reference'),
  silent('model.type', 'accepted'),
  silent('model.description', 'accepted'),
  silent('model.tags', 'accepted'),
  silent('model.properties', 'accepted'),
  silent('model.flavors', 'accepted'),
  silent('model.stage', 'accepted'),
  warning('model_mount_path', 'the model is used where it lies'),
  honoured('code_configuration.code', 'folder, relative to the YAML file; must exist'),
  honoured('code_configuration.scoring_script', 'file inside code; must exist'),
  honoured(
    'environment',
    'packages of a Python script: azureml:<name>:<version>, azureml:<name>@latest, azureml:<name>, or a mapping',
  ),
  ...ENVIRONMENT_ROWS('environment.', false),
  honoured('environment_variables', 'set for each instance; numbers and booleans as written'),
  warning('instance_type', 'instances run on this machine'),
  honoured('instance_count', '1 to 50; default 1'),
  warning('app_insights_enabled', 'logs stay in the workspace'),
  warning('scale_settings', 'the number of instances is instance_count'),
  silent('scale_settings.type', 'default; kubernetes also target_utilization'),
  silent('scale_settings.min_instances', 'kubernetes only'),
  silent('scale_settings.max_instances', 'kubernetes only'),
  silent('scale_settings.target_utilization_percentage', 'kubernetes only'),
  silent('scale_settings.polling_interval', 'kubernetes only'),
  honoured('request_settings.request_timeout_ms', '1 to 180000 (kubernetes 300000); default 5000'),
  honoured('request_settings.max_concurrent_requests_per_instance', '1 to 10000; default 1'),
  honoured('request_settings.max_queue_wait_ms', '0 to 300000; default 500'),
  ...PROBE_KEYS('liveness_probe', 'liveness'),
  ...PROBE_KEYS('readiness_probe', 'readiness'),
  warning('egress_public_network_access', 'the network of instances is not restricted'),
  warning('resources', 'instances share the processor and memory of this machine'),
  silent('resources.requests', 'see resources'),
  silent('resources.limits', 'see resources'),
  warning('private_network_connection', 'the network of instances is not restricted'),
  warning('provisioning_state', 'it is read-only'),
  warning('id', 'it is read-only'),
  warning('creation_context', 'it is read-only'),
  ...DATA_COLLECTOR_KEYS,
];

/** Every key of an endpoint file and what it does here. */
export const ENDPOINT_KEYS: readonly KeyRow[] = [
  silent('$schema', 'for editors'),
  honoured('name', 'required; 3 to 32 letters, digits and hyphens; underscores with a warning'),
  honoured('description', 'kept and shown'),
  honoured('tags', 'kept and shown'),
  honoured('properties', 'kept and shown'),
  honoured('traffic', 'deployment: percent; the sum is 0 or 100'),
  honoured('mirror_traffic', 'deployment: percent of the requests that it gets copies of; one deployment, at most 50'),
  honoured('auth_mode', 'key (default), aml_token or aad_token'),
  warning('compute', 'instances run on this machine'),
  warning('identity', 'a datastore is written with its own credentials'),
  silent('identity.type', 'system_assigned or user_assigned'),
  silent('identity.user_assigned_identities', 'resource ids, or mappings with resource_id'),
  warning('public_network_access', 'the endpoint listens on loopback only'),
  warning('location', 'there is only this machine'),
  warning('kind', 'it is read-only'),
  warning('provisioning_state', 'it is read-only'),
  warning('scoring_uri', 'it is read-only'),
  warning('openapi_uri', 'it is read-only'),
  warning('id', 'it is read-only'),
  warning('creation_context', 'it is read-only'),
];
