import type { ErrorRow } from './error-row.ts';

/** The errors of environments, part of `ERRORS`. */
export const ENVIRONMENT_ERRORS = {
  environment_build_cancelled: {
    message: 'building the Python environment was given up',
    fix: 'Deploy again if that was not meant.',
    http: 409,
    exit: 4,
  },
  environment_build_failed: {
    message: 'the Python environment was not built: {detail}',
    fix: 'Correct conda_file as these lines say, or try again if the package index did not answer. The whole log is {log}.',
    http: 400,
    exit: 1,
  },
  environment_elsewhere: {
    message: 'the environment "{reference}" is kept by Azure ML, which is not asked from here',
    fix: 'Write the packages of the script as environment.conda_file, or register an environment of your own with "modeltap environment create".',
    http: 400,
    exit: 3,
  },
  environment_unusable: {
    message: '{path} cannot be used for a Python environment: {detail}',
    fix: 'Check that it is there, that you may read and write it, and that the disk is not full.',
    http: 500,
    exit: 1,
  },
} as const satisfies Record<string, ErrorRow>;

/** The errors of models, part of `ERRORS`. */
export const MODEL_ERRORS = {
  model_busy: {
    message: 'model "{name}" version {version} is being registered at this moment',
    fix: 'Wait until it is there, or leave the version out to get the next one.',
    http: 409,
    exit: 4,
  },
  model_copy_failed: {
    message: 'the model {path} could not be copied: {detail}',
    fix: '{hint}',
    http: 400,
    exit: 1,
  },
  model_empty: {
    message: 'the model path {path} holds no file',
    fix: 'Name a file, or a folder with at least one file in it.',
    http: 400,
    exit: 2,
  },
  model_failed: {
    message: 'model "{name}" version {version} was not registered: {detail}',
    fix: '{hint}',
    http: 500,
    exit: 1,
  },
  model_link: {
    message: 'the model has a link that cannot be followed: {link} leads to {target}',
    fix: 'A registered model has all its files: put the file itself there, or remove the link.',
    http: 400,
    exit: 2,
  },
  model_missing: {
    message: 'the model path {path} cannot be read: {detail}',
    fix: 'Correct the path of the model; in a YAML file, a relative path begins at the folder of the file.',
    http: 400,
    exit: 2,
  },
  model_reference: {
    message: 'the model "{reference}" is neither a path on this machine nor a name in this workspace',
    fix: 'Register it with "modeltap model create" and write azureml:<name>:<version>, or give a path.',
    http: 400,
    exit: 2,
  },
} as const satisfies Record<string, ErrorRow>;
