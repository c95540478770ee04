/** What the kinds of side jobs are called and how they behave. */
import type { JobOutcome, JobSpec } from '../compute/jobs.gen.js';
import type { Lane } from '../compute/ports.js';
import { PredictStatus, PruneStatus, TaskStatus } from './enums.js';
import type { SideJob, SideJobRecord } from './records.js';
import type { EventOf } from './states.js';

/** What one kind of job brings along. */
export interface SideJobPlan {
  spec: JobSpec;
  args: Record<string, unknown>;
  total: number;
  /** Default: `interactive`, which runs beside trainings. */
  lane?: Lane;
  /** CUDA ordinals that a job of the `train` lane waits for. */
  devices?: readonly number[];
  /** Default: the task's err.log. */
  errLog?: string;
  /** Makes the result; throws when the outcome is no success after all. */
  finish(outcome: JobOutcome): Promise<{ message: string; result: unknown }>;
  /** Runs whatever the end is. */
  cleanUp?(): Promise<void>;
}

/** Id of a side job's record. */
export const key = (tid: string, job: SideJob): string => `${tid}/${job}`;
const RUNNING: Readonly<Record<SideJob, number>> = {
  evaluate: TaskStatus.XEVALUATING,
  predict: PredictStatus.XPRESTART,
  export: TaskStatus.XEXPORTING,
  prune: PruneStatus.XSPRUNEING,
};
export const WORDS: Readonly<Record<SideJob, string>> = {
  evaluate: 'evaluation',
  predict: 'prediction',
  export: 'export',
  prune: 'pruning analysis',
};
/** How a job's success is called in the job protocol. */
export const OUTCOMES: Readonly<Record<SideJob, JobOutcome['type']>> = {
  evaluate: 'evaluate',
  predict: 'predict',
  export: 'export',
  prune: 'sensitivity',
};
export type TaskEvents = Readonly<Record<'start' | 'done' | 'end', EventOf<'task'>>>;
/** Jobs that take their task with them, with the events of the task's own states. */
export const TASK_EVENTS: Partial<Record<SideJob, TaskEvents>> = {
  export: { start: 'exportStart', done: 'exported', end: 'exportEnd' },
  prune: { start: 'pruneStart', done: 'pruneEnd', end: 'pruneEnd' },
};
/** A started analysis is continued after a restart, and its stop is no failure. */
export const isContinued = (job: SideJob): job is 'prune' => job === 'prune';
export const isRunning = (record: SideJobRecord): boolean => record.status === RUNNING[record.job];
