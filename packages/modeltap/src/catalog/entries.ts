import type {
  DataAssetConfig,
  DatastoreConfig,
  DeploymentConfig,
  EndpointConfig,
  EnvironmentConfig,
  ModelConfig,
} from '../config/types.ts';

/** Common to everything in the catalog. Times are ISO 8601, UTC. */
export interface EntryTimes {
  readonly createdAt: string;
  readonly updatedAt: string;
  /** 1 when made, one more with each change. Hand it to `update` or `delete` to notice a change made in between. */
  readonly revision: number;
}

/** An endpoint. */
export interface EndpointEntry extends EntryTimes {
  readonly config: EndpointConfig;
  /** The YAML it was made from. */
  readonly sourceYaml: string | undefined;
}

/** Azure ML's words for where a deployment is. */
export type ProvisioningState = 'Creating' | 'Updating' | 'Succeeded' | 'Failed' | 'Deleting';

/** A deployment. */
export interface DeploymentEntry extends EntryTimes {
  readonly config: DeploymentConfig;
  readonly sourceYaml: string | undefined;
  readonly provisioningState: ProvisioningState;
  /** The agent's port for SDKs of this deployment. */
  readonly collectorPort: number | undefined;
}

/**
 * A datastore as it is kept: `config` has literal secrets if the user wrote literal ones. As JSON the entry shows only its
 * public form.
 */
export interface DatastoreEntry extends EntryTimes {
  readonly config: DatastoreConfig;
}

/** One version of a data asset. */
export interface DataAssetEntry extends EntryTimes, DataAssetConfig {
  readonly version: string;
  readonly archived: boolean;
}

/** One version of a model. */
export interface ModelEntry extends EntryTimes, Omit<ModelConfig, 'version' | 'path'> {
  readonly version: string;
  /** Absolute: the folder that holds the model's file or folder, under `file`. What a deployment gets as `AZUREML_MODEL_DIR`. */
  readonly directory: string;
  readonly file: string;
  /** Where the files were copied from: an absolute path or an `azureml://datastores/…` URI. */
  readonly sourcePath: string;
  readonly archived: boolean;
}

/** One version of an environment. */
export interface EnvironmentEntry extends EntryTimes {
  readonly name: string;
  readonly version: string;
  /** With the same name and version. */
  readonly config: EnvironmentConfig;
  readonly archived: boolean;
}
