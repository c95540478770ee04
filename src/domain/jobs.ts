/** Jobs beside training: evaluation, prediction, export. Each keeps its own state next to the task's. */

import { randomBytes } from 'node:crypto';
import { mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { JobEvent, JobOutcome, JobSpec, PredictImage } from '../compute/jobs.gen.js';
import type { JobHandle } from '../compute/ports.js';
import { writeFileAtomic } from './atomic-file.js';
import { type DomainContext, explain, Locks, requireClassification, submitted } from './context.js';
import type { EvaluateArgs, ExportArgs, JobsApi, PredictArgs, TasksApi } from './contracts.js';
import { PredictStatus, TaskStatus } from './enums.js';
import { conflict, invalidArgument, notFound, notReady, unsupported } from './errors.js';
import { ordinals } from './params/index.js';
import { decodeImage, listedImages, testImages } from './predict-images.js';
import { SIDE_JOBS, type SideJob, type SideJobRecord, type TaskRecord } from './records.js';
import type { Tx } from './repository.js';
import { type EventOf, IN_TRAINING, NONE, next, SETTLED, stateName } from './states.js';
import { localTime } from './time.js';
import type { Trash } from './trash.js';

interface Live {
  done: number;
  total: number;
  handle: JobHandle | undefined;
  stopped: boolean;
  /** The end is stored. */
  ended: Promise<void>;
}

/** What one kind of job brings along. */
interface Plan {
  spec: JobSpec;
  args: Record<string, unknown>;
  total: number;
  /** Makes the result; throws when the outcome is no success after all. */
  finish(outcome: JobOutcome): Promise<{ message: string; result: unknown }>;
  /** Runs whatever the end is. */
  cleanUp?(): Promise<void>;
}

/** Machine-readable predictions kept with the state; all of them are in the file. */
const KEPT_RESULTS = 1000;

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

export class Jobs implements JobsApi {
  readonly #context: DomainContext;
  readonly #tasks: TasksApi;
  readonly #trash: Trash;
  readonly #locks = new Locks();
  readonly #live = new Map<string, Live>();

  constructor(context: DomainContext, tasks: TasksApi, trash: Trash) {
    this.#context = context;
    this.#tasks = tasks;
    this.#trash = trash;
  }

  get(tid: string, job: SideJob): SideJobRecord | undefined {
    this.#tasks.get(tid);
    const record = this.#context.store.get('sidejob', key(tid, job));
    const live = this.#live.get(key(tid, job));
    if (record === undefined || live === undefined || !isRunning(record)) return record;
    return { ...record, done: live.done, total: Math.max(live.total, record.total) };
  }

  isLive(tid: string, job: SideJob): boolean {
    return this.#live.has(key(tid, job));
  }

  /** Throws while a job reads the task's checkpoints. */
  refuseWhileRunning(task: TaskRecord, what: string): void {
    for (const job of SIDE_JOBS) {
      if (!this.#live.has(key(task.id, job))) continue;
      throw conflict(`${job} running`, `${what}: its ${WORDS[job]} is still running.`, 'Wait for its end, or stop it.');
    }
  }

  async evaluate(tid: string, args: EvaluateArgs): Promise<void> {
    const task = this.#checked(tid, 'Evaluation');
    const epoch = args.epoch ?? null;
    const topk = args.topk ?? 5;
    if (!Number.isSafeInteger(topk) || topk < 1)
      throw invalidArgument('topk', `topk must be a whole number from 1, not ${topk}.`);
    const checkpoint = await this.#tasks.checkpoint(tid, epoch);
    await this.#context.requireSpace();
    const path = join(task.path, 'eval_res.json');
    await this.#start(task, 'evaluate', async () => ({
      spec: { kind: 'evaluate', task_type: 'classification', source: { checkpoint, epoch }, topk },
      args: { epoch, topk, path },
      total: 0,
      finish: async (outcome) => {
        const { report } = outcome as Extract<JobOutcome, { type: 'evaluate' }>;
        await writeFileAtomic(path, JSON.stringify({ ...report, epoch }));
        return { message: `${tid} is evaluated.`, result: null };
      },
    }));
  }

  async predict(tid: string, args: PredictArgs): Promise<{ path: string | null }> {
    const task = this.#checked(tid, 'Prediction');
    const epoch = args.epoch ?? null;
    const checkpoint = await this.#tasks.checkpoint(tid, epoch);
    await this.#context.requireSpace();
    const single = args.image_data !== undefined ? await this.#received(task, args.image_data) : undefined;
    const outDir = join(task.path, 'visualized_test_results');
    try {
      const images =
        single !== undefined
          ? [{ from: 'file' as const, path: single, output: 'predict_result.png' }]
          : await this.#images(task, args.img_list ?? []);
      await this.#replace(task, 'predict', async () => {
        await this.#emptied(outDir);
        return {
          spec: {
            kind: 'predict',
            task_type: 'classification',
            source: { checkpoint, epoch },
            images,
            out_dir: outDir,
            score_threshold: args.score_thresh ?? 0.5,
            device: { cuda: await this.#devices(task), threads: this.#context.config.threads, precision: 'auto' },
          },
          args: { epoch, single: single !== undefined },
          total: images.length,
          finish: (outcome) => this.#predicted(task, outcome as Extract<JobOutcome, { type: 'predict' }>, single),
          ...(single === undefined ? {} : { cleanUp: () => rm(single, { force: true }) }),
        };
      });
    } catch (error) {
      if (single !== undefined) await rm(single, { force: true });
      throw error;
    }
    return { path: single === undefined ? null : join(outDir, 'predict_result.png') };
  }

  async export(tid: string, args: ExportArgs): Promise<{ save_dir: string }> {
    const task = this.#checked(tid, 'Export');
    if (args.quant === true) throw unsupported('Quantized export is not available yet.', 'Send "quant": false.');
    const epoch = args.epoch ?? null;
    const saveDir = await this.#saveDir(task, args.save_dir);
    const checkpoint = await this.#tasks.checkpoint(tid, epoch);
    await this.#context.requireSpace();
    next('task', tid, task.status, 'exportStart');
    await this.#start(task, 'export', async () => {
      await mkdir(saveDir, { recursive: true });
      return {
        spec: { kind: 'export', task_type: 'classification', source: { checkpoint, epoch }, save_dir: saveDir },
        args: { epoch, save_dir: saveDir },
        total: 0,
        finish: async (outcome) => {
          const { path, parameters, macs } = outcome as Extract<JobOutcome, { type: 'export' }>;
          return { message: `${tid} is exported.`, result: { path, parameters, macs } };
        },
      };
    });
    return { save_dir: args.save_dir };
  }

  async stop(tid: string, job: SideJob): Promise<void> {
    this.#tasks.get(tid);
    const live = this.#live.get(key(tid, job));
    if (live === undefined) {
      const record = this.#context.store.get('sidejob', key(tid, job));
      const state = record === undefined ? 'never started' : stateName(job, record.status);
      throw conflict(state, `No ${WORDS[job]} of ${tid} is running.`);
    }
    await this.#end(live);
  }

  async report(tid: string): Promise<{ path: string; report: Record<string, unknown> | null }> {
    const task = this.#tasks.get(tid);
    const path = join(task.path, 'eval_res.json');
    const text = await readFile(path, 'utf8').catch(() => null);
    if (text === null) return { path, report: null };
    try {
      return { path, report: JSON.parse(text) as Record<string, unknown> };
    } catch {
      this.#context.log.warn({ tid }, 'the stored evaluation report cannot be read');
      return { path, report: null };
    }
  }

  /** Whether the export that a registered model belongs to is done. */
  isExported(tid: string): boolean {
    return this.#context.store.get('sidejob', key(tid, 'export'))?.status === TaskStatus.XEXPORTED;
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

  #checked(tid: string, what: string): TaskRecord {
    const task = this.#tasks.get(tid);
    requireClassification(this.#tasks.typeOf(task), what);
    return task;
  }

  async #start(task: TaskRecord, job: SideJob, prepare: () => Promise<Plan>): Promise<void> {
    await this.#locks.run(key(task.id, job), async () => {
      this.#refuseDouble(task, job);
      await this.#begin(task, job, await prepare());
    });
  }

  /** Like `#start`, but a running one gives way. */
  async #replace(task: TaskRecord, job: SideJob, prepare: () => Promise<Plan>): Promise<void> {
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

  async #begin(task: TaskRecord, job: SideJob, plan: Plan): Promise<void> {
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
    const live: Live = { done: 0, total: plan.total, handle: undefined, stopped: false, ended: Promise.resolve() };
    this.#live.set(id, live);
    this.#publish(record, job === 'export');
    const handle = submitted(compute, {
      id,
      lane: 'interactive',
      devices: [],
      spec: plan.spec,
      errLog: join(task.path, 'err.log'),
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
    const percent = percentOf(live);
    if (percent === before) return;
    this.#context.events.publish('job', { id: record.tid, job: record.job, status: record.status, percent });
  }

  async #ended(task: TaskRecord, record: SideJobRecord, live: Live, plan: Plan, outcome: JobOutcome): Promise<void> {
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
        done: live.done,
        total: Math.max(live.total, current.total),
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

  /** Writes a received picture to a file of the task, checked to be one. */
  async #received(task: TaskRecord, text: string): Promise<string> {
    const bytes = decodeImage(text, this.#context.config.maxImageBytes);
    const folder = join(task.path, '.received');
    await mkdir(folder, { recursive: true });
    const path = join(folder, `${randomBytes(8).toString('hex')}.img`);
    await writeFile(path, bytes);
    try {
      await this.#context.compute.light('inspectImage', path);
      return path;
    } catch (error) {
      await rm(path, { force: true });
      throw error;
    }
  }

  async #images(task: TaskRecord, list: readonly string[]): Promise<PredictImage[]> {
    if (list.length > 0) return listedImages(this.#context.paths, list);
    const { store } = this.#context;
    const dataset = store.get('dataset', store.get('project', task.pid)?.did ?? '');
    if (dataset === undefined)
      throw notReady(`The project ${task.pid} has no dataset.`, 'Send image_data or img_list.');
    return testImages(dataset.path);
  }

  async #emptied(folder: string): Promise<void> {
    if ((await stat(folder).catch(() => undefined)) !== undefined) {
      await this.#context.store.change((tx) => this.#trash.discard(tx, folder));
      await this.#trash.sweep();
    }
    await mkdir(folder, { recursive: true });
  }

  async #predicted(task: TaskRecord, outcome: Extract<JobOutcome, { type: 'predict' }>, single: string | undefined) {
    const items = outcome.items.map((item) => ({
      ...item,
      source: item.source === single ? 'image_data' : item.source,
    }));
    const failures = items.filter((item) => item.error !== null);
    if (items.length > 0 && failures.length === items.length) {
      throw new Error(failures[0]?.error ?? 'No picture could be read.');
    }
    await writeFileAtomic(join(task.path, 'predict_res.json'), JSON.stringify(items));
    const message =
      failures.length === 0
        ? ''
        : `${failures.length} of ${items.length} pictures could not be read; the first: ${failures[0]?.error}`;
    return { message, result: items.slice(0, KEPT_RESULTS) };
  }

  /** The task's first GPU that is there, else the CPU. */
  async #devices(task: TaskRecord): Promise<number[]> {
    const wanted = ordinals(String(task.params.cuda_visible_devices ?? ''));
    if (wanted.length === 0) return [];
    const { gpus } = await this.#context.compute.devices();
    return wanted.filter((index) => gpus.some((gpu) => gpu.index === index)).slice(0, 1);
  }

  async #saveDir(task: TaskRecord, given: string): Promise<string> {
    const { paths, config } = this.#context;
    const path = await paths.resolveNew(given, { field: 'save_dir' });
    const there = await stat(path).catch(() => undefined);
    if (there !== undefined && !there.isDirectory())
      throw invalidArgument('save_dir', `${given} is a file; save_dir must be a folder.`);
    const root = await paths.resolve(config.workspace);
    const taken = [
      root,
      join(root, 'datasets'),
      join(root, 'projects'),
      join(root, 'pretrain'),
      join(task.path, 'output'),
    ];
    if (
      taken.includes(path) ||
      path.startsWith(`${join(root, 'datasets')}/`) ||
      path.startsWith(`${join(task.path, 'output')}/`)
    ) {
      throw invalidArgument(
        'save_dir',
        'save_dir is a folder that the workspace needs for itself.',
        `Use for example ${join(task.path, 'export_model')}.`,
      );
    }
    return path;
  }
}

const percentOf = ({ done, total }: Live): number => (total > 0 ? Math.floor((done / total) * 100) : 0);
