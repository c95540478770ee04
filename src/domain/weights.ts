/** Pretrained weights on this machine. */
export { guessModel } from './weights/guess.js';
export { ENDINGS, inspectWeights, type WeightsFile, type WeightsFormat } from './weights/inspect.js';
export {
  defaultWeightsFolder,
  type ResolveHooks,
  Weights,
  type WeightsEntry,
  type WeightsOptions,
  type WeightsRequest,
} from './weights/store.js';
