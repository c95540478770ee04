/** From a segmentation task's stored parameters to what the training job is told. */
import type { LossTerm, Precision, SegmentationParams } from '../../compute/jobs.gen.js';
import { invalidArgument } from '../errors.js';
import type { TrainParams } from './fields.js';
import { chooseBackbone, findModel } from './models.js';
import { augment, common, devicesAndBatch, type ParamsPlan, requireImages, type TrainingSite } from './plan.js';
import { readStored } from './stored.js';

/** Below this many pixels a side the networks' coarsest maps, at 1/32, would be empty. */
const MIN_SIDE = 32;

/**
 * Checks stored parameters against the data and the machine; impossible values are replaced and noted, never silently.
 * @throws OarlockError `not_ready` without training images.
 */
export function planSegmentation(stored: TrainParams, site: TrainingSite): ParamsPlan {
  requireImages(site);
  const { train: p, warnings } = readStored('segmentation', stored);
  const info = findModel('segmentation', p.model as string);
  const notes = [...warnings];
  const { cuda, batch } = devicesAndBatch(p, site, notes);
  if (p.class_balance === true) notes.push('class_balance balances classes of whole pictures; it is not used here.');
  if ((p.label_smoothing as number) > 0) notes.push('label_smoothing is not used in segmentation.');
  const terms = losses(p);
  return {
    params: {
      task_type: 'segmentation',
      ...common(p, info, batch, inputShape(p.image_shape as number[], notes)),
      ...augment(p, notes),
      backbone: chooseBackbone(info, p.backbone as string | undefined).backbone ?? null,
      losses: terms,
      class_weights: classWeights(p, terms, site, notes),
      ...normalization(p, site, notes),
      blur: p.blur as boolean,
      blur_prob: p.blur_prob as number,
      scale_aspect: p.scale_aspect as boolean,
      min_ratio: p.min_ratio as number,
      aspect_ratio: p.aspect_ratio as number,
    },
    cuda,
    precision: p.precision as Precision,
    pretrainWeights: p.pretrain_weights as string | null,
    notes,
  };
}

/**
 * `losses` where it names any, else `loss_type` [dice, cross-entropy]: the true ones are added; none is cross-entropy
 * alone.
 */
function losses(p: TrainParams): LossTerm[] {
  const own = (p.losses ?? []) as LossTerm[];
  if (own.length > 0) return own;
  const [dice, crossEntropy] = p.loss_type as boolean[];
  const terms: LossTerm[] = [];
  if (dice === true) terms.push({ kind: 'dice', weight: 1 });
  if (crossEntropy === true || dice !== true) terms.push({ kind: 'cross_entropy', weight: 1 });
  return terms;
}

/** Weights of the classes in cross-entropy; none are all 1. */
function classWeights(p: TrainParams, terms: readonly LossTerm[], { labels }: TrainingSite, notes: string[]): number[] {
  const weights = (p.class_weights ?? []) as number[];
  if (weights.length === 0) return [];
  if (labels !== undefined && weights.length !== labels) {
    const message = `class_weights has ${weights.length} values, but the dataset has ${labels} labels.`;
    throw invalidArgument('class_weights', message, 'Give one value a label, in the order of labels.txt.');
  }
  if (!terms.some(({ kind }) => kind === 'cross_entropy'))
    notes.push('class_weights count in cross-entropy only, which is none of the losses.');
  return weights;
}

function inputShape([height = 512, width = height]: readonly number[], notes: string[]): [number, number] {
  const shape: [number, number] = [Math.max(MIN_SIDE, height), Math.max(MIN_SIDE, width)];
  if (shape[0] !== height || shape[1] !== width)
    notes.push(`image_shape ${height}, ${width}: at least ${MIN_SIDE} a side is needed; ${shape.join(', ')} is used.`);
  return shape;
}

type Normalization = Pick<SegmentationParams, 'image_mean' | 'image_std' | 'min_val' | 'max_val'>;

/** Ordinary pictures are 8-bit RGB. The values of others are clipped to what their import has measured. */
function normalization(p: TrainParams, { channels }: TrainingSite, notes: string[]): Normalization {
  const own = { image_mean: p.image_mean as number[], image_std: p.image_std as number[] };
  const count = channels?.min.length ?? 3;
  const fits = own.image_mean.length === count && own.image_std.length === count;
  if (channels === undefined) {
    const even = Array.from({ length: count }, () => 0.5);
    if (!fits) notes.push('image_mean and image_std must have three values; 0.5 is used.');
    return { ...(fits ? own : { image_mean: even, image_std: even }), min_val: [], max_val: [] };
  }
  if (!fits)
    notes.push(`The pictures have ${count} channels: image_mean and image_std are those of the import's statistics.`);
  const measured = { image_mean: channels.mean, image_std: channels.std };
  return { ...(fits ? own : measured), min_val: channels.min, max_val: channels.max };
}
