import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { DeploymentConfig } from '../config/types.ts';
import { ModeltapError, systemCode } from '../kit/errors.ts';

/**
 * The folder a script finds its model in (`AZUREML_MODEL_DIR`): the model's folder, or the folder of its file. Undefined
 * when the deployment has none. Throws `model_missing`, and `model_reference` for a registered model: models come by path
 * only until there is a registry.
 */
export async function modelDirectory(model: DeploymentConfig['model']): Promise<string | undefined> {
  if (model === undefined) return undefined;
  if ('reference' in model) throw new ModeltapError('model_reference', { reference: model.reference });
  try {
    return (await stat(model.path)).isDirectory() ? model.path : dirname(model.path);
  } catch (cause) {
    throw new ModeltapError(
      'model_missing',
      { path: model.path, detail: systemCode(cause) ?? String(cause) },
      { cause },
    );
  }
}
