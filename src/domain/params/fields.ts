/** The one table of training parameters: how each is read and in what range it may lie. */
import type { ProjectType } from '../enums.js';
import { invalidArgument } from '../errors.js';
import {
  type Given,
  NOT_GIVEN,
  type NumberRange,
  toBoolean,
  toDevices,
  toFloat,
  toInt,
  toList,
  toText,
  toWord,
} from './coerce.js';

export type Reader = (field: string, value: unknown) => Given<unknown>;
/** One parameter object as stored and as sent: plain JSON values under the names of the PaddleX API. */
export type TrainParams = Record<string, unknown>;

const int =
  (min: number, max: number): Reader =>
  (field, value) =>
    toInt(field, value, { min, max });
const float =
  (range: NumberRange): Reader =>
  (field, value) =>
    toFloat(field, value, range);
const word =
  (...words: string[]): Reader =>
  (field, value) =>
    toWord(field, value, words);
const probability = float({ min: 0, max: 1 });
const jitter = float({ min: 0, max: 255 });
const degrees = float({ min: 0, max: 180 });

/** `null` (also as text, or in the page's words for "no pretrained model") is a value of its own here. */
const nullableText: Reader = (field, value) => {
  const text = value === null ? null : toText(field, value, 4096);
  if (text === NOT_GIVEN || text === null) return text;
  return text === '' || /^(none|null|不使用预训练模型)$/i.test(text) ? null : text;
};
const nullableFloat =
  (range: NumberRange): Reader =>
  (field, value) =>
    value === null ? null : toFloat(field, value, range);

const ascending: Reader = (field, value) => {
  const list = toList(field, value, (name, entry) => toInt(name, entry, { min: 1, max: 1_000_000 }), 1000);
  return list === NOT_GIVEN ? list : [...new Set(list)].sort((a, b) => a - b);
};

const side: NumberRange = { min: 1, max: 4096 };
const shape: Reader = (field, value) => {
  const list = toList(field, value, (name, entry) => toInt(name, entry, side), 3);
  if (list === NOT_GIVEN) return list;
  const [height, width = height] = list;
  if (height === undefined || list.length > 2) {
    throw invalidArgument(field, `${field} must be [height, width], not ${JSON.stringify(list)}.`);
  }
  return [height, width];
};

const triple =
  (range: NumberRange): Reader =>
  (field, value) => {
    const list = toList(field, value, (name, entry) => toFloat(name, entry, range), 64);
    if (list !== NOT_GIVEN && list.length !== 3) {
      throw invalidArgument(field, `${field} must have three values (red, green, blue), not ${list.length}.`);
    }
    return list;
  };

/** One value a channel; how many a picture has, its dataset knows. */
const channels =
  (range: NumberRange): Reader =>
  (field, value) => {
    const list = toList(field, value, (name, entry) => toFloat(name, entry, range), 64);
    if (list !== NOT_GIVEN && list.length === 0)
      throw invalidArgument(field, `${field} must have a value per channel.`);
    return list;
  };

const switches: Reader = (field, value) => {
  const list = toList(field, value, toBoolean, 8);
  if (list !== NOT_GIVEN && list.length !== 2) {
    throw invalidArgument(field, `${field} must be two switches [dice, cross-entropy].`);
  }
  return list;
};

const LOSSES = ['cross_entropy', 'dice', 'lovasz', 'bce'];
const lossWeight: NumberRange = { min: 0, above: true, max: 1000 };

/** A loss by name (`"dice"`), with its factor as text (`"dice:0.5"`) or as `{ kind, weight }`. */
function lossTerm(field: string, value: unknown): Given<{ kind: string; weight: number }> {
  const [name, factor] =
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? [(value as TrainParams).kind, (value as TrainParams).weight]
      : typeof value === 'string'
        ? value.split(':', 2)
        : [value];
  const kind = toWord(field, name, LOSSES);
  if (kind === NOT_GIVEN) {
    if (typeof value !== 'object' || value === null) return kind;
    throw invalidArgument(field, `${field} must name each loss (kind): ${LOSSES.join(', ')}.`);
  }
  const weight = toFloat(field, factor, lossWeight);
  return { kind, weight: weight === NOT_GIVEN ? 1 : weight };
}

const lossTerms: Reader = (field, value) => {
  const list = toList(field, fromJson(value), lossTerm, LOSSES.length);
  if (list === NOT_GIVEN) return list;
  const twice = list.find(({ kind }, at) => list.some((other, place) => place < at && other.kind === kind));
  if (twice !== undefined) throw invalidArgument(field, `${field} names ${twice.kind} twice.`);
  return list;
};

/** A list of objects that was sent as text. */
function fromJson(value: unknown): unknown {
  if (typeof value !== 'string' || !value.trim().startsWith('[{')) return value;
  try {
    return JSON.parse(value);
  } catch {
    return value; // what is wrong with it, the list's reader says
  }
}

/** One value a label; how many there are, the dataset knows. */
const classWeights: Reader = (field, value) => {
  const list = toList(field, value, (name, entry) => toFloat(name, entry, { min: 0, max: 1e6 }), 255);
  if (list !== NOT_GIVEN && list.length > 0 && list.every((weight) => weight === 0))
    throw invalidArgument(field, `${field} must not all be 0.`);
  return list;
};

/** `amp` is the name that other trainers use for the precision switch. */
export const precision: Reader = (field, value) => {
  if (value === true || value === 'true' || value === 1) return 'auto';
  if (value === false || value === 'false' || value === 0) return 'fp32';
  return toWord(field, value, ['auto', 'fp32', 'bf16']);
};

const FIELDS: Readonly<Record<string, Reader>> = {
  model: (field, value) => {
    const text = toText(field, value, 100);
    return text === '' ? NOT_GIVEN : text;
  },
  backbone: (field, value) => toText(field, value, 100),
  pretrain_weights: nullableText,
  cuda_visible_devices: toDevices,
  batch_size: int(1, 65_536),
  num_epochs: int(1, 1_000_000),
  learning_rate: float({ min: 0, above: true, max: 100 }),
  lr_policy: word('Piecewise', 'Linear', 'Cosine', 'Polynomial'),
  lr_decay_epochs: ascending,
  warmup_steps: int(0, 100_000_000),
  warmup_start_lr: float({ min: 0, max: 100 }),
  save_interval_epochs: int(1, 1_000_000),
  optimizer: word('SGD', 'Adam'),
  weight_decay: float({ min: 0, max: 1 }),
  label_smoothing: float({ min: 0, max: 0.99 }),
  class_balance: toBoolean,
  early_stop: toBoolean,
  early_stop_patience: int(1, 1_000_000),
  precision,
  seed: int(0, Number.MAX_SAFE_INTEGER),
  loss_type: switches,
  losses: lossTerms,
  class_weights: classWeights,
  train_num: int(0, 1_000_000_000),
  resume_checkpoint: nullableText,
  sensitivities_path: nullableText,
  pruned_flops: nullableFloat({ min: 0, max: 1 }),
  eval_metric_loss: nullableFloat({ min: 0, max: 1e9 }),
  image_shape: shape,
  image_mean: triple({ min: 0, max: 1 }),
  image_std: triple({ min: 0, above: true, max: 1 }),
  ...Object.fromEntries(
    ['horizontal_flip', 'vertical_flip'].flatMap((name) => [
      [name, toBoolean],
      [`${name}_prob`, probability],
    ]),
  ),
  ...Object.fromEntries(
    ['brightness', 'contrast', 'saturation', 'hue', 'rotate'].flatMap((name) => [
      [name, toBoolean],
      [`${name}_range`, name === 'hue' || name === 'rotate' ? degrees : jitter],
      [`${name}_prob`, probability],
    ]),
  ),
  use_mixup: toBoolean,
  mixup_alpha: float({ min: 0, above: true, max: 1000 }),
  mixup_beta: float({ min: 0, above: true, max: 1000 }),
  expand_image: toBoolean,
  expand_prob: probability,
  crop_image: toBoolean,
  random_shape: toBoolean,
  random_shape_sizes: (field, value) => toList(field, value, (name, entry) => toInt(name, entry, side), 100),
  with_fpn: toBoolean,
  ema_decay: float({ min: 0, max: 0.999999 }),
  blur: toBoolean,
  blur_prob: probability,
  scale_aspect: toBoolean,
  min_ratio: float({ min: 0, above: true, max: 1 }),
  aspect_ratio: float({ min: 0, above: true, max: 1 }),
};

/** Read otherwise than in the other types. */
const OWN_FIELDS: Partial<Record<ProjectType, Readonly<Record<string, Reader>>>> = {
  segmentation: {
    image_mean: channels({ min: 0, max: 1 }),
    image_std: channels({ min: 0, above: true, max: 1 }),
  },
};

const EVERY_TYPE = [
  ...['model', 'cuda_visible_devices', 'batch_size', 'save_interval_epochs', 'pretrain_weights', 'num_epochs'],
  ...['learning_rate', 'lr_policy', 'lr_decay_epochs', 'warmup_steps', 'warmup_start_lr', 'train_num'],
  ...[
    'resume_checkpoint',
    'sensitivities_path',
    'pruned_flops',
    'eval_metric_loss',
    'image_shape',
    'image_mean',
    'image_std',
  ],
  ...[
    'optimizer',
    'weight_decay',
    'label_smoothing',
    'class_balance',
    'early_stop',
    'early_stop_patience',
    'precision',
    'seed',
  ],
  ...['horizontal_flip', 'horizontal_flip_prob', 'vertical_flip', 'vertical_flip_prob'],
  ...['brightness', 'contrast', 'saturation', 'hue', 'rotate'].flatMap((name) => [
    name,
    `${name}_range`,
    `${name}_prob`,
  ]),
];
const DETECTION = [
  ...['backbone', 'with_fpn', 'use_mixup', 'mixup_alpha', 'mixup_beta', 'expand_image', 'expand_prob', 'crop_image'],
  ...['random_shape', 'random_shape_sizes', 'ema_decay'],
];
const SEGMENTATION = [
  ...['backbone', 'loss_type', 'losses', 'class_weights'],
  ...['blur', 'blur_prob', 'scale_aspect', 'min_ratio', 'aspect_ratio'],
];

const KEYS: Readonly<Record<ProjectType, ReadonlySet<string>>> = {
  classification: new Set(EVERY_TYPE),
  detection: new Set([...EVERY_TYPE, ...DETECTION]),
  instance_segmentation: new Set([...EVERY_TYPE, ...DETECTION]),
  segmentation: new Set([...EVERY_TYPE, ...SEGMENTATION]),
};

/** Other names under which clients know a parameter. */
const RENAMED: Readonly<Record<string, string>> = {
  amp: 'precision',
  max_rotation: 'rotate_range',
  random_seed: 'seed',
};

/** The keys that a task of `type` keeps. */
export const keysOf = (type: ProjectType): ReadonlySet<string> => KEYS[type];

/**
 * Reads a client's parameters for a task of `type`: known keys converted and checked, unknown keys and placeholders dropped.
 * @throws OarlockError `invalid_argument` with the field's name.
 */
export function coerceTrain(type: ProjectType, given: Readonly<Record<string, unknown>>): TrainParams {
  const result: TrainParams = {};
  for (const [name, value] of Object.entries(given)) {
    const key = Object.hasOwn(RENAMED, name) ? (RENAMED[name] as string) : name;
    if (key !== name && Object.hasOwn(given, key)) continue; // the proper name wins
    if (!KEYS[type].has(key)) continue;
    const reader = OWN_FIELDS[type]?.[key] ?? (FIELDS[key] as Reader);
    const read = reader(key, value);
    if (read !== NOT_GIVEN) result[key] = read;
  }
  return result;
}
