/** What clients read about a training, in the shapes of the PaddleX API. */
import { join } from 'node:path';
import { checkpointFolder, checkpointMetrics, savedEpochs } from './checkpoints.js';
import type { TrainingApi, TrainLog } from './contracts.js';
import { notReady } from './errors.js';
import { pruningView } from './pruned-training.js';
import type { MetricValues, TaskRecord, TrainingRecord } from './records.js';
import { duration } from './time.js';

/** JSON has no NaN: PaddleX clients know the text. */
function wire(metrics: MetricValues | null): Record<string, number | string> | null {
  if (metrics === null) return null;
  return Object.fromEntries(Object.entries(metrics).map(([name, value]) => [name, value ?? 'nan']));
}

export function trainLog(
  task: TaskRecord,
  record: TrainingRecord | undefined,
  download: TrainLog['download_status'] | undefined,
): TrainLog {
  const evalMetrics = wire(record?.eval_metrics ?? null);
  return {
    log_file: join(task.path, 'out.log'),
    eta: record?.eta == null ? null : Math.max(0, Math.round(record.eta)),
    train_metrics: wire(record?.train_metrics ?? null),
    eval_metrics: evalMetrics,
    // The documentation of PaddleX spells it so.
    eval_metircs: evalMetrics,
    download_status: download ?? record?.download_status ?? null,
    eval_done: record !== undefined && Object.keys(record.epochs).length > 0,
    train_error: record?.train_error ?? null,
    train_stage: record?.train_stage ?? null,
    running_duration: record?.running_seconds == null ? null : duration(record.running_seconds),
    queued: record?.queued ?? false,
    device: record?.device ?? null,
    precision: record?.precision ?? null,
    steps: record?.steps ?? null,
    images_per_second: record?.images_per_second ?? null,
    data_wait_seconds: record?.data_wait_seconds ?? null,
    notes: record?.notes ?? [],
    pruning: record?.pruning == null ? null : pruningView(record.pruning),
  };
}

const firstOf = (metrics: MetricValues): MetricValues =>
  Object.fromEntries(Object.entries(metrics).slice(0, 1)) as MetricValues;

export async function bestMetric(task: TaskRecord, record: TrainingRecord | undefined): Promise<MetricValues> {
  const known = record?.best_metrics;
  if (known != null && Object.keys(known).length > 0) return firstOf(known);
  const metrics = await checkpointMetrics(await checkpointFolder(task, null));
  if (metrics !== null) return firstOf(metrics);
  throw notReady(
    `The best model of ${task.id} does not say how good it is.`,
    'Evaluate it (POST /project/task/evaluate).',
  );
}

export async function allEpochs(
  task: TaskRecord,
  record: TrainingRecord | undefined,
): Promise<Awaited<ReturnType<TrainingApi['allEpochs']>>> {
  const results: Record<string, number | null> = {};
  let key: string | null = null;
  let best: { epoch: number; value: number } | undefined;
  for (const epoch of await savedEpochs(task)) {
    const known = record?.epochs[epoch];
    const metrics =
      known !== undefined && Object.keys(known).length > 0
        ? known
        : await checkpointMetrics(join(task.path, 'output', `epoch_${epoch}`));
    const [name, value] = Object.entries(metrics ?? {})[0] ?? [];
    if (name === undefined) continue;
    key ??= name;
    results[epoch] = value ?? null;
    // A tie goes to the earlier epoch.
    if (typeof value === 'number' && (best === undefined || value > best.value)) best = { epoch, value };
  }
  return { key, epoch_result_dict: results, best_epoch: best?.epoch ?? -1, best_result: best?.value ?? -1 };
}
