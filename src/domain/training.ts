/** Training: start, resume, stop, recovery. Progress is in training-progress.ts, what is read of it in training-log.ts. */
import { appendFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { JobOutcome, JobSpec, Resume } from '../compute/jobs.gen.js';
import type { JobHandle, JobState } from '../compute/ports.js';
import { checkpointFolder, hasResumeState, savedEpochs } from './checkpoints.js';
import { type DomainContext, explain, Locks, requireClassification, shown } from './context.js';
import type { TasksApi, TrainingApi, TrainLog } from './contracts.js';
import { DatasetStatus } from './enums.js';
import { conflict, invalidArgument, notFound, notReady, OarlockError, unsupported } from './errors.js';
import { type ClassificationPlan, isWeightsPath, planClassification } from './params/index.js';
import type { CurvePoint, MetricValues, TaskRecord, TrainingRecord } from './records.js';
import { type EventOf, IN_TRAINING, next, stateName } from './states.js';
import { localTime } from './time.js';
import { allEpochs, bestMetric, trainLog } from './training-log.js';
import { freshRecord, TrainingProgress } from './training-progress.js';
import type { Trash } from './trash.js';

interface Live {
  readonly progress: TrainingProgress;
  readonly abort: AbortController;
  message: string;
  /** Why it is being stopped, when not by a client. */
  reason: string | undefined;
  handle: JobHandle | undefined;
  download: { speed: string; download: number; total: number } | undefined;
  /** The end is stored. */
  done: Promise<void>;
}

interface Plan extends ClassificationPlan {
  datasetPath: string;
}

/** How a training ended, for the task. */
interface End {
  event: EventOf<'task'>;
  message: string;
  change: Partial<TrainingRecord>;
}

const jobId = (tid: string): string => `${tid}/train`;

export class Training implements TrainingApi {
  readonly #context: DomainContext;
  readonly #tasks: TasksApi;
  readonly #trash: Trash;
  readonly #refuseWhileJobs: (task: TaskRecord) => void;
  readonly #locks = new Locks();
  readonly #live = new Map<string, Live>();

  /** `refuseWhileJobs` throws while a side job reads the task's checkpoints. */
  constructor(context: DomainContext, tasks: TasksApi, trash: Trash, refuseWhileJobs: (task: TaskRecord) => void) {
    this.#context = context;
    this.#tasks = tasks;
    this.#trash = trash;
    this.#refuseWhileJobs = refuseWhileJobs;
  }

  async start(tid: string, prune: { eval_metric_loss?: number; pruned_flops?: number } = {}): Promise<void> {
    const asksPruning = prune.eval_metric_loss !== undefined || prune.pruned_flops !== undefined;
    await this.#locks.run(tid, async () => {
      const task = this.#tasks.get(tid);
      next('task', tid, task.status, 'train');
      if (asksPruning && task.parent_id === '') {
        throw invalidArgument(
          prune.pruned_flops === undefined ? 'eval_metric_loss' : 'pruned_flops',
          `${tid} is no pruning task.`,
          'Create one with parent_id, the task whose model is to be pruned.',
        );
      }
      if (asksPruning || task.parent_id !== '') throw unsupported('Pruned training is not available yet.');
      this.#refuseWhileJobs(task);
      const plan = await this.#plan(task);
      await this.#context.requireSpace();
      const wanted = plan.pretrainWeights;
      // A path is right or wrong now; a name may take a download.
      if (wanted !== null && isWeightsPath(wanted)) {
        await this.#context.weights.resolve({ type: this.#tasks.typeOf(task), model: plan.params.model, wanted });
      }
      const record = freshRecord(tid, plan.params.num_epochs, 'fresh');
      const begun = await this.#begin(task, 'train', record, true);
      await this.#launch(begun, plan, { from: 'fresh' }, record);
    });
  }

  async resume(tid: string, epoch?: number): Promise<void> {
    await this.#locks.run(tid, async () => {
      const task = this.#tasks.get(tid);
      next('task', tid, task.status, 'resume');
      if (task.parent_id !== '') throw unsupported('Pruned training is not available yet.');
      this.#refuseWhileJobs(task);
      const from = await this.#resumePoint(task, epoch);
      const plan = await this.#plan(task);
      if (from.from === 'epoch' && from.epoch >= plan.params.num_epochs) {
        throw conflict(
          'complete',
          `Epoch ${from.epoch} is the last of ${plan.params.num_epochs}: there is nothing to resume.`,
          'Resume from an earlier saved epoch, or create a task with more epochs.',
        );
      }
      await this.#context.requireSpace();
      const before = this.#context.store.get('training', tid);
      const record: TrainingRecord = {
        ...freshRecord(tid, plan.params.num_epochs, 'resume', before),
        resumed_epoch: from.from === 'epoch' ? from.epoch : null,
      };
      const begun = await this.#begin(task, 'resume', record, false);
      await this.#launch(begun, plan, from, record);
    });
  }

  async stop(tid: string, reason?: string): Promise<void> {
    const task = this.#tasks.get(tid);
    if (!IN_TRAINING.includes(task.status)) {
      throw conflict(stateName('task', task.status), `${tid} is not in training.`);
    }
    // Beginnings hold the lock until there is something to stop.
    const live = await this.#locks.run(tid, async () => {
      const found = this.#live.get(tid);
      if (found === undefined && IN_TRAINING.includes(this.#tasks.get(tid).status)) {
        await this.#settle(task, { event: 'stopped', message: 'Stopped.', change: {} });
      }
      return found;
    });
    if (live === undefined) return;
    live.message = 'Stopping.';
    live.reason = reason;
    live.abort.abort(new OarlockError('conflict', 'The training was stopped.'));
    await live.handle?.stop();
    await live.done;
  }

  isLive(tid: string): boolean {
    return this.#live.has(tid);
  }

  record(tid: string): TrainingRecord | undefined {
    return this.#live.get(tid)?.progress.record ?? this.#context.store.get('training', tid);
  }

  message(task: TaskRecord): string {
    const live = this.#live.get(task.id);
    if (live === undefined || !IN_TRAINING.includes(task.status)) return task.message;
    if (live.message !== '') return live.message;
    const { train_metrics, num_epochs, device, precision } = live.progress.record;
    const where = device === null ? '' : ` on ${device}${precision === null ? '' : ` (${precision})`}`;
    const epoch = train_metrics?.Epoch;
    return epoch === undefined ? `Training begins${where}.` : `Training epoch ${epoch} of ${num_epochs}${where}.`;
  }

  log(tid: string): TrainLog {
    const task = this.#tasks.get(tid);
    return trainLog(task, this.record(tid), this.#live.get(tid)?.download);
  }

  bestMetric(tid: string): Promise<MetricValues> {
    return bestMetric(this.#tasks.get(tid), this.record(tid));
  }

  allEpochs(tid: string): ReturnType<TrainingApi['allEpochs']> {
    return allEpochs(this.#tasks.get(tid), this.record(tid));
  }

  curves(tid: string): CurvePoint[] {
    this.#tasks.get(tid);
    return this.#context.store.curve(tid);
  }

  /** After a restart: trainings go on where they were, or are marked stopped with the reason. */
  async recover(mode: 'auto' | 'mark'): Promise<void> {
    const { store, log } = this.#context;
    for (const task of store.list('task')) {
      if (!IN_TRAINING.includes(task.status)) continue;
      try {
        if (mode === 'mark') throw notReady('The server ended during the training.', 'It can be resumed.');
        await this.#locks.run(task.id, async () => {
          const current = store.get('task', task.id);
          if (current === undefined || !IN_TRAINING.includes(current.status) || this.#live.has(task.id)) return;
          await this.#goOn(current);
          log.info({ tid: task.id }, 'an interrupted training goes on');
        });
      } catch (error) {
        const reason = explain(shown(error, log, 'a training could not be continued'));
        await this.#settle(task, { event: 'stopped', message: reason, change: {} });
      }
    }
  }

  async stopAll(reason?: string): Promise<void> {
    await Promise.all([...this.#live.keys()].map((tid) => this.stop(tid, reason).catch(() => {})));
  }

  /** Waits until the ends of all trainings are stored; those that are still fetching weights give up. */
  async settled(): Promise<void> {
    for (const live of this.#live.values()) live.abort.abort(new OarlockError('not_ready', 'The server is stopping.'));
    await Promise.all([...this.#live.values()].map((live) => live.done));
  }

  async #goOn(task: TaskRecord): Promise<void> {
    const plan = await this.#plan(task);
    const before = this.#context.store.get('training', task.id);
    const mode = before?.mode ?? 'fresh';
    // Before its first sign of life a training has no state of its own; what lies there is from an earlier one.
    const began = before !== undefined && before.device !== null;
    const from: Resume = began
      ? { from: 'latest' }
      : mode === 'fresh'
        ? { from: 'fresh' }
        : before?.resumed_epoch == null
          ? { from: 'latest' }
          : { from: 'epoch', epoch: before.resumed_epoch };
    const record = {
      ...freshRecord(task.id, plan.params.num_epochs, mode, before),
      resumed_epoch: before?.resumed_epoch ?? null,
      device: before?.device ?? null,
    };
    await this.#launch(task, plan, from, record);
  }

  async #resumePoint(task: TaskRecord, epoch: number | undefined): Promise<Resume> {
    if (epoch !== undefined) {
      if (!Number.isSafeInteger(epoch) || epoch < 1)
        throw invalidArgument('epoch', `epoch must be a whole number from 1, not ${epoch}.`);
      await checkpointFolder(task, epoch);
      return { from: 'epoch', epoch };
    }
    if (await hasResumeState(task)) return { from: 'latest' };
    const newest = (await savedEpochs(task)).at(-1);
    if (newest !== undefined) return { from: 'epoch', epoch: newest };
    throw notReady(`${task.id} has no saved epoch to resume from.`, 'Start it anew (POST /project/task/train).');
  }

  async #plan(task: TaskRecord): Promise<Plan> {
    const { store, compute } = this.#context;
    const type = this.#tasks.typeOf(task);
    requireClassification(type, 'Training');
    const did = store.get('project', task.pid)?.did ?? '';
    const dataset = store.get('dataset', did);
    if (dataset === undefined)
      throw notReady(`The project ${task.pid} has no dataset.`, 'Bind one with PUT /workspace.');
    if (dataset.status !== DatasetStatus.XSPLITED) {
      throw notReady(
        `The dataset ${did} is not ready for training: it ${dataset.status === DatasetStatus.XCOPYDONE ? 'is not split' : 'is not imported'}.`,
        dataset.status === DatasetStatus.XCOPYDONE
          ? 'Split it first (PUT /dataset/split).'
          : 'Import it first (PUT /dataset).',
      );
    }
    const { gpus } = await compute.devices();
    const plan = planClassification(task.params, {
      trainImages: dataset.counts?.train ?? 0,
      gpus: gpus.map((gpu) => gpu.index),
    });
    return { ...plan, datasetPath: dataset.path };
  }

  async #begin(
    task: TaskRecord,
    event: 'train' | 'resume',
    record: TrainingRecord,
    fresh: boolean,
  ): Promise<TaskRecord> {
    const begun = await this.#context.store.change((tx) => {
      const current = tx.get('task', task.id);
      if (current === undefined) throw notFound('task', task.id);
      const status = next('task', task.id, current.status, event) as TaskRecord['status'];
      const changed = { ...current, status, message: '' };
      tx.put('task', changed);
      tx.put('training', record);
      if (fresh) tx.clearCurve(task.id);
      return changed;
    });
    this.#publish(begun, true);
    return begun;
  }

  /** Resolves when the job is submitted, or at once when its weights have to be looked for by name. */
  async #launch(task: TaskRecord, plan: Plan, resume: Resume, record: TrainingRecord): Promise<void> {
    const live: Live = {
      progress: new TrainingProgress(this.#context, task, record),
      abort: new AbortController(),
      message: 'Waiting for a device.',
      reason: undefined,
      handle: undefined,
      download: undefined,
      done: Promise.resolve(),
    };
    this.#live.set(task.id, live);
    live.progress.note(...plan.notes);
    let submitted = (): void => {};
    const submission = new Promise<void>((resolve) => {
      submitted = resolve;
    });
    live.done = this.#run(task, plan, resume, live, submitted)
      .catch((error: unknown) =>
        this.#context.log.error({ err: error, tid: task.id }, 'the end of a training was not stored'),
      )
      .finally(() => {
        this.#live.delete(task.id);
        submitted();
      });
    const wanted = resume.from === 'fresh' ? plan.pretrainWeights : null;
    if (wanted === null || isWeightsPath(wanted)) await submission;
  }

  async #run(task: TaskRecord, plan: Plan, resume: Resume, live: Live, submitted: () => void): Promise<void> {
    let end: End | undefined;
    try {
      const weights = (await this.#needsWeights(task, resume)) ? await this.#weights(task, plan, live) : null;
      live.abort.signal.throwIfAborted();
      if (resume.from === 'fresh') await this.#clearOutput(task, weights);
      if (resume.from === 'epoch') await this.#discard(task, 'output/resume');
      const handle = this.#submit(task, plan, resume, weights, live);
      live.handle = handle;
      submitted();
      const outcome = await handle.outcome;
      end = await this.#endOf(task, outcome, live);
    } catch (error) {
      end = this.#endOfError(task, error, live);
    }
    if (end === undefined) {
      // Goes on after the restart; the newest values are kept.
      const { record, points } = await live.progress.end({});
      await this.#context.store.change((tx) => {
        tx.put('training', record);
        tx.addCurve(task.id, points);
      });
      return;
    }
    await this.#settle(task, end, live);
  }

  /** A resumed training has its own; the newest state may turn out not to exist. */
  async #needsWeights(task: TaskRecord, resume: Resume): Promise<boolean> {
    if (resume.from === 'fresh') return true;
    return resume.from === 'latest' && !(await hasResumeState(task)) && (await savedEpochs(task)).length === 0;
  }

  async #weights(task: TaskRecord, plan: Plan, live: Live): Promise<string | null> {
    const wanted = plan.pretrainWeights;
    if (wanted === null) return null;
    live.message = `Looking for the pretrained weights ${wanted}.`;
    const path = await this.#context.weights.resolve(
      { type: this.#tasks.typeOf(task), model: plan.params.model, wanted },
      {
        signal: live.abort.signal,
        onProgress: ({ downloaded, total, bytesPerSecond }) => {
          const mb = (bytes: number): number => Math.round((bytes / 2 ** 20) * 10) / 10;
          live.download = {
            speed: String(Math.round(bytesPerSecond / 1024)),
            download: mb(downloaded),
            total: mb(total),
          };
          live.message = `Downloading the pretrained weights ${wanted}.`;
        },
      },
    );
    if (live.download !== undefined) live.progress.update({ download_status: 'Done' });
    live.download = undefined;
    live.message = 'Waiting for a device.';
    return path;
  }

  /** A training from the start does not leave the checkpoints of an earlier one to be mistaken for its own. */
  async #clearOutput(task: TaskRecord, weights: string | null): Promise<void> {
    if (weights?.startsWith(`${task.path}/output/`)) return;
    await this.#discard(task, 'output');
  }

  async #discard(task: TaskRecord, name: string): Promise<void> {
    const path = join(task.path, name);
    const there = await stat(path).catch(() => undefined);
    if (there === undefined) return;
    await this.#context.store.change((tx) => this.#trash.discard(tx, path));
    await this.#trash.sweep();
  }

  #submit(task: TaskRecord, plan: Plan, resume: Resume, weights: string | null, live: Live): JobHandle {
    const spec: JobSpec = {
      kind: 'train',
      task_id: task.id,
      task_type: this.#tasks.typeOf(task),
      task_dir: task.path,
      dataset: { format: 'image_folder', root: plan.datasetPath },
      params: plan.params,
      weights,
      resume,
      device: { cuda: plan.cuda, threads: this.#context.config.threads, precision: plan.precision },
    };
    return this.#context.compute.submit({
      id: jobId(task.id),
      lane: 'train',
      devices: plan.cuda,
      spec,
      errLog: join(task.path, 'err.log'),
      onState: (state, detail) => this.#onState(task, live, state, detail.message),
      onEvent: (event) => live.progress.onEvent(event),
    });
  }

  #onState(task: TaskRecord, live: Live, state: JobState, message: string | undefined): void {
    const words: Record<JobState, string> = {
      queued: 'Waiting for a device.',
      starting: 'Starting.',
      running: '',
      stalled: 'No sign of life for a while.',
      stopping: 'Stopping.',
    };
    live.message = state === 'running' ? '' : (message ?? words[state]);
    live.progress.update({ queued: state === 'queued' });
    this.#publish(task, state === 'queued');
  }

  async #endOf(task: TaskRecord, outcome: JobOutcome, live: Live): Promise<End | undefined> {
    const epochs = live.progress.record.num_epochs;
    if (outcome.type === 'train') {
      const best =
        outcome.best_epoch === null
          ? 'there is no best model yet'
          : `the best model is that of epoch ${outcome.best_epoch}`;
      if (outcome.stopped) {
        if (this.#context.closing) return undefined;
        const message = `Stopped after ${outcome.completed_epochs} of ${epochs} epochs; ${best}.`;
        return {
          event: 'stopped',
          message: live.reason === undefined ? message : `${live.reason} ${message}`,
          change: {},
        };
      }
      const message = `Trained ${outcome.completed_epochs} epochs; ${best}.`;
      return { event: 'trained', message, change: { train_stage: 'Train Complete', train_error: null } };
    }
    if (outcome.type !== 'failed') {
      return this.#endOfError(task, new Error(`a training answered with ${outcome.type}`), live);
    }
    if (outcome.code === 'cancelled') {
      if (this.#context.closing) return undefined;
      return { event: 'stopped', message: explain(outcome), change: {} };
    }
    const message = explain(outcome);
    // The page shows this file for a failed task.
    const line = `${localTime()} [ERROR]\t${message}\n`;
    await appendFile(join(task.path, 'err.log'), line).catch(() => {});
    return { event: 'trainFailed', message, change: { train_error: message, train_stage: 'Train Error' } };
  }

  #endOfError(task: TaskRecord, error: unknown, live: Live): End | undefined {
    if (live.abort.signal.aborted) {
      return this.#context.closing
        ? undefined
        : { event: 'stopped', message: 'Stopped before the training began.', change: {} };
    }
    const message = explain(shown(error, this.#context.log, `${task.id}: a training could not begin`));
    const change: Partial<TrainingRecord> = { train_error: message, train_stage: 'Train Error' };
    const missing = error instanceof OarlockError && error.context.field === 'pretrain_weights';
    if (missing || live.download !== undefined) {
      return { event: 'weightsMissing', message, change: { ...change, download_status: 'Failed' } };
    }
    return { event: 'trainFailed', message, change };
  }

  async #settle(task: TaskRecord, end: End, live?: Live): Promise<void> {
    const last = live === undefined ? undefined : await live.progress.end(end.change);
    const settled = await this.#context.store.change((tx) => {
      const current = tx.get('task', task.id);
      if (current === undefined) return undefined;
      const status = next('task', task.id, current.status, end.event) as TaskRecord['status'];
      const changed = { ...current, status, settled: status, message: end.message };
      tx.put('task', changed);
      const stored = tx.get('training', task.id);
      if (last !== undefined) {
        tx.put('training', last.record);
        tx.addCurve(task.id, last.points);
      } else if (stored !== undefined) tx.put('training', { ...stored, queued: false, eta: null, ...end.change });
      return changed;
    });
    if (settled !== undefined) this.#publish(settled, false);
  }

  #publish(task: TaskRecord, queued: boolean): void {
    this.#context.events.publish('task', {
      id: task.id,
      pid: task.pid,
      action: 'changed',
      status: task.status,
      queued,
    });
  }
}
