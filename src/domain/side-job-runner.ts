/** Runs the jobs beside training, one of a kind per task, and stores their states and what their ends mean for the task. */
import { join } from 'node:path';
import type { JobEvent, JobOutcome } from '../compute/jobs.gen.js';
import type { JobHandle } from '../compute/ports.js';
import { type DomainContext, explain, JOB_MESSAGES, Locks, shown, submitted } from './context.js';
import { TaskStatus } from './enums.js';
import { conflict, notFound } from './errors.js';
import { SIDE_JOBS, type SideJob, type SideJobRecord, type TaskRecord } from './records.js';
import type { Tx } from './repository.js';
import {
  isContinued,
  isRunning,
  key,
  OUTCOMES,
  type SideJobPlan,
  TASK_EVENTS,
  type TaskEvents,
  WORDS,
} from './side-jobs.js';
import { allowed, type EventOf, IN_TRAINING, NONE, next, SETTLED, stateName } from './states.js';
import { localTime } from './time.js';

interface Live {
  done: number;
  total: number;
  stage: string | undefined;
  /** Seconds left, where the job tells. */
  eta: number | null;
  /** What it is waiting for; empty while it runs. */
  message: string;
  handle: JobHandle | undefined;
  stopped: boolean;
  /** The end is stored. */
  ended: Promise<void>;
}

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
    const { done, message } = live;
    return { ...record, done, message, total: Math.max(live.total, record.total), ...stageOf(live) };
  }

  /** Seconds left of a running job that tells. */
  eta(tid: string, job: SideJob): number | null {
    return this.#live.get(key(tid, job))?.eta ?? null;
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

  /**
   * Goes on with jobs that the server's end interrupted and that can be continued; one whose preparation fails has
   * failed with that reason. Stops and starts that come meanwhile wait.
   */
  async goOn(job: SideJob, prepare: (task: TaskRecord) => Promise<SideJobPlan>): Promise<void> {
    const { store, log } = this.#context;
    const interrupted = store.list('sidejob').filter((record) => record.job === job && isRunning(record));
    await Promise.all(
      interrupted.map(({ id, tid }) =>
        this.#locks.run(id, async () => {
          const record = store.get('sidejob', id);
          const task = store.get('task', tid);
          if (record === undefined || task === undefined || !isRunning(record) || this.#live.has(id)) return;
          try {
            this.#launch(task, record, await prepare(task));
            log.info({ id }, 'an interrupted job goes on');
          } catch (error) {
            const message = explain(shown(error, log, 'an interrupted job could not be continued'));
            await this.#settle(record, 'failed', { message });
          }
        }),
      ),
    );
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
    const id = key(task.id, job);
    const record = await this.#context.store.change((tx) => {
      const current = tx.get('task', task.id);
      if (current === undefined) throw notFound('task', task.id);
      const before = tx.get('sidejob', id)?.status ?? NONE;
      const status = next(job, `The ${WORDS[job]} of ${task.id}`, before, 'start');
      const taken = TASK_EVENTS[job]?.start;
      if (taken !== undefined) {
        const to = next('task', task.id, current.status, taken) as TaskRecord['status'];
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
    this.#launch(task, record, plan);
  }

  #launch(task: TaskRecord, record: SideJobRecord, plan: SideJobPlan): void {
    const { id, job } = record;
    const live: Live = {
      ...{ done: 0, total: plan.total, stage: undefined, eta: null, message: '' },
      ...{ handle: undefined, stopped: false, ended: Promise.resolve() },
    };
    this.#live.set(id, live);
    this.#publish(record, TASK_EVENTS[job] !== undefined);
    const handle = submitted(this.#context.compute, {
      id,
      lane: plan.lane ?? 'interactive',
      devices: plan.devices ?? [],
      spec: plan.spec,
      errLog: plan.errLog ?? join(task.path, 'err.log'),
      onState: (state, { message }) => {
        live.message = message ?? JOB_MESSAGES[state];
      },
      onEvent: (event) => this.#onEvent(record, live, event),
    });
    live.handle = handle;
    live.ended = handle.outcome
      .then((outcome) => this.#ended(record, live, plan, outcome))
      .catch((error: unknown) => this.#context.log.error({ err: error, id }, 'the end of a job was not stored'))
      .finally(() => this.#live.delete(id));
  }

  #onEvent(record: SideJobRecord, live: Live, event: JobEvent): void {
    if (event.type !== 'progress') return;
    const before = percentOf(live);
    live.done = event.done;
    live.total = event.total;
    live.stage = event.stage;
    live.eta = event.eta ?? null;
    const percent = percentOf(live);
    if (percent === before) return;
    this.#context.events.publish('job', { id: record.tid, job: record.job, status: record.status, percent });
  }

  async #ended(record: SideJobRecord, live: Live, plan: SideJobPlan, outcome: JobOutcome): Promise<void> {
    const { log, closing } = this.#context;
    const { job } = record;
    const stopped =
      outcome.type === 'failed' ? outcome.code === 'cancelled' : outcome.type === 'sensitivity' && outcome.stopped;
    // Goes on with the next start of the server.
    if (stopped && closing && !live.stopped && isContinued(job)) return;
    let event: 'done' | 'failed' | 'stopped' = stopped && isContinued(job) ? 'stopped' : 'failed';
    let message = 'It ended without a result.';
    let result: unknown = null;
    if (stopped) {
      message = outcome.type === 'failed' && !live.stopped ? explain(outcome) : `The ${WORDS[job]} was stopped.`;
    } else if (outcome.type === 'failed') {
      message = explain(outcome);
    } else if (outcome.type === OUTCOMES[job]) {
      try {
        ({ message, result } = await plan.finish(outcome));
        event = 'done';
      } catch (error) {
        message = (error as Error).message;
        log.warn({ err: error, id: record.id }, 'the result of a job could not be stored');
      }
    }
    if (event !== 'done' && isContinued(job)) message += ' What is measured is kept: a new start goes on from there.';
    await plan.cleanUp?.().catch(() => {});
    await this.#settle(record, event, { message, result, done: live.done, total: live.total, ...stageOf(live) });
  }

  async #settle(
    { id, job }: SideJobRecord,
    event: 'done' | 'failed' | 'stopped',
    change: Partial<SideJobRecord>,
  ): Promise<void> {
    const stored = await this.#context.store.change((tx) => {
      const current = tx.get('sidejob', id);
      if (current === undefined) return undefined;
      // Only machines that list it have a `stopped` of their own.
      const status = next(job, id, current.status, event as EventOf<typeof job>);
      const total = Math.max(change.total ?? 0, current.total);
      const changed: SideJobRecord = { ...current, ...change, status, total };
      const whole = event === 'done' && job === 'predict' ? { ...changed, done: total } : changed;
      tx.put('sidejob', whole);
      this.#settleTask(tx, current.tid, job, event);
      return whole;
    });
    if (stored !== undefined) this.#publish(stored, job !== 'predict');
  }

  /** What the end of a side job means for its task. */
  #settleTask(tx: Tx, tid: string, job: SideJob, event: string): void {
    const task = tx.get('task', tid);
    if (task === undefined) return;
    const done = event === 'done';
    const own = TASK_EVENTS[job];
    if (own !== undefined) {
      const to = done ? own.done : own.end;
      const status = next('task', tid, task.status, to, task.settled) as TaskRecord['status'];
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
    const live = await this.#begun(key(tid, job));
    if (live === undefined) {
      const record = this.#context.store.get('sidejob', key(tid, job));
      const state = record === undefined ? 'never started' : stateName(job, record.status);
      throw conflict(state, `No ${WORDS[job]} of ${tid} is running.`);
    }
    await this.#end(live);
  }

  /** What runs under that key, once it has begun or been refused. */
  #begun(id: string): Promise<Live | undefined> {
    return this.#locks.run(id, async () => this.#live.get(id));
  }

  async stopTask(tid: string): Promise<void> {
    await Promise.all(
      SIDE_JOBS.map(async (job) => {
        const live = await this.#begun(key(tid, job));
        if (live !== undefined) await this.#end(live);
      }),
    );
  }

  async stopAll(): Promise<void> {
    await Promise.all([...this.#live.values()].map((live) => this.#end(live)));
  }

  async settled(): Promise<void> {
    await Promise.all([...this.#live.values()].map((live) => live.ended));
  }

  /** After a crash: what ran has failed, and the task is where it was before. Jobs of `continued` wait for `goOn`. */
  async recover(continued: readonly SideJob[] = []): Promise<void> {
    const message = 'The server ended while this was running. Start it again.';
    await this.#context.store.change((tx) => {
      for (const record of tx.list('sidejob')) {
        if (!isRunning(record) || continued.includes(record.job)) continue;
        const status = next(record.job, record.id, record.status, 'failed');
        tx.put('sidejob', { ...record, status, message });
      }
      for (const task of tx.list('task')) {
        for (const [job, { start, end }] of Object.entries(TASK_EVENTS) as [SideJob, TaskEvents][]) {
          const record = tx.get('sidejob', key(task.id, job));
          if (task.status !== allowed('task', TaskStatus.XTRAINDONE, start)) continue;
          if (record !== undefined && isRunning(record)) continue;
          const status = next('task', task.id, task.status, end, task.settled) as TaskRecord['status'];
          tx.put('task', { ...task, status });
        }
      }
    });
  }
}

const stageOf = ({ stage }: Live) => (stage === undefined ? {} : { stage });
const percentOf = ({ done, total }: Live): number => (total > 0 ? Math.floor((done / total) * 100) : 0);
