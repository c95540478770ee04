/** From a classification task's stored parameters to what the training job is told. */
import type { Precision } from '../../compute/jobs.gen.js';
import { invalidArgument } from '../errors.js';
import type { TrainParams } from './fields.js';
import { findModel } from './models.js';
import { augment, common, devicesAndBatch, type ParamsPlan, requireImages, type TrainingSite } from './plan.js';
import { readStored } from './stored.js';

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
export function planClassification(stored: TrainParams, site: TrainingSite): ParamsPlan {
  requireImages(site);
  const { train: p, warnings } = readStored('classification', stored);
  const info = findModel('classification', p.model as string);
  const notes = [...warnings];
  const { cuda, batch } = devicesAndBatch(p, site, notes);
  const size = cropSize(info.name, p.image_shape as number[], notes);
  return {
    params: {
      task_type: 'classification',
      ...common(p, info, batch, [size, size]),
      ...augment(p, notes),
      label_smoothing: p.label_smoothing as number,
      image_mean: triple(p, 'image_mean'),
      image_std: triple(p, 'image_std'),
      class_balance: p.class_balance as boolean,
    },
    cuda,
    precision: p.precision as Precision,
    pretrainWeights: p.pretrain_weights as string | null,
    notes,
  };
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
