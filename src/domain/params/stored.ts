/** The parameter object of a task: created from what a client sent and the suggestions, merged later, never losing a key. */
import type { ProjectType } from '../enums.js';
import { OarlockError } from '../errors.js';
import { type DefaultsInput, suggestParams } from './defaults.js';
import { coerceTrain, keysOf, type TrainParams } from './fields.js';
import { chooseBackbone, findModel, type ModelInfo, pretrainedNames } from './models.js';

/** A task's parameters and the replacements that were made, for its log. */
export interface Stored {
  train: TrainParams;
  warnings: string[];
}

/** Values of the keys that the suggestions do not name. */
function restDefaults(type: ProjectType, family: ModelInfo['family']): TrainParams {
  const detects = type === 'detection' || type === 'instance_segmentation';
  const every: TrainParams = {
    lr_policy: 'Piecewise',
    warmup_steps: 0,
    warmup_start_lr: 0,
    train_num: 0,
    pruned_flops: null,
    eval_metric_loss: null,
    optimizer: 'SGD',
    weight_decay: family === 'yolo' || family === 'picodet' ? 5e-4 : 1e-4,
    label_smoothing: 0,
    class_balance: false,
    early_stop: false,
    early_stop_patience: 5,
    precision: 'auto',
    seed: 0,
    vertical_flip: false,
    vertical_flip_prob: 0.5,
    rotate: false,
    rotate_prob: 0.5,
    rotate_range: type === 'segmentation' ? 15 : 30,
  };
  if (!detects) return every;
  return {
    ...every,
    with_fpn: true,
    use_mixup: false,
    mixup_alpha: 1.5,
    mixup_beta: 1.5,
    expand_image: false,
    expand_prob: 0.5,
    crop_image: false,
    random_shape: false,
    random_shape_sizes: [],
    ema_decay: 0,
  };
}

/** What a new task takes its missing values from. */
export type TaskDefaults = Omit<DefaultsInput, 'type' | 'model' | 'backbone' | 'batchSize'>;

/**
 * Parameters of a new task: the client's, completed by the suggestions for the model it chose.
 * @throws OarlockError `invalid_argument` with the field's name.
 */
export function createStored(
  type: ProjectType,
  given: Readonly<Record<string, unknown>>,
  defaults: TaskDefaults,
): Stored {
  const own = coerceTrain(type, given);
  const devices = own.cuda_visible_devices as string | undefined;
  const gpus = devices === undefined ? defaults.gpus : defaults.gpus.length === 0 ? [] : ordinals(devices);
  const suggested = suggestParams({
    ...defaults,
    gpus,
    type,
    model: own.model as string | undefined,
    backbone: own.backbone as string | undefined,
    batchSize: own.batch_size as number | undefined,
  });
  const info = findModel(type, suggested.train.model as string);
  const train = { ...restDefaults(type, info.family), ...suggested.train, ...own };
  const weightsWarnings = 'pretrain_weights' in own ? [] : suggested.warnings;
  const settled = settle(type, train);
  return { train: settled.train, warnings: [...new Set([...weightsWarnings, ...settled.warnings])] };
}

/** Adds what a client posts to stored parameters; keys it does not name stay. */
export function mergeStored(type: ProjectType, stored: TrainParams, given: Readonly<Record<string, unknown>>): Stored {
  const own = coerceTrain(type, given);
  return settle(type, { ...completed(type, stored), ...own });
}

/**
 * Parameters that were stored before, maybe by an older version or by PaddleX: values that cannot be read are replaced by
 * defaults with a warning instead of making the task unreadable.
 */
export function readStored(type: ProjectType, stored: Readonly<Record<string, unknown>>): Stored {
  const own: TrainParams = {};
  const warnings: string[] = [];
  for (const [key, value] of Object.entries(stored)) {
    try {
      Object.assign(own, coerceTrain(type, { [key]: value }));
    } catch (error) {
      if (!(error instanceof OarlockError)) throw error;
      warnings.push(`${error.message} The default is used.`);
    }
  }
  try {
    const settled = settle(type, completed(type, own));
    return { train: settled.train, warnings: [...warnings, ...settled.warnings] };
  } catch (error) {
    if (!(error instanceof OarlockError)) throw error;
    // A model of another library version: shown as it is; starting the task names the problem.
    return { train: completed(type, own), warnings: [...warnings, error.message] };
  }
}

/** `stored` with every key of its type, missing ones filled. */
function completed(type: ProjectType, stored: TrainParams): TrainParams {
  let info: ModelInfo;
  try {
    info = findModel(type, (stored.model as string | undefined) ?? '');
  } catch {
    return { ...suggestionsFor(type, undefined), ...stored };
  }
  return { ...restDefaults(type, info.family), ...suggestionsFor(type, info.name), ...stored };
}

const suggestionsFor = (type: ProjectType, model: string | undefined): TrainParams =>
  suggestParams({ type, model, trainImages: null, classes: 0, gpus: [], freeMemoryMb: 0, hasWeights: () => false })
    .train;

const SWITCHES = ['horizontal_flip', 'vertical_flip', 'brightness', 'contrast', 'saturation', 'hue', 'rotate'];

/** Canonical names, a possible backbone and weights, switches before probabilities, and only the type's keys. */
function settle(type: ProjectType, params: TrainParams): Stored {
  const info = findModel(type, params.model as string);
  const chosen = chooseBackbone(info, params.backbone as string | undefined);
  const weights = settleWeights(info, chosen.backbone, params.pretrain_weights as string | null);
  const train: TrainParams = {};
  for (const [key, value] of Object.entries(params)) if (keysOf(type).has(key)) train[key] = value;
  train.model = info.name;
  train.pretrain_weights = weights.value;
  // The page throws on a backbone for a model that has none.
  if (chosen.backbone === undefined) delete train.backbone;
  else train.backbone = chosen.backbone;
  // PaddleX stored the probability 0 with every switch that was off.
  for (const name of SWITCHES) if (train[name] === true && train[`${name}_prob`] === 0) train[`${name}_prob`] = 0.5;
  return { train, warnings: [chosen.warning, weights.warning].filter((line) => line !== undefined) };
}

/** Whether `pretrain_weights` names a file or folder, not a published set of weights. */
export const isWeightsPath = (value: string): boolean => /[/\\]|\.(safetensors|pth|pt|pdparams)$/i.test(value);

function settleWeights(info: ModelInfo, backbone: string | undefined, value: string | null) {
  if (value === null || isWeightsPath(value)) return { value };
  const names = pretrainedNames(info, backbone);
  const known = names.find((name) => name.toLowerCase() === value.toLowerCase());
  if (known !== undefined) return { value: known };
  const fallback = names[0] as string;
  return { value: fallback, warning: `${info.name} has no pretrained weights "${value}"; ${fallback} is used.` };
}

/** `"0, 1"` as numbers. */
export const ordinals = (devices: string): number[] =>
  devices.split(',').flatMap((part) => (/^\s*\d+\s*$/.test(part) ? [Number(part)] : []));
