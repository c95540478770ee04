/** Why a compute host ended, as the error its jobs fail with. */
import type { JobError, JobOutcome } from './jobs.gen.js';
import { type HostEndReason, HostExit } from './protocol.js';

export type ErrorFields = Partial<Pick<JobError, 'context' | 'hint' | 'retryable'>>;

/** A `failed` outcome. */
export function failed(code: JobError['code'], message: string, fields: ErrorFields = {}): JobOutcome {
  return {
    type: 'failed',
    code,
    message,
    context: fields.context ?? {},
    retryable: fields.retryable ?? code === 'resource_exhausted',
    hint: fields.hint ?? null,
  };
}

/** Why this server ended a host. */
export type EndCause =
  | { kind: 'idle' }
  | { kind: 'shutdown' }
  | { kind: 'stop'; job: string; seconds: number }
  | { kind: 'stall'; job: string; seconds: number }
  | { kind: 'unresponsive'; seconds: number }
  | { kind: 'protocol'; message: string };

export interface HostEnd {
  /** Exit code, null when a signal ended it. */
  code: number | null;
  signal: NodeJS.Signals | null;
  /** What the host itself said last. */
  announced?: { reason: HostEndReason; message: string };
  /** What this server did to it. */
  cause?: EndCause;
  /** Why it could not be started at all. */
  startError?: string;
  /** Last known memory figures in MiB; `oomKilled` when the kernel counted a victim since. */
  memory?: { rssMb: number; peakMb: number; limitMb: number; oomKilled: boolean };
  /** Last lines of its standard error. */
  stderr: readonly string[];
}

const SIGNAL_NAMES: Readonly<Record<string, string>> = {
  SIGSEGV: 'invalid memory access',
  SIGBUS: 'bus error, often a disk or memory fault',
  SIGILL: 'illegal instruction: the processor lacks something the build uses',
  SIGFPE: 'arithmetic error',
  SIGABRT: 'abort',
  SIGKILL: 'killed from outside',
  SIGTERM: 'ended from outside',
};

const gib = (mb: number): string => (mb >= 1024 ? `${(mb / 1024).toFixed(1)} GiB` : `${mb} MiB`);

/** Resuming starts from the last checkpoint, hence retryable. */
const RESUME = 'A training can be resumed from its last checkpoint.';

/** The outcome of one job that was on the host when it ended. `context.reason` is a stable word for programs. */
export function outcomeOfEnd(end: HostEnd, jobId: string): JobOutcome {
  const context: Record<string, unknown> = { signal: end.signal, exit_code: end.code };
  if (end.memory !== undefined) {
    context.rss_mb = end.memory.rssMb;
    context.peak_mb = end.memory.peakMb;
    context.limit_mb = end.memory.limitMb;
  }
  if (end.stderr.length > 0) context.stderr = end.stderr;
  const fail = (code: JobError['code'], reason: string, message: string, hint: string | null, retryable = true) =>
    failed(code, message, { context: { reason, ...context }, hint, retryable });

  const { cause, announced } = end;
  if (end.startError !== undefined || announced?.reason === 'engine_unavailable') {
    const why = end.startError ?? announced?.message ?? '';
    return fail(
      'internal',
      'start_failed',
      `The compute host did not start: ${why}`,
      'Run `npm run build`, then try again.',
    );
  }
  if (announced?.reason === 'device_fault' || end.code === HostExit.deviceFault) {
    const message = `The compute device failed and its process was replaced${announced ? `: ${announced.message}` : '.'}`;
    return fail('device_fault', 'device_fault', message, RESUME);
  }
  // The kernel's verdict comes before what this server was about to do.
  if (end.memory?.oomKilled === true && (end.signal === 'SIGKILL' || end.code === 137)) {
    const { peakMb, limitMb } = end.memory;
    const message = `Out of memory: the system killed the compute host, which had used up to ${gib(peakMb)} of ${gib(limitMb)}.`;
    return fail(
      'resource_exhausted',
      'out_of_memory',
      message,
      'Lower batch_size or the image size, or give the server more memory.',
    );
  }
  switch (cause?.kind) {
    case 'stall': {
      context.silent_seconds = cause.seconds;
      return cause.job === jobId
        ? fail(
            'internal',
            'stalled',
            `No sign of life for ${cause.seconds} s: the job was ended.`,
            `The log holds the stacks of its threads. ${RESUME}`,
          )
        : fail(
            'internal',
            'stalled',
            `The compute host was ended because job ${cause.job} on it had stalled.`,
            'Start it again.',
          );
    }
    case 'stop':
      return cause.job === jobId
        ? fail('cancelled', 'killed', `The job did not stop within ${cause.seconds} s and was ended by force.`, RESUME)
        : fail(
            'internal',
            'killed',
            `The compute host was ended because job ${cause.job} on it did not stop.`,
            'Start it again.',
          );
    case 'shutdown':
      return fail('cancelled', 'shutdown', 'The server was stopped before the job could end by itself.', RESUME);
    case 'unresponsive':
      return fail(
        'internal',
        'stalled',
        `The compute host did not answer for ${cause.seconds} s and was ended.`,
        RESUME,
      );
    case 'protocol':
      return fail(
        'internal',
        'protocol',
        `The compute host broke the job protocol (${cause.message}) and was ended.`,
        null,
        false,
      );
    case 'idle':
    case undefined:
      break;
  }
  if (announced?.reason === 'terminated' || announced?.reason === 'orphaned') {
    return fail('cancelled', announced.reason, `The compute host ended: ${announced.message}`, RESUME);
  }
  if (end.signal !== null) {
    const meaning = SIGNAL_NAMES[end.signal];
    const message = `The compute host was ended by ${end.signal}${meaning === undefined ? '' : ` (${meaning})`}.`;
    return fail('internal', 'signal', message, RESUME);
  }
  return fail('internal', 'exit', `The compute host ended by itself with exit code ${end.code ?? 'unknown'}.`, RESUME);
}
