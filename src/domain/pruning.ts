/** Pruning analysis: how much of the evaluation metric each layer's pruning costs. */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { JobOutcome } from '../compute/jobs.gen.js';
import { weightsDigest } from './checkpoints.js';
import type { DomainContext } from './context.js';
import type { PruneLog, PruningApi, TasksApi } from './contracts.js';
import { PruneStatus } from './enums.js';
import { notReady, unsupported } from './errors.js';
import { findModel } from './params/index.js';
import type { SideJobRecord, TaskRecord } from './records.js';
import type { SideJobRunner } from './side-job-runner.js';
import { key, type SideJobPlan } from './side-jobs.js';
import { next } from './states.js';
import { taskDevice } from './task-devices.js';
import { clock } from './time.js';
import { datasetRef, readyDataset } from './training-plan.js';

/** What a finished analysis leaves in its record. */
export interface PruneResult {
  /** Share of the parameters removed → metric loss; null for an analysis of PaddleX that lacks it. */
  sensitivities_loss_img: Record<string, number> | null;
  [extra: string]: unknown;
}

/** The analysis folder of a task. */
export const pruneFolder = (task: TaskRecord): string => join(task.path, 'prune');
/** The table of losses by layer and ratio that the analysis writes and a pruned training reads. */
export const sensitivityFile = (task: TaskRecord): string => join(pruneFolder(task), 'sensitivities.json');
/** What an analysis writes into its folder. Others, of PaddleX, stay. */
const FILES = ['sensitivities.json', 'sensitivities.png', 'out.log', 'err.log'];
/** Smaller batches of a training would only make the analysis of a classifier slow: it keeps no gradients. Maps are large. */
const MIN_BATCH = 16;

export class Pruning implements PruningApi {
  readonly #context: DomainContext;
  readonly #tasks: TasksApi;
  readonly #runner: SideJobRunner;
  readonly #refuseWhileNeeded: (task: TaskRecord) => void;

  /** `refuseWhileNeeded` throws while a training still needs the results of an earlier analysis. */
  constructor(
    context: DomainContext,
    tasks: TasksApi,
    runner: SideJobRunner,
    refuseWhileNeeded: (task: TaskRecord) => void,
  ) {
    this.#context = context;
    this.#tasks = tasks;
    this.#runner = runner;
    this.#refuseWhileNeeded = refuseWhileNeeded;
  }

  async analyse(tid: string): Promise<void> {
    const task = this.#tasks.get(tid);
    this.#requirePrunable(task);
    await this.#tasks.checkpoint(tid, null);
    await this.#context.requireSpace();
    await this.#runner.start(task, 'prune', async () => {
      next('task', tid, this.#tasks.get(tid).status, 'pruneStart');
      this.#refuseWhileNeeded(task);
      const before = this.#context.store.get('sidejob', key(tid, 'prune'));
      return this.#plan(task, before?.status === PruneStatus.XSPRUNEDONE ? undefined : before);
    });
  }

  log(tid: string): PruneLog | null {
    const task = this.#tasks.get(tid);
    const record = this.#runner.get(tid, 'prune');
    if (record === undefined) return null;
    const { done, total, status } = record;
    const eta = status === PruneStatus.XSPRUNEDONE ? 0 : this.#runner.eta(tid, 'prune');
    const known = total > 0;
    return {
      log_file: join(pruneFolder(task), 'out.log'),
      eta: eta === null ? null : clock(eta),
      iters: known ? String(total) : null,
      current: known ? String(done) : null,
      progress: known ? `${((done / total) * 100).toFixed(2)}%` : null,
    };
  }

  sensitivities(tid: string): Record<string, number> {
    this.#tasks.get(tid);
    const record = this.#runner.get(tid, 'prune');
    if (record?.status !== PruneStatus.XSPRUNEDONE) throw notAnalysed(tid, record);
    const curve = (record.result as PruneResult | null)?.sensitivities_loss_img;
    if (curve != null) return curve;
    throw notReady(
      `The analysis of ${tid} by an older PaddleX has no curve of loss and pruned share.`,
      'Analyse it again (POST /project/task/prune).',
    );
  }

  /** After a restart: interrupted analyses go on from the layers that are measured. */
  recover(): Promise<void> {
    return this.#runner.goOn('prune', async (task) => {
      this.#requirePrunable(task);
      return this.#plan(task, this.#context.store.get('sidejob', key(task.id, 'prune')));
    });
  }

  #requirePrunable(task: TaskRecord): void {
    const type = this.#tasks.typeOf(task);
    const { name, family } = findModel(type, String(this.#tasks.params(task.id).model));
    if (family === 'rcnn') {
      throw unsupported(
        `${name} cannot be pruned: its two stages share feature maps whose channels must stay.`,
        'YOLOv3, PPYOLO and PicoDet can be pruned.',
      );
    }
  }

  /** `partial`: an earlier analysis whose measured layers are kept if it was of the same model and data. */
  async #plan(task: TaskRecord, partial: SideJobRecord | undefined): Promise<SideJobPlan> {
    const checkpoint = await this.#tasks.checkpoint(task.id, null);
    const dataset = readyDataset(this.#context, task);
    const folder = pruneFolder(task);
    const type = this.#tasks.typeOf(task);
    const args = { data: `${dataset.id}/${dataset.content}`, model: await weightsDigest(checkpoint) };
    if (partial?.args.data !== args.data || partial.args.model !== args.model) {
      await Promise.all(FILES.map((name) => rm(join(folder, name), { force: true })));
    }
    await mkdir(folder, { recursive: true });
    const cuda = await taskDevice(this.#context, task);
    return {
      spec: {
        kind: 'sensitivity',
        task_type: type,
        source: { checkpoint, epoch: null },
        dataset: datasetRef(dataset),
        out_dir: folder,
        batch_size: Math.max(type === 'classification' ? MIN_BATCH : 1, Number(this.#tasks.params(task.id).batch_size)),
        device: { cuda, threads: this.#context.config.threads, precision: 'fp32' },
      },
      args,
      total: 0,
      lane: 'train',
      devices: cuda,
      errLog: join(folder, 'err.log'),
      finish: async (outcome) => {
        const { metric, base, layers, curve } = outcome as Extract<JobOutcome, { type: 'sensitivity' }>;
        const result: PruneResult = { sensitivities_loss_img: byShare(curve), metric, base, layers };
        const message = `${task.id} is analysed: ${layers} layers, ${metric} ${base.toFixed(4)} without pruning.`;
        return { message, result };
      },
    };
  }
}

/** PaddleX's keys: the share as text. Of equal ones the larger loss stays. */
const byShare = (curve: readonly [number, number][]): Record<string, number> =>
  Object.fromEntries(
    [...curve].sort((a, b) => a[1] - b[1]).map(([share, loss]) => [share.toFixed(4), Math.round(loss * 1e6) / 1e6]),
  );

/** The refusal of what needs a finished analysis. */
export function notAnalysed(tid: string, record: SideJobRecord | undefined): Error {
  const again = 'Start it again (POST /project/task/prune): the layers that are measured are kept.';
  switch (record?.status) {
    case undefined:
      return notReady(`${tid} has no pruning analysis yet.`, 'Start one with POST /project/task/prune.');
    case PruneStatus.XSPRUNEING:
      return notReady(`The pruning analysis of ${tid} is still running.`, 'Wait for its end.');
    case PruneStatus.XSPRUNEEXIT:
      return notReady(`The pruning analysis of ${tid} was stopped before its end.`, again);
    default:
      return notReady(`The pruning analysis of ${tid} has failed.`, again);
  }
}
