/** `npm run bench -- [data] [train] [infer] [kernels] [prune] [det] [seg] [e2e] [api] [accuracy] [slimming]`: all questions without a name. */
import { accuracy } from './accuracy.js';
import { api } from './api.js';
import { data } from './data.js';
import { detection } from './det.js';
import { endToEnd } from './e2e.js';
import { kernels } from './kernels.js';
import { prune } from './prune.js';
import { segmentation } from './seg.js';
import { slimming } from './slimming.js';
import { infer, train } from './steps.js';

const questions: Record<string, () => Promise<void>> = {
  data,
  train,
  infer,
  kernels,
  prune,
  det: detection,
  seg: segmentation,
  e2e: endToEnd,
  api,
  accuracy,
  slimming,
};
const asked = process.argv.slice(2).filter((word) => !word.startsWith('-'));
const unknown = asked.filter((word) => !(word in questions));
if (unknown.length > 0) {
  process.stderr.write(`There is no benchmark ${unknown.join(', ')}. Known: ${Object.keys(questions).join(', ')}\n`);
  process.exit(2);
}
for (const name of asked.length > 0 ? asked : Object.keys(questions)) await questions[name]?.();
