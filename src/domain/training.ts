/** Training: start, resume, stop, recovery. One run is in training-run.ts, what is read of it in training-log.ts. */
import type { Resume } from '../compute/jobs.gen.js';
import { type DomainContext, explain, Locks, shown } from './context.js';
import type { PruneRequest, TasksApi, TrainingApi, TrainLog } from './contracts.js';
import { conflict, notFound, notReady, OarlockError } from './errors.js';
import { isWeightsPath } from './params/index.js';
import { isPruningTask, prunedStart, pruneNotes, pruneParams } from './pruned-training.js';
import type { CurvePoint, MetricValues, TaskRecord, TrainingRecord } from './records.js';
import { IN_TRAINING, next, stateName } from './states.js';
import { allEpochs, bestMetric, trainLog } from './training-log.js';
import { planTraining, recoveryPoint, resumePoint, type TrainingPlan } from './training-plan.js';
import { freshRecord } from './training-progress.js';
import { publishTask, settleTraining, TrainingRun } from './training-run.js';
import type { Trash } from './trash.js';

type BeginEvent = 'train' | 'pruneTrain' | 'resume' | 'resumePrune';

export class Training implements TrainingApi {
  readonly #context: DomainContext;
  readonly #tasks: TasksApi;
  readonly #trash: Trash;
  readonly #refuseWhileJobs: (task: TaskRecord) => void;
  readonly #locks = new Locks();
  readonly #live = new Map<string, TrainingRun>();

  /** `refuseWhileJobs` throws while a side job reads the task's checkpoints. */
  constructor(context: DomainContext, tasks: TasksApi, trash: Trash, refuseWhileJobs: (task: TaskRecord) => void) {
    this.#context = context;
    this.#tasks = tasks;
    this.#trash = trash;
    this.#refuseWhileJobs = refuseWhileJobs;
  }

  async start(tid: string, prune: PruneRequest = {}): Promise<void> {
    await this.#locks.run(tid, async () => {
      const stored = this.#tasks.get(tid);
      const task = { ...stored, params: { ...stored.params, ...pruneParams(stored, prune) } };
      const event = isPruningTask(task) ? 'pruneTrain' : 'train';
      next('task', tid, task.status, event);
      this.#refuseWhileJobs(task);
      const plan = await this.#plan(task);
      plan.notes.push(...pruneNotes(prune));
      await this.#context.requireSpace();
      if (isPruningTask(task))
        task.params.sensitivities_path = (await prunedStart(this.#context, task)).prune.sensitivities;
      const wanted = plan.pretrainWeights;
      // A path is right or wrong now; a name may take a download.
      if (wanted !== null && isWeightsPath(wanted)) {
        await this.#context.weights.resolve({ type: plan.taskType, model: plan.params.model, wanted });
      }
      const record = freshRecord(tid, plan.params.num_epochs, 'fresh');
      const begun = await this.#begin(task, event, record);
      await this.#launch(begun, plan, { from: 'fresh' }, record);
    });
  }

  async resume(tid: string, epoch?: number): Promise<void> {
    await this.#locks.run(tid, async () => {
      const task = this.#tasks.get(tid);
      const event = isPruningTask(task) ? 'resumePrune' : 'resume';
      next('task', tid, task.status, event);
      this.#refuseWhileJobs(task);
      const from = await resumePoint(task, epoch);
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
      const begun = await this.#begin(task, event, record);
      await this.#launch(begun, plan, from, record);
    });
  }

  async stop(tid: string, reason?: string): Promise<void> {
    const task = this.#tasks.get(tid);
    if (!IN_TRAINING.includes(task.status)) {
      throw conflict(stateName('task', task.status), `${tid} is not in training.`);
    }
    // Beginnings hold the lock until there is something to stop.
    const run = await this.#locks.run(tid, async () => {
      const found = this.#live.get(tid);
      if (found === undefined && IN_TRAINING.includes(this.#tasks.get(tid).status)) {
        await settleTraining(this.#context, tid, { event: 'stopped', message: 'Stopped.', change: {} });
      }
      return found;
    });
    await run?.stop(reason);
  }

  isLive(tid: string): boolean {
    return this.#live.has(tid);
  }

  record(tid: string): TrainingRecord | undefined {
    return this.#live.get(tid)?.progress.record ?? this.#context.store.get('training', tid);
  }

  message(task: TaskRecord): string {
    const run = this.#live.get(task.id);
    if (run === undefined || !IN_TRAINING.includes(task.status)) return task.message;
    if (run.message !== '') return run.message;
    const { train_metrics, num_epochs, device, precision } = run.progress.record;
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
        await settleTraining(this.#context, task.id, { event: 'stopped', message: reason, change: {} });
      }
    }
  }

  async stopAll(reason?: string): Promise<void> {
    await Promise.all([...this.#live.keys()].map((tid) => this.stop(tid, reason).catch(() => {})));
  }

  /** Waits until the ends of all trainings are stored; those that are still fetching weights give up. */
  async settled(): Promise<void> {
    for (const run of this.#live.values()) run.giveUp(new OarlockError('not_ready', 'The server is stopping.'));
    await Promise.all([...this.#live.values()].map((run) => run.done));
  }

  async #goOn(task: TaskRecord): Promise<void> {
    const plan = await this.#plan(task);
    const before = this.#context.store.get('training', task.id);
    const record = {
      ...freshRecord(task.id, plan.params.num_epochs, before?.mode ?? 'fresh', before),
      resumed_epoch: before?.resumed_epoch ?? null,
      device: before?.device ?? null,
    };
    await this.#launch(task, plan, recoveryPoint(before), record);
  }

  async #plan(task: TaskRecord): Promise<TrainingPlan> {
    const plan = await planTraining(this.#context, task, this.#tasks.typeOf(task));
    // The parent's model takes the place of pretrained weights.
    return isPruningTask(task) ? { ...plan, pretrainWeights: null } : plan;
  }

  async #begin(task: TaskRecord, event: BeginEvent, record: TrainingRecord): Promise<TaskRecord> {
    const begun = await this.#context.store.change((tx) => {
      const current = tx.get('task', task.id);
      if (current === undefined) throw notFound('task', task.id);
      const status = next('task', task.id, current.status, event) as TaskRecord['status'];
      const changed = { ...current, status, message: '', params: task.params };
      tx.put('task', changed);
      tx.put('training', record);
      if (event === 'train' || event === 'pruneTrain') tx.clearCurve(task.id);
      return changed;
    });
    publishTask(this.#context, begun, true);
    return begun;
  }

  async #launch(task: TaskRecord, plan: TrainingPlan, resume: Resume, record: TrainingRecord): Promise<void> {
    const ended = (): void => void this.#live.delete(task.id);
    const run = new TrainingRun(this.#context, this.#trash, task, plan, resume, record, ended);
    this.#live.set(task.id, run);
    await run.begun;
  }
}
