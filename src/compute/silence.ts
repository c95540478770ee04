/** When silence of a job's native side means that it hangs. */
import type { ComputeConfig } from './config.js';
import type { Job } from './job.js';

/** Kernel clock ticks per second, the unit of `/proc/<pid>/stat`; 100 on every Linux that Node supports. */
const TICKS_PER_SECOND = 100;
/** A job whose steps are long is given that many of them. */
const STEPS_UNTIL_STALLED = 5;

/** Share of one core above which a silent job is at work; on a crowded machine even a busy one gets little, while a blocked host uses next to nothing. */
const BUSY_SHARE = 0.02;

type Limits = Pick<ComputeConfig, 'stallMs' | 'busyFactor'>;

/** Milliseconds of silence after which the job counts as stalled. */
export const silenceLimit = (job: Job, { stallMs }: Limits): number =>
  Math.max(stallMs, STEPS_UNTIL_STALLED * job.longestStepMs);

/** Adds the elapsed time to the job's silence and judges it. `cpuTicks` reads the processor time of the job's host. */
export function isSilentTooLong(job: Job, elapsedMs: number, cpuTicks: () => number, limits: Limits): boolean {
  if (job.silentMs === 0) job.cpuTicksAtSilence = cpuTicks();
  job.silentMs += elapsedMs;
  const limit = silenceLimit(job, limits);
  if (job.silentMs <= limit) return false;
  // On the CPU a very long step shows as processor time; waiting for a GPU may spin, so there it proves nothing.
  const busyMs = ((cpuTicks() - job.cpuTicksAtSilence) * 1000) / TICKS_PER_SECOND;
  const busy = job.request.devices.length === 0 && busyMs > job.silentMs * BUSY_SHARE;
  return !busy || job.silentMs > limit * limits.busyFactor;
}
