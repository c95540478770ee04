/** A job on its host: its log, and what is known about its silence and its stop. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Job } from './job.js';
import { JobLog } from './job-log.js';
import type { JobOutcome } from './jobs.gen.js';

/** A job's log that cannot be finished in this time does not hold its outcome up. */
const LOG_MS = 1_000;

export class RunningJob {
  readonly log: JobLog;
  stopTimer: NodeJS.Timeout | undefined;
  /** Judged to hang; its threads are being listed before its host is ended. */
  condemned = false;

  constructor(readonly job: Job) {
    this.log = new JobLog(job.request.errLog);
  }

  /** The log is whole when the outcome is told, unless the disk hangs. */
  async conclude(outcome: JobOutcome): Promise<void> {
    clearTimeout(this.stopTimer);
    await Promise.race([this.log.close(), sleep(LOG_MS, undefined, { ref: false })]);
    this.job.finish(outcome);
  }
}
