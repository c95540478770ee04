/** Errors as data, the TypeScript end of `JobError` (native/jobs/src/error.rs). */

/** Every `code` an answer can carry (api.md 1.2). Native codes outside this list map to `internal` or `invalid_argument`. */
export type ErrorCode =
  | 'not_found'
  | 'invalid_argument'
  | 'conflict'
  | 'not_ready'
  | 'unsupported'
  | 'forbidden_path'
  | 'unauthorized'
  | 'resource_exhausted'
  | 'internal';

export interface ErrorDetails {
  /** Names and numbers belonging to the message. */
  context?: Record<string, unknown>;
  /** What to do about it. */
  hint?: string;
  /** Whether the same call can succeed later unchanged. */
  retryable?: boolean;
  cause?: unknown;
}

/** A failure that the client is told about: `message` is one sentence without stack or server paths. */
export class OarlockError extends Error {
  readonly code: ErrorCode;
  readonly context: Record<string, unknown>;
  readonly hint: string | undefined;
  readonly retryable: boolean;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'OarlockError';
    this.code = code;
    this.context = details.context ?? {};
    this.hint = details.hint;
    this.retryable = details.retryable ?? code === 'resource_exhausted';
  }
}

export const notFound = (what: string, id: string): OarlockError =>
  new OarlockError('not_found', `There is no ${what} ${id}.`, { context: { id } });

export const invalidArgument = (field: string, message: string, hint?: string): OarlockError =>
  new OarlockError('invalid_argument', message, { context: { field }, ...(hint === undefined ? {} : { hint }) });

export const conflict = (state: string, message: string, hint?: string): OarlockError =>
  new OarlockError('conflict', message, { context: { state }, ...(hint === undefined ? {} : { hint }) });

export const notReady = (message: string, hint?: string): OarlockError =>
  new OarlockError('not_ready', message, hint === undefined ? {} : { hint });

export const unsupported = (message: string, hint?: string): OarlockError =>
  new OarlockError('unsupported', message, hint === undefined ? {} : { hint });
