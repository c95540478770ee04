/**
 * `npm run bench -- det`: evaluation of detections against pycocotools, suppression of boxes against torchvision,
 * training steps against PyTorch and PaddleX.
 */
import { join } from 'node:path';
import { BestOf, Checked, median, ProcessContender, race, raceChecked, ratio } from './lib/contender.js';
import { detectionResults } from './lib/detections.js';
import { compare, comparePeaks, EngineContender, threads, trainAgainstTorch } from './lib/engine.js';
import { type Peer, packages, peer, root } from './lib/peers.js';
import { add, finish } from './lib/report.js';

const binary = join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'release/examples/detection_rate');
const rounds = Number(process.env.BENCH_ROUNDS ?? 5);
/** Of COCO, whose number the engine's timings have too. */
const classes = 80;

type Task = 'coco' | 'nms';

const ours = (task: Task, folder: string, steps: number, count: number): Checked =>
  new Checked(
    count === 1 ? 'ours' : `ours on ${count} threads`,
    binary,
    ['--task', task, '--folder', folder, '--threads', `${count}`],
    steps,
  );

const theirs = (task: Task, name: string, by: Peer, folder: string, steps: number): Checked =>
  new Checked(name, peer(by), ['bench/peers/det_peer.py', '--task', task, '--folder', folder], steps);

async function evaluation(folder: string, images: number, found: number): Promise<void> {
  const many = `ours on ${threads} threads`;
  const contenders = [
    ours('coco', folder, 3, 1),
    ours('coco', folder, 3, threads),
    theirs('coco', 'pycocotools', 'paddlex', folder, 1),
  ];
  // A turn of pycocotools takes a minute or more.
  const result = await raceChecked(contenders, Math.min(rounds, 3));
  const seconds = (name: string): string => `${(images / median(result.rates[name] ?? [])).toFixed(2)} s`;
  const peak = (name: string): string => `${((result.peaks[name] ?? 0) / 2 ** 20).toFixed(0)} MiB`;
  const what = `COCO evaluation of ${images} × ${found}`;
  for (const name of ['ours', many]) {
    add({
      question: `${what}, ${name === 'ours' ? 'one thread' : `${threads} threads`}`,
      ours: seconds(name),
      peer: `pycocotools ${seconds('pycocotools')}`,
      ratio: ratio(result, name, 'pycocotools'),
      goal: 10,
    });
  }
  add({
    question: `${what}, peak memory`,
    ours: peak(many),
    peer: `pycocotools ${peak('pycocotools')}`,
    ratio: (result.peaks[many] ?? 0) / (result.peaks.pycocotools ?? Number.NaN),
    atMost: true,
  });
}

async function suppression(folder: string, boxes: number): Promise<void> {
  const contenders = [ours('nms', folder, 40, 1), theirs('nms', 'torchvision', 'torch', folder, 40)];
  const result = await raceChecked(contenders, rounds);
  const milliseconds = (name: string): string => `${((1000 * boxes) / median(result.rates[name] ?? [])).toFixed(2)} ms`;
  add({
    question: `suppression of ${boxes} boxes`,
    ours: milliseconds('ours'),
    peer: `torchvision ${milliseconds('torchvision')}`,
    ratio: ratio(result, 'ours', 'torchvision'),
    goal: 1,
  });
}

interface Detector {
  model: string;
  batch: number;
  size: number;
  /** Least ratio to tuned PyTorch. */
  tuned?: number;
}

/** A step takes seconds, so a turn is one; batch norms are trained, as without start weights. */
const train = ({ tuned, ...net }: Detector): Promise<void> =>
  trainAgainstTorch({
    net: { ...net, steps: 1, warmup: 1 },
    ...{ script: 'det_peer.py', classes, turn: 1, rounds },
    goals: { bf16: 1.8, fp32: 1.1, ...(tuned === undefined ? {} : { tuned }) },
  });

/** PaddleX's own loop: seconds an image, so that two rounds must do. */
async function againstPaddlex(): Promise<void> {
  const net = { model: 'YOLOv3:MobileNetV1', batch: 4, size: 416 };
  const what = `train ${net.model} ${net.size} batch ${net.batch}`;
  const ours = (precision: 'bf16' | 'fp32'): EngineContender =>
    new EngineContender(precision, { command: 'bench-step', ...net, precision, steps: 3, warmup: 2 });
  const { parameters } = await ours('bf16').turn();
  const options = { paddlex: packages('paddlex'), parameters, batch: net.batch, size: net.size, classes, threads };
  const args = Object.entries(options).flatMap(([key, value]) => [`--${key}`, `${value}`]);
  const paddle = (onednn: number): ProcessContender =>
    new ProcessContender(
      `PaddleX oneDNN=${onednn}`,
      peer('paddle'),
      ['bench/peers/paddlex_peer.py', ...args, '--onednn', `${onednn}`],
      1,
    );
  const contenders = [ours('bf16'), ours('fp32'), new BestOf('PaddleX', [paddle(0), paddle(1)])];
  const result = await race(contenders, Math.min(rounds, 2));
  compare(`${what}, bf16`, result, 'bf16', 'PaddleX', 8, 2);
  compare(`${what}, fp32`, result, 'fp32', 'PaddleX', undefined, 2);
  comparePeaks(`${what}, peak memory, bf16`, result, 'bf16', 'PaddleX');
}

export async function detection(): Promise<void> {
  const [images, found, boxes] = [5000, 100, 10_000];
  const folder = detectionResults(images, found, boxes);
  await suppression(folder, boxes);
  await evaluation(folder, images, found);
  await train({ model: 'YOLOv3:DarkNet53', batch: 4, size: 608, tuned: 1.15 });
  await train({ model: 'FasterRCNN:ResNet50', batch: 2, size: 800 });
  await train({ model: 'MaskRCNN:ResNet50', batch: 2, size: 800 });
  await againstPaddlex();
  finish('det');
}
