/** One training from its begun state to its stored end: weights, the job, what it is doing, how it ended. */
import { appendFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { JobOutcome, JobSpec, PruneSpec, Resume } from '../compute/jobs.gen.js';
import type { JobHandle, JobState } from '../compute/ports.js';
import { resumeState, savedEpochs } from './checkpoints.js';
import { type DomainContext, explain, JOB_MESSAGES, shown } from './context.js';
import type { TrainLog } from './contracts.js';
import { OarlockError } from './errors.js';
import { isWeightsPath } from './params/index.js';
import { isPruningTask, prunedStart } from './pruned-training.js';
import type { TaskRecord, TrainingRecord } from './records.js';
import { next } from './states.js';
import { localTime } from './time.js';
import { endOfFailure, endOfOutcome, type TrainingEnd } from './training-end.js';
import type { TrainingPlan } from './training-plan.js';
import { TrainingProgress } from './training-progress.js';
import type { Trash } from './trash.js';

/** Tells listeners about a task's state. */
export function publishTask({ events }: DomainContext, task: TaskRecord, queued: boolean): void {
  events.publish('task', { id: task.id, pid: task.pid, action: 'changed', status: task.status, queued });
}

/** Stores how a training ended, with its last values when it ran in this process. */
export async function settleTraining(
  context: DomainContext,
  tid: string,
  end: TrainingEnd,
  progress?: TrainingProgress,
): Promise<void> {
  const last = await progress?.end(end.change);
  const settled = await context.store.change((tx) => {
    const current = tx.get('task', tid);
    if (current === undefined) return undefined;
    const status = next('task', tid, current.status, end.event) as TaskRecord['status'];
    const changed = { ...current, status, settled: status, message: end.message };
    tx.put('task', changed);
    const stored = tx.get('training', tid);
    if (last !== undefined) {
      tx.put('training', last.record);
      tx.addCurve(tid, last.points);
    } else if (stored !== undefined) tx.put('training', { ...stored, queued: false, eta: null, ...end.change });
    return changed;
  });
  if (settled !== undefined) publishTask(context, settled, false);
}

/** What a training without a state of its own begins with. */
interface StartPoint {
  weights: string | null;
  prune?: PruneSpec;
}

export class TrainingRun {
  readonly progress: TrainingProgress;
  /** What it is doing beside training itself; empty while it trains. */
  message = JOB_MESSAGES.queued;
  download: Exclude<TrainLog['download_status'], string> | undefined;
  /** The end is stored. */
  readonly done: Promise<void>;
  /** The job is submitted, or at once when its weights have to be looked for by name first. */
  readonly begun: Promise<void>;

  readonly #context: DomainContext;
  readonly #trash: Trash;
  readonly #task: TaskRecord;
  readonly #plan: TrainingPlan;
  readonly #resume: Resume;
  readonly #abort = new AbortController();
  #fetching = false;
  #handle: JobHandle | undefined;
  /** Why it is being stopped, when not by a client. */
  #reason: string | undefined;

  constructor(
    context: DomainContext,
    trash: Trash,
    task: TaskRecord,
    plan: TrainingPlan,
    resume: Resume,
    record: TrainingRecord,
    onEnded: () => void,
  ) {
    this.#context = context;
    this.#trash = trash;
    this.#task = task;
    this.#plan = plan;
    this.#resume = resume;
    this.progress = new TrainingProgress(context, task, record);
    this.progress.note(...plan.notes);
    let submitted = (): void => {};
    const submission = new Promise<void>((resolve) => {
      submitted = resolve;
    });
    this.done = this.#run(submitted)
      .catch((error: unknown) =>
        context.log.error({ err: error, tid: task.id }, 'the end of a training was not stored'),
      )
      .finally(() => {
        onEnded();
        submitted();
      });
    const wanted = resume.from === 'fresh' ? plan.pretrainWeights : null;
    this.begun = wanted === null || isWeightsPath(wanted) ? submission : Promise.resolve();
  }

  get #errLog(): string {
    return join(this.#task.path, 'err.log');
  }

  /** Resolves when the end is stored. */
  async stop(reason?: string): Promise<void> {
    this.message = JOB_MESSAGES.stopping;
    this.#reason = reason;
    this.giveUp(new OarlockError('conflict', 'The training was stopped.'));
    await this.#handle?.stop();
    await this.done;
  }

  /** Ends the search for weights; a submitted job goes on. */
  giveUp(reason: OarlockError): void {
    this.#abort.abort(reason);
  }

  async #run(submitted: () => void): Promise<void> {
    let end: TrainingEnd | undefined;
    // A resumed training goes on with its logs; a fresh one has an empty one, which clients may open at any time.
    if (this.#resume.from === 'fresh') await writeFile(this.#errLog, '').catch(() => {});
    try {
      const start = (await this.#needsWeights()) ? await this.#startPoint() : { weights: null };
      this.#abort.signal.throwIfAborted();
      if (this.#resume.from === 'fresh') await this.#clearOutput(start.weights);
      if (this.#resume.from === 'epoch') await this.#discard('output/resume');
      this.#handle = this.#submit(start);
      submitted();
      end = this.#endOf(await this.#handle.outcome);
    } catch (error) {
      end = this.#endOfError(error);
    }
    if (end !== undefined) {
      await this.#logError(end);
      return settleTraining(this.#context, this.#task.id, end, this.progress);
    }
    // Goes on after the restart; the newest values are kept.
    const { record, points } = await this.progress.end({});
    await this.#context.store.change((tx) => {
      tx.put('training', record);
      tx.addCurve(this.#task.id, points);
    });
  }

  /** A resumed training has its own; the newest state may turn out not to exist. */
  async #needsWeights(): Promise<boolean> {
    if (this.#resume.from === 'fresh') return true;
    if (this.#resume.from === 'epoch') return false;
    return (await resumeState(this.#task)) === undefined && (await savedEpochs(this.#task)).length === 0;
  }

  async #startPoint(): Promise<StartPoint> {
    if (isPruningTask(this.#task)) return prunedStart(this.#context, this.#task);
    return { weights: await this.#weights() };
  }

  async #weights(): Promise<string | null> {
    const { pretrainWeights: wanted, params, taskType: type } = this.#plan;
    if (wanted === null) return null;
    this.#fetching = true;
    this.message = `Looking for the pretrained weights ${wanted}.`;
    const path = await this.#context.weights.resolve(
      {
        type,
        model: params.model,
        backbone: 'backbone' in params ? (params.backbone ?? undefined) : undefined,
        wanted,
      },
      {
        signal: this.#abort.signal,
        onProgress: ({ downloaded, total, bytesPerSecond }) => {
          const mb = (bytes: number): number => Math.round((bytes / 2 ** 20) * 10) / 10;
          const speed = String(Math.round(bytesPerSecond / 1024));
          this.download = { speed, download: mb(downloaded), total: mb(total) };
          this.message = `Downloading the pretrained weights ${wanted}.`;
        },
      },
    );
    if (this.download !== undefined) this.progress.update({ download_status: 'Done' });
    this.download = undefined;
    this.#fetching = false;
    this.message = JOB_MESSAGES.queued;
    return path;
  }

  /** A training from the start does not leave the checkpoints of an earlier one to be mistaken for its own. */
  async #clearOutput(weights: string | null): Promise<void> {
    if (weights?.startsWith(`${this.#task.path}/output/`)) return;
    await this.#discard('output');
  }

  async #discard(name: string): Promise<void> {
    const path = join(this.#task.path, name);
    const there = await stat(path).catch(() => undefined);
    if (there === undefined) return;
    await this.#context.store.change((tx) => this.#trash.discard(tx, path));
    await this.#trash.sweep();
  }

  #submit({ weights, prune }: StartPoint): JobHandle {
    const { dataset, params, cuda, precision } = this.#plan;
    const { id, path } = this.#task;
    const spec: JobSpec = {
      kind: 'train',
      task_id: id,
      task_dir: path,
      dataset,
      params,
      weights,
      resume: this.#resume,
      ...(prune === undefined ? {} : { prune }),
      device: { cuda, threads: this.#context.config.threads, precision },
    };
    return this.#context.compute.submit({
      id: `${id}/train`,
      lane: 'train',
      devices: cuda,
      spec,
      errLog: this.#errLog,
      onState: (state, detail) => this.#onState(state, detail.message),
      onEvent: (event) => this.progress.onEvent(event),
    });
  }

  #onState(state: JobState, message: string | undefined): void {
    this.message = state === 'running' ? '' : (message ?? JOB_MESSAGES[state]);
    const queued = state === 'queued';
    this.progress.update({ queued });
    publishTask(this.#context, this.#task, queued);
  }

  /** Undefined when the server ends and the training is to go on with its next start. */
  #endOf(outcome: JobOutcome): TrainingEnd | undefined {
    const { closing } = this.#context;
    if (outcome.type === 'train') {
      if (outcome.stopped && closing) return undefined;
      return endOfOutcome(outcome, this.progress.record.num_epochs, this.#reason);
    }
    if (outcome.type !== 'failed') return this.#endOfError(new Error(`a training answered with ${outcome.type}`));
    if (outcome.code !== 'cancelled') return endOfFailure(explain(outcome));
    return closing ? undefined : { event: 'stopped', message: explain(outcome), change: {} };
  }

  #endOfError(error: unknown): TrainingEnd | undefined {
    if (!this.#abort.signal.aborted) {
      const what = `${this.#task.id}: a training could not begin`;
      return endOfFailure(
        explain(shown(error, this.#context.log, what)),
        this.#fetching ? 'weightsMissing' : 'trainFailed',
      );
    }
    if (this.#context.closing) return undefined;
    return { event: 'stopped', message: 'Stopped before the training began.', change: {} };
  }

  /** The PaddleX page shows this file for a failed task. */
  async #logError({ change, message }: TrainingEnd): Promise<void> {
    if (change.train_error == null) return;
    await appendFile(this.#errLog, `${localTime()} [ERROR]\t${message}\n`).catch(() => {});
  }
}
