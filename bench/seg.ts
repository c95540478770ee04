/** `npm run bench -- seg`: training steps of segmenters against PyTorch, mean IoU against NumPy. */
import { join } from 'node:path';
import { Checked, median, raceChecked, ratio } from './lib/contender.js';
import { comparePeaks, trainAgainstTorch } from './lib/engine.js';
import { labelMaps } from './lib/labels.js';
import { peer, root } from './lib/peers.js';
import { add, finish } from './lib/report.js';

const binary = join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'release/examples/pixel_rate');
const rounds = Number(process.env.BENCH_ROUNDS ?? 5);
/** Of Cityscapes, whose number the engine's timings have too. */
const classes = 19;

interface Segmenter {
  model: string;
  steps: number;
  warmup: number;
}

const train = (net: Segmenter): Promise<void> =>
  trainAgainstTorch({
    net: { ...net, batch: 4, size: 512 },
    ...{ script: 'seg_peer.py', classes, turn: net.steps, rounds, goals: { bf16: 2, fp32: 1.1 } },
  });

async function meanIou(kind: 'regions' | 'noise', count: number, goal?: number): Promise<void> {
  const size = 1024;
  const options = ['--folder', labelMaps(kind, count, size, classes), '--classes', `${classes}`, '--size', `${size}`];
  const numpy = ['bench/peers/seg_peer.py', '--task', 'miou', ...options];
  const contenders = [new Checked('ours', binary, options, 10), new Checked('NumPy', peer('torch'), numpy, 1)];
  const result = await raceChecked(contenders, rounds);
  const seconds = (name: string): string => `${(count / median(result.rates[name] ?? [])).toFixed(3)} s`;
  const what = `mean IoU of ${count} maps of ${size}×${size}, ${kind}`;
  add({
    question: what,
    ours: seconds('ours'),
    peer: `NumPy ${seconds('NumPy')}`,
    ratio: ratio(result, 'ours', 'NumPy'),
    ...(goal === undefined ? {} : { goal }),
  });
  comparePeaks(`${what}, peak memory`, result, 'ours', 'NumPy');
}

/**
 * PaddleX's own loop on Paddle 2.6.2 is left out: DeepLabV3P with ResNet50_vd takes 25 seconds an image there (0.04
 * images/s at 512, batch 2, on two cores), so that a round alone would take minutes.
 */
export async function segmentation(): Promise<void> {
  await meanIou('regions', 100, 5);
  await meanIou('noise', 100);
  await train({ model: 'DeepLabV3P:MobileNetV2', steps: 2, warmup: 2 });
  await train({ model: 'DeepLabV3P:ResNet50_vd', steps: 1, warmup: 1 });
  await train({ model: 'UNet', steps: 1, warmup: 1 });
  finish('seg');
}
