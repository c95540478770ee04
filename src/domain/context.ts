/** What every service needs, and small things that several of them do. */
import type { JobOutcome } from '../compute/jobs.gen.js';
import type { Logger } from '../compute/logger.js';
import type { Compute, JobHandle, JobRequest, JobState } from '../compute/ports.js';
import type { WeightsApi } from './contracts.js';
import { PROJECT_TYPES, type ProjectType } from './enums.js';
import { invalidArgument, OarlockError } from './errors.js';
import type { EventBus } from './events.js';
import type { PathGuard } from './paths.js';
import type { Repository } from './repository.js';

export interface DomainConfig {
  /** Absolute, without trailing slash. */
  workspace: string;
  /** Processor threads of a job; 0 = all. */
  threads: number;
  /** Largest decoded image of a `predict` request, bytes. */
  maxImageBytes: number;
}

export interface DomainContext {
  readonly config: DomainConfig;
  readonly store: Repository;
  readonly events: EventBus;
  readonly paths: PathGuard;
  readonly compute: Compute;
  readonly weights: WeightsApi;
  readonly log: Logger;
  /** Throws `resource_exhausted` when the disk has no room for a new job. */
  requireSpace(): Promise<void>;
  /** Work that no answer waits for, but the end of the server does. */
  background(work: Promise<unknown>): void;
  /** True once the server ends: jobs that stop now are to be continued, not ended. */
  readonly closing: boolean;
}

/** `(type, remote)` for a name, number or numeric text of the wire; `remote_segmentation` is segmentation with a mark. */
export function readType(field: string, value: string | number): { type: ProjectType; remote?: true } {
  const text = String(value).trim();
  const name = /^\d+$/.test(text) ? [...PROJECT_TYPES, 'remote_segmentation'][Number(text)] : text;
  if (name === 'remote_segmentation') return { type: 'segmentation', remote: true };
  const type = PROJECT_TYPES.find((known) => known === name);
  if (type !== undefined) return { type };
  throw invalidArgument(
    field,
    `${field} must be one of ${PROJECT_TYPES.join(', ')} or remote_segmentation, not "${text.slice(0, 60)}".`,
  );
}

/** What a job is doing beside its work; empty while it works. */
export const JOB_MESSAGES: Readonly<Record<JobState, string>> = {
  queued: 'Waiting for a device.',
  starting: 'Starting.',
  running: '',
  stalled: 'No sign of life for a while.',
  stopping: 'Stopping.',
};

/** Submits a job whose beginning is stored already, so that a refusal has to become its end. */
export function submitted(compute: Compute, request: JobRequest): JobHandle {
  try {
    return compute.submit(request);
  } catch (error) {
    const message = `The job could not begin: ${(error as Error).message}`;
    const outcome: JobOutcome = { type: 'failed', code: 'internal', message, context: {}, retryable: true, hint: null };
    return { outcome: Promise.resolve(outcome), stop: () => Promise.resolve(), state: 'stopping' };
  }
}

const MAX_TEXT = 4096;

/** Free text for people: any characters, bounded. */
export function checkText(field: string, value: string): string {
  if (value.length > MAX_TEXT) throw invalidArgument(field, `${field} has more than ${MAX_TEXT} characters.`);
  return value;
}

/** One text for what went wrong, with what to do about it. */
export const explain = (error: { message: string; hint?: string | null | undefined }): string =>
  error.hint ? `${error.message} ${error.hint}` : error.message;

/** Any error as one that may be shown; unexpected ones are logged and named only. */
export function shown(error: unknown, log: Logger, what: string): { message: string; hint?: string | undefined } {
  if (error instanceof OarlockError) return error;
  log.error({ err: error }, what);
  const code = (error as NodeJS.ErrnoException)?.code;
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return { message: 'The disk is full.', hint: 'Free some space and try again.' };
  return { message: `Something unexpected happened: ${(error as Error)?.message ?? String(error)}.` };
}

/** One task at a time per key; others wait in line. */
export class Locks {
  readonly #tails = new Map<string, Promise<unknown>>();

  async run<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key) ?? Promise.resolve();
    const mine = before.then(work, work);
    const tail = mine.catch(() => {});
    this.#tails.set(key, tail);
    try {
      return await mine;
    } finally {
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
    }
  }
}
