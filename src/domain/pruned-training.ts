/** What the training of a pruned model begins with: the parent's best model and its pruning analysis. */
import { access } from 'node:fs/promises';
import type { PruneSpec, PruneSummary, PruneTarget } from '../compute/jobs.gen.js';
import { checkpointFolder, weightsDigest } from './checkpoints.js';
import type { DomainContext } from './context.js';
import type { PruneRequest, PruningView } from './contracts.js';
import { PruneStatus } from './enums.js';
import { invalidArgument, notReady } from './errors.js';
import type { TrainParams } from './params/index.js';
import { notAnalysed, sensitivityFile } from './pruning.js';
import type { TaskRecord } from './records.js';
import { key } from './side-jobs.js';

/** Metric loss that every layer may cause when a client does not say. */
const DEFAULT_LOSS = 0.05;

/** Whether the task trains a pruned model of another task. */
export const isPruningTask = (task: TaskRecord): boolean => task.parent_id !== '';

/** The stored parameters of a client's wish; throws when the task cannot have one. */
export function pruneParams(task: TaskRecord, request: PruneRequest): TrainParams {
  const { eval_metric_loss, pruned_flops } = request;
  if (!isPruningTask(task)) {
    if (eval_metric_loss === undefined && pruned_flops === undefined) return {};
    throw invalidArgument(
      pruned_flops === undefined ? 'eval_metric_loss' : 'pruned_flops',
      `${task.id} is no pruning task.`,
      'Create one with parent_id, the task whose model is to be pruned.',
    );
  }
  if (eval_metric_loss !== undefined && !(eval_metric_loss >= 0 && eval_metric_loss <= 1e9))
    throw invalidArgument('eval_metric_loss', `eval_metric_loss must be 0 or more, not ${eval_metric_loss}.`);
  if (pruned_flops !== undefined && !(pruned_flops > 0 && pruned_flops < 1)) {
    throw invalidArgument(
      'pruned_flops',
      `pruned_flops must lie between 0 and 1 (0.4 removes 40 percent), not ${pruned_flops}.`,
    );
  }
  return {
    pruned_flops: pruned_flops ?? null,
    eval_metric_loss: pruned_flops === undefined ? (eval_metric_loss ?? DEFAULT_LOSS) : null,
  };
}

/** What the user should know about a wish. */
export function pruneNotes({ eval_metric_loss, pruned_flops }: PruneRequest): string[] {
  if (eval_metric_loss === undefined || pruned_flops === undefined) return [];
  return ['eval_metric_loss is left aside, because pruned_flops is given too.'];
}

function target({ params }: TaskRecord): PruneTarget {
  const { pruned_flops: flops, eval_metric_loss: loss } = params;
  if (typeof flops === 'number' && flops > 0 && flops < 1) return { by: 'flops', value: flops };
  return { by: 'loss', value: typeof loss === 'number' ? loss : DEFAULT_LOSS };
}

/**
 * Start weights and pruning of a pruning task.
 * @throws OarlockError `not_ready` when the parent is gone, has no best model, or no finished analysis of that model.
 */
export async function prunedStart(
  { store }: DomainContext,
  task: TaskRecord,
): Promise<{ weights: string; prune: PruneSpec }> {
  const parent = store.get('task', task.parent_id);
  if (parent === undefined) {
    throw notReady(
      `${task.parent_id}, whose model ${task.id} was to prune, is deleted.`,
      'Create a pruning task of another one.',
    );
  }
  const weights = await checkpointFolder(parent, null);
  const record = store.get('sidejob', key(parent.id, 'prune'));
  if (record?.status !== PruneStatus.XSPRUNEDONE) throw notAnalysed(parent.id, record);
  const again = `Analyse ${parent.id} again (POST /project/task/prune).`;
  const [analysed, now] = [record.args.model, await weightsDigest(weights)];
  if (typeof analysed === 'string' && now !== null && analysed !== now)
    throw notReady(`The model of ${parent.id} has changed since its pruning analysis.`, again);
  const sensitivities = sensitivityFile(parent);
  await access(sensitivities).catch(() => {
    throw notReady(`The results of the pruning analysis of ${parent.id} are not in ${sensitivities}.`, again);
  });
  return { weights, prune: { sensitivities, target: target(task) } };
}

/** A pruning in the words of the wire. */
export const pruningView = (summary: PruneSummary): PruningView => ({
  flops_before: summary.macs_before,
  flops_after: summary.macs_after,
  pruned_flops: summary.macs_before > 0 ? 1 - summary.macs_after / summary.macs_before : 0,
  parameters_before: summary.parameters_before,
  parameters_after: summary.parameters_after,
  tolerance: summary.tolerance,
  ratios: summary.ratios,
});
