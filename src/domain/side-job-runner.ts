/** Runs the jobs beside training, one of a kind per task, and stores their states and what their ends mean for the task. */
import { join } from 'node:path';
import type { JobEvent, JobOutcome, JobSpec } from '../compute/jobs.gen.js';
import type { JobHandle } from '../compute/ports.js';
import { type DomainContext, explain, Locks, submitted } from './context.js';
import { PredictStatus, TaskStatus } from './enums.js';
import { conflict, notFound } from './errors.js';
import { SIDE_JOBS, type SideJob, type SideJobRecord, type TaskRecord } from './records.js';
import type { Tx } from './repository.js';
import { type EventOf, IN_TRAINING, NONE, next, SETTLED, stateName } from './states.js';
import { localTime } from './time.js';

interface Live {
  done: number;
  total: number;
  stage: string | undefined;
  handle: JobHandle | undefined;
  stopped: boolean;
  /** The end is stored. */
  ended: Promise<void>;
}

/** What one kind of job brings along. */
export interface SideJobPlan {
  spec: JobSpec;
  args: Record<string, unknown>;
  total: number;
  /** File that gets the standard error of the compute host; default the task's err.log. */
  errLog?: string;
  /** Makes the result; throws when the outcome is no success after all. */
  finish(outcome: JobOutcome): Promise<{ message: string; result: unknown }>;
  /** Runs whatever the end is. */
  cleanUp?(): Promise<void>;
}

const key = (tid: string, job: SideJob): string => `${tid}/${job}`;
const RUNNING: Readonly<Record<SideJob, number>> = {
  evaluate: TaskStatus.XEVALUATING,
  predict: PredictStatus.XPRESTART,
  export: TaskStatus.XEXPORTING,
  prune: 1,
};
const WORDS: Readonly<Record<SideJob, string>> = {
  evaluate: 'evaluation',
  predict: 'prediction',
  export: 'export',
  prune: 'pruning analysis',
};
const isRunning = (record: SideJobRecord): boolean => record.status === RUNNING[record.job];

export class SideJobRunner {
  readonly #context: DomainContext;
  readonly #locks = new Locks();
  readonly #live = new Map<string, Live>();

  constructor(context: DomainContext) {
    this.#context = context;
  }

  get(tid: string, job: SideJob): SideJobRecord | undefined {
    const record = this.#context.store.get('sidejob', key(tid, job));
    const live = this.#live.get(key(tid, job));
    if (record === undefined || live === undefined || !isRunning(record)) return record;
    return { ...record, ...progressOf(live, record) };
  }

  isLive(tid: string, job: SideJob): boolean {
    return this.#live.has(key(tid, job));
  }

  /** Throws while a job reads the task's checkpoints. */
  refuseWhileRunning(task: TaskRecord, what: string): void {
    for (const job of SIDE_JOBS) this.refuseRunning(task, job, what);
  }

  /** Throws while a job of that kind runs. */
  refuseRunning(task: TaskRecord, job: SideJob, what: string): void {
    if (!this.#live.has(key(task.id, job))) return;
    throw conflict(`${job} running`, `${what}: its ${WORDS[job]} is still running.`, 'Wait for its end, or stop it.');
  }

  /** Starts what is not running. */
  async start(task: TaskRecord, job: SideJob, prepare: () => Promise<SideJobPlan>): Promise<void> {
    await this.#locks.run(key(task.id, job), async () => {
      this.#refuseDouble(task, job);
      await this.#begin(task, job, await prepare());
    });
  }

  /** Like `start`, but a running one gives way. */
  async replace(task: TaskRecord, job: SideJob, prepare: () => Promise<SideJobPlan>): Promise<void> {
    await this.#locks.run(key(task.id, job), async () => {
      const running = this.#live.get(key(task.id, job));
      if (running !== undefined) await this.#end(running);
      await this.#begin(task, job, await prepare());
    });
  }

  #refuseDouble(task: TaskRecord, job: SideJob): void {
    const record = this.#context.store.get('sidejob', key(task.id, job));
    next(job, `The ${WORDS[job]} of ${task.id}`, record?.status ?? NONE, 'start');
  }

  async #end(live: Live): Promise<void> {
    live.stopped = true;
    await live.handle?.stop();
    await live.ended;
  }

  async #begin(task: TaskRecord, job: SideJob, plan: SideJobPlan): Promise<void> {
    const { store, compute } = this.#context;
    const id = key(task.id, job);
    const record = await store.change((tx) => {
      const current = tx.get('task', task.id);
      if (current === undefined) throw notFound('task', task.id);
      const before = tx.get('sidejob', id)?.status ?? NONE;
      const status = next(job, `The ${WORDS[job]} of ${task.id}`, before, 'start');
      if (job === 'export') {
        const to = next('task', task.id, current.status, 'exportStart') as TaskRecord['status'];
        tx.put('task', { ...current, status: to, settled: current.status });
      }
      const started: SideJobRecord = {
        id,
        tid: task.id,
        job,
        status,
        message: '',
        started: localTime(),
        done: 0,
        total: plan.total,
        args: plan.args,
        result: null,
      };
      tx.put('sidejob', started);
      return started;
    });
    const live: Live = {
      done: 0,
      total: plan.total,
      stage: undefined,
      handle: undefined,
      stopped: false,
      ended: Promise.resolve(),
    };
    this.#live.set(id, live);
    this.#publish(record, job === 'export');
    const handle = submitted(compute, {
      id,
      lane: 'interactive',
      devices: [],
      spec: plan.spec,
      errLog: plan.errLog ?? join(task.path, 'err.log'),
      onEvent: (event) => this.#onEvent(record, live, event),
    });
    live.handle = handle;
    live.ended = handle.outcome
      .then((outcome) => this.#ended(task, record, live, plan, outcome))
      .catch((error: unknown) => this.#context.log.error({ err: error, id }, 'the end of a job was not stored'))
      .finally(() => this.#live.delete(id));
  }

  #onEvent(record: SideJobRecord, live: Live, event: JobEvent): void {
    if (event.type !== 'progress') return;
    const before = percentOf(live);
    live.done = event.done;
    live.total = event.total;
    live.stage = event.stage;
    const percent = percentOf(live);
    if (percent === before) return;
    this.#context.events.publish('job', { id: record.tid, job: record.job, status: record.status, percent });
  }

  async #ended(
    task: TaskRecord,
    record: SideJobRecord,
    live: Live,
    plan: SideJobPlan,
    outcome: JobOutcome,
  ): Promise<void> {
    const { store, log } = this.#context;
    const { job } = record;
    let event: EventOf<typeof job> = 'failed';
    let message = 'It ended without a result.';
    let result: unknown = null;
    if (outcome.type === 'failed') {
      message = outcome.code === 'cancelled' && live.stopped ? `The ${WORDS[job]} was stopped.` : explain(outcome);
    } else if (outcome.type === job) {
      try {
        ({ message, result } = await plan.finish(outcome));
        event = 'done';
      } catch (error) {
        message = (error as Error).message;
        log.warn({ err: error, id: record.id }, 'the result of a job could not be stored');
      }
    }
    await plan.cleanUp?.().catch(() => {});
    const stored = await store.change((tx) => {
      const current = tx.get('sidejob', record.id);
      if (current === undefined) return undefined;
      const status = next(job, record.id, current.status, event);
      const changed = {
        ...current,
        status,
        message,
        result,
        ...progressOf(live, current),
      };
      if (event === 'done' && job === 'predict') changed.done = changed.total;
      tx.put('sidejob', changed);
      this.#settleTask(tx, task.id, job, event);
      return changed;
    });
    if (stored !== undefined) this.#publish(stored, job !== 'predict');
  }

  /** What the end of a side job means for its task. */
  #settleTask(tx: Tx, tid: string, job: SideJob, event: string): void {
    const task = tx.get('task', tid);
    if (task === undefined) return;
    const done = event === 'done';
    if (job === 'export') {
      const status = next(
        'task',
        tid,
        task.status,
        done ? 'exported' : 'exportEnd',
        task.settled,
      ) as TaskRecord['status'];
      tx.put('task', { ...task, status, settled: status });
    } else if (job === 'evaluate' && done) {
      const status = next('task', tid, task.status, 'evaluated') as TaskRecord['status'];
      // While something else has the task, only the state to return to becomes the evaluated one.
      const busy = !SETTLED.includes(status);
      tx.put('task', {
        ...task,
        status,
        settled: busy && IN_TRAINING.includes(status) ? task.settled : TaskStatus.XEVALUATED,
      });
    }
  }

  #publish(record: SideJobRecord, withTask: boolean): void {
    const { events, store } = this.#context;
    events.publish('job', { id: record.tid, job: record.job, status: record.status });
    const task = withTask ? store.get('task', record.tid) : undefined;
    if (task !== undefined)
      events.publish('task', { id: task.id, pid: task.pid, action: 'changed', status: task.status });
  }

  async stop(tid: string, job: SideJob): Promise<void> {
    const live = this.#live.get(key(tid, job));
    if (live === undefined) {
      const record = this.#context.store.get('sidejob', key(tid, job));
      const state = record === undefined ? 'never started' : stateName(job, record.status);
      throw conflict(state, `No ${WORDS[job]} of ${tid} is running.`);
    }
    await this.#end(live);
  }

  async stopTask(tid: string): Promise<void> {
    await Promise.all(SIDE_JOBS.map((job) => this.#live.get(key(tid, job))).map((live) => live && this.#end(live)));
  }

  async stopAll(): Promise<void> {
    await Promise.all([...this.#live.values()].map((live) => this.#end(live)));
  }

  async settled(): Promise<void> {
    await Promise.all([...this.#live.values()].map((live) => live.ended));
  }

  /** After a crash: what ran has failed, and the task is where it was before. */
  async recover(): Promise<void> {
    const message = 'The server ended while this was running. Start it again.';
    await this.#context.store.change((tx) => {
      for (const record of tx.list('sidejob')) {
        if (isRunning(record))
          tx.put('sidejob', { ...record, status: next(record.job, record.id, record.status, 'failed'), message });
      }
      for (const task of tx.list('task')) {
        const event =
          task.status === TaskStatus.XEXPORTING
            ? 'exportEnd'
            : task.status === TaskStatus.XPRUNEING
              ? 'pruneEnd'
              : undefined;
        if (event === undefined) continue;
        const status = next('task', task.id, task.status, event, task.settled) as TaskRecord['status'];
        tx.put('task', { ...task, status });
      }
    });
  }
}

const progressOf = (live: Live, { total }: SideJobRecord) => ({
  done: live.done,
  total: Math.max(live.total, total),
  ...(live.stage === undefined ? {} : { stage: live.stage }),
});
const percentOf = ({ done, total }: Live): number => (total > 0 ? Math.floor((done / total) * 100) : 0);
