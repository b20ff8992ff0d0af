import type { ErrorRow } from './error-row.ts';

/** The errors of the spool, part of `ERRORS`. */
export const SPOOL_ERRORS = {
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
} as const satisfies Record<string, ErrorRow>;
