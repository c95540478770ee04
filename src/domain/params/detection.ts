/** From a detection or instance segmentation task's stored parameters to what the training job is told. */
import type { Precision } from '../../compute/jobs.gen.js';
import type { TrainParams } from './fields.js';
import { chooseBackbone, findModel, type ModelInfo } from './models.js';
import { augment, common, devicesAndBatch, type ParamsPlan, requireImages, type TrainingSite } from './plan.js';
import { readStored } from './stored.js';

/** The networks' coarsest maps are at 1/32. */
const MULTIPLE = 32;
/** Backbones of two-stage detectors that can do without a feature pyramid. */
const WITHOUT_FPN = ['ResNet50', 'ResNet50_vd'];

type Triple = [number, number, number];

/**
 * Checks stored parameters against the data and the machine; impossible values are replaced and noted, never silently.
 * @throws OarlockError `not_ready` without training images.
 */
export function planDetection(
  type: 'detection' | 'instance_segmentation',
  stored: TrainParams,
  site: TrainingSite,
): ParamsPlan {
  requireImages(site);
  const { train: p, warnings } = readStored(type, stored);
  const info = findModel(type, p.model as string);
  const notes = [...warnings];
  const { cuda, batch } = devicesAndBatch(p, site, notes);
  if (p.class_balance === true) notes.push('class_balance balances classes of whole pictures; it is not used here.');
  for (const name of ['vertical_flip', 'rotate']) if (p[name] === true) notes.push(`${name} is not used in detection.`);
  const backbone = chooseBackbone(info, p.backbone as string | undefined).backbone ?? null;
  return {
    params: {
      task_type: type,
      ...common(p, info, batch, inputShape(info, p.image_shape as number[], notes)),
      ...augment(p, notes),
      backbone,
      with_fpn: pyramid(info, backbone, p.with_fpn as boolean, notes),
      use_mixup: p.use_mixup as boolean,
      mixup_alpha: p.mixup_alpha as number,
      mixup_beta: p.mixup_beta as number,
      expand_image: p.expand_image as boolean,
      expand_prob: p.expand_prob as number,
      crop_image: p.crop_image as boolean,
      ...randomSizes(info, p, notes),
      image_mean: p.image_mean as Triple,
      image_std: p.image_std as Triple,
      ema_decay: p.ema_decay as number,
    },
    cuda,
    precision: p.precision as Precision,
    pretrainWeights: p.pretrain_weights as string | null,
    notes,
  };
}

const rounded = (side: number): number => Math.min(4096, Math.max(MULTIPLE, Math.round(side / MULTIPLE) * MULTIPLE));

/** One-stage detectors take squares of the first value; two-stage ones a short side and a cap of the long one. */
function inputShape({ family }: ModelInfo, shape: readonly number[], notes: string[]): [number, number] {
  const [first = 608, second = first] = shape;
  const used: [number, number] =
    family === 'rcnn'
      ? [Math.max(2 * MULTIPLE, first), Math.max(2 * MULTIPLE, second)]
      : [rounded(first), rounded(first)];
  const why = family === 'rcnn' ? `at least ${2 * MULTIPLE} a side is needed` : `it takes a multiple of ${MULTIPLE}`;
  if (used[0] !== first || (family === 'rcnn' && used[1] !== second))
    notes.push(`image_shape ${first}, ${second}: ${why}; ${used.join(', ')} is used.`);
  return used;
}

function randomSizes({ family }: ModelInfo, p: TrainParams, notes: string[]) {
  const given = p.random_shape_sizes as number[];
  if (p.random_shape !== true || family !== 'yolo') return { random_shape: false, random_shape_sizes: [] };
  if (given.length === 0) {
    notes.push('random_shape has no random_shape_sizes to choose from; all inputs have image_shape.');
    return { random_shape: false, random_shape_sizes: [] };
  }
  const sizes = [...new Set(given.map(rounded))].sort((a, b) => a - b);
  if (given.some((size) => !sizes.includes(size)))
    notes.push(`random_shape_sizes must be multiples of ${MULTIPLE}; ${sizes.join(', ')} are used.`);
  return { random_shape: true, random_shape_sizes: sizes };
}

function pyramid({ name, family }: ModelInfo, backbone: string | null, wanted: boolean, notes: string[]): boolean {
  if (family !== 'rcnn' || wanted || WITHOUT_FPN.includes(backbone ?? '')) return wanted;
  notes.push(`${name} with ${backbone} needs a feature pyramid; with_fpn is used.`);
  return true;
}
