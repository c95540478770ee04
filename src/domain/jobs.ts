/** Jobs beside training: evaluation, prediction, export. Each keeps its own state next to the task's. */
import { mkdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { JobOutcome, PredictImage } from '../compute/jobs.gen.js';
import { writeFileAtomic } from './atomic-file.js';
import type { DomainContext } from './context.js';
import type { EvaluateArgs, ExportArgs, JobsApi, LiteArgs, PredictArgs, TasksApi } from './contracts.js';
import { TaskStatus } from './enums.js';
import { invalidArgument, notReady } from './errors.js';
import { exportPlan } from './export-plan.js';
import { convert } from './lite.js';
import { listedImages, receivedImage, testImages } from './predict-images.js';
import type { SideJob, SideJobRecord, TaskRecord } from './records.js';
import type { SideJobRunner } from './side-job-runner.js';
import { next } from './states.js';
import { taskDevice } from './task-devices.js';
import type { Trash } from './trash.js';

/** A threshold that a client gave, from 0 to 1; without one the job's own counts. */
function share<K extends string>(field: K, value: number | null | undefined): { [key in K]?: number } {
  if (value == null) return {};
  if (!(value >= 0 && value <= 1)) throw invalidArgument(field, `${field} must lie between 0 and 1, not ${value}.`);
  return { [field]: value } as { [key in K]?: number };
}

/** Machine-readable predictions kept with the state; all of them are in the file. */
const KEPT_RESULTS = 1000;

export class Jobs implements JobsApi {
  readonly #context: DomainContext;
  readonly #tasks: TasksApi;
  readonly #trash: Trash;
  readonly #runner: SideJobRunner;

  constructor(context: DomainContext, runner: SideJobRunner, tasks: TasksApi, trash: Trash) {
    this.#context = context;
    this.#runner = runner;
    this.#tasks = tasks;
    this.#trash = trash;
  }

  get(tid: string, job: SideJob): SideJobRecord | undefined {
    this.#tasks.get(tid);
    return this.#runner.get(tid, job);
  }

  isLive(tid: string, job: SideJob): boolean {
    return this.#runner.isLive(tid, job);
  }

  async evaluate(tid: string, args: EvaluateArgs): Promise<void> {
    const task = this.#tasks.get(tid);
    const epoch = args.epoch ?? null;
    const topk = args.topk ?? 5;
    if (!Number.isSafeInteger(topk) || topk < 1)
      throw invalidArgument('topk', `topk must be a whole number from 1, not ${topk}.`);
    const thresholds = {
      ...share('score_thresh', args.score_thresh),
      ...share('overlap_thresh', args.overlap_thresh),
    };
    const checkpoint = await this.#tasks.checkpoint(tid, epoch);
    await this.#context.requireSpace();
    const path = join(task.path, 'eval_res.json');
    await this.#runner.start(task, 'evaluate', async () => ({
      spec: {
        kind: 'evaluate',
        task_type: this.#tasks.typeOf(task),
        source: { checkpoint, epoch },
        topk,
        ...thresholds,
      },
      args: { epoch, topk, ...thresholds, path },
      total: 0,
      finish: async (outcome) => {
        const { report } = outcome as Extract<JobOutcome, { type: 'evaluate' }>;
        await writeFileAtomic(path, JSON.stringify({ ...report, epoch }));
        return { message: `${tid} is evaluated.`, result: null };
      },
    }));
  }

  async predict(tid: string, args: PredictArgs): Promise<{ path: string | null }> {
    const task = this.#tasks.get(tid);
    const epoch = args.epoch ?? null;
    const checkpoint = await this.#tasks.checkpoint(tid, epoch);
    await this.#context.requireSpace();
    const single =
      args.image_data !== undefined ? await receivedImage(this.#context, task, args.image_data) : undefined;
    const outDir = join(task.path, 'visualized_test_results');
    try {
      const images =
        single !== undefined
          ? [{ from: 'file' as const, path: single, output: 'predict_result.png' }]
          : await this.#images(task, args.img_list ?? []);
      await this.#runner.replace(task, 'predict', async () => {
        await this.#emptied(outDir);
        return {
          spec: {
            kind: 'predict',
            task_type: this.#tasks.typeOf(task),
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
    const task = this.#tasks.get(tid);
    const { plan } = await exportPlan(this.#context, this.#tasks, task, args);
    await this.#context.requireSpace();
    next('task', tid, task.status, 'exportStart');
    await this.#runner.start(task, 'export', plan);
    return { save_dir: args.save_dir };
  }

  async lite(tid: string, args: LiteArgs): Promise<{ message: string }> {
    const task = this.#tasks.get(tid);
    this.#runner.refuseRunning(task, 'export', `An export of ${tid} cannot be converted`);
    await this.#context.requireSpace();
    return convert(this.#context, task, args);
  }

  async stop(tid: string, job: SideJob): Promise<void> {
    this.#tasks.get(tid);
    await this.#runner.stop(tid, job);
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
    return this.#runner.get(tid, 'export')?.status === TaskStatus.XEXPORTED;
  }

  async #images(task: TaskRecord, list: readonly string[]): Promise<PredictImage[]> {
    if (list.length > 0) return listedImages(this.#context.paths, list, this.#tasks.typeOf(task));
    const { store } = this.#context;
    const dataset = store.get('dataset', store.get('project', task.pid)?.did ?? '');
    if (dataset === undefined)
      throw notReady(`The project ${task.pid} has no dataset.`, 'Send image_data or img_list.');
    return testImages(dataset);
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

  #devices(task: TaskRecord): Promise<number[]> {
    return taskDevice(this.#context, task);
  }
}
