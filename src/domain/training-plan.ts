/** What a training is to do: data, parameters, devices, and the point that a resumed one goes on from. */
import type { DatasetFormat, DatasetRef, Resume } from '../compute/jobs.gen.js';
import { readChannels } from './channels.js';
import { checkpointFolder, resumeState, savedEpochs } from './checkpoints.js';
import type { DomainContext } from './context.js';
import { DatasetStatus, type ProjectType } from './enums.js';
import { invalidArgument, notReady } from './errors.js';
import {
  type ParamsPlan,
  planClassification,
  planDetection,
  planSegmentation,
  type TrainingSite,
  type TrainParams,
} from './params/index.js';
import type { DatasetRecord, TaskRecord, TrainingRecord } from './records.js';

export interface TrainingPlan extends ParamsPlan {
  taskType: ProjectType;
  dataset: DatasetRef;
}

const FORMATS: Readonly<Record<ProjectType, DatasetFormat>> = {
  classification: 'image_folder',
  detection: 'voc',
  segmentation: 'segmentation_pairs',
  instance_segmentation: 'coco',
};

const PLANS: Readonly<Record<ProjectType, (stored: TrainParams, site: TrainingSite) => ParamsPlan>> = {
  classification: planClassification,
  detection: (stored, site) => planDetection('detection', stored, site),
  segmentation: planSegmentation,
  instance_segmentation: (stored, site) => planDetection('instance_segmentation', stored, site),
};

/** A dataset as jobs read it. */
export const datasetRef = ({ type, path }: DatasetRecord): DatasetRef => ({ format: FORMATS[type], root: path });

/** The dataset of a task's project, which must be split. */
export function readyDataset(context: DomainContext, task: TaskRecord): DatasetRecord {
  const did = context.store.get('project', task.pid)?.did ?? '';
  const dataset = context.store.get('dataset', did);
  if (dataset === undefined) throw notReady(`The project ${task.pid} has no dataset.`, 'Bind one with PUT /workspace.');
  if (dataset.status !== DatasetStatus.XSPLITED) {
    const imported = dataset.status === DatasetStatus.XCOPYDONE;
    throw notReady(
      `The dataset ${did} is not ready: it ${imported ? 'is not split' : 'is not imported'}.`,
      imported ? 'Split it first (PUT /dataset/split).' : 'Import it first (PUT /dataset).',
    );
  }
  return dataset;
}

/** Throws when the task's data is not ready or its parameters cannot be used. */
export async function planTraining(context: DomainContext, task: TaskRecord, type: ProjectType): Promise<TrainingPlan> {
  const dataset = readyDataset(context, task);
  const { gpus } = await context.compute.devices();
  const plan = PLANS[type](task.params, {
    trainImages: dataset.counts?.train ?? 0,
    gpus: gpus.map((gpu) => gpu.index),
    ...(dataset.counts === undefined || dataset.counts === null ? {} : { labels: dataset.counts.labels }),
    ...(dataset.remote === true ? { channels: await readChannels(dataset.path) } : {}),
  });
  return { ...plan, taskType: type, dataset: datasetRef(dataset) };
}

/**
 * Where a client's resume begins: at the epoch it names, else at the highest saved one. A state beyond that epoch, left
 * by a stop or a crash in mid-epoch, is a later point of the same run and saves repeating its steps.
 */
export async function resumePoint(task: TaskRecord, epoch: number | undefined): Promise<Resume> {
  if (epoch !== undefined) {
    if (!Number.isSafeInteger(epoch) || epoch < 1)
      throw invalidArgument('epoch', `epoch must be a whole number from 1, not ${epoch}.`);
    await checkpointFolder(task, epoch);
    return { from: 'epoch', epoch };
  }
  const highest = (await savedEpochs(task)).at(-1);
  const state = await resumeState(task);
  if (state !== undefined && state.epochs >= (highest ?? 0)) return { from: 'latest' };
  if (highest !== undefined) return { from: 'epoch', epoch: highest };
  throw notReady(`${task.id} has no saved epoch to resume from.`, 'Start it anew (POST /project/task/train).');
}

/** Where a training that the server's end interrupted goes on. */
export function recoveryPoint(before: TrainingRecord | undefined): Resume {
  // Before its first sign of life a training has no state of its own; what lies there is from an earlier one.
  if (before !== undefined && before.device !== null) return { from: 'latest' };
  if ((before?.mode ?? 'fresh') === 'fresh') return { from: 'fresh' };
  return before?.resumed_epoch == null ? { from: 'latest' } : { from: 'epoch', epoch: before.resumed_epoch };
}
