import type { BatchMode, RollingRate } from '../record/types.ts';

/** A place in a file a user wrote. Lines and columns count from 1. */
export interface SourcePlace {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

/** Something to tell the user about a file: an error stops, a warning does not. */
export interface ConfigIssue {
  readonly severity: 'error' | 'warning';
  readonly place: SourcePlace;
  /** Path of the key, e.g. `data_collector.collections.model_inputs.enabled`. */
  readonly key: string;
  /** What is wrong and what is allowed. */
  readonly message: string;
}

/** A file read and checked. `value` is complete: defaults filled, paths absolute, names checked. */
export interface Loaded<T> {
  readonly value: T;
  readonly warnings: readonly ConfigIssue[];
  /** The YAML text as read, for keeping beside the value. */
  readonly text?: string;
}

/** One collection of `data_collector`. */
export interface CollectionConfig {
  readonly enabled: boolean;
  readonly data: { readonly name: string; readonly version: string; readonly path: string };
  readonly clientId?: string;
}

/** `data_collector` of a deployment; collection names are lower case here, as the Azure ML SDK compares them. */
export interface DataCollectorConfig {
  readonly collections: Readonly<Record<string, CollectionConfig>>;
  /** 0 to 1. Default 1. */
  readonly samplingRate: number;
  readonly rollingRate: RollingRate;
  readonly captureHeaders: readonly string[];
  /** Modeltap's own key `request_logging.capture_secret_headers`: headers that carry secrets too, when named. Default false. */
  readonly captureSecretHeaders?: boolean;
  /** Modeltap's own key `data_collector.sampling.errors`: share of the failed exchanges that is collected, 0 to 1. Default 1. */
  readonly errorRate?: number;
  /** Modeltap's own key `data_collector.batch`. Default `same_id`. */
  readonly batch: BatchMode;
  /** Modeltap's own key `data_collector.batch_window_ms`. Default 500. */
  readonly batchWindowMs: number;
}

/** A probe of an instance; seconds, as Azure ML counts them. */
export interface ProbeConfig {
  readonly initialDelay: number;
  readonly period: number;
  readonly timeout: number;
  readonly successThreshold: number;
  readonly failureThreshold: number;
}

/** One package of a conda specification. `version` is as written behind the name (`=1.2`, `>=1,<2`, `1.*`), empty for any. */
export interface CondaPackage {
  readonly name: string;
  readonly version: string;
  /** Build string behind a second `=`, as written. */
  readonly build?: string;
  /** `conda-forge` of `conda-forge::numpy`. */
  readonly channel?: string;
  readonly place: SourcePlace;
}

/**
 * One line of the `pip` section: a requirement, or an option such as `--extra-index-url URL`, without comments. Lines of
 * files named by `-r` and `-c` stand here in their place, so no such line is left unless it names a URL.
 */
export interface PipLine {
  readonly text: string;
  readonly place: SourcePlace;
  /** From a `-c` file: limits the version of a package, does not ask for it. */
  readonly constraint?: true;
}

/** A checked conda specification (`conda_file`, a file or an inline mapping). */
export interface CondaConfig {
  readonly name: string | undefined;
  readonly channels: readonly string[];
  /** Version asked for by `python…` among the dependencies, in the form of `CondaPackage.version` (`=3.10`); undefined: any. */
  readonly python: string | undefined;
  /** Dependencies in their order, without `python`, and with `pip` only when it has a version. */
  readonly packages: readonly CondaPackage[];
  readonly pip: readonly PipLine[];
  /** Absolute folder where relative paths of the pip section begin. */
  readonly directory: string;
}

/** Path and port of one route of a custom container. */
export interface RouteConfig {
  readonly path: string;
  readonly port: number;
}

/** A checked environment: inline in a deployment, or a file of its own to be registered. */
export interface EnvironmentConfig {
  /** Undefined for one written inline without a name. */
  readonly name: string | undefined;
  /** Undefined: the next whole number when it is registered. */
  readonly version: string | undefined;
  readonly description: string;
  readonly tags: Readonly<Record<string, string>>;
  readonly image: string | undefined;
  readonly conda: CondaConfig | undefined;
  readonly inferenceConfig:
    | {
        readonly liveness: RouteConfig | undefined;
        readonly readiness: RouteConfig | undefined;
        readonly scoring: RouteConfig | undefined;
      }
    | undefined;
}

/** A checked model file. `path` is absolute or an `azureml://datastores/…` URI. */
export interface ModelConfig {
  readonly name: string;
  /** Undefined: the next whole number. */
  readonly version: string | undefined;
  readonly type: 'custom_model' | 'mlflow_model' | 'triton_model';
  readonly path: string;
  readonly description: string;
  readonly tags: Readonly<Record<string, string>>;
  readonly properties: Readonly<Record<string, string>>;
}

/** A checked `managedOnlineDeployment` or `kubernetesOnlineDeployment` file. Paths are absolute. */
export interface DeploymentConfig {
  readonly name: string;
  readonly endpointName: string;
  readonly type: 'managed' | 'kubernetes';
  readonly description: string;
  readonly tags: Readonly<Record<string, string>>;
  readonly properties: Readonly<Record<string, string>>;
  /** A path, or a reference such as `azureml:iris:1`; undefined when the file names none. */
  readonly model: { readonly path: string } | { readonly reference: string } | undefined;
  readonly code: { readonly directory: string; readonly scoringScript: string } | undefined;
  /** Inline, or a reference such as `azureml:sklearn:1`; undefined when the file names none. */
  readonly environment: EnvironmentConfig | { readonly reference: string } | undefined;
  readonly environmentVariables: Readonly<Record<string, string>>;
  readonly instanceCount: number;
  readonly requestSettings: {
    readonly requestTimeoutMs: number;
    readonly maxConcurrentRequestsPerInstance: number;
    readonly maxQueueWaitMs: number;
  };
  readonly livenessProbe: ProbeConfig;
  readonly readinessProbe: ProbeConfig;
  readonly dataCollector: DataCollectorConfig | undefined;
}

/** A checked `onlineEndpoint` file. */
export interface EndpointConfig {
  readonly name: string;
  readonly description: string;
  readonly tags: Readonly<Record<string, string>>;
  readonly properties: Readonly<Record<string, string>>;
  readonly authMode: 'key' | 'aml_token' | 'aad_token';
  /** Deployment name → percent; sum 0 or 100. */
  readonly traffic: Readonly<Record<string, number>>;
  readonly mirrorTraffic: Readonly<Record<string, number>>;
}

/** A datastore as written by the user or by the workspace: secrets may be references (`${env:NAME}`). */
export type DatastoreConfig =
  | { readonly name: string; readonly type: 'local'; readonly path: string }
  | {
      readonly name: string;
      readonly type: 'azure_blob';
      readonly accountName: string;
      readonly containerName: string;
      readonly endpoint: string;
      readonly protocol: 'http' | 'https';
      readonly credentials: {
        readonly accountKey?: string;
        readonly sasToken?: string;
        readonly connectionString?: string;
      };
    };

/** A checked agent file: what `modeltap agent` runs from, and what `modeltap up` writes for its own agent. */
export interface AgentConfig {
  /** Loopback address. Default `127.0.0.1`. */
  readonly host: string;
  /** Default 50011. */
  readonly port: number;
  readonly spool: { readonly directory: string; readonly maxBytes: number };
  /** Largest record. Default 64 MiB. */
  readonly maxRecordBytes: number;
  /** Tabular data above it goes beside the event (`dataref`). Default 4 MiB. */
  readonly inlineBytes: number;
  /** Custom collections a deployment may enable. Default 5. */
  readonly maxCollections: number;
  readonly datastores: readonly DatastoreConfig[];
  readonly deployments: readonly AgentDeploymentConfig[];
  readonly taps: readonly TapConfig[];
  /** Memory that the captures of all taps may take together. Default 64 MiB. */
  readonly maxCaptureBytes: number;
}

/** A tap in front of a model server: HTTP exchanges that pass it are collected for a deployment. */
export interface TapConfig {
  readonly endpointName: string;
  readonly deploymentName: string;
  /** Where clients connect; on the agent's `host`. 0: any free one. */
  readonly port: number;
  readonly upstream: { readonly host: string; readonly port: number };
  /** Exact paths, or up to a `*` at the end. Default all. */
  readonly paths: readonly string[];
  /** Default `add`. */
  readonly requestId: 'add' | 'pass';
  /** Share of the failed exchanges that is collected, 0 to 1. Default 1. */
  readonly errorRate: number;
  /** Default false. */
  readonly captureSecretHeaders: boolean;
  /** Default 256 KiB. */
  readonly memoryBytes: number;
  /** Default 1 GiB. */
  readonly maxBodyBytes: number;
  /** Default 64 MiB. */
  readonly maxDecodedBytes: number;
}

/** A deployment as the agent knows it. */
export interface AgentDeploymentConfig {
  readonly endpointName: string;
  readonly deploymentName: string;
  /** ARM id written as `source`. */
  readonly source: string;
  /** A port of its own for SDKs of this deployment, since the wire protocol names only the collection. Absent: it shares the agent's port. */
  readonly port?: number;
  readonly dataCollector: DataCollectorConfig;
}

/** A checked data asset file. A local path is absolute; an `azureml://` path is as written. */
export interface DataAssetConfig {
  readonly name: string;
  /** Undefined: the catalog gives the next number. */
  readonly version: string | undefined;
  readonly type: 'uri_file' | 'uri_folder' | 'mltable';
  readonly path: string;
  readonly description: string;
  readonly tags: Readonly<Record<string, string>>;
}
