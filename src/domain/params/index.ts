/** Training parameters: reading, suggesting, storing and handing them to a job. */

export { planClassification } from './classification.js';
export { readTrainArgument } from './coerce.js';
export { type Defaults, type DefaultsInput, suggestParams } from './defaults.js';
export { planDetection } from './detection.js';
export { coerceTrain, keysOf, type TrainParams } from './fields.js';
export {
  chooseBackbone,
  DEFAULT_MODEL,
  findModel,
  findModelAnywhere,
  MODELS,
  type ModelInfo,
  pretrainedNames,
  usableKeys,
  weightsKey,
} from './models.js';
export type { ParamsPlan, TrainingSite } from './plan.js';
export { planSegmentation } from './segmentation.js';
export {
  createStored,
  isWeightsPath,
  mergeStored,
  ordinals,
  readStored,
  type Stored,
  type TaskDefaults,
} from './stored.js';
