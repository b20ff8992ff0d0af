import { type DestinationStream, type Logger as PinoLogger, pino } from 'pino';

/** Structured JSON log lines. Fields first, then the sentence, as pino does. */
export type Logger = PinoLogger;

/** What never reaches a log line, whatever is logged. */
const REDACTED = [
  'accountKey',
  'sasToken',
  'connectionString',
  'credentials',
  '*.accountKey',
  '*.sasToken',
  '*.connectionString',
  '*.credentials',
  'headers.authorization',
  'headers.cookie',
  '*.headers.authorization',
  '*.headers.cookie',
];

/** Makes the root logger. `level` is one of pino's; default `info`. Without `destination` it writes to stderr. */
export function createLogger(options: { level?: string; name?: string; destination?: DestinationStream } = {}): Logger {
  const { level = 'info', name, destination = pino.destination(2) } = options;
  return pino(
    { level, ...(name === undefined ? {} : { name }), base: null, redact: { paths: REDACTED, censor: '[redacted]' } },
    destination,
  );
}

/** A logger that drops everything, for tests and libraries. */
export const silentLogger: Logger = pino({ level: 'silent' });
