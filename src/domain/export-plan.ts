/** An export as a side job: what the engine is told, what its progress means, and what is kept of its result. */
import { appendFile, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExportResult, JobOutcome, Measured, ModelMeasure } from '../compute/jobs.gen.js';
import { writeFileAtomic } from './atomic-file.js';
import type { DomainContext } from './context.js';
import type { ExportArgs, TasksApi } from './contracts.js';
import { DatasetStatus, TaskStatus } from './enums.js';
import { invalidArgument, notReady } from './errors.js';
import { exportFolder, sweepUnfinished } from './export-folder.js';
import type { DatasetRecord, SideJobRecord, TaskRecord } from './records.js';
import type { SideJobPlan } from './side-jobs.js';
import { localTime } from './time.js';
import { datasetRef } from './training-plan.js';

export const QUANT_METHODS = ['min_max', 'percentile', 'entropy'] as const;
/** `exported_type` of a lite model. */
export const LITE = 1;
/** On MNIST 32 and 1024 images gave the same accuracy within a tenth of a point; rare classes should occur too. */
export const QUANT_IMAGES = 256;
const MAX_QUANT_IMAGES = 100_000;
/** What the engine leaves for the measurement; a host that was killed cannot remove it. */
const SCRATCH = ['fp32.onnx', 'truth.json', 'probe.bin'];
/** Probabilities that differ by more mean another network. */
const SAME = 1e-4;

export const logFolder = (task: TaskRecord): string => join(task.path, 'logs', 'export');

/** Checks the arguments; the plan creates the folders. */
export async function exportPlan(
  context: DomainContext,
  tasks: TasksApi,
  task: TaskRecord,
  args: ExportArgs,
): Promise<{ plan: () => Promise<SideJobPlan> }> {
  const epoch = args.epoch ?? null;
  const images = args.quant_images ?? QUANT_IMAGES;
  if (!Number.isSafeInteger(images) || images < 1 || images > MAX_QUANT_IMAGES)
    throw invalidArgument('quant_images', `quant_images must be a whole number from 1 to ${MAX_QUANT_IMAGES}.`);
  const method = args.quant_method ?? 'percentile';
  const quant = args.quant === true ? { method, images } : undefined;
  const type = tasks.typeOf(task);
  const saveDir = await exportFolder(context, task, args.save_dir);
  const checkpoint = await tasks.checkpoint(task.id, epoch);
  const dataset = splitDataset(context, task, quant !== undefined);
  const logDir = logFolder(task);
  const plan = async (): Promise<SideJobPlan> => {
    await mkdir(saveDir, { recursive: true });
    await mkdir(logDir, { recursive: true });
    await rm(join(logDir, 'quant_result.json'), { force: true });
    return {
      spec: {
        kind: 'export',
        task_type: type,
        source: { checkpoint, epoch },
        save_dir: saveDir,
        log_dir: logDir,
        threads: context.config.threads,
        ...(quant === undefined ? {} : { quant }),
        ...(dataset === undefined ? {} : { dataset: datasetRef(dataset) }),
      },
      args: { epoch, save_dir: saveDir, quant: quant ?? null },
      total: 0,
      errLog: join(logDir, 'err.log'),
      finish: async (outcome) => {
        const exported = outcome as Extract<JobOutcome, { type: 'export' }>;
        await keepMeasured(context, task, saveDir, exported.measured);
        return finished(task, logDir, exported);
      },
      cleanUp: async () => {
        for (const name of SCRATCH) await rm(join(logDir, name), { force: true });
        await sweepUnfinished(saveDir, 'inference_model');
      },
    };
  };
  return { plan };
}

/** The project's dataset when it is split; a quantization cannot do without. */
function splitDataset({ store }: DomainContext, task: TaskRecord, needed: boolean): DatasetRecord | undefined {
  const dataset = store.get('dataset', store.get('project', task.pid)?.did ?? '');
  if (dataset?.status === DatasetStatus.XSPLITED) return dataset;
  if (!needed) return undefined;
  const why =
    dataset === undefined ? `The project ${task.pid} has no dataset.` : `The dataset ${dataset.id} is not split.`;
  throw notReady(`${why} Its training images are to calibrate the quantization.`, 'Or export with "quant": false.');
}

/** Registered models of this folder get the figures of the new export, also when it has none. */
async function keepMeasured(
  { store }: DomainContext,
  task: TaskRecord,
  saveDir: string,
  measured: Measured | undefined,
) {
  await store.change((tx) => {
    for (const model of tx.list('exported')) {
      if (model.tid !== task.id || model.path !== saveDir || model.exported_type === LITE) continue;
      const { measured: _, ...rest } = model;
      tx.put('exported', measured === undefined ? rest : { ...rest, measured });
    }
  });
}

/** What the task's last export measured, if it went to `path`. */
export function measuredAt(record: SideJobRecord | undefined, path: string): Measured | undefined {
  if (record?.status !== TaskStatus.XEXPORTED || record.args.save_dir !== path) return undefined;
  return (record.result as ExportResult | null)?.measured;
}

async function finished(task: TaskRecord, logDir: string, outcome: Extract<JobOutcome, { type: 'export' }>) {
  const { type: _, notes = [], measure: __, ...result } = outcome;
  const { measured } = result;
  const told = [...notes];
  if (measured !== undefined) {
    if (measured.difference > SAME)
      told.push(`onnxruntime's probabilities differ from the engine's by up to ${measured.difference.toPrecision(2)}.`);
    if (measured.fp32 !== null)
      await writeFileAtomic(join(logDir, 'quant_result.json'), JSON.stringify(quantResult(measured)));
    await appendFile(join(logDir, 'out.log'), lines(measured)).catch(() => {});
  }
  return { message: [`${task.id} is exported.`, ...told].join(' '), result };
}

/** Accuracy before and after, as the wire contract shapes it; `{}` when nothing was quantized and measured. */
export function quantResult(measured: Measured | undefined): {
  before?: ModelMeasure['metrics'];
  after?: ModelMeasure['metrics'];
} {
  if (measured === undefined || measured.fp32 === null) return {};
  return { before: measured.fp32.metrics, after: measured.model.metrics };
}

function lines({ runtime, images, threads, model, fp32, difference }: Measured): string {
  const line = (text: string): string => `${localTime()} [INFO]\t${text}\n`;
  const figures = (name: string, { metrics, bytes, latency_ms }: Measured['model']): string => {
    const values = Object.entries(metrics).map(([key, value]) => `${key}=${value?.toFixed(6) ?? 'nan'}`);
    return line(`[EVAL] ${[name, ...values, `size=${bytes}`, `latency=${latency_ms}ms`].join(', ')} .`);
  };
  return [
    line(
      `Measured with ${runtime} on ${images} validation images, ${threads} threads; differs from the engine by ${difference.toPrecision(2)}.`,
    ),
    ...(fp32 === null ? [] : [figures('before', fp32)]),
    figures(fp32 === null ? 'exported' : 'after', model),
  ].join('');
}

/** Stage and fraction of a quantized export, for `GET …/export?quant=log`. */
export function quantLog(task: TaskRecord, record: SideJobRecord | undefined) {
  const { stage, fraction } = quantProgress(record);
  return {
    log_file: record === undefined ? null : join(logFolder(task), 'out.log'),
    stage,
    running_duration: fraction,
  };
}

/** Shares of the contract: batches up to 10 of 30 parts, weights up to 13, activations up to 29. */
const PARTS: Readonly<Record<string, readonly [from: number, to: number]>> = {
  Batch: [0, 10],
  Weight: [10, 13],
  Activation: [13, 29],
};

function quantProgress(record: SideJobRecord | undefined): { stage: string | null; fraction: number | null } {
  if (record?.stage === undefined || record.args.quant == null) return { stage: null, fraction: null };
  const parts = PARTS[record.stage];
  if (parts !== undefined) {
    const [from, to] = parts;
    return { stage: record.stage, fraction: (from + ((to - from) * record.done) / Math.max(record.total, 1)) / 30 };
  }
  // Of the steps of every export, those after the quantization, and the measurement.
  const begun = record.stage !== 'exporting' || record.done >= 2;
  return begun ? { stage: 'Finish', fraction: 1 } : { stage: null, fraction: null };
}
