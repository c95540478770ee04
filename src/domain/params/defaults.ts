/** Suggested parameters for a new task: the formulas of the PaddleX RESTful server, from data size, classes and GPU memory. */
import type { ProjectType } from '../enums.js';
import { notReady } from '../errors.js';
import type { TrainParams } from './fields.js';
import { chooseBackbone, DEFAULT_MODEL, findModel, type ModelInfo, pretrainedNames, usableKeys } from './models.js';

/** What the suggestions depend on. */
export interface DefaultsInput {
  type: ProjectType;
  /** Absent: the type's default model. */
  model?: string | undefined;
  backbone?: string | undefined;
  /** Number of training images; `null` when not known yet (dataset not split): limits that need it are left out. */
  trainImages: number | null;
  /** Chosen by the client; absent: what fits. Learning rate and warm-up follow it. */
  batchSize?: number | undefined;
  /** Number of labels. */
  classes: number;
  /** CUDA ordinals to use; empty without GPU. */
  gpus: readonly number[];
  /** Smallest free memory among `gpus`, in MB. */
  freeMemoryMb: number;
  /** Mean and standard deviation of each channel of a remote sensing set, on the scale 0 to 1. */
  channels?: { mean: readonly number[]; std: readonly number[] } | undefined;
  /** Whether weights of that key (`ResNet50_IMAGENET`) are on this machine. */
  hasWeights(key: string): boolean;
}

export interface Defaults {
  train: TrainParams;
  /** Remarks for the log. */
  warnings: string[];
}

interface Memory {
  /** MB that the network needs before the first image, and per image. */
  base: number;
  perImage: number;
  /** Images per GPU at most. */
  cap: number;
}

const memory = (base: number, perImage: number, cap: number): Memory => ({ base, perImage, cap });

function memoryModel({ name, family }: ModelInfo): Memory {
  if (family === 'classifier') return name.startsWith('MobileNet') ? memory(513, 57, 125) : memory(739, 211, 16);
  if (name === 'YOLOv3') return memory(1555, 943, 8);
  if (name === 'PPYOLOTiny' || family === 'picodet') return memory(579, 1025, 16);
  if (family === 'yolo') return memory(1691, 1025, 4);
  if (name === 'FasterRCNN') return memory(1755, 915, 2);
  if (name === 'MaskRCNN') return memory(2702, 1188, 2);
  if (name === 'BiSeNetV2') return memory(591, 1605, 4);
  if (name === 'UNet') return memory(1275, 1256, 4);
  if (name.startsWith('HRNet')) return memory(800, 682, 4);
  if (name === 'FastSCNN') return memory(636, 144, 4);
  return memory(1469, 1605, 4);
}

function batchSize(info: ModelInfo, input: DefaultsInput): number {
  const gpus = input.gpus.length;
  const { base, perImage, cap } = memoryModel(info);
  const fits = gpus > 0 ? Math.min(Math.floor((input.freeMemoryMb - base) / perImage) * gpus, cap * gpus) : 4;
  const half = input.trainImages === null ? fits : Math.floor(input.trainImages / 2);
  return Math.max(1, Math.min(fits, half));
}

interface Schedule {
  learningRate: number;
  imageShape: [number, number];
  epochs: number;
  decay: number[];
  save: number;
  warmup?: 'yolo' | 'rcnn';
}

function schedule({ name, family }: ModelInfo, b: number): Schedule {
  if (family === 'classifier') {
    const learningRate = (0.1 * b) / (name.startsWith('MobileNet') ? 500 : 256);
    return { learningRate, imageShape: [224, 224], epochs: 10, decay: [4, 6, 8], save: 5 };
  }
  if (family === 'segmenter') {
    return { learningRate: (0.01 * b) / 2, imageShape: [512, 512], epochs: 100, decay: [10, 20], save: 10 };
  }
  if (family === 'rcnn') {
    const learningRate = (0.02 * b) / 16;
    return { learningRate, imageShape: [800, 1333], epochs: 12, decay: [8, 11], save: 1, warmup: 'rcnn' };
  }
  if (name === 'PPYOLOTiny' || family === 'picodet') {
    const learningRate = (0.005 * b) / 16;
    return { learningRate, imageShape: [320, 320], epochs: 550, decay: [130, 540], save: 30, warmup: 'yolo' };
  }
  const rows: Record<string, [number, number[]]> = {
    YOLOv3: [270, [216, 243]],
    PPYOLO: [200, [85, 135]],
    PPYOLOv2: [170, [105, 135, 150]],
  };
  const [epochs, decay] = rows[name] ?? [270, [216, 243]];
  return { learningRate: ((0.005 / 12) * b) / 8, imageShape: [608, 608], epochs, decay, save: 30, warmup: 'yolo' };
}

/** Warm-up steps, and the epochs they add to the schedule when they would outlast its first stage. */
function warmUp(plan: Schedule, input: DefaultsInput, b: number): { steps: number; extraEpochs: number } {
  const s = input.trainImages === null ? 0 : Math.floor(input.trainImages / b);
  const g = Math.max(input.gpus.length, 1);
  const c = input.classes;
  const steps =
    plan.warmup === 'yolo'
      ? Math.min(Math.max(3 * s, 50 * c), Math.floor((400 * c) / g))
      : Math.min(Math.max(s, 50), Math.floor(4000 / g));
  const outlasts = s > 0 && steps >= (plan.decay[0] ?? 0) * s;
  return { steps, extraEpochs: outlasts ? Math.floor(steps / s) : 0 };
}

/**
 * The `train` object that `GET /project/task/params?pid=` answers, key for key as PaddleX has it.
 * `pretrain_weights` is a name only when those weights are on this machine, else null, so that the page's default path trains offline.
 * @throws OarlockError `not_ready` without training images, `invalid_argument` for an unknown model.
 */
export function suggestParams(input: DefaultsInput): Defaults {
  if (input.trainImages !== null && input.trainImages < 1) {
    throw notReady('The dataset has no training images.', 'Split the dataset first (PUT /dataset/split).');
  }
  const info = findModel(input.type, input.model ?? DEFAULT_MODEL[input.type]);
  const { backbone, warning } = chooseBackbone(info, input.backbone ?? defaultBackbone(info));
  const b = input.batchSize ?? batchSize(info, input);
  const plan = schedule(info, b);
  const warm = plan.warmup === undefined ? undefined : warmUp(plan, input, b);
  const extra = warm?.extraEpochs ?? 0;
  const weights = defaultWeights(info, backbone, input.hasWeights);
  return {
    train: {
      model: info.name,
      ...(backbone === undefined ? {} : { backbone }),
      cpu_num: 1,
      cuda_visible_devices: input.gpus.join(', '),
      batch_size: b,
      learning_rate: plan.learningRate,
      image_shape: plan.imageShape,
      save_interval_epochs: plan.save,
      num_epochs: plan.epochs + extra,
      lr_decay_epochs: plan.decay.map((epoch) => epoch + extra),
      ...(warm === undefined ? {} : { warmup_steps: warm.steps }),
      resume_checkpoint: null,
      sensitivities_path: null,
      pretrain_weights: weights.name,
      ...augmentation(info),
      ...(input.channels === undefined
        ? {}
        : { image_mean: [...input.channels.mean], image_std: [...input.channels.std] }),
    },
    warnings: [warning, weights.warning].filter((line) => line !== undefined),
  };
}

function defaultBackbone(info: ModelInfo): string | undefined {
  return info.name === 'YOLOv3' ? 'DarkNet53' : info.backbones[0];
}

function defaultWeights(info: ModelInfo, backbone: string | undefined, has: (key: string) => boolean) {
  const names = pretrainedNames(info, backbone);
  const name = names.includes('IMAGENET') ? 'IMAGENET' : (names[0] as string);
  const keys = usableKeys(info, backbone, name);
  if (keys.some(has)) return { name };
  const [key] = keys;
  return {
    name: null,
    warning: `No pretrained weights ${key} on this machine: training starts from random weights. Add them with "npm run weights -- add FILE".`,
  };
}

function augmentation(info: ModelInfo): TrainParams {
  const { family } = info;
  const segments = family === 'segmenter';
  const classifies = family === 'classifier';
  const yolo = family === 'yolo' || family === 'picodet';
  const range = classifies ? 0.9 : 0.5;
  return {
    image_mean: segments ? [0.5, 0.5, 0.5] : [0.485, 0.456, 0.406],
    image_std: segments ? [0.5, 0.5, 0.5] : [0.229, 0.224, 0.225],
    horizontal_flip: true,
    horizontal_flip_prob: 0.5,
    ...jitter('brightness', classifies || yolo, range),
    ...jitter('contrast', classifies || yolo, range),
    ...jitter('saturation', yolo, range),
    ...jitter('hue', yolo, 18),
    ...(classifies ? classifierExtras() : {}),
    ...(segments ? segmenterExtras() : {}),
    ...(yolo || family === 'rcnn' ? { with_fpn: true } : {}),
    ...(yolo ? yoloExtras() : {}),
  };
}

const jitter = (name: string, on: boolean, range: number): TrainParams => ({
  [name]: on,
  [`${name}_range`]: range,
  [`${name}_prob`]: 0.5,
});

const classifierExtras = (): TrainParams => ({
  lr_policy: 'Piecewise',
  vertical_flip: true,
  vertical_flip_prob: 0.5,
  rotate: true,
  rotate_prob: 0.5,
  rotate_range: 30,
});

const segmenterExtras = (): TrainParams => ({
  lr_policy: 'Polynomial',
  optimizer: 'SGD',
  loss_type: [false, false],
  blur: false,
  blur_prob: 0.1,
  rotate: false,
  scale_aspect: false,
  min_ratio: 0.5,
  aspect_ratio: 0.33,
  vertical_flip: false,
  vertical_flip_prob: 0.5,
});

const yoloExtras = (): TrainParams => ({
  use_mixup: true,
  mixup_alpha: 1.5,
  mixup_beta: 1.5,
  expand_image: true,
  expand_prob: 0.5,
  crop_image: true,
  random_shape: true,
  random_shape_sizes: [320, 352, 384, 416, 448, 480, 512, 544, 576, 608],
});
