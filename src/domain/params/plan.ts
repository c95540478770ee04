/** What all families' plans have in common. */
import type {
  AugmentParams,
  CommonParams,
  LrPolicy,
  Precision,
  TrainParams as RunParams,
} from '../../compute/jobs.gen.js';
import type { Channels } from '../channels.js';
import { notReady } from '../errors.js';
import type { TrainParams } from './fields.js';
import type { ModelInfo } from './models.js';
import { ordinals } from './stored.js';

export interface TrainingSite {
  /** Number of training images. */
  trainImages: number;
  /** CUDA ordinals of this machine. */
  gpus: readonly number[];
  /** Number of labels, where it is known. */
  labels?: number;
  /** Of a remote sensing set. */
  channels?: Channels;
}

export interface ParamsPlan {
  params: RunParams;
  /** CUDA ordinals to train on; empty = CPU. */
  cuda: number[];
  precision: Precision;
  /** Name or path of the start weights, to be resolved; null = random weights. */
  pretrainWeights: string | null;
  /** Values that had to be replaced, for the task's log. */
  notes: string[];
}

/** @throws OarlockError `not_ready` without training images. */
export function requireImages({ trainImages }: TrainingSite): void {
  if (trainImages >= 1) return;
  throw notReady('The dataset has no training images.', 'Split the dataset first (PUT /dataset/split).');
}

/** The part that every family is trained with. */
export const common = (p: TrainParams, { name }: ModelInfo, batch: number, shape: [number, number]): CommonParams => ({
  model: name,
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
  image_shape: shape,
  early_stop_patience: p.early_stop === true ? (p.early_stop_patience as number) : 0,
  seed: p.seed as number,
});

/** Flips, rotation and colour changes. */
export const augment = (p: TrainParams, notes: string[]): AugmentParams => ({
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
});

/** The GPUs that are there, and the batch size that they and the data allow; changes are noted. */
export function devicesAndBatch(
  p: TrainParams,
  site: TrainingSite,
  notes: string[],
): { cuda: number[]; batch: number } {
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
