/** From a task's stored parameters to what the training job is told. */
import type { LrPolicy, Precision, TrainParams as RunParams } from '../../compute/jobs.gen.js';
import { invalidArgument, notReady } from '../errors.js';
import type { TrainParams } from './fields.js';
import { findModel } from './models.js';
import { ordinals, readStored } from './stored.js';

export interface TrainingSite {
  /** Number of training images. */
  trainImages: number;
  /** CUDA ordinals of this machine. */
  gpus: readonly number[];
}

export interface ClassificationPlan {
  params: RunParams;
  /** CUDA ordinals to train on; empty = CPU. */
  cuda: number[];
  precision: Precision;
  /** Name or path of the start weights, to be resolved; null = random weights. */
  pretrainWeights: string | null;
  /** Values that had to be replaced, for the task's log. */
  notes: string[];
}

/** Below this many pixels a side the last feature map of a stride-32 network would be a single pixel, or empty. */
const MIN_CROP = 32;
/** AlexNet's stem and unpadded poolings leave nothing below this. */
const MIN_ALEXNET = 63;
/** HRNet's branches are added at 1/4 … 1/32 of the size and must meet. */
const HRNET_MULTIPLE = 32;

/**
 * Checks stored parameters against the data and the machine; impossible values are replaced and noted, never silently.
 * @throws OarlockError `not_ready` without training images.
 */
export function planClassification(stored: TrainParams, site: TrainingSite): ClassificationPlan {
  if (site.trainImages < 1) {
    throw notReady('The dataset has no training images.', 'Split the dataset first (PUT /dataset/split).');
  }
  const { train: p, warnings } = readStored('classification', stored);
  const info = findModel('classification', p.model as string);
  const notes = [...warnings];
  const { cuda, batch } = devicesAndBatch(p, site, notes);
  const size = cropSize(info.name, p.image_shape as number[], notes);
  const params: RunParams = {
    task_type: 'classification',
    model: info.name,
    batch_size: batch,
    num_epochs: p.num_epochs as number,
    learning_rate: p.learning_rate as number,
    lr_policy: p.lr_policy as LrPolicy,
    lr_decay_epochs: p.lr_decay_epochs as number[],
    warmup_steps: p.warmup_steps as number,
    warmup_start_lr: p.warmup_start_lr as number,
    save_interval_epochs: p.save_interval_epochs as number,
    optimizer: p.optimizer as string,
    weight_decay: p.weight_decay as number,
    label_smoothing: p.label_smoothing as number,
    image_shape: [size, size],
    image_mean: triple(p, 'image_mean'),
    image_std: triple(p, 'image_std'),
    ...flip(p, 'horizontal_flip'),
    ...flip(p, 'vertical_flip'),
    ...jitter(p, 'brightness', notes),
    ...jitter(p, 'contrast', notes),
    ...jitter(p, 'saturation', notes),
    hue: p.hue as boolean,
    hue_range: p.hue_range as number,
    hue_prob: p.hue_prob as number,
    rotate: p.rotate as boolean,
    rotate_prob: p.rotate_prob as number,
    rotate_range: p.rotate_range as number,
    class_balance: p.class_balance as boolean,
    early_stop_patience: p.early_stop === true ? (p.early_stop_patience as number) : 0,
    seed: p.seed as number,
  };
  return {
    params,
    cuda,
    precision: p.precision as Precision,
    pretrainWeights: p.pretrain_weights as string | null,
    notes,
  };
}

function devicesAndBatch(p: TrainParams, site: TrainingSite, notes: string[]): { cuda: number[]; batch: number } {
  const asked = ordinals(p.cuda_visible_devices as string);
  const present = asked.filter((gpu) => site.gpus.includes(gpu));
  if (asked.length > 0 && present.length === 0) {
    notes.push(`GPU ${asked.join(', ')} is not there; the CPU is used.`);
  } else if (present.length < asked.length) {
    notes.push(`Of the GPUs ${asked.join(', ')} only ${present.join(', ')} is there.`);
  }
  const wanted = p.batch_size as number;
  let batch = Math.min(wanted, site.trainImages);
  let cuda = [...new Set(present)];
  if (cuda.length > batch) cuda = cuda.slice(0, batch);
  if (cuda.length > 1) batch -= batch % cuda.length;
  if (batch !== wanted) {
    const why =
      wanted > site.trainImages ? `there are ${site.trainImages} training images` : `${cuda.length} GPUs share it`;
    notes.push(`batch_size ${wanted} is reduced to ${batch}: ${why}.`);
  }
  return { cuda, batch };
}

function cropSize(model: string, shape: number[], notes: string[]): number {
  const [height = 224, width = height] = shape;
  const least = model === 'AlexNet' ? MIN_ALEXNET : MIN_CROP;
  const multiple = model.startsWith('HRNet') ? HRNET_MULTIPLE : 1;
  const size = Math.max(least, Math.round(height / multiple) * multiple);
  if (size !== height) {
    const why = height < least ? `at least ${least}` : `a multiple of ${multiple}`;
    notes.push(`image_shape ${height}, ${width}: ${model} needs ${why}; ${size} is used.`);
  } else if (width !== height) {
    notes.push(`image_shape ${height}, ${width}: classification crops are square; ${height} is used.`);
  }
  return size;
}

function triple(p: TrainParams, key: string): [number, number, number] {
  const [r, g, b] = p[key] as number[];
  if (r === undefined || g === undefined || b === undefined)
    throw invalidArgument(key, `${key} must have three values.`);
  return [r, g, b];
}

type Flip<K extends string> = { [key in K]: boolean } & { [key in `${K}_prob`]: number };

function flip<K extends string>(p: TrainParams, name: K): Flip<K> {
  return { [name]: p[name], [`${name}_prob`]: p[`${name}_prob`] } as Flip<K>;
}

type Jitter<K extends string> = Flip<K> & { [key in `${K}_range`]: number };

/** A factor range of 1 or more would turn images black. */
const MAX_FACTOR_RANGE = 0.95;

function jitter<K extends string>(p: TrainParams, name: K, notes: string[]): Jitter<K> {
  const range = p[`${name}_range`] as number;
  const on = p[name] as boolean;
  if (on && range > MAX_FACTOR_RANGE)
    notes.push(`${name}_range ${range} is reduced to ${MAX_FACTOR_RANGE}: images must not turn black.`);
  return { ...flip(p, name), [`${name}_range`]: Math.min(range, MAX_FACTOR_RANGE) } as unknown as Jitter<K>;
}
